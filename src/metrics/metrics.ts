// Run records as Prometheus metrics: everything is derived from their events, as they come. It knows nothing of HTTP,
// and nothing of a migration but its record. Counters of a record are cumulative for its run; here what each event adds
// goes to counters of the process. Labels have few values, whatever a record says: names of VMs are none unless asked
// for, and then only so many at a time.

import { collectDefaultMetrics, Registry } from "prom-client";
import type { CacheStats, PageClasses, Phase, RecordEvent } from "../record/schema.ts";
import { PAGE_BYTES, PAGE_CLASSES } from "../report/figures.ts";
import { type Instruments, makeInstruments } from "./instruments.ts";

/** VMs that are told apart at a time, where they are at all. Further ones are left out. */
export const VMS_MAX = 100;
/** Codes and subjects are our own, and few. Should they ever not be, the rest is "other". */
const VALUES_MAX = 64;
const VALUE = /^[A-Za-z][A-Za-z0-9_ -]{0,63}$/;
const OTHER = "other";

const OVER: ReadonlySet<Phase> = new Set(["completed", "failed", "cancelled"]);

type Side = "source" | "destination";
type EventOf<Type extends RecordEvent["type"]> = Extract<RecordEvent, { type: Type }>;

/** What was last heard of a run. */
interface Run {
  side: Side | undefined;
  phase: Phase | undefined;
  phaseAtMs: number;
  /** What counters of the process have of it already. */
  counted: Map<string, number>;
  sample: EventOf<"sample"> | undefined;
  forecastTotalMs: number | undefined;
  vm: string | undefined;
}

export interface MetricsOptions {
  readonly version: string;
  /** VMs are told apart by the names that `observe` is given. */
  readonly hasVmNames: boolean;
}

export interface ServiceWatch {
  /** Migrations that wait, whenever it is asked. */
  readonly queued: () => number;
  readonly linkLimitBytesPerSecond: number | undefined;
}

export class Metrics {
  readonly registry = new Registry();
  readonly #instruments: Instruments;
  readonly #options: MetricsOptions;
  /** Those that are not over. */
  readonly #runs = new Map<string, Run>();
  #queued: () => number = () => 0;
  #linkLimitBytesPerSecond: number | undefined;
  readonly #values = new Map<string, Set<string>>();

  constructor(options: MetricsOptions) {
    this.#options = options;
    this.#instruments = makeInstruments(this.registry);
    collectDefaultMetrics({ register: this.registry });
    this.#instruments.buildInfo.set({ version: options.version, node: process.versions.node }, 1);
  }

  /** In Prometheus's text format, whose media type is `registry.contentType`. */
  text(): Promise<string> {
    this.#setGauges();
    return this.registry.metrics();
  }

  /** What is so of the service beside its runs. */
  watchService({ queued, linkLimitBytesPerSecond }: ServiceWatch): void {
    this.#queued = queued;
    this.#linkLimitBytesPerSecond = linkLimitBytesPerSecond;
  }

