import { writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { evaluationFiles, SCENARIOS } from "../../../test/support/lab-evaluation.ts";
import { resultsFolder } from "../../../test/support/lab-records.ts";
import { evaluationMarkdown } from "./evaluation.ts";
import { readResults } from "./results.ts";
import { labReportText } from "./text.ts";

test("x", async () => {
  const results = await readResults(await resultsFolder(evaluationFiles()));
  writeFileSync(
    "/tmp/l5-plots/evaluation.md",
    evaluationMarkdown("", results, { scenarios: SCENARIOS, command: "deltavee lab report" }),
  );
  writeFileSync("/tmp/l5-plots/report.txt", labReportText(results, SCENARIOS));
});
