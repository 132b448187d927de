// `npm run bench:downtime`: how well the promise of a downtime is kept. Moves a busy guest again and again, each time
// between two fresh VMs, and sets the gap in its heartbeat beside the goal and beside what was forecast; then a guest
// for which the goal cannot be kept, once with each policy. The link between two QEMUs needs root, as for bench:peers.

import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { Command, CommanderError, Option } from "commander";
import { toError, UsageError } from "../src/base/errors.ts";
import { formatBytesPerSecond, formatMs, parseBytesPerSecond, parseMs } from "../src/base/units.ts";
import { isStallPolicy, STALL_POLICIES, type StallPolicy } from "../src/engine/switchover/stall-policies.ts";
import { replaceSection } from "../src/report/section.ts";
import type { Mode } from "../test/support/migration.ts";
import { findQemus, type QemuBinary } from "../test/support/qemu-binaries.ts";
import { type KeptRun, keptByQemu, keptByV86, type UnkeptRun, unkeptByQemu } from "./downtime-runs.ts";
import type { Scene } from "./measure.ts";
import { makeLink } from "./network.ts";
import { markdown, plainText, type Table } from "./table.ts";
import { median } from "./timing.ts";
import { GUESTS, type Guest, WORKLOADS } from "./workloads.ts";

interface Options {
  all?: true;
  hypervisor: "qemu" | "v86";
  qemu: string;
  guest: Guest;
  link?: number;
  runs: number;
  modes: readonly Mode[];
  goal?: number;
  policies: readonly StallPolicy[];
  timeLimit: number;
  json?: string;
  markdown?: string;
}

/** What is promised and what it is measured by (heartbeat gap). The v86 link is the demo's. */
interface Promised {
  readonly mode: Mode;
  readonly goalMs: number;
  readonly medianMsMax?: number;
  readonly p95MsMax?: number;
}

const PROMISES: Readonly<Record<Options["hypervisor"], readonly Promised[]>> = {
  qemu: [
    { mode: "tunnel", goalMs: 50, medianMsMax: 60, p95MsMax: 100 },
    { mode: "direct", goalMs: 100, medianMsMax: 110, p95MsMax: 170 },
  ],
  v86: [{ mode: "tunnel", goalMs: 100 }],
};
const LINKS = { qemu: "100mbit", v86: "20mbit" } as const;
/** Whole pages of random content, more of them than the link carries. */
const UNKEPT = { workload: "dense", pagesPerSecond: 4000, mode: "tunnel", goalMs: 50 } as const;
const SAID_MAX = 6;
const MODES: readonly Mode[] = ["tunnel", "direct"];
const POLICIES = Object.keys(STALL_POLICIES).filter(isStallPolicy);

/** What docs/benchmarks.md shows, section by section. Why 7.2 has the bare guest, and no policies, is said there. */
const ALL: readonly Partial<Options>[] = [
  { hypervisor: "qemu", qemu: "10.0", guest: guestNamed("linux") },
  { hypervisor: "qemu", qemu: "7.2", guest: guestNamed("bare"), policies: [] },
  { hypervisor: "v86" },
];

const KEPT_HEAD = [
  "mode",
  "goal ms",
  "arrived",
  "heartbeat gap ms: median",
  "95th percentile",
  "max",
  "forecast ms",
  "measured ms",
  "measured − forecast ms",
  "total s",
  "guest verified",
];

const program = new Command("bench:downtime")
  .description(
    "How well the promise of a downtime is kept. Needs root for the link, unless --hypervisor is v86.",
  )
  .option("--all", "one after the other: QEMU 10.0 with Linux, QEMU 7.2 with the bare guest, v86")
  .addOption(
    new Option("--hypervisor <name>", "what runs the guest").choices(["qemu", "v86"]).default("qemu"),
  )
  .option("--qemu <version>", "7.2 or 10.0, on both sides", "10.0")
  .addOption(
    new Option("--guest <name>", "what runs in the VM: linux,bare")
      .argParser(guestNamed)
      .default(GUESTS[0], GUESTS[0]?.name),
  )
  .option("--link <rate>", "rate of the link (default: 100mbit, of v86 20mbit)", parseBytesPerSecond)
  .option("--runs <count>", "migrations per mode, taken in turns", parseCount, 20)
  .option("--modes <names>", "which of them: tunnel,direct", parseModes, MODES)
  .option("--goal <duration>", "another --max-downtime than the mode's", parseMs)
  .option(
    "--policies <names>",
    `of --on-stall, for a goal that cannot be kept: ${POLICIES.join(",")}, or none`,
    parsePolicies,
    POLICIES,
  )
  .addOption(
    new Option("--time-limit <duration>", "what has not ended by then is cancelled")
      .argParser(parseMs)
      .default(90_000, "90s"),
  )
  .option("--json <file>", "append each migration, one JSON object a line")
  .option("--markdown <file>", "write the result into its section of this file")
  .exitOverride();

