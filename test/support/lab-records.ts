// Made-up records of the lab for tests of what is drawn from them, written as the lab writes them. Their figures have
// the shape of results and say nothing about anything.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import type { RecordEntry } from "../../src/record/schema.ts";
import { NO_PAGES } from "../../src/record/schema.ts";
import { writeRecord } from "./write-record.ts";

type LabEntry = Extract<RecordEntry, { type: "lab" }>;
type VerdictEntry = Extract<RecordEntry, { type: "verdict" }>;

export interface LabRecordOptions {
  readonly lab?: Partial<LabEntry>;
  readonly verdict?: Partial<VerdictEntry>;
  readonly forecast?: Omit<Extract<RecordEntry, { type: "forecast" }>, "type">;
  readonly startedAt?: string;
  /** Left out from here on, as in a run that was interrupted. */
  readonly endsBefore?: "verdict" | "summary";
  /** Bytes of each iteration, the first first. */
  readonly iterationBytes?: readonly number[];
  readonly series?: readonly { series: string; unit: string; values: readonly number[] }[];
}

/** The text of one record: four seconds before the migration, ten seconds of it, two after. */
export function labRecord(options: LabRecordOptions = {}): string {
  const {
    lab = {},
    verdict = {},
    startedAt = "2026-01-01T00:00:00.000Z",
    iterationBytes = [100e6, 5e6],
  } = options;
  const entries: { afterMs: number; entry: RecordEntry }[] = [];
  const add = (entry: RecordEntry, afterMs = 0) => entries.push({ afterMs, entry });
  const seen = (index: number) => {
    for (const { series, unit, values } of options.series ?? []) {
      const value = values[index % values.length];
      if (value !== undefined) add({ type: "client", series, unit, value });
    }
  };
  add({
    ...{ type: "run", version: 1, startedAt, deltavee: "0.1.0", side: "source" },
    ...{ mode: "stock", method: "standard", hypervisor: "QEMU 10.0.2" },
  });
  add({
    ...{ type: "lab", scenario: "writer", parameters: {}, guest: { memoryMiB: 1024, vcpus: 1 } },
    ...{
      method: "vanilla",
      link: { bytesPerSecond: 12.5e6, roundTripMs: 0, lossShare: 0 },
      qemu: "10.0",
      run: 1,
    },
    ...{ machine: "made up", command: "deltavee lab run writer", ...lab },
  });
  if (options.forecast !== undefined) add({ type: "forecast", ...options.forecast });
  for (let index = 0; index < 8; index++) {
    seen(index);
    add({ type: "heartbeat", counter: index, gapMs: 2, side: "source" }, 500);
  }
  add({ type: "phase", phase: "setup" });
  let wireBytes = 0;
  for (const [iteration, bytes] of iterationBytes.entries()) {
    add({ type: "iteration", iteration, wireBytes, pages: NO_PAGES });
    wireBytes += bytes;
    seen(iteration + 8);
    add({ type: "notice", message: "an iteration goes by" }, 10_000 / iterationBytes.length);
  }
  const metrics = { totalMs: 10_000, downtimeMsReported: 200, heartbeatGapMs: 300, wireBytes };
  add({ type: "phase", phase: "completed" });
  add({ type: "heartbeat", counter: 9, gapMs: verdict.metrics?.heartbeatGapMs ?? 300, side: "destination" });
  add({ ...{ type: "usage", side: "source", process: "qemu" }, cpuMs: 900, residentBytesMax: 1e9 }, 2000);
  if (options.endsBefore !== "verdict") {
    add({
      ...{ type: "verdict", converged: true, forced: false, succeeded: true, failures: [], ...verdict },
      metrics: { ...metrics, ...verdict.metrics },
    });
    if (options.endsBefore !== "summary") {
      add({
        ...{ type: "summary", outcome: "completed", vm: "running on destination", totalMs: 10_000 },
        ...{ handedOverBytes: wireBytes, wireBytes, pages: NO_PAGES },
      });
    }
  }
  return writeRecord(entries).text;
}

/** A folder with these files, by their paths in it; gone when the test is over. */
export async function resultsFolder(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "deltavee-lab-results-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  }
  return folder;
}

/** Runs 1 to `gapsMs.length` of one setting, by file names. */
export function labRuns(
  experiment: string,
  gapsMs: readonly number[],
  options: LabRecordOptions = {},
): Record<string, string> {
  const { method = "vanilla", scenario = "writer", link, parameters = {} } = options.lab ?? {};
  const varied = Object.values(parameters).join("-");
  const name = [scenario, method, link?.bytesPerSecond ?? 12.5e6, varied].join("-");
  return Object.fromEntries(
    gapsMs.map((heartbeatGapMs, index) => [
      `${experiment}/${name}-${index + 1}.ndjson`,
      labRecord({
        ...options,
        lab: { ...options.lab, run: index + 1 },
        verdict: { ...options.verdict, metrics: { ...options.verdict?.metrics, heartbeatGapMs } },
      }),
    ]),
  );
}
