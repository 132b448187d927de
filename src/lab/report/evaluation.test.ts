import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryLabEntries } from "../../../test/support/arbitrary-record.ts";
import { evaluationFiles, SCENARIOS } from "../../../test/support/lab-evaluation.ts";
import { labRecord, labRuns, resultsFolder } from "../../../test/support/lab-records.ts";
import { writeRecord } from "../../../test/support/write-record.ts";
import { evaluationMarkdown } from "./evaluation.ts";
import { type Results, type RunResult, readResults, resultOf } from "./results.ts";
import { labReportText } from "./text.ts";

const OPTIONS = { scenarios: SCENARIOS, command: "deltavee lab report --evaluation docs/evaluation.md" };
const read = async (files: Record<string, string>) => readResults(await resultsFolder(files));
const evaluation = async (files: Record<string, string>) =>
  evaluationMarkdown("", await read(files), OPTIONS);

/** Between the comments of a section. */
function section(text: string, name: string): string {
  const [begin, end] = [`<!-- begin evaluation ${name} -->\n`, `\n<!-- end evaluation ${name} -->`];
  const from = text.indexOf(begin);
  expect(from, name).toBeGreaterThan(-1);
  return text.slice(from + begin.length, text.indexOf(end, from));
}

test("The document has its sections in order: runs, claims, every scenario, sweeps", async () => {
  const text = await evaluation(evaluationFiles());
  expect([...text.matchAll(/<!-- begin evaluation (\w+) -->/g)].map(([, name]) => name)).toEqual([
    ...["runs", "paper", "video", "enterprise", "writer", "idle", "sweeps"],
  ]);
  expect([...text.matchAll(/^## (.*)$/gm)].map(([, title]) => title)).toEqual([
    ...["Runs", "The paper's claims", "Streaming video", "Enterprise system", "Paced writer", "Idle"],
    "Sweeps: when it pays",
  ]);
});

test("Machine, hypervisor, versions and commands are stated", async () => {
  const runs = section(await evaluation(evaluationFiles()), "runs");
  expect(runs).toContain(`- this document: \`${OPTIONS.command}\``);
  expect(runs).toContain("- 48 runs in 2 experiments, 2026-01-01");
  expect(runs).toContain("- machine: made up");
  expect(runs).toContain("- hypervisor: QEMU 10.0.2; Deltavee 0.1.0");
  expect(runs).toContain("- deltavee lab run writer");
});

test("A scenario's tables have median and range, how it ended, who is best, and the records below", async () => {
  const video = section(await evaluation(evaluationFiles()), "video");
  expect(video).toMatch(
    /^### 100\.0 Mbit\/s, round trip 0 ms, no loss; guest of 1 GiB, 1 vCPU; QEMU 10\.0$/m,
  );
  expect(video.split("\n").filter((line) => line.startsWith("|"))).toEqual([
    "| method | runs | succeeded | ended | frozen picture, ms | heartbeat gap, ms | QEMU's downtime, ms | total time, s |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    "| vanilla | 3 | yes | forced | 7,900 | 8,000 (7,900–8,100) | 200 | 10 |",
    "| multifd-zstd | 3 | yes | by itself | 850 | 900 (800–950) | 200 | 10 |",
    "| tunnel | 3 | yes | by itself | 20 | 55 (52–60) | 200 | 10 |",
    "| *best* |  |  |  | *tunnel* | *tunnel* | *multifd-zstd, tunnel* | *multifd-zstd, tunnel* |",
    "| method | on the wire, MB | CPU, source, ms | memory, source, GB |",
    "| --- | ---: | ---: | ---: |",
    "| vanilla | 105 | 900 | 1.20 |",
    "| multifd-zstd | 105 | 2,500 | 1.20 |",
    "| tunnel | 123 | 2,500 | 1.20 |",
    "| *best* | *multifd-zstd* | *multifd-zstd, tunnel* | *multifd-zstd, tunnel* |",
  ]);
  expect(video).toContain(
    "- Forced: it did not converge, and was ended by raising the downtime limit after 20.0 s.",
  );
  expect(video).toContain("- Another method than Deltavee's is best in: on the wire (multifd-zstd).");
  expect(video).toContain("- headline/video-tunnel-12500000--{1,2,3}.ndjson");
});

test("What is forced to end or fails is never best, however good its figures", async () => {
  const text = await evaluation({
    ...labRuns("e", [10], { verdict: { forced: true, converged: false } }),
    ...labRuns("e", [10], {
      lab: { method: "postcopy" },
      verdict: { succeeded: false, failures: ["lost | all"] },
    }),
    ...labRuns("e", [90], { lab: { method: "tunnel" } }),
  });
  expect(section(text, "writer")).toMatch(/^\| \*best\* \| {2}\| {2}\| {2}\| \*tunnel\* \|/m);
  expect(section(text, "writer")).toContain("- postcopy: lost \\| all (1 of 1).");
  expect(section(text, "writer")).toContain("Of a single run there is no range");
});

test("A scenario without results says so, and one that was only swept says where it is", async () => {
  const text = await evaluation(evaluationFiles());
  expect(section(text, "idle")).toContain("No results yet: `deltavee lab run idle` makes them.");
  expect(section(text, "writer")).toContain("Run as a sweep only");
  const nothing = evaluationMarkdown("", { results: [], notices: [] }, OPTIONS);
  expect(section(nothing, "sweeps")).toContain("No results yet");
  expect(section(nothing, "runs")).toContain("No results yet.");
  expect(section(nothing, "paper").match(/\| no results \|/g)).toHaveLength(5);
});

test("Each claim of the paper stands beside what was measured, with its standing", async () => {
  const rows = section(await evaluation(evaluationFiles()), "paper")
    .split("\n")
    .filter((line) => line.startsWith("| ") && !line.startsWith("| claim") && !line.startsWith("| ---"))
    .map((line) => line.split(" | ").slice(2));
  expect(rows.map(([standing]) => standing)).toEqual([
    "shown in part",
    "shown in part",
    "shown",
    "shown",
    "measured",
  ]);
  expect(rows[0]![1]).toContain("shorter in 8 of 11 settings, longer in 0; in 3 no difference is shown.");
  expect(rows[1]![1]).toContain(
    "A factor of 23.3 (13.3–73.3) at most: heartbeat gap 4.2 s (4.0 s–4.4 s) by vanilla (2 runs, ended forced)",
  );
  expect(rows[2]![1]).toContain(
    "frozen picture: 7.9 s by vanilla (3 runs, ended forced), 20 ms by tunnel (3 runs, ended by itself)",
  );
  expect(rows[3]![1]).toContain(
    "vanilla in 0 of 1 run, tunnel in 1 of 1 run. Also without failure: xbzrle-full.",
  );
});

test("A factor of a hundred is shown when it is reached", async () => {
  const files = { ...labRuns("e", [6000, 6100]), ...labRuns("e", [50, 60], { lab: { method: "tunnel" } }) };
  expect(section(await evaluation(files), "paper")).toMatch(
    /factor of 100\. \| abstract \| shown \| A factor of 110 /,
  );
});

test("A sweep is a map over its two quantities; sparse ones are read one by one", async () => {
  const sweeps = section(await evaluation(evaluationFiles()), "sweeps");
  expect(sweeps).toContain("### writer: dirtyPagesPerSecond × bytesPerPage");
  expect(sweeps).toContain("| ↓ dirtyPagesPerSecond, bytesPerPage → | 16 | 256 | 4,096 |");
  expect(sweeps).toContain("| 16,000 | tunnel | tunnel | none converged |");
  expect(sweeps).toContain("| 16,000 | 0.203 \\* | 0.241 \\* | 0.855 \\* |");
  const at = (x: number, y: number) => labRuns("e", [100], { lab: { parameters: { x, y } } });
  const sparse = await evaluation({ ...at(1, 1), ...at(2, 2), ...at(3, 3), ...at(4, 4) });
  expect(section(sparse, "sweeps")).toContain("No results yet");
  expect(section(sparse, "writer").match(/^### /gm)).toHaveLength(4);
});

test("Rate and delay of the link are swept like parameters", async () => {
  const at = (bytesPerSecond: number, roundTripMs: number, method: string) =>
    labRuns(`e/${roundTripMs}`, [100], {
      lab: { method, link: { bytesPerSecond, roundTripMs, lossShare: 0 } },
    });
  const files = [1.25e6, 12.5e6].flatMap((rate) => [0, 20].map((delay) => at(rate, delay, "tunnel")));
  const renamed = Object.assign({}, ...files) as Record<string, string>;
  const flat = Object.fromEntries(
    Object.entries(renamed).map(([name, text]) => [`e/${name.replaceAll("/", "-")}`, text]),
  );
  const sweeps = section(await evaluation(flat), "sweeps");
  expect(sweeps).toContain("### writer: round trip, ms × link");
  expect(sweeps).toContain("| ↓ round trip, ms, link → | 10.0 Mbit/s | 100.0 Mbit/s |");
  expect(sweeps).toContain(
    "no loss; guest of 1 GiB, 1 vCPU; QEMU 10.0. Experiment e; runs of each setting: 1.",
  );
});

test("Sections are replaced in place, and what people wrote around them stays", async () => {
  const first = await evaluation(evaluationFiles());
  const edited = first
    .replace("# Evaluation", "# Our evaluation")
    .replace("<!-- begin evaluation video -->", "A word on video.\n\n$&");
  const again = evaluationMarkdown(edited, await read(evaluationFiles()), OPTIONS);
  expect(again).toBe(edited);
  const emptied = evaluationMarkdown(edited, { results: [], notices: [] }, OPTIONS);
  expect(emptied).toContain("# Our evaluation");
  expect(emptied).toContain("A word on video.");
  expect(emptied).not.toContain("ndjson");
});

test("Records that were left out are named", async () => {
  const text = await evaluation({
    "a/half.ndjson": labRecord({ endsBefore: "summary" }),
    "a/1.ndjson": labRecord(),
  });
  expect(section(text, "runs")).toContain("- a/half.ndjson is left out: the run was interrupted");
});

test("Scenarios that this version does not know are shown without being judged by their users", async () => {
  const text = await evaluation(
    labRuns("e", [100], { lab: { scenario: "new <b>" }, verdict: { metrics: { zeal: 7 } } }),
  );
  expect(section(text, "other")).toContain("### new &lt;b&gt;, 100.0 Mbit/s");
  expect(section(text, "other")).toMatch(/\| method \| on the wire, MB \| zeal \|/);
});

test("Whatever records hold, a document made again is the same, and no section ends early", () => {
  const anyResult = arbitraryLabEntries.map(
    (entries) =>
      resultOf(writeRecord(entries).events, "a | <!-- end evaluation other -->.ndjson", "`e`") as RunResult,
  );
  fc.assert(
    fc.property(fc.array(anyResult, { minLength: 1, maxLength: 6 }), (all) => {
      const results: Results = { results: all, notices: ["<!-- end evaluation runs -->"] };
      const text = evaluationMarkdown("", results, OPTIONS);
      expect(evaluationMarkdown(text, results, OPTIONS)).toBe(text);
      expect(text.match(/<!--/g)).toHaveLength(16);
      expect(text).not.toMatch(/<script|NaN|undefined|Infinity/);
      const shown = labReportText(results, SCENARIOS);
      expect(["\u001b", "\u202e", "\r", "NaN", "undefined"].filter((bad) => shown.includes(bad))).toEqual([]);
    }),
    { numRuns: 60 },
  );
});
