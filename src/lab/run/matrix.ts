// Many runs, one after the other: those whose record is there are left out, a run that fails is written down and the
// next one begins. Says at every step how far it is and how long the rest will take. Knows nothing of how a run is made.

import { formatBytes } from "../../base/units.ts";
import type { FinishedRun } from "./one-run.ts";
import type { RunPlan } from "./plan.ts";
import type { ResultStore } from "./store.ts";
import type { Verdict } from "./verdict.ts";

export type MatrixEvent =
  | {
      readonly type: "matrix";
      /** In all, with those that were made before. */
      readonly runs: number;
      readonly madeBefore: number;
      readonly failedBefore: number;
      readonly leftMs: number;
    }
  | {
      readonly type: "run-begins";
      readonly index: number;
      readonly of: number;
      readonly plan: RunPlan;
      readonly leftMs: number;
    }
  | {
      readonly type: "run-ended";
      readonly index: number;
      readonly of: number;
      readonly plan: RunPlan;
      readonly verdict: Verdict;
      readonly elapsedMs: number;
      readonly leftMs: number;
      readonly record: string;
    };

export interface MatrixOptions {
  readonly plans: readonly RunPlan[];
  readonly store: Pick<ResultStore, "path" | "state" | "write">;
  readonly runOnce: (plan: RunPlan) => Promise<FinishedRun>;
  readonly on: (event: MatrixEvent) => void;
  readonly nowMs: () => number;
}

export interface MatrixResult {
  readonly made: number;
  /** Of those that were made now: whose users would not call it good. */
  readonly failed: number;
  /** Of those: which could not be made, or whose migration itself failed, rather than not converging. */
  readonly broken: number;
}

/** @throws what `runOnce` throws: an interruption; records of runs before are kept */
export async function runMatrix({ plans, store, runOnce, on, nowMs }: MatrixOptions): Promise<MatrixResult> {
  // Before anything is run: a record of another setting is found now, not after hours.
  const states = plans.map((plan) => store.state(plan));
  const left = plans.filter((_plan, index) => states[index] === "missing");
  const estimate = new Estimate(left);
  on({
    type: "matrix",
    runs: plans.length,
    madeBefore: plans.length - left.length,
    failedBefore: states.filter((state) => state === "failed").length,
    leftMs: estimate.leftMs,
  });
  let [failed, broken] = [0, 0];
  for (const plan of left) {
    const position = { index: plans.indexOf(plan) + 1, of: plans.length, plan };
    on({ type: "run-begins", ...position, leftMs: estimate.leftMs });
    const startMs = nowMs();
    const finished = await runOnce(plan);
    await store.write(plan, finished);
    const elapsedMs = nowMs() - startMs;
    estimate.took(plan, elapsedMs);
    const { verdict } = finished;
    if (!verdict.succeeded) failed++;
    const last = finished.entries.at(-1)?.entry;
    if (last?.type === "summary" && last.outcome === "failed") broken++;
    on({
      type: "run-ended",
      ...position,
      ...{ verdict, elapsedMs, leftMs: estimate.leftMs, record: store.path(plan) },
    });
  }
  return { made: left.length, failed, broken };
}

/** Hosts set up, a warm state loaded, clients steady, and everything taken down again (measured: 10 to 30 s). */
const OVERHEAD_MS = 20_000;
/** What is not zero of the RAM of a guest that has just been warmed up (measured: 0.1 to 0.5). */
const FILLED_SHARE = 0.3;

/** Before anything is known of it: what the first pass takes, and as long again. */
export function estimateMs({ setting, beforeMs, afterMs, limitMs }: RunPlan): number {
  const { guest, link } = setting;
  const firstPassMs = ((guest.memoryMiB * 1024 ** 2 * FILLED_SHARE) / link.bytesPerSecond) * 1000;
  return OVERHEAD_MS + beforeMs + afterMs + Math.min(limitMs, 2 * firstPassMs);
}

/** How long is left, by what runs have taken so far against what was thought of them. */
class Estimate {
  readonly #left: Set<RunPlan>;
  #thoughtMs = 0;
  #tookMs = 0;

  constructor(plans: readonly RunPlan[]) {
    this.#left = new Set(plans);
  }

  took(plan: RunPlan, elapsedMs: number): void {
    this.#left.delete(plan);
    this.#thoughtMs += estimateMs(plan);
    this.#tookMs += elapsedMs;
  }

  get leftMs(): number {
    const thoughtMs = [...this.#left].reduce((sum, plan) => sum + estimateMs(plan), 0);
    return this.#thoughtMs === 0 ? thoughtMs : (thoughtMs * this.#tookMs) / this.#thoughtMs;
  }
}

/** "arrived after 12.3 s, heartbeat gap 240 ms, 120.1 MB". */
export function verdictLine({ succeeded, forced, converged, failures, metrics }: Verdict): string {
  const { totalMs, heartbeatGapMs, wireBytes } = metrics;
  const how = converged ? "converged" : forced ? "forced to its end" : "did not arrive";
  return [
    succeeded ? how : `FAILED, ${how}`,
    ...(totalMs === undefined ? [] : [`after ${(totalMs / 1000).toFixed(1)} s`]),
    ...(heartbeatGapMs === undefined ? [] : [`heartbeat gap ${Math.round(heartbeatGapMs)} ms`]),
    ...(wireBytes === undefined ? [] : [formatBytes(wireBytes)]),
    ...failures,
  ].join(", ");
}
