import { expect, test } from "vitest";
import { labRecord, labRuns, resultsFolder } from "../../../test/support/lab-records.ts";
import { contestsOf } from "./contests.ts";
import { readResults } from "./results.ts";

test("Runs are read from a folder of experiments, with what their records say", async () => {
  const folder = await resultsFolder(labRuns("headline", [300, 310], { iterationBytes: [7e6, 2e6, 1e6] }));
  const { results, notices } = await readResults(folder);
  expect(notices).toEqual([]);
  expect(results.map(({ experiment, setting }) => [experiment, setting.run])).toEqual([
    ["headline", 1],
    ["headline", 2],
  ]);
  expect(results[1]).toMatchObject({ machine: "made up", hypervisor: "QEMU 10.0.2", converged: true });
  expect(results[1]?.metrics.get("heartbeatGapMs")).toBe(310);
  expect(results[1]?.iterations.map(({ wireBytes }) => wireBytes)).toEqual([7e6, 2e6, 1e6]);
});

test("A folder of records is an experiment of its own", async () => {
  const folder = await resultsFolder({ "one.ndjson": labRecord(), "notes.txt": "no record" });
  const { results } = await readResults(folder);
  expect(results.map(({ file }) => file)).toEqual(["one.ndjson"]);
  expect(folder.endsWith(results[0]?.experiment ?? "-")).toBe(true);
});

test("Times are since the migration began", async () => {
  const series = [{ series: "frames per second", unit: "1/s", values: [25] }];
  const folder = await resultsFolder({ "one.ndjson": labRecord({ series }) });
  const timeline = (await readResults(folder)).results[0]?.timeline;
  expect(timeline?.endedMs).toBe(10_000);
  const frames = timeline?.series.find(({ name }) => name === "frames per second");
  expect(frames?.points[0]).toEqual({ ms: -4000, value: 25 });
  expect(frames?.points.at(-1)?.ms).toBe(5000);
});

test("Records that cannot be used are left out and named, each with the reason", async () => {
  const folder = await resultsFolder({
    "a/good.ndjson": labRecord(),
    "a/interrupted.ndjson": labRecord({ endsBefore: "verdict" }),
    "a/no-summary.ndjson": labRecord({ endsBefore: "summary" }),
    "a/other.ndjson": labRecord()
      .split("\n")
      .filter((line) => !line.includes('"lab"'))
      .join("\n"),
    "a/garbage.ndjson": "{}\n",
    "a/empty.ndjson": "",
  });
  const { results, notices } = await readResults(folder);
  expect(results.map(({ file }) => file)).toEqual(["a/good.ndjson"]);
  expect(notices.map((notice) => notice.slice(0, 70))).toEqual([
    expect.stringMatching(/^a\/empty.ndjson is left out: Cannot read/),
    expect.stringMatching(/^a\/garbage.ndjson is left out: Cannot read/),
    "a/interrupted.ndjson is left out: the run was interrupted",
    "a/no-summary.ndjson is left out: the run was interrupted",
    "a/other.ndjson is left out: it is no record of the lab",
  ]);
});

test("Of two records of the same run the later one counts, and the other is named", async () => {
  const at = (day: string) => `2026-01-${day}T00:00:00.000Z`;
  const folder = await resultsFolder({
    "a/1.ndjson": labRecord({ startedAt: at("02") }),
    "a/2.ndjson": labRecord({ startedAt: at("03") }),
    "a/3.ndjson": labRecord({ startedAt: at("01") }),
    "b/1.ndjson": labRecord({ startedAt: at("01") }),
  });
  const { results, notices } = await readResults(folder);
  expect(results.map(({ file }) => file)).toEqual(["a/2.ndjson", "b/1.ndjson"]);
  expect(notices).toEqual([
    "a/1.ndjson is left out: a/2.ndjson repeats it",
    "a/3.ndjson is left out: a/2.ndjson repeats it",
  ]);
});

test("A folder that is not there is the user's mistake", async () => {
  await expect(readResults("/nowhere/at-all")).rejects.toMatchObject({ name: "UsageError" });
});

test("Runs that differ in nothing but their number repeat each other, whatever the order of parameters", async () => {
  const lab = (method: string, parameters: Record<string, number>, run: number) =>
    labRecord({ lab: { method, parameters, run } });
  const folder = await resultsFolder({
    "a/1.ndjson": lab("tunnel", { x: 1, y: 2 }, 1),
    "a/2.ndjson": lab("tunnel", { y: 2, x: 1 }, 2),
    "a/3.ndjson": lab("vanilla", { x: 1, y: 2 }, 1),
    "a/4.ndjson": lab("odd", { x: 1, y: 2 }, 1),
    "a/5.ndjson": lab("tunnel", { x: 1, y: 3 }, 1),
  });
  const contests = contestsOf((await readResults(folder)).results);
  expect(contests.map(({ groups }) => groups.map(({ method, runs }) => [method, runs.length]))).toEqual([
    [
      ["vanilla", 1],
      ["tunnel", 2],
      ["odd", 1],
    ],
    [["tunnel", 1]],
  ]);
});

test("Methods of different experiments are not compared", async () => {
  const folder = await resultsFolder({
    ...labRuns("before", [300]),
    ...labRuns("after", [100], { lab: { method: "tunnel" } }),
  });
  expect(contestsOf((await readResults(folder)).results).map(({ groups }) => groups.length)).toEqual([1, 1]);
});
