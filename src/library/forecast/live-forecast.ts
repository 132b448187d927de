// The forecast of a migration that has just begun: its guest is sampled, and the forecast computed, in a thread of its own
// while the first pass is under way; the link is as the migration itself has measured it by then. Said once, in the
// record; how it came out in truth is told at the end. A migration that will be over soon is its own forecast: looking at
// it would hold it up.

import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { toError } from "../../base/errors.ts";
import { workerLocation } from "../../base/worker-location.ts";
import type { GuestMemoryPlace } from "../../hypervisor/qemu/guest-memory.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import type { Plan } from "../../planner/forecast.ts";
import { type GuestModel, roundedModel } from "../../record/guest-model.ts";
import type { RecordEntry, RecordEvent } from "../../record/schema.ts";
import type { SampledGuest, Sampler } from "../guest.ts";
import { serveMemory } from "./remote-memory.ts";
import type { SampleWorkerData, SampleWorkerMessage } from "./sample-worker.ts";

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
  readonly sample: Sampler;
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
  /** Since then so much was sent; the pace is that of one such piece of time after the other. */
  #lately: { readonly atMs: number; remainingBytes: number; sentBytes: number } | undefined;
  #isSampled = false;
  #guest: SampledGuest | undefined;
  #link: Link | undefined;
  #isOver = false;
  #isSaid = false;

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

  #lasts(event: SampleEvent): boolean {
    // Both are to hear of it.
    const [onTheWhole, atPresent] = [this.#lastsOnTheWhole(event), this.#lastsAtPresent(event)];
    return onTheWhole || atPresent;
  }

  /** At the pace so far, which is none where more is dirtied than is sent. */
  #lastsOnTheWhole({ atMs, remainingBytes = Number.POSITIVE_INFINITY }: SampleEvent): boolean {
    this.#from ??= { atMs, remainingBytes };
    const elapsedMs = atMs - this.#from.atMs;
    if (elapsedMs < PACE_MS) return false;
    const movedBytes = this.#from.remainingBytes - remainingBytes;
    return !(movedBytes > 0) || (remainingBytes / movedBytes) * elapsedMs >= REST_MS_MIN;
  }

  /** At the pace of late: zero pages go fast, and where they come first say nothing of the others. */
  #lastsAtPresent({ atMs, remainingBytes = Number.POSITIVE_INFINITY }: SampleEvent): boolean {
    const lately = this.#lately ?? { atMs, remainingBytes, sentBytes: 0 };
    this.#lately = lately;
    // What is found dirty anew was not unsent.
    lately.sentBytes += Math.max(0, lately.remainingBytes - remainingBytes);
    lately.remainingBytes = remainingBytes;
    const elapsedMs = atMs - lately.atMs;
    if (elapsedMs < PACE_MS) return false;
    this.#lately = undefined;
    return lately.sentBytes > 0 && (remainingBytes / lately.sentBytes) * elapsedMs >= REST_MS_MIN;
  }

  async #sample(): Promise<void> {
    try {
      this.#guest = await this.#options.sample(this.#stop.signal);
    } catch (thrown) {
      if (!this.#isOver) this.#sayWhyNot(thrown);
      return;
    }
    this.#say();
  }

  #say(): void {
    if (this.#isOver || this.#isSaid || this.#guest === undefined || this.#link === undefined) return;
    this.#isSaid = true;
    // Nobody is there to catch it, and a migration is not to end for what was expected of it.
    this.#forecast(this.#guest, this.#link).catch((thrown) => {
      if (!this.#isOver) this.#sayWhyNot(thrown);
    });
  }

  #sayWhyNot(thrown: unknown): void {
    this.#options.record.add({ type: "notice", message: `No forecast: ${toError(thrown).message}` });
  }

  async #forecast(guest: SampledGuest, { bytesPerSecond, roundTripMs }: Link): Promise<void> {
    const { method, downtimeMsMax, cacheBytes, record } = this.#options;
    const lossShare = 0;
    const { forecasts, reason } = await guest.plan({
      link: { bytesPerSecond, roundTripMs, lossShare },
      downtimeMsMax,
      cacheBytes,
      methods: [method],
    });
    // It has come to its end meanwhile: that was no forecast.
    if (this.#isOver) return;
    const { converges, totalMs, downtimeMs, wireBytes } = forecasts[0]!;
    record.add({
      ...{ type: "forecast", method, converges, totalMs, downtimeMs, wireBytes, reason },
      ...{ linkBytesPerSecond: bytesPerSecond, roundTripMs },
      basis: { guest: roundedModel(guest.model), lossShare, downtimeMsMax, cacheBytes },
    });
    this.end();
  }
}

/** In a thread of its own, which reads the memory of another process. */
export function sampleInWorker(place: GuestMemoryPlace): Sampler {
  return (signal) => sampledIn(startWorker(place), signal);
}

/** In a thread of its own, to which this one gives the pages that it asks for. */
export function sampleOursInWorker(memory: GuestMemory): Sampler {
  return (signal) => {
    const { port1, port2 } = new MessageChannel();
    serveMemory(memory, port1);
    const { pageBytes, pageCount } = memory;
    const worker = startWorker({ pageBytes, pageCount, port: port2 }, [port2]);
    worker.once("exit", () => port1.close());
    return sampledIn(worker, signal);
  };
}

function startWorker(place: SampleWorkerData["place"], transferList: MessagePort[] = []): Worker {
  const workerData: SampleWorkerData = { place, how: { samplePages: SAMPLE_PAGES, spanMs: SPAN_MS } };
  const worker = new Worker(workerLocation("library/forecast/sample-worker"), { workerData, transferList });
  worker.unref();
  return worker;
}

/** The worker is there until it is told to stop. */
async function sampledIn(worker: Worker, signal: AbortSignal): Promise<SampledGuest | undefined> {
  /** The next that it says, or why it will not. */
  const heard = <Answer>() =>
    new Promise<Answer | undefined>((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
      worker.once("exit", () => resolve(undefined));
    });
  // Not terminate(): a thread that is ended from outside while it reads its modules leaves their files open (Node 20).
  signal.addEventListener("abort", () => worker.postMessage("end" satisfies SampleWorkerMessage));
  const model = await heard<GuestModel>();
  if (model === undefined) return undefined;
  return {
    model,
    plan: async (question) => {
      worker.postMessage(question satisfies SampleWorkerMessage);
      const plan = await heard<Plan>();
      if (plan === undefined) throw new Error("the thread that plans has ended");
      return plan;
    },
  };
}
