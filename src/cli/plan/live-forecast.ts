// The forecast of a migration that has just begun: its guest is sampled in a thread of its own while the first pass is
// under way, the link is as the migration itself has measured it by then. Said once, in the record; how it came out in
// truth is told at the end. A migration that will be over soon is its own forecast: looking at it would hold it up.

import { Worker } from "node:worker_threads";
import { toError } from "../../base/errors.ts";
import { workerLocation } from "../../base/worker-location.ts";
import type { GuestMemoryPlace } from "../../hypervisor/qemu/guest-memory.ts";
import type { planMigration } from "../../planner/forecast.ts";
import type { GuestModel } from "../../planner/guest-model.ts";
import type { RecordEntry, RecordEvent } from "../../record/schema.ts";
import type { SampleWorkerData } from "./sample-worker.ts";

/** So much of a migration says how long the rest of it will take; and a rest shorter than the other is not forecast. */
const PACE_MS = 500;
const REST_MS_MIN = 5000;
/** Less than for a plan: the migration needs the same cores. */
const SAMPLE_PAGES = 2048;
const SPAN_MS = 800;

export interface LiveForecastOptions {
  readonly method: "direct" | "tunnel";
  readonly downtimeMsMax: number;
  readonly cacheBytes: number;
  readonly record: { add(entry: RecordEntry): void };
  /** Resolves to the model, undefined when it was told to stop before. */
  readonly sample: (signal: AbortSignal) => Promise<GuestModel | undefined>;
}

type SampleEvent = Extract<RecordEvent, { type: "sample" }>;

interface Link {
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
}

export class LiveForecast {
  readonly #options: LiveForecastOptions;
  readonly #stop = new AbortController();
  /** The first that was heard of what is to be moved. */
  #from: { atMs: number; remainingBytes: number } | undefined;
  #isSampled = false;
  #planMigration: typeof planMigration | undefined;
  #model: GuestModel | undefined;
  #link: Link | undefined;
  #isOver = false;

  constructor(options: LiveForecastOptions) {
    this.#options = options;
  }

  /** Hears of what the migration measures. */
  readonly listener = (event: RecordEvent): void => {
    // What comes after it is no forecast.
    if (event.type === "summary") this.end();
    if (event.type !== "sample") return;
    if (!this.#isOver && !this.#isSampled && this.#lasts(event)) {
      this.#isSampled = true;
      void this.#sample();
    }
    if (event.linkBytesPerSecond === 0) return;
    this.#link = { bytesPerSecond: event.linkBytesPerSecond, roundTripMs: event.roundTripMs ?? 0 };
    // Not from within the record's own telling of this event.
    queueMicrotask(() => this.#say());
  };

  /** The migration is over. Idempotent. */
  end(): void {
    this.#isOver = true;
    this.#stop.abort();
  }

  /** At the pace so far, which is none where more is dirtied than is sent. */
  #lasts({ atMs, remainingBytes = Number.POSITIVE_INFINITY }: SampleEvent): boolean {
    this.#from ??= { atMs, remainingBytes };
    const elapsedMs = atMs - this.#from.atMs;
    if (elapsedMs < PACE_MS) return false;
    const movedBytes = this.#from.remainingBytes - remainingBytes;
    return !(movedBytes > 0) || (remainingBytes / movedBytes) * elapsedMs >= REST_MS_MIN;
  }

  async #sample(): Promise<void> {
    try {
      // With all that it needs, it is loaded only where there is something to forecast.
      this.#planMigration = (await import("../../planner/forecast.ts")).planMigration;
      this.#model = await this.#options.sample(this.#stop.signal);
    } catch (thrown) {
      if (!this.#isOver) this.#sayWhyNot(thrown);
      return;
    }
    this.#say();
  }

  #say(): void {
    if (this.#isOver || this.#model === undefined || this.#link === undefined) return;
    this.#isOver = true;
    // Nobody is there to catch it, and a migration is not to end for what was expected of it.
    try {
      this.#forecast(this.#model, this.#link);
    } catch (thrown) {
      this.#sayWhyNot(thrown);
    }
  }

  #sayWhyNot(thrown: unknown): void {
    this.#options.record.add({ type: "notice", message: `No forecast: ${toError(thrown).message}` });
  }

  #forecast(guest: GuestModel, { bytesPerSecond, roundTripMs }: Link): void {
    const { method, downtimeMsMax, cacheBytes, record } = this.#options;
    const { forecasts, reason } = this.#planMigration!({
      guest,
      link: { bytesPerSecond, roundTripMs, lossShare: 0 },
      downtimeMsMax,
      cacheBytes,
      methods: [method],
    });
    const { converges, totalMs, downtimeMs, wireBytes } = forecasts[0]!;
    record.add({
      ...{ type: "forecast", method, converges, totalMs, downtimeMs, wireBytes, reason },
      ...{ linkBytesPerSecond: bytesPerSecond, roundTripMs },
    });
  }
}

/** In a thread of its own. */
export function sampleInWorker(
  place: GuestMemoryPlace,
  signal: AbortSignal,
): Promise<GuestModel | undefined> {
  if (signal.aborted) return Promise.resolve(undefined);
  const workerData: SampleWorkerData = { place, samplePages: SAMPLE_PAGES, spanMs: SPAN_MS };
  const worker = new Worker(workerLocation("cli/plan/sample-worker"), { workerData });
  worker.unref();
  return new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
    signal.addEventListener("abort", () => {
      void worker.terminate();
      resolve(undefined);
    });
  });
}