try {
  const options = program.parse().opts<Options>();
  const parts = (options.all === true ? ALL : [{}]).map((part) => ({ ...options, ...part }));
  // Before the first of them has taken its time.
  parts.forEach(checkThatItCanRun);
  for (const part of parts) await main(part);
} catch (thrown) {
  const error = toError(thrown);
  if (error instanceof UsageError) console.error(`bench:downtime: ${error.message}`);
  else if (!(error instanceof CommanderError)) console.error(error);
  const isHelp = error instanceof CommanderError && error.exitCode === 0;
  process.exitCode = isHelp ? 0 : error instanceof UsageError || error instanceof CommanderError ? 2 : 1;
}

async function main(options: Options): Promise<void> {
  const link = options.link ?? parseBytesPerSecond(LINKS[options.hypervisor]);
  const promises = PROMISES[options.hypervisor]
    .filter(({ mode }) => options.modes.includes(mode))
    .map((promised) => (options.goal === undefined ? promised : { ...promised, goalMs: options.goal }));
  const results: Results = {
    kept: new Map(promises.map((promised) => [promised, []])),
    unkept: [],
    failures: [],
  };
  let hypervisor = "v86";
  if (options.hypervisor === "v86") {
    await inTurns(options, promises, results, ({ goalMs }) => keptByV86(link, goalMs));
  } else {
    const binary = findQemus().get(options.qemu)!;
    const { major, minor, micro } = binary.version;
    hypervisor = `QEMU ${major}.${minor}.${micro} under TCG`;
    await measureQemu(options, promises, results, binary, link);
  }
  publish(options, link, hypervisor, results);
}

async function measureQemu(
  options: Options,
  promises: readonly Promised[],
  results: Results,
  binary: QemuBinary,
  bytesPerSecond: number,
): Promise<void> {
  const link = await makeLink(bytesPerSecond);
  const started: Scene["started"] = [];
  const scene = (boot: Scene["boot"]): Scene => ({
    ...{ binary, boot, link, limitMs: options.timeLimit, limitOf: undefined, started },
  });
  const release = cleanUpWhenInterrupted(started, link.remove);
  try {
    const sparse = scene(bootOf(options.guest, "sparse"));
    await inTurns(options, promises, results, ({ mode, goalMs }, run) =>
      keptByQemu(sparse, mode, goalMs, run),
    );
    const dense = scene(bootOf(options.guest, UNKEPT.workload, UNKEPT.pagesPerSecond));
    for (const policy of options.policies) {
      await attempt(results, `--on-stall ${policy}`, async () => {
        const run = await unkeptByQemu(dense, UNKEPT.mode, UNKEPT.goalMs, policy);
        results.unkept.push(run);
        report(options, run);
      });
    }
  } finally {
    release();
    await link.remove();
  }
}

/** @throws UsageError */
function checkThatItCanRun({ hypervisor, qemu }: Options): void {
  if (hypervisor === "v86") return;
  if (findQemus().get(qemu) === undefined) throw new UsageError(`There is no QEMU ${qemu} here`);
  if (process.getuid?.() !== 0)
    throw new UsageError("The link is made of network namespaces: run this command as root");
}

/** A guest of bench:peers, with one of its workloads. */
function bootOf(guest: Guest, name: string, pagesPerSecond?: number): Scene["boot"] {
  const workload = WORKLOADS.find((each) => each.name === name)!;
  const rate = pagesPerSecond === undefined ? [] : [`rate=${pagesPerSecond}`];
  // Of a key that comes twice the last one counts.
  return guest.boot({ ...workload, options: [workload.options, ...rate].join(" ") });
}

