// One migration on a virtual clock: a guest model moved by a method over a link. Pages flow as numbers, iteration by
// iteration, so that a guest of 1 TiB costs no more than a small one. When Deltavee would stop the guest is asked of the
// engine's own judge (engine/switchover.ts); QEMU's own methods go by QEMU's rule. Deterministic.

import { assert } from "../base/assert.ts";
import {
  estimateDowntimeMs,
  remainingBytesFor,
  type SwitchoverFigures,
  SwitchoverJudge,
} from "../engine/switchover.ts";
import {
  DEVICE_STATE_BYTES,
  DEVICE_STATE_RATIO_TUNNEL,
  ROUND_TRIPS,
  STANDSTILL_MS_MIN,
} from "../engine/switchover-control.ts";
import { changedPages, deltaSizeAfter, type GuestModel } from "./guest-model.ts";
import { METHODS, type MethodModel, type MethodName, type PageCost } from "./methods.ts";

export interface MigrationOptions {
  readonly guest: GuestModel;
  readonly method: MethodName;
  readonly roundTripMs: number;
  readonly downtimeMsMax: number;
  /** Page cache of delta methods; all of RAM unless told otherwise. */
  readonly cacheBytes?: number;
}

export interface MigrationOutcome {
  /** Ended by itself, the guest standing still no longer than asked. */
  readonly converges: boolean;
  /** From the first byte to the guest running at the destination (post-copy: to the last page). */
  readonly totalMs: number;
  /** If it does not converge: of a guest that is stopped all the same, when it was given up. */
  readonly downtimeMs: number;
  readonly wireBytes: number;
  /** At the source, all processes together, without the guest's own. */
  readonly cpuMs: number;
  readonly iterations: number;
}

/**
 * As often as the engine looks; of an iteration that takes minutes or months, at this share of what is left of it, or a
 * large guest over a slow link would be looked at millions of times.
 */
const LOOK_EVERY_MS = 50;
const LOOK_EVERY_SHARE = 0.001;
/** To find the dirty pages: a bitmap of the guest's RAM, and the turn of QEMU's loop. */
const SYNC_MS_PER_GIB = 0.03;
const SYNC_MS_MIN = 1;
/** No progress for as long as that, this share of the time so far, and so many iterations, is none to be expected. */
const STALLED_ITERATIONS = 3;
const STALLED_MS = 20_000;
const STALLED_SHARE = 0.25;
const PROGRESS_SHARE = 0.03;
/** What is under way to a destination, as engine/window.ts bounds it. */
const WINDOW_MS = 20;
/** QEMU's auto-converge, by default: throttle-trigger-threshold, cpu-throttle-initial, -increment, max-cpu-throttle. */
const THROTTLE = { triggerShare: 0.5, initial: 0.2, increment: 0.1, max: 0.99 } as const;
/** What is written again with the same content is about the same pages every second. */
const REWRITTEN_MS_MAX = 1000;

export class MigrationSimulation {
  readonly #options: MigrationOptions;
  readonly #method: MethodModel;
  readonly #judge: SwitchoverJudge;
  readonly #cached: number;
  readonly #syncMs: number;
  #nowMs = 0;
  #iteration = 0;
  /** Since QEMU has last looked for dirty pages, and when that was. */
  #sinceSyncMs = 0;
  #syncedMs = 0;
  /** Of this iteration: pages still to be sent, and what one costs. */
  #leftPages: number;
  #cost: PageCost;
  #sentThisIteration = 0;
  #wireBytes = 0;
  #cpuMs = 0;
  #throttle = 0;
  #dirtyTooFast = 0;
  #isPostcopy = false;
  #postcopyDowntimeMs = 0;
  /** The least that was left to be sent at the end of an iteration, and when. */
  #bestPages = Number.POSITIVE_INFINITY;
  #bestMs = 0;
  #bestIteration = 0;
  #outcome: MigrationOutcome | undefined;

  constructor(options: MigrationOptions, bytesPerSecond: number) {
    this.#options = options;
    this.#method = METHODS[options.method];
    this.#judge = new SwitchoverJudge(options.downtimeMsMax, 0);
    const { guest } = options;
    const livePages = guest.rateClasses.reduce(
      (sum, { pages, changesPerSecond }) => sum + (changesPerSecond > 0 ? pages : 0),
      0,
    );
    const cachePages = (options.cacheBytes ?? Number.POSITIVE_INFINITY) / guest.pageBytes;
    this.#cached = livePages === 0 ? 1 : Math.min(1, cachePages / livePages);
    this.#syncMs = SYNC_MS_MIN + (SYNC_MS_PER_GIB * guest.pages * guest.pageBytes) / 2 ** 30;
    this.#leftPages = guest.pages;
    this.#cost = mean([
      [guest.zeroPages, this.#method.zero()],
      [guest.pages - guest.zeroPages, this.#method.first(guest, bytesPerSecond)],
    ]);
  }

