// The pages that are written to files, in a real browser: of a run record, and of the lab. At a desk and in a hand, light
// and dark: nothing is cut off, nobody is kept out, and nothing is asked of any other host.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { labReportHtml } from "../../src/lab/report/html/page.ts";
import { readResults } from "../../src/lab/report/results.ts";
import { htmlReport } from "../../src/report/html/page.ts";
import {
  expectAccessible,
  expectFits,
  findChromium,
  openBrowser,
  openWatchedPage,
} from "../support/browser.ts";
import { evaluationFiles, SCENARIOS } from "../support/lab-evaluation.ts";
import { resultsFolder } from "../support/lab-records.ts";
import { tempFolder } from "../support/processes.ts";
import { simulatedRecord } from "../support/simulated-record.ts";

const chromium = findChromium();

const PAGES: Readonly<Record<string, () => Promise<string>>> = {
  "of two runs": async () => {
    const [standard, delta] = [simulatedRecord("standard"), simulatedRecord("delta")];
    return htmlReport([
      { label: "standard", events: standard },
      { label: "delta", events: delta },
    ]);
  },
  "of the lab": async () =>
    labReportHtml(await readResults(await resultsFolder(evaluationFiles())), SCENARIOS),
};

describe.skipIf(chromium === undefined)("in Chromium, the page", () => {
  test.each(Object.entries(PAGES))("%s", async (_, html) => {
    const folder = tempFolder();
    onTestFinished(() => folder.remove());
    const file = join(folder.path, "page.html");
    writeFileSync(file, await html());
    const browser = await openBrowser(chromium!);
    for (const width of [1280, 390]) {
      for (const colorScheme of ["light", "dark"] as const) {
        const viewport = { width, height: 900 };
        const { page, complaints, hosts } = await openWatchedPage(browser, pathToFileURL(file).href, {
          ...{ viewport, colorScheme },
        });
        await expectFits(page);
        await expectAccessible(page);
        expect({ complaints, hosts: [...hosts].filter((host) => host !== "") }).toEqual({
          complaints: [],
          hosts: [],
        });
      }
    }
  });
});