interface Results {
  kept: Map<Promised, KeptRun[]>;
  unkept: UnkeptRun[];
  failures: string[];
}

/** The modes take turns, so that what else the machine does meets them all. */
async function inTurns(
  options: Options,
  promises: readonly Promised[],
  results: Results,
  move: (promised: Promised, run: number) => Promise<KeptRun>,
): Promise<void> {
  for (let run = 1; run <= options.runs; run++) {
    for (const promised of promises) {
      await attempt(results, `${promised.mode}, run ${run} of ${options.runs}`, async () => {
        const kept = await move(promised, run);
        results.kept.get(promised)!.push(kept);
        report(options, { ...promised, run, ...kept });
      });
    }
  }
}

/** A migration that fails does not take the others with it: it is told with the result. */
async function attempt(results: Results, what: string, work: () => Promise<void>): Promise<void> {
  console.error(what);
  try {
    await work();
  } catch (thrown) {
    results.failures.push(`${what}, failed: ${toError(thrown).message}`);
    console.error(results.failures.at(-1));
    process.exitCode = 1;
  }
}

function report({ json, hypervisor, qemu }: Options, run: object): void {
  console.error(JSON.stringify(run));
  if (json !== undefined) appendFileSync(json, `${JSON.stringify({ hypervisor, qemu, ...run })}\n`);
}

function keptTable(kept: Results["kept"]): Table {
  return [
    KEPT_HEAD,
    ...[...kept].map(([{ mode, goalMs }, runs]) => {
      const arrived = runs.filter((run) => run.arrived);
      const gaps = defined(arrived.map(({ heartbeatGapMs }) => heartbeatGapMs));
      const misses = arrived.map(({ downtimeMs, forecastDowntimeMs }) =>
        downtimeMs === undefined || forecastDowntimeMs === undefined
          ? undefined
          : downtimeMs - forecastDowntimeMs,
      );
      return [
        ...[mode, `${goalMs}`, `${arrived.length} of ${runs.length}`],
        ...[ms(gaps, median), ms(gaps, percentile95), ms(gaps, (values) => Math.max(...values))],
        spread(defined(arrived.map(({ forecastDowntimeMs }) => forecastDowntimeMs))),
        spread(defined(arrived.map(({ downtimeMs }) => downtimeMs))),
        spread(defined(misses)),
        arrived.length === 0 ? "-" : (median(arrived.map(({ totalMs }) => totalMs)) / 1000).toFixed(1),
        `${arrived.filter(({ verified }) => verified === true).length} of ${arrived.length}`,
      ];
    }),
  ];
}

function unkeptTable(runs: readonly UnkeptRun[]): Table {
  return [
    [
      "policy",
      "ended as",
      "exit code",
      "VM",
      "after s",
      "heartbeat gap ms",
      "settings put back",
      "guest verified",
    ],
    ...runs.map(({ policy, outcome, exitCode, vm, totalMs, heartbeatGapMs, restored, verified }) => [
      ...[policy, outcome, `${exitCode}`, vm, (totalMs / 1000).toFixed(1)],
      heartbeatGapMs === undefined ? "-" : heartbeatGapMs.toFixed(0),
      ...[restored ? "yes" : "NO", verified ? "yes" : "NO"],
    ]),
  ];
}

/** Against what was set out to reach. */
function goalLines(kept: Results["kept"]): string[] {
  return [...kept].flatMap(([{ mode, medianMsMax, p95MsMax }, runs]) => {
    const gaps = defined(runs.map(({ heartbeatGapMs }) => heartbeatGapMs));
    if (gaps.length === 0 || medianMsMax === undefined || p95MsMax === undefined) return [];
    const line = (what: string, value: number, max: number) =>
      `${mode}: ${what} ${value.toFixed(0)} ms (goal: at most ${max}; ${value <= max ? "reached" : "missed"})`;
    return [
      line("median of the heartbeat gap", median(gaps), medianMsMax),
      line("95th percentile", percentile95(gaps), p95MsMax),
    ];
  });
}