  /** Undefined while it goes on. */
  get outcome(): MigrationOutcome | undefined {
    return this.#outcome;
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  /** Lets `ms` pass on a link that carries so much for this migration. Returns what it did not need of that time. */
  advance(ms: number, bytesPerSecond: number): number {
    assert(bytesPerSecond > 0, "a link that carries nothing moves nothing");
    let leftMs = ms;
    while (leftMs > 0 && this.#outcome === undefined) leftMs -= this.#step(leftMs, bytesPerSecond);
    return leftMs;
  }

  #step(msMax: number, bytesPerSecond: number): number {
    const pagesPerMs = this.#pagesPerMs(bytesPerSecond);
    const untilDoneMs = this.#leftPages / pagesPerMs;
    const lookMs = Math.max(LOOK_EVERY_MS, untilDoneMs * LOOK_EVERY_SHARE);
    const stepMs = Math.min(msMax, this.#iteration === 0 ? untilDoneMs : lookMs, untilDoneMs);
    this.#send(stepMs * pagesPerMs);
    this.#pass(stepMs);
    if (this.#isPostcopy) {
      if (this.#leftPages <= 1e-6) this.#end(true, this.#postcopyDowntimeMs, 0);
      return stepMs;
    }
    if (this.#leftPages > 1e-6) {
      if (this.#iteration > 0 && this.#method.switchover === "judge") {
        this.#judge.judge(this.#figures(this.#leftPages + this.#dirtyPages(), bytesPerSecond), this.#nowMs);
      }
      return stepMs;
    }
    this.#pass(this.#syncMs);
    this.#sync(bytesPerSecond);
    return stepMs + this.#syncMs;
  }

  #pagesPerMs(bytesPerSecond: number): number {
    const { wireBytes, cpuMs } = this.#cost;
    const byLink = wireBytes === 0 ? Number.POSITIVE_INFINITY : bytesPerSecond / 1000 / wireBytes;
    return Math.min(byLink, this.#method.cores / cpuMs);
  }

  #send(pages: number): void {
    this.#leftPages -= pages;
    this.#sentThisIteration += pages * this.#cost.wireBytes;
    this.#wireBytes += pages * this.#cost.wireBytes;
    this.#cpuMs += pages * this.#cost.cpuMs;
  }

  #pass(ms: number): void {
    this.#nowMs += ms;
    this.#sinceSyncMs += ms;
  }

  #changed(): number {
    return changedPages(this.#options.guest, this.#sinceSyncMs * (1 - this.#throttle));
  }

  #rewritten(): number {
    const { rewrittenPagesPerSecond } = this.#options.guest;
    const ms = Math.min(REWRITTEN_MS_MAX, this.#sinceSyncMs);
    return (rewrittenPagesPerSecond * (1 - this.#throttle) * ms) / 1000;
  }

  #dirtyPages(): number {
    return this.#changed() + this.#rewritten();
  }

  /** All pages of an iteration are sent: the hypervisor looks which are dirty, and it is decided whether to stop. */
  #sync(bytesPerSecond: number): void {
    const { guest, downtimeMsMax } = this.#options;
    const [changed, rewritten] = [this.#changed(), this.#rewritten()];
    const dirty = changed + rewritten;
    if (dirty > 0) {
      const size = deltaSizeAfter(guest, this.#sinceSyncMs);
      const cached = this.#cached * this.#knownShare();
      this.#cost = mean([
        [changed, this.#method.changed(guest, size, cached)],
        [rewritten, this.#method.rewritten(guest, cached)],
      ]);
    }
    const figures = this.#figures(dirty, bytesPerSecond);
    const dirtyBytes = dirty * guest.pageBytes;
    if (this.#method.postcopy) {
      this.#postcopyDowntimeMs = estimateDowntimeMs({ ...figures, remainingBytes: 0 });
      this.#isPostcopy = true;
    } else if (dirtyBytes <= this.#affordableBytes(figures, bytesPerSecond)) {
      const downtimeMs = estimateDowntimeMs(figures);
      this.#wireBytes += dirty * this.#cost.wireBytes;
      this.#end(downtimeMs <= downtimeMsMax * 1.001, downtimeMs, downtimeMs);
      return;
    } else {
      this.#watchProgress(dirty, estimateDowntimeMs(figures));
      this.#adaptThrottle(dirtyBytes);
    }
    this.#iteration++;
    this.#syncedMs = this.#nowMs;
    this.#sentThisIteration = 0;
    this.#sinceSyncMs = 0;
    this.#leftPages = dirty;
    if (this.#isPostcopy && dirty === 0) this.#end(true, this.#postcopyDowntimeMs, 0);
  }

  /** Of the pages that are dirty now: those that were sent before in a way that has put them into the cache. */
  #knownShare(): number {
    if (this.#method.cachesFirstPass) return 1;
    let [dirty, known] = [0, 0];
    for (const { pages, changesPerSecond } of this.#options.guest.rateClasses) {
      const now = pages * -Math.expm1((-changesPerSecond * this.#sinceSyncMs) / 1000);
      dirty += now;
      known += now * -Math.expm1((-changesPerSecond * this.#syncedMs) / 1000);
    }
    return dirty === 0 ? 1 : known / dirty;
  }

  /** Of guest RAM, when the guest may be stopped. */
  #affordableBytes(figures: SwitchoverFigures, bytesPerSecond: number): number {
    const { downtimeMsMax, guest } = this.#options;
    if (this.#method.switchover === "judge") {
      const { released, aimMs } = this.#judge.judge(figures, this.#nowMs);
      return released ? remainingBytesFor(aimMs, figures) : -1;
    }
    // QEMU counts whole pages, and what it has sent of late.
    const sentPerSecond = Math.min(
      bytesPerSecond,
      this.#pagesPerMs(bytesPerSecond) * this.#cost.wireBytes * 1000,
    );
    const measured = this.#iteration === 0 ? bytesPerSecond : sentPerSecond;
    return Math.max(guest.pageBytes, (measured * downtimeMsMax) / 1000);
  }

  #figures(dirtyPages: number, bytesPerSecond: number): SwitchoverFigures {
    const { guest, roundTripMs } = this.#options;
    const { wireBytes, cpuMs } = this.#cost;
    const tunnel = this.#method.name === "tunnel";
    return {
      remainingBytes: dirtyPages * guest.pageBytes,
      wireBytesPerGuestByte: wireBytes / guest.pageBytes,
      handoverBytesPerSecond: (this.#method.cores / cpuMs) * guest.pageBytes * 1000,
      queuedBytes: this.#method.switchover === "judge" ? (bytesPerSecond * WINDOW_MS) / 1000 : 0,
      linkBytesPerSecond: bytesPerSecond,
      roundTripMs,
      roundTrips: ROUND_TRIPS[tunnel ? "tunnel" : "direct"],
      deviceStateBytes: DEVICE_STATE_BYTES * (tunnel ? DEVICE_STATE_RATIO_TUNNEL : 1),
      fixedMs: STANDSTILL_MS_MIN,
    };
  }

  #watchProgress(dirtyPages: number, downtimeMs: number): void {
    if (dirtyPages < this.#bestPages * (1 - PROGRESS_SHARE)) {
      this.#bestPages = dirtyPages;
      this.#bestMs = this.#nowMs;
      this.#bestIteration = this.#iteration;
      return;
    }
    if (this.#iteration - this.#bestIteration < STALLED_ITERATIONS) return;
    const patienceMs = Math.max(STALLED_MS, this.#nowMs * STALLED_SHARE);
    if (this.#nowMs - this.#bestMs < patienceMs) return;
    this.#wireBytes += dirtyPages * this.#cost.wireBytes;
    this.#end(false, downtimeMs, downtimeMs);
  }

  #adaptThrottle(dirtyBytes: number): void {
    if (!this.#method.throttles || this.#iteration === 0 || this.#outcome !== undefined) return;
    if (dirtyBytes <= this.#sentThisIteration * THROTTLE.triggerShare) return;
    this.#dirtyTooFast++;
    if (this.#dirtyTooFast < 2) return;
    this.#dirtyTooFast = 0;
    const next = this.#throttle === 0 ? THROTTLE.initial : this.#throttle + THROTTLE.increment;
    if (this.#throttle === THROTTLE.max) return;
    this.#throttle = Math.min(THROTTLE.max, next);
    this.#bestPages = Number.POSITIVE_INFINITY;
  }

  #end(converges: boolean, downtimeMs: number, moreMs: number): void {
    this.#outcome = {
      converges,
      totalMs: this.#nowMs + moreMs,
      downtimeMs,
      wireBytes: this.#wireBytes + DEVICE_STATE_BYTES,
      cpuMs: this.#cpuMs,
      iterations: this.#iteration + 1,
    };
  }
}

export function simulateMigration(options: MigrationOptions, bytesPerSecond: number): MigrationOutcome {
  const simulation = new MigrationSimulation(options, bytesPerSecond);
  while (simulation.outcome === undefined) simulation.advance(Number.POSITIVE_INFINITY, bytesPerSecond);
  return simulation.outcome;
}

function mean(parts: readonly (readonly [pages: number, cost: PageCost])[]): PageCost {
  const pages = parts.reduce((sum, [count]) => sum + count, 0);
  if (pages === 0) return parts[0]![1];
  const of = (key: keyof PageCost) =>
    parts.reduce((sum, [count, cost]) => sum + count * cost[key], 0) / pages;
  return { wireBytes: of("wireBytes"), cpuMs: of("cpuMs") };
}
