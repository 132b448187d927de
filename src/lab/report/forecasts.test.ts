import { expect, test } from "vitest";
import { modelOf } from "../../../test/support/guest-model.ts";
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

test("scenarios that the model was not developed on have a row of their own", async () => {
  const markdown = await tableOf(
    { forecast: forecast("yes", 11_000, 100e6), verdict: METRICS },
    { lab: { scenario: "compile" }, forecast: forecast("yes", 12_000, 110e6), verdict: METRICS },
  );
  expect(rowOf(markdown, "held out")).toBe("| held out | 1 | 1 of 1 | 0 | 10.0% | 20.0% | 50 ms |");
});

test("what is forecast to take longer than its run is given is forecast not to converge in it", async () => {
  const limited = { lab: { forcedAfterMs: 30_000 } };
  const forced = { converged: false, forced: true, succeeded: true, ...METRICS };
  const markdown = await tableOf(
    { ...limited, forecast: forecast("yes", 40_000, 1), verdict: forced },
    { ...limited, forecast: forecast("yes", 20_000, 1), verdict: forced },
    {
      ...limited,
      forecast: { ...forecast("yes", 20_000, 1), totalMs: { low: 20_000, expected: 20_000, high: 40_000 } },
      verdict: forced,
    },
  );
  expect(rowOf(markdown, "tunnel")).toBe("| tunnel | 3 | 1 of 2 | 1 | – | – | – |");
});

test("post-copy is compared when the last page has arrived, and is not cut short", async () => {
  const markdown = await tableOf({
    lab: { method: "postcopy", forcedAfterMs: 15_000 },
    forecast: { ...forecast("yes", 22_000, 100e6), method: "postcopy" },
    verdict: { metrics: { migrationMs: 20_000, wireBytes: 100e6 } },
  });
  expect(rowOf(markdown, "postcopy")).toBe("| postcopy | 1 | 1 of 1 | 0 | 0.0% | 10.0% | 50 ms |");
});

test("a record that holds its guest is forecast anew, whatever was said of it then", async () => {
  const basis = { guest: modelOf(), lossShare: 0, downtimeMsMax: 300 };
  const markdown = await tableOf({ forecast: { ...forecast("no", 1, 1), basis }, verdict: METRICS });
  const [anew, then] = markdown.split("\n").filter((line) => line.startsWith("| tunnel |"));
  expect(anew).toContain("| tunnel | 1 | 1 of 1 | 0 |");
  expect(then).toBe("| tunnel | 1 | 0 of 1 | 0 | – | – | – |");
  expect(await tableOf({ forecast: forecast("yes", 1, 1), verdict: METRICS })).toContain(
    "No record holds its guest yet.",
  );
});