  /** The next event of a run. `vm`: what the guest is called, where that is known. */
  observe(id: string, event: RecordEvent, vm?: string): void {
    const run = this.#runs.get(id) ?? this.#open(id, vm);
    const { notices, decisions, errors } = this.#instruments;
    switch (event.type) {
      case "run":
        run.side = event.side;
        this.#instruments.started.inc({ side: event.side, mode: event.mode });
        return;
      case "phase":
        this.#entered(run, event);
        return;
      case "sample":
        run.sample = event;
        this.#count(run, event);
        this.#add(run, "requested", event.requestedBytes ?? 0, (by) =>
          this.#instruments.requestedBytes.inc(by),
        );
        return;
      case "iteration":
        this.#countPages(run, event.pages);
        return;
      case "forecast":
        run.forecastTotalMs = event.totalMs.expected;
        return;
      case "link":
        this.#link(run, event);
        return;
      case "decision":
        decisions.inc({ subject: this.#bounded("subject", event.subject) });
        return;
      case "notice":
        notices.inc(sideOf(run));
        return;
      case "error":
        errors.inc({ code: this.#bounded("code", event.code) });
        return;
      case "summary":
        this.#summary(run, event);
        this.forget(id);
        return;
      // Nothing of ours: what the lab and the guest tell, and what a person reads.
      case "opaque":
      case "heartbeat":
      case "lab":
      case "client":
      case "usage":
      case "verdict":
        return;
    }
  }

  /** Nothing more comes of a run, whether it has told of its end or not. Idempotent. */
  forget(id: string): void {
    this.#runs.delete(id);
  }

  #open(id: string, vm: string | undefined): Run {
    const run: Run = {
      side: undefined,
      phase: undefined,
      phaseAtMs: 0,
      counted: new Map(),
      sample: undefined,
      forecastTotalMs: undefined,
      vm,
    };
    this.#runs.set(id, run);
    return run;
  }

  #entered(run: Run, { phase, atMs }: EventOf<"phase">): void {
    if (run.phase !== undefined && run.side !== undefined) {
      this.#instruments.phaseSeconds.observe(
        { side: run.side, phase: run.phase },
        (atMs - run.phaseAtMs) / 1000,
      );
    }
    run.phase = phase;
    run.phaseAtMs = atMs;
  }