function publish(options: Options, link: number, hypervisor: string, results: Results): void {
  const { kept, unkept, failures } = results;
  const notes = [
    `command: npm run bench:downtime -- ${process.argv.slice(2).join(" ")}`.trimEnd(),
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ` +
      `Node ${process.versions.node}, ${hypervisor}, link of ${formatBytesPerSecond(link)}`,
    "forecast, measured and their difference: median (lowest–highest); a heartbeat comes each 10 ms",
    ...goalLines(kept),
    ...failures,
  ];
  const said = unkept.flatMap(({ policy, said }) => [
    `with ${policy}:`,
    ...said.slice(0, SAID_MAX).map((line) => `  ${line}`),
    ...(said.length > SAID_MAX ? [`  and ${said.length - SAID_MAX} more, the last: ${said.at(-1)}`] : []),
  ]);
  const unkeptNote =
    `Goal of ${UNKEPT.goalMs} ms, ${UNKEPT.mode}, ${UNKEPT.pagesPerSecond} pages/s rewritten whole with random content; ` +
    `interrupted after ${formatMs(options.timeLimit)}`;
  console.log(["", ...notes, "", plainText(keptTable(kept))].join("\n"));
  if (unkept.length > 0)
    console.log(["", unkeptNote, plainText(unkeptTable(unkept)), "", ...said].join("\n"));
  if (options.markdown === undefined) return;
  const { qemu, guest } = options;
  const title = `downtime, ${options.hypervisor === "v86" ? "v86" : `QEMU ${qemu}, guest ${guest.name}`}`;
  const content = [
    `### ${title}`,
    "",
    ...notes.map((note) => `- ${note}`),
    "",
    markdown(keptTable(kept)),
    ...(unkept.length === 0
      ? []
      : [
          "",
          `${unkeptNote}:`,
          "",
          markdown(unkeptTable(unkept)),
          "",
          "What was said:",
          "",
          "```",
          ...said,
          "```",
        ]),
  ].join("\n");
  const before = existsSync(options.markdown) ? readFileSync(options.markdown, "utf8") : "";
  writeFileSync(options.markdown, replaceSection(before, `bench:${title}`, content));
}

/**
 * A benchmark that is killed cannot do this: what it leaves behind is removed by the next one. The returned function
 * lets go of the signals.
 */
function cleanUpWhenInterrupted(started: Scene["started"], removeLink: () => Promise<void>): () => void {
  const cleanUp = (exitCode: number) => {
    console.error("bench:downtime: interrupted");
    void Promise.allSettled(started.map((each) => each.stop()))
      .then(removeLink)
      .finally(() => process.exit(exitCode));
  };
  const interrupted = () => cleanUp(130);
  const terminated = () => cleanUp(143);
  process.once("SIGINT", interrupted);
  process.once("SIGTERM", terminated);
  return () => {
    process.off("SIGINT", interrupted);
    process.off("SIGTERM", terminated);
  };
}

function defined(values: readonly (number | undefined)[]): number[] {
  return values.filter((value) => value !== undefined);
}

/** The value that at most one of twenty exceeds. */
function percentile95(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil(sorted.length * 0.95) - 1]!;
}

function ms(values: readonly number[], of: (values: readonly number[]) => number): string {
  return values.length === 0 ? "-" : of(values).toFixed(0);
}

function spread(values: readonly number[]): string {
  if (values.length === 0) return "-";
  const range = `${Math.min(...values).toFixed(0)}–${Math.max(...values).toFixed(0)}`;
  return `${median(values).toFixed(0)} (${range})`;
}

function parseModes(text: string): Mode[] {
  return text.split(",").map((name) => {
    const mode = MODES.find((each) => each === name);
    if (mode === undefined) throw new UsageError(`There is no mode "${name}"`);
    return mode;
  });
}

function guestNamed(name: string): Guest {
  const guest = GUESTS.find((each) => each.name === name);
  if (guest === undefined) throw new UsageError(`There is no guest "${name}"`);
  return guest;
}

function parsePolicies(text: string): StallPolicy[] {
  if (text === "none") return [];
  return text.split(",").map((name) => {
    if (!isStallPolicy(name)) throw new UsageError(`There is no policy "${name}"`);
    return name;
  });
}

function parseCount(text: string): number {
  if (!/^[1-9]\d{0,2}$/.test(text)) throw new UsageError(`Not a number of runs: "${text}"`);
  return Number(text);
}
