// The results of the lab, read from run records and from nothing else: a folder of them, or a folder of such folders
// (experiments). What cannot be used is left out and named. Of a record only what tables and plots need is kept, so
// that thousands of them fit.

import { readdir } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { DeltaveeError, toError, UsageError } from "../../base/errors.ts";
import { readRecordFile } from "../../record/file-reader.ts";
import type { RecordEvent } from "../../record/schema.ts";
import { eventsOf, iterationFigures } from "../../report/figures.ts";
import type { Setting } from "../model.ts";
import { type Series, seriesOf } from "./series.ts";

export interface Results {
  readonly results: readonly RunResult[];
  /** What was left out, and why. */
  readonly notices: readonly string[];
}

export interface RunResult {
  /** Where the record lies, below the folder that was read. */
  readonly file: string;
  /** The folder in which the record lies: only runs of one experiment are put together. */
  readonly experiment: string;
  readonly setting: Setting;
  readonly startedAt: string;
  readonly deltavee: string;
  readonly hypervisor: string;
  readonly machine?: string | undefined;
  readonly command?: string | undefined;
  /** Came to an end by itself, within what was asked for. */
  readonly converged: boolean;
  /** Had to be ended by raising the downtime limit. */
  readonly forced: boolean;
  /** When a run of this setting is forced. */
  readonly forcedAfterMs?: number | undefined;
  readonly succeeded: boolean;
  readonly failures: readonly string[];
  readonly metrics: ReadonlyMap<string, number>;
  /** What was expected, where it was asked for before. */
  readonly forecast?: Extract<RecordEvent, { type: "forecast" }> | undefined;
  readonly iterations: readonly IterationBytes[];
  readonly timeline: Timeline;
}

export interface IterationBytes {
  readonly iteration: number;
  readonly wireBytes: number;
}

/** Times are since the migration began; what lies before it is below zero. */
export interface Timeline {
  readonly endedMs: number;
  readonly series: readonly Series[];
}

/** A folder with more records than this is no folder of results. */
const RECORDS_MAX = 20_000;

/** @throws UsageError when the folder cannot be read or holds too many records */
export async function readResults(folder: string): Promise<Results> {
  const files = await recordFiles(folder);
  const notices: string[] = [];
  const results = new Map<string, RunResult>();
  for (const file of files) {
    const experiment = dirname(file) === "." ? basename(resolve(folder)) : dirname(file);
    try {
      const { events } = await readRecordFile(join(folder, file));
      const result = resultOf(events, file, experiment);
      if (typeof result === "string") {
        notices.push(`${file} is left out: ${result}`);
        continue;
      }
      const key = JSON.stringify([experiment, settingKey(result.setting), result.setting.run]);
      const twin = results.get(key);
      const older = twin !== undefined && twin.startedAt > result.startedAt ? result : twin;
      if (older !== undefined) {
        notices.push(`${older.file} is left out: ${(older === twin ? result : twin)?.file} repeats it`);
      }
      if (older !== result) results.set(key, result);
    } catch (thrown) {
      if (!(thrown instanceof DeltaveeError)) throw thrown;
      notices.push(`${file} is left out: ${thrown.message}`);
    }
  }
  return { results: [...results.values()], notices };
}

/** In alphabetical order, so that the same folder gives the same report. */
async function recordFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((thrown: unknown) => {
    throw new UsageError(`Cannot read results in ${folder}: ${toError(thrown).message}`, { cause: thrown });
  });
  const files = entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ndjson"))
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)));
  if (files.length > RECORDS_MAX) {
    throw new UsageError(`Cannot read results in ${folder}: more than ${RECORDS_MAX} records`);
  }
  return files.sort((a, b) => (a < b ? -1 : 1));
}

/** The result of a record with these events, or why there is none. */
export function resultOf(
  events: readonly RecordEvent[],
  file: string,
  experiment: string,
): RunResult | string {
  const run = eventsOf(events, "run")[0];
  const [lab, ...otherLabs] = eventsOf(events, "lab");
  const [verdict, ...otherVerdicts] = eventsOf(events, "verdict");
  if (run === undefined || lab === undefined) return "it is no record of the lab";
  if (otherLabs.length > 0 || otherVerdicts.length > 0) return "it holds more than one run";
  if (verdict === undefined || events.at(-1)?.type !== "summary") return "the run was interrupted";

  const { scenario, parameters, guest, method, link, qemu } = lab;
  const phases = eventsOf(events, "phase");
  const beganMs = phases[0]?.atMs ?? 0;
  const isEnd = (phase: string) => phase === "completed" || phase === "failed" || phase === "cancelled";
  const endedMs = phases.find(({ phase }) => isEnd(phase))?.atMs ?? events.at(-1)?.atMs ?? beganMs;
  return {
    file,
    experiment,
    setting: { scenario, parameters, guest, method, link, qemu, run: lab.run },
    startedAt: run.startedAt,
    deltavee: run.deltavee,
    hypervisor: run.hypervisor,
    machine: lab.machine,
    command: lab.command,
    converged: verdict.converged,
    forced: verdict.forced,
    forcedAfterMs: lab.forcedAfterMs,
    succeeded: verdict.succeeded,
    failures: verdict.failures,
    metrics: new Map(Object.entries(verdict.metrics)),
    forecast: eventsOf(events, "forecast")[0],
    iterations: iterationFigures(events).map(({ iteration, wireBytes }) => ({ iteration, wireBytes })),
    timeline: { endedMs: endedMs - beganMs, series: seriesOf(events, beganMs) },
  };
}

/** Equal for runs that repeat each other, in whatever order their parameters are written. */
export function settingKey({ scenario, parameters, guest, method, link, qemu }: Setting): string {
  const sorted = Object.entries(parameters).sort(([a], [b]) => (a < b ? -1 : 1));
  const { bytesPerSecond, roundTripMs, lossShare, congestion = "cubic" } = link;
  return JSON.stringify([
    scenario,
    sorted,
    [guest.memoryMiB, guest.vcpus],
    method,
    [bytesPerSecond, roundTripMs, lossShare, congestion],
    qemu,
  ]);
}
