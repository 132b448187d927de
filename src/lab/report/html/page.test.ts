import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryLabEntries } from "../../../../test/support/arbitrary-record.ts";
import { evaluationFiles, SCENARIOS } from "../../../../test/support/lab-evaluation.ts";
import { labRecord, labRuns, resultsFolder } from "../../../../test/support/lab-records.ts";
import { unbalancedTag } from "../../../../test/support/markup.ts";
import { writeRecord } from "../../../../test/support/write-record.ts";
import { type Results, type RunResult, readResults, resultOf } from "../results.ts";
import { labReportHtml } from "./page.ts";

const read = async (files: Record<string, string>) => readResults(await resultsFolder(files));

test("The page loads nothing and runs nothing", async () => {
  const html = labReportHtml(await read(evaluationFiles()), SCENARIOS);
  expect(html).toContain(`content="default-src 'none'; style-src 'unsafe-inline'"`);
  expect(html).not.toMatch(/<script|<link|<img|<iframe|@import|url\(|\ssrc=|\shref="[^#]|\son\w+=|https?:/i);
});

test("The same records give the same page", async () => {
  const [first, second] = [await read(evaluationFiles()), await read(evaluationFiles())];
  expect(labReportHtml(first, SCENARIOS)).toBe(labReportHtml(second, SCENARIOS));
});

test("Every link leads somewhere, every picture has a title and a description, and no id is there twice", async () => {
  const html = labReportHtml(await read(evaluationFiles()), SCENARIOS);
  const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
  expect(new Set(ids).size).toBe(ids.length);
  // Whoever hears the page jumps from one region to the next by these.
  const regions = [...html.matchAll(/role="region" aria-label="([^"]+)"/g)].map(([, label]) => label);
  expect(regions.length).toBeGreaterThan(10);
  expect(regions).toEqual([...new Set(regions)]);
  for (const [, target] of html.matchAll(/href="#([^"]+)"/g)) expect(ids).toContain(target);
  const pictures = [...html.matchAll(/role="img" aria-labelledby="([^" ]+) ([^"]+)"/g)];
  expect(pictures.length).toBeGreaterThan(20);
  for (const [, title, description] of pictures)
    expect([ids.includes(title), ids.includes(description)]).toEqual([true, true]);
});

test("There are tables, bars per method, strips over time, bytes per iteration and maps", async () => {
  const html = labReportHtml(await read(evaluationFiles()), SCENARIOS);
  for (const heading of [
    "frozen picture, ms",
    "heartbeat gap, ms",
    "on the wire, MB",
    "delay of the picture, ms",
    "gap in the heartbeat, ms",
    "Bytes sent per iteration",
    "Shortest heartbeat gap",
    "Heartbeat gap, ms: tunnel",
    "Bytes on the wire: tunnel ÷ vanilla",
  ]) {
    expect(html).toMatch(new RegExp(`<h[34]>${heading}</h[34]>`));
  }
  expect(html).toContain(
    `<tr><th scope="row">tunnel</th><td>3</td><td>yes</td><td>by itself</td><td>20</td>`,
  );
  expect(html).toContain(`<td class="open">tunnel, vanilla</td>`);
  expect(html).toContain(`<td class="h4">950 *</td>`);
  expect(html).toContain("<li>headline/video-tunnel-12500000--{1,2,3}.ndjson</li>");
});

test("Records that are left out are told of, at the top too", async () => {
  const html = labReportHtml(await read({ "a/bad.ndjson": "{}", "a/good.ndjson": labRecord() }), []);
  expect(html).toContain("Records are left out (1)");
  expect(html).toMatch(/<li>a\/bad\.ndjson is left out: /);
});

test("Without results the page says so", () => {
  const html = labReportHtml({ results: [], notices: [] }, SCENARIOS);
  expect(html).toContain("No results yet.");
  expect(unbalancedTag(html)).toBeUndefined();
});

test("A page of hundreds of settings is bounded in its plots, and says which it leaves out", async () => {
  const files = Array.from({ length: 40 }, (_, index) =>
    labRuns("many", [100], { lab: { parameters: { size: index } } }),
  );
  const html = labReportHtml(await read(Object.assign({}, ...files)), []);
  expect(html.match(/role="img"/g)!.length).toBeLessThan(24 * 2 * 8);
  expect(html.match(/Plots are left out/g)).toHaveLength(40 - 24);
});

const anyResult: fc.Arbitrary<RunResult> = fc
  .tuple(arbitraryLabEntries, fc.nat(3))
  .map(([entries, run]) => resultOf(writeRecord(entries).events, `<b>${run}.ndjson`, "e`|<i>") as RunResult);

test("Whatever records hold, the page is well formed and free of what is no number", () => {
  const evil = `</title></style></svg><script>alert("1")</script><img src=x onerror='1'>`;
  const file = labRecord({
    lab: {
      scenario: evil,
      method: evil,
      qemu: evil,
      machine: evil,
      command: evil,
      parameters: { [evil]: evil },
    },
    verdict: { failures: [evil], metrics: { [evil]: 3, constructor: 1e300, heartbeatGapMs: 5e-324 } },
    series: [{ series: evil, unit: evil, values: [1, 1e300, -5] }],
  });
  const lines = file
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const fixed = resultOf(lines, `${evil}.ndjson`, evil) as RunResult;
  fc.assert(
    fc.property(fc.array(anyResult, { maxLength: 6 }), (others) => {
      expect(others.filter((result) => typeof result === "string")).toEqual([]);
      const results: Results = { results: [fixed, ...others], notices: [evil] };
      const html = labReportHtml(results, [
        {
          name: evil,
          title: evil,
          description: evil,
          metrics: [{ name: evil, title: evil, unit: evil, isLowerBetter: false }],
        },
      ]);
      expect(unbalancedTag(html)).toBeUndefined();
      expect(html).not.toMatch(/<script|<img|NaN|undefined|Infinity/);
    }),
    { numRuns: 50 },
  );
});
