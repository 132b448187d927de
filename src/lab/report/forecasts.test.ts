import { expect, test } from "vitest";
import { type LabRecordOptions, labRecord, resultsFolder } from "../../../test/support/lab-records.ts";
import { forecastsMarkdown } from "./forecasts.ts";
import { readResults } from "./results.ts";

const exactly = (expected: number) => ({ low: expected, expected, high: expected });
const forecast = (converges: "yes" | "no" | "unsure", totalMs: number, wireBytes: number) => ({
  ...{ method: "tunnel", converges, linkBytesPerSecond: 12.5e6, roundTripMs: 0, reason: "as tested" },
  ...{ totalMs: exactly(totalMs), downtimeMs: exactly(150), wireBytes: exactly(wireBytes) },
});

async function tableOf(...records: LabRecordOptions[]): Promise<string> {
  const files = records.map((record, index) => [
    `a/${index}.ndjson`,
    labRecord({ ...record, lab: { method: "tunnel", ...record.lab, run: index + 1 } }),
  ]);
  const { results } = await readResults(await resultsFolder(Object.fromEntries(files)));
  return forecastsMarkdown("Words of people.\n", results, "the command");
}

const rowOf = (markdown: string, name: string) =>
  markdown.split("\n").find((line) => line.startsWith(`| ${name} |`));

// Their truth, as labRecord has it: 10 s, 105 MB, 200 ms.
const METRICS = { metrics: { wireBytes: 100e6 } };

test("each method has the median of how far its forecasts were off, and all of them together", async () => {
  const markdown = await tableOf(
    { forecast: forecast("yes", 11_000, 100e6), verdict: METRICS },
    { forecast: forecast("yes", 12_000, 110e6), verdict: METRICS },
    { forecast: forecast("yes", 13_000, 130e6), verdict: METRICS },
    { lab: { method: "vanilla" }, forecast: forecast("yes", 10_000, 100e6), verdict: METRICS },
  );
  expect(rowOf(markdown, "tunnel")).toBe("| tunnel | 3 | 3 of 3 | 0 | 10.0% | 20.0% | 50 ms |");
  expect(rowOf(markdown, "vanilla")).toBe("| vanilla | 1 | 1 of 1 | 0 | 0.0% | 0.0% | 50 ms |");
  expect(rowOf(markdown, "**all**")).toBe("| **all** | 4 | 4 of 4 | 0 | 5.0% | 15.0% | 50 ms |");
  expect(markdown).toContain("Words of people.");
  expect(markdown).toContain("`the command`");
});

test("whether it converges is judged of what was forecast for sure; errors are of what converged", async () => {
  const forced = { converged: false, forced: true, succeeded: true, ...METRICS };
  const markdown = await tableOf(
    { forecast: forecast("no", 1, 1), verdict: forced },
    { forecast: forecast("yes", 1, 1), verdict: forced },
    { forecast: forecast("unsure", 10_000, 100e6), verdict: METRICS },
  );
  expect(rowOf(markdown, "tunnel")).toBe("| tunnel | 3 | 1 of 2 | 1 | 0.0% | 0.0% | 50 ms |");
});

test("runs that were not forecast are no part of it", async () => {
  expect(await tableOf({ verdict: METRICS })).toContain("No run has been forecast yet.");
});