  #count(
    run: Run,
    event: {
      handedOverBytes: number;
      wireBytes: number;
      pages: PageClasses;
      cache?: CacheStats | undefined;
    },
  ): void {
    const { handedOverBytes, wireBytes, cacheHits, cacheMisses, cacheEvictions } = this.#instruments;
    this.#add(run, "handed over", event.handedOverBytes, (by) => handedOverBytes.inc(sideOf(run), by));
    this.#add(run, "wire", event.wireBytes, (by) => wireBytes.inc(sideOf(run), by));
    this.#countPages(run, event.pages);
    const { cache } = event;
    if (cache === undefined) return;
    this.#add(run, "hits", cache.hits, (by) => cacheHits.inc(by));
    this.#add(run, "misses", cache.misses, (by) => cacheMisses.inc(by));
    this.#add(run, "evictions", cache.evictions, (by) => cacheEvictions.inc(by));
  }

  #countPages(run: Run, pages: PageClasses): void {
    const { guestPages, guestBytes, deltaBytes } = this.#instruments;
    for (const name of PAGE_CLASSES) {
      this.#add(run, name, pages[`${name}Pages`], (by) => {
        guestPages.inc({ class: name }, by);
        guestBytes.inc({ class: name }, by * PAGE_BYTES);
      });
    }
    this.#add(run, "delta bytes", pages.deltaBytes, (by) => deltaBytes.inc(by));
  }

  /** `total` of the run so far; what it is more than before is added. */
  #add(run: Run, name: string, total: number, add: (by: number) => void): void {
    const by = total - (run.counted.get(name) ?? 0);
    if (by <= 0) return;
    run.counted.set(name, total);
    add(by);
  }

  #link(run: Run, { state, outageMs, resentBytes }: EventOf<"link">): void {
    const { linkLosses, linkOutageSeconds, resentBytes: resent } = this.#instruments;
    if (state === "lost") linkLosses.inc(sideOf(run));
    if (outageMs !== undefined) linkOutageSeconds.observe(sideOf(run), outageMs / 1000);
    if (resentBytes !== undefined) resent.inc(sideOf(run), resentBytes);
  }

  #summary(run: Run, event: EventOf<"summary">): void {
    this.#count(run, event);
    this.#add(run, "requested", event.requestedBytes ?? 0, (by) => this.#instruments.requestedBytes.inc(by));
    const { outcome, totalMs, downtimeMs, forecastDowntimeMs, iterations } = event;
    const {
      ended,
      durationSeconds,
      downtimeSeconds,
      downtimeForecastErrorSeconds,
      durationForecastErrorRatio,
      iterations: iterationsTaken,
      wireRatio,
    } = this.#instruments;
    ended.inc({ ...sideOf(run), outcome });
    durationSeconds.observe({ ...sideOf(run), outcome }, totalMs / 1000);
    if (outcome !== "completed") return;
    if (downtimeMs !== undefined) downtimeSeconds.observe(sideOf(run), downtimeMs / 1000);
    if (downtimeMs !== undefined && forecastDowntimeMs !== undefined) {
      const errorMs = downtimeMs - forecastDowntimeMs;
      downtimeForecastErrorSeconds.observe(
        { actual: errorMs >= 0 ? "longer" : "shorter" },
        Math.abs(errorMs) / 1000,
      );
    }
    const expectedMs = run.forecastTotalMs;
    if (expectedMs !== undefined && expectedMs > 0) {
      const error = totalMs / expectedMs - 1;
      durationForecastErrorRatio.observe({ actual: error >= 0 ? "longer" : "shorter" }, Math.abs(error));
    }
    if (iterations !== undefined) iterationsTaken.observe(sideOf(run), iterations);
    if (run.side === "source" && event.handedOverBytes > 0) {
      wireRatio.observe(event.wireBytes / event.handedOverBytes);
    }
  }

  /** What holds at this moment, of all runs that are not over. */
  #setGauges(): void {
    const of = this.#instruments;
    of.queued.set(this.#queued());
    if (this.#linkLimitBytesPerSecond === undefined) of.linkLimitBytesPerSecond.remove();
    else of.linkLimitBytesPerSecond.set(this.#linkLimitBytesPerSecond);
    for (const gauge of [of.running, of.linkBytesPerSecond, of.inFlightBytes]) gauge.reset();
    for (const gauge of [of.vmWireBytes, of.vmRemainingBytes, of.vmForecastDowntimeSeconds]) gauge.reset();
    const total = { cache: 0, cacheLimit: 0, remaining: 0, dirty: 0, roundTripMs: 0 };
    let vms = 0;
    for (const run of this.#runs.values()) {
      if (run.side !== undefined && run.phase !== undefined && !OVER.has(run.phase)) {
        of.running.inc({ side: run.side, phase: run.phase });
      }
      const { sample } = run;
      if (sample === undefined) continue;
      of.linkBytesPerSecond.inc(sideOf(run), sample.linkBytesPerSecond);
      of.inFlightBytes.inc(sideOf(run), sample.inFlightBytes);
      total.cache += sample.cache?.usedBytes ?? 0;
      total.cacheLimit += sample.cache?.limitBytes ?? 0;
      total.remaining += sample.remainingBytes ?? 0;
      total.dirty += sample.dirtyPagesPerSecond ?? 0;
      total.roundTripMs = Math.max(total.roundTripMs, sample.roundTripMs ?? 0);
      if (this.#options.hasVmNames && run.vm !== undefined && vms++ < VMS_MAX) {
        this.#setVmGauges(run.vm, sample);
      }
    }
    of.cacheBytes.set(total.cache);
    of.cacheLimitBytes.set(total.cacheLimit);
    of.remainingBytes.set(total.remaining);
    of.dirtyPagesPerSecond.set(total.dirty);
    of.roundTripSeconds.set(total.roundTripMs / 1000);
  }

  #setVmGauges(vm: string, sample: EventOf<"sample">): void {
    const { vmWireBytes, vmRemainingBytes, vmForecastDowntimeSeconds } = this.#instruments;
    const { wireBytes, remainingBytes, forecastDowntimeMs } = sample;
    vmWireBytes.set({ vm }, wireBytes);
    if (remainingBytes !== undefined) vmRemainingBytes.set({ vm }, remainingBytes);
    if (forecastDowntimeMs !== undefined) vmForecastDowntimeSeconds.set({ vm }, forecastDowntimeMs / 1000);
  }

  #bounded(label: string, value: string): string {
    const known = this.#values.get(label) ?? new Set();
    this.#values.set(label, known);
    if (known.has(value)) return value;
    if (known.size === VALUES_MAX || !VALUE.test(value)) return OTHER;
    known.add(value);
    return value;
  }
}

/** A run says which side it is with its first event; what comes before is not known to be of any. */
function sideOf({ side }: Run): { side: Side | "unknown" } {
  return { side: side ?? "unknown" };
}
