// Transactions as whoever asked for them saw them: how many, how long they took, and for how long there was none.
// Times are the caller's, of one clock.

import type { ClientSeries } from "../model.ts";
import { LatencyHistogram } from "./histogram.ts";
import { metricInPhase, Samples, spansOf, type Times, thinned } from "./phases.ts";
import type { Phase } from "./protocol.ts";

/** Points of the series of latencies before it is thinned out. */
const SLOWEST_STEP_MS = 100;

export class TransactionLog {
  readonly #phase: () => Phase;
  readonly #committed = new Samples();
  readonly #latencies: Record<Phase, LatencyHistogram> = {
    before: new LatencyHistogram(),
    during: new LatencyHistogram(),
    after: new LatencyHistogram(),
  };
  readonly #slowest = new Samples();
  #slowestMs = 0;
  #slowestSinceMs: number;
  #count = 0;
  #lastMs: number;
  #longestGapMs = 0;

  /** `phase`: of the migration, now. */
  constructor(phase: () => Phase, nowMs: number) {
    this.#phase = phase;
    this.#lastMs = nowMs;
    this.#slowestSinceMs = nowMs;
    this.#committed.push(nowMs, 0);
  }

  get count(): number {
    return this.#count;
  }

  get lastCommitMs(): number {
    return this.#lastMs;
  }

  committed(startedMs: number, endedMs: number): void {
    this.#count++;
    this.#committed.push(endedMs, this.#count);
    this.#latencies[this.#phase()].add(endedMs - startedMs);
    this.#noteGap(endedMs);
    this.#lastMs = endedMs;
    this.#slowestMs = Math.max(this.#slowestMs, endedMs - startedMs);
    if (endedMs - this.#slowestSinceMs >= SLOWEST_STEP_MS) {
      this.#slowest.push(endedMs, this.#slowestMs);
      [this.#slowestMs, this.#slowestSinceMs] = [0, endedMs];
    }
  }

  /** `throughput…`, `latencyMs99…` for each phase, and `serviceDownMs`: the longest time without a commit. */
  metrics(times: Times): Record<string, number> {
    const metrics: Record<string, number> = {};
    for (const [phase, span] of spansOf(times)) {
      const perSecond = this.#committed.ratePerSecond(span);
      if (perSecond !== undefined) metrics[metricInPhase("throughput", phase)] = perSecond;
      const latencyMs = this.#latencies[phase].percentileMs(0.99);
      if (latencyMs !== undefined) metrics[metricInPhase("latencyMs99", phase)] = latencyMs;
    }
    this.#noteGap(times.finishedMs);
    metrics.serviceDownMs = this.#longestGapMs;
    return metrics;
  }

  series(): ClientSeries[] {
    return [
      { name: "transactions per second", unit: "1/s", points: this.#committed.rates(undefined, 500) },
      {
        name: "slowest transaction",
        unit: "ms",
        points: thinned(this.#slowest.points, (values) => Math.max(...values)),
      },
    ];
  }

  /** What was before the migration is no interruption of it. */
  #noteGap(nowMs: number): void {
    if (this.#phase() !== "before") this.#longestGapMs = Math.max(this.#longestGapMs, nowMs - this.#lastMs);
  }
}
