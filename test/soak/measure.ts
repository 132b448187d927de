// What a process holds at a moment, and whether it stays at that: counts of descriptors, sockets, files and whatever else
// is counted must not grow at all, resident memory not by more than a bound.

import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

const MEBIBYTE = 1024 * 1024;
/** What the heap, its arenas and the memories of workers that have ended are allowed to take in the long run. */
export const GROWTH_BYTES_MAX: number = 128 * MEBIBYTE;

const SETTLE_MS_MAX = 10_000;

export interface Measure {
  residentBytes: number;
  /** By what is counted. */
  counts: Record<string, number>;
}

/** Of any process of this host that may be looked at. */
export function measureProcess(pid: number | "self"): Measure {
  const folder = `/proc/${pid}/fd`;
  let [descriptors, sockets] = [0, 0];
  for (const descriptor of readdirSync(folder)) {
    try {
      if (readlinkSync(`${folder}/${descriptor}`).startsWith("socket:")) sockets++;
      descriptors++;
    } catch {
      // The one with which the folder was read, or closed meanwhile.
    }
  }
  const resident = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))![1];
  return { residentBytes: Number(resident) * 1024, counts: { descriptors, sockets } };
}

/**
 * Of this process, without what is garbage. `folder`: that of its temporary files. `before`: an earlier measure, which
 * this one is given some time to come down to.
 */
export async function measureSelf(folder: string, before?: Measure): Promise<Measure> {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  // Memory of WebAssembly and of threads is given back by finalizers, which run in their own time.
  for (let round = 0; round < 3; round++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  // What is being closed goes later on a machine that is busy.
  const endMs = performance.now() + SETTLE_MS_MAX;
  let measure = measureThis(folder);
  while (before !== undefined && isAbove(measure, before) && performance.now() < endMs) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    measure = measureThis(folder);
  }
  return measure;
}

function isAbove({ counts }: Measure, before: Measure): boolean {
  return Object.entries(counts).some(([name, count]) => count > (before.counts[name] ?? 0));
}

function measureThis(folder: string): Measure {
  const { residentBytes, counts } = measureProcess("self");
  const listeners = process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0);
  const files = readdirSync(folder, { recursive: true }).length;
  const threads = readdirSync("/proc/self/task").length;
  return { residentBytes, counts: { ...counts, files, listeners, threads } };
}

export interface Trend {
  measures: number;
  /** By what is counted: the most in the first half, and in the second. */
  counts: Record<string, readonly [early: number, late: number]>;
  residentBytes: readonly [early: number, late: number];
  /** What has grown that may not. */
  grown: string[];
}

/** A leak of one at each step shows after a few of them: the most of the second half is above that of the first. */
export function trendOf(measures: readonly Measure[]): Trend {
  const half = Math.ceil(measures.length / 2);
  const [early, late] = [measures.slice(0, half), measures.slice(half)];
  const most = (of: readonly Measure[], value: (measure: Measure) => number) => Math.max(...of.map(value));
  const pair = (value: (measure: Measure) => number) => [most(early, value), most(late, value)] as const;
  const names = Object.keys(measures[0]!.counts);
  const counts = Object.fromEntries(names.map((name) => [name, pair((measure) => measure.counts[name]!)]));
  const residentBytes = pair((measure) => measure.residentBytes);
  const grown = names.filter((name) => counts[name]![1] > counts[name]![0]);
  if (residentBytes[1] - residentBytes[0] > GROWTH_BYTES_MAX) grown.push("resident memory");
  return { measures: measures.length, counts, residentBytes, grown };
}

/** A row of the table in docs/reliability.md. */
export function trendRow(what: string, { counts, residentBytes }: Trend): string {
  const held = (name: string) => (counts[name] === undefined ? "–" : counts[name].join(" → "));
  const memory = residentBytes.map((bytes) => `${Math.round(bytes / MEBIBYTE)}`).join(" → ");
  const cells = ["descriptors", "sockets", "files", "listeners", "threads"].map(held);
  return `| ${[what, ...cells, memory].join(" | ")} |`;
}

export const TREND_HEAD: string = [
  "| what, the most held in the first half of it → in the second | descriptors | sockets | files | listeners | threads | resident, MiB |",
  `|${"---|".repeat(7)}`,
].join("\n");
