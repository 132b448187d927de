import { expect, test } from "vitest";
import { type LabRecordOptions, labRuns, resultsFolder } from "../../../test/support/lab-records.ts";
import { compareSides, comparisonMarkdown, comparisonText, readSides } from "./compare.ts";
import type { ScenarioInfo } from "./metrics.ts";

const WRITER: ScenarioInfo = {
  name: "writer",
  title: "Paced writer",
  description: "Writes.",
  metrics: [{ name: "writesPerSecond", title: "writes", unit: "1/s", isLowerBetter: false }],
};

async function compared(files: Record<string, string>, a: string, b: string) {
  const folder = await resultsFolder(files);
  const sides = await readSides(a, b, folder);
  return compareSides(sides.a, sides.b, [WRITER]);
}

const by = (method: string, writesPerSecond?: number): LabRecordOptions => ({
  lab: { method },
  ...(writesPerSecond === undefined ? {} : { verdict: { metrics: { writesPerSecond } } }),
});

test("Two methods are compared on the same work, with the range that their runs allow", async () => {
  const files = {
    ...labRuns("e", [4000, 5000, 6000], by("vanilla", 100)),
    ...labRuns("e", [50, 60, 80], by("tunnel", 400)),
  };
  const { matches, onlyA, onlyB } = await compared(files, "vanilla", "tunnel");
  expect([onlyA, onlyB]).toEqual([[], []]);
  expect(matches).toHaveLength(1);
  const row = (name: string) => matches[0]?.rows.find(({ metric }) => metric === name);
  expect(row("heartbeatGapMs")).toMatchObject({
    a: { median: 5000, min: 4000, max: 6000, count: 3 },
    ratio: { median: 60 / 5000, min: 50 / 6000, max: 80 / 4000 },
    says: "better",
  });
  expect(row("writesPerSecond")?.says).toBe("better");
});

test("Where ranges overlap no difference is shown, and of single runs that is said", async () => {
  const overlapping = { ...labRuns("a", [100, 300]), ...labRuns("b", [200, 400]) };
  const says = async (files: Record<string, string>) =>
    (await compared(files, "a", "b")).matches[0]?.rows.find(({ metric }) => metric === "heartbeatGapMs")
      ?.says;
  expect(await says(overlapping)).toBe("no difference shown");
  expect(await says({ ...labRuns("a", [100, 200]), ...labRuns("b", [201]) })).toBe("worse (a single run)");
});

test("Settings that one side has alone are named", async () => {
  const files = { ...labRuns("a", [100]), ...labRuns("b", [100], { lab: { qemu: "7.2" } }) };
  const comparison = await compared(files, "a", "b");
  expect(comparison.matches).toEqual([]);
  const text = comparisonText(comparison);
  expect(text).toContain("nothing is compared");
  expect(text).toMatch(/Only in a: writer, vanilla: .*QEMU 10\.0/);
  expect(text).toMatch(/Only in b: writer, vanilla: .*QEMU 7\.2/);
});

test("How migrations ended stands beside the figures, as text and as Markdown", async () => {
  const forced: LabRecordOptions = {
    ...by("vanilla"),
    verdict: { converged: false, forced: true, succeeded: false, failures: ["3 sessions lost"] },
  };
  const comparison = await compared(
    { ...labRuns("e", [6000], forced), ...labRuns("e", [60], by("tunnel")) },
    "vanilla",
    "tunnel",
  );
  expect(comparisonText(comparison)).toMatch(/ended +forced +by itself/);
  expect(comparisonMarkdown(comparison)).toContain("| ended | forced | by itself |  |  |");
  expect(comparisonMarkdown(comparison)).toContain(
    "| heartbeat gap, ms | 6,000 | 60 | 0.010 | better (a single run) |",
  );
});

test("What is neither folder, experiment nor method is refused, and so is a folder against a method", async () => {
  const folder = await resultsFolder(labRuns("e", [1]));
  await expect(readSides("vanilla", "nothing", folder)).rejects.toThrow(/"nothing" is no folder/);
  await expect(readSides("vanilla", "e", folder)).rejects.toThrow(/Cannot compare a folder/);
});
