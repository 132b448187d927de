// How a run is judged, from what was seen of it: the figures that every run has, and whether its users would call the
// migration good. Pure.

import type { RecordEntry, RecordEvent } from "../../record/schema.ts";
import type { MigrationEnd } from "../method/method.ts";
import type { ClientView } from "../model.ts";
import type { WireBytes } from "./opened-stage.ts";
import type { Usage } from "./usage-watch.ts";

export type Verdict = Omit<Extract<RecordEvent, { type: "verdict" }>, "atMs">;

export interface Seen {
  /** Undefined: the migration failed, or was never begun. */
  readonly end: MigrationEnd | undefined;
  /** From the command to the guest running at the destination. */
  readonly totalMs: number | undefined;
  /** From the command until the method was done with it. */
  readonly migrationMs: number | undefined;
  readonly downtimeMsReported: number | undefined;
  readonly iterations: number | undefined;
  readonly wire: WireBytes | undefined;
  readonly usages: readonly Usage[];
  /** Samples and iterations, whoever told them. */
  readonly entries: readonly RecordEntry[];
  readonly heartbeat: ClientView | undefined;
  readonly clients: ClientView | undefined;
  /** What went wrong besides what clients say, in words. */
  readonly failures: readonly string[];
}

export function judge(seen: Seen): Verdict {
  const { end, heartbeat, clients } = seen;
  const arrived = end?.arrived ?? false;
  const forced = arrived && end?.forcedAtMs !== undefined;
  const failures = [...seen.failures, ...(heartbeat?.failures ?? []), ...(clients?.failures ?? [])];
  const metrics: Record<string, number> = {};
  const put = (name: string, value: number | undefined) => {
    // What could not be measured is left out.
    if (value !== undefined && Number.isFinite(value)) metrics[name] = value;
  };
  if (arrived) {
    put("totalMs", seen.totalMs);
    put("downtimeMsReported", seen.downtimeMsReported);
    put("heartbeatGapMs", heartbeat?.metrics.heartbeatGapMs);
    put("heartbeatsLost", heartbeat?.metrics.heartbeatsLost);
  }
  put("heartbeatGapMsBefore", heartbeat?.metrics.heartbeatGapMsBefore);
  put("migrationMs", seen.migrationMs);
  put("forcedAtMs", end?.forcedAtMs);
  put("wireBytes", seen.wire?.bySource);
  put("wireBytesBack", seen.wire?.byDestination);
  put("dirtyPagesPerSecond", dirtyPagesPerSecond(seen.entries));
  put("iterations", seen.iterations ?? iterationsOf(seen.entries));
  put("slowdownShare", slowdownShare(clients) ?? heartbeat?.metrics.slowdownShare);
  for (const side of ["source", "destination"] as const) {
    const usages = seen.usages.filter((usage) => usage.side === side);
    if (usages.length === 0) continue;
    put(`${side}CpuMs`, sum(usages.map(({ cpuMs }) => cpuMs)));
    put(`${side}ResidentBytesMax`, sum(usages.map(({ residentBytesMax }) => residentBytesMax)));
  }
  for (const [name, value] of Object.entries(clients?.metrics ?? {})) put(name, value);
  return {
    type: "verdict",
    converged: arrived && !forced,
    forced,
    succeeded: arrived && failures.length === 0,
    failures,
    metrics,
  };
}

/** In the middle of what was told of it while iterations went on; what is told in the first pass is no rate yet. */
function dirtyPagesPerSecond(entries: readonly RecordEntry[]): number | undefined {
  const rates = entries
    .flatMap((entry) =>
      entry.type === "sample" && (entry.iteration ?? 0) >= 1 ? [entry.dirtyPagesPerSecond ?? 0] : [],
    )
    .filter((rate) => rate > 0)
    .sort((one, other) => one - other);
  return rates.length === 0 ? undefined : rates[Math.floor(rates.length / 2)];
}

function iterationsOf(entries: readonly RecordEntry[]): number | undefined {
  const iterations = entries.flatMap((entry) =>
    entry.type === "sample" && entry.iteration !== undefined ? [entry.iteration + 1] : [],
  );
  return iterations.length === 0 ? undefined : Math.max(...iterations);
}

/** How much of its speed the guest has lost while it was moved. */
function slowdownShare(view: ClientView | undefined): number | undefined {
  const { throughputBefore: before, throughputDuring: during } = view?.metrics ?? {};
  return before === undefined || during === undefined || before <= 0 ? undefined : 1 - during / before;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
