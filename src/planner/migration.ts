// One migration on a virtual clock: a guest model moved by a method over a link. Pages flow as numbers, iteration by
// iteration, so that a guest of 1 TiB costs no more than a small one. When Deltavee would stop the guest is asked of the
// engine's own judge (engine/switchover/switchover.ts); QEMU's own methods go by QEMU's rule. Deterministic.

import { assert } from "../base/assert.ts";
import {
  estimateDowntimeMs,
  remainingBytesFor,
  type SwitchoverFigures,
  SwitchoverJudge,
} from "../engine/switchover/switchover.ts";
import {
  DEVICE_STATE_BYTES,
  DEVICE_STATE_RATIO_TUNNEL,
  ROUND_TRIPS,
  STANDSTILL_MS_MIN,
} from "../engine/switchover/switchover-control.ts";
import { SHORT_QUEUE_MS } from "../engine/transport/window.ts";
import { changedPages, classDeltaSize, type GuestModel } from "./guest-model.ts";
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
  /** Ended by itself, what was left taking no longer than asked (QEMU's own methods count nothing but pages in that). */
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
 * large guest over a slow link would be looked at millions of times. Nor do iterations that send next to nothing follow
 * upon each other any faster, once there have been so many that nothing will come of them.
 */
const LOOK_EVERY_MS = 50;
const LOOK_EVERY_SHARE = 0.001;
const QUICK_ITERATIONS = 1000;
/**
 * QEMU sends for about that long before it looks at how much is left, and looks for dirty pages anew as soon as that is
 * less than may be left when the guest is stopped, not when nothing is left.
 */
const CHUNK_MS = 50;
/** To find the dirty pages: a bitmap of the guest's RAM, and the turn of QEMU's loop. */
const SYNC_MS_PER_GIB = 0.03;
const SYNC_MS_MIN = 1;
/** No progress for as long as that, this share of the time so far, and so many iterations, is none to be expected. */
const STALLED_ITERATIONS = 3;
const STALLED_MS = 20_000;
const STALLED_SHARE = 0.25;
const PROGRESS_SHARE = 0.03;
/** QEMU's auto-converge, by default: throttle-trigger-threshold, cpu-throttle-initial, -increment, max-cpu-throttle. */
const THROTTLE = { triggerShare: 0.5, initial: 0.2, increment: 0.1, max: 0.99 } as const;
/** What is written again with the same content is about the same pages every second. */
const REWRITTEN_MS_MAX = 1000;

export class MigrationSimulation {
  readonly #options: MigrationOptions;
  readonly #method: MethodModel;
  readonly #judge: SwitchoverJudge;
  /** What the judge allows at the moment; undefined: not to stop at all. */
  #aimMs: number | undefined;
  readonly #cached: number;
  readonly #syncMs: number;
  /** Of a page that is not zero, for the first time. */
  readonly #firstCost: PageCost;
  #nowMs = 0;
  #iteration = 0;
  /** Since QEMU has last looked for dirty pages, and when that was. */
  #sinceSyncMs = 0;
  #syncedMs = 0;
  /** How long the iteration before this one took. */
  #beforeMs = 0;
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
    this.#firstCost = this.#method.first(guest, bytesPerSecond);
    this.#cost = mean([
      [guest.zeroPages, this.#method.zero()],
      [guest.pages - guest.zeroPages, this.#firstCost],
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
    const syncAtPages = this.#syncAtPages(bytesPerSecond);
    const untilSyncMs = Math.max(0, this.#leftPages - syncAtPages) / pagesPerMs;
    const lookMs = Math.max(LOOK_EVERY_MS, untilSyncMs * LOOK_EVERY_SHARE);
    const stepMs = Math.min(msMax, this.#iteration === 0 ? untilSyncMs : lookMs, untilSyncMs);
    this.#send(stepMs * pagesPerMs);
    this.#pass(stepMs);
    if (this.#isPostcopy) {
      if (this.#leftPages <= 1e-6) this.#end(true, this.#postcopyDowntimeMs, 0);
      return stepMs;
    }
    if (this.#leftPages > syncAtPages + 1e-6) {
      if (this.#iteration > 0 && this.#method.switchover === "judge") {
        this.#ask(this.#figures(this.#leftPages + this.#dirtyPages(), bytesPerSecond));
      }
      return stepMs;
    }
    const idleMs = this.#iteration < QUICK_ITERATIONS ? 0 : LOOK_EVERY_MS - this.#sinceSyncMs;
    const syncMs = Math.max(this.#syncMs, idleMs);
    this.#pass(syncMs);
    this.#sync(bytesPerSecond);
    return stepMs + syncMs;
  }

  /** With how many pages left QEMU looks for dirty pages: somewhere within the last that it sends at once. */
  #syncAtPages(bytesPerSecond: number): number {
    if (this.#isPostcopy || this.#method.postcopy) return 0;
    return Math.max(0, this.#affordablePages(bytesPerSecond) - this.#chunkPages(bytesPerSecond) / 2);
  }

  #chunkPages(bytesPerSecond: number): number {
    return CHUNK_MS * this.#pagesPerMs(bytesPerSecond);
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

  /** The hypervisor looks which pages are dirty, and it is decided whether to stop. */
  #sync(bytesPerSecond: number): void {
    const { downtimeMsMax } = this.#options;
    const dirty = this.#dirtyPages();
    const again = this.#againShare();
    const found = dirty + this.#leftPages * (1 - again);
    const left: readonly [pages: number, cost: PageCost] = [found - dirty, this.#cost];
    const stopCost = mean([[dirty, this.#costOf(dirty, 0)], left]);
    // What an iteration costs depends on how long it takes, and that on what it costs.
    this.#cost = stopCost;
    this.#cost = mean([[dirty, this.#costOf(dirty, found / this.#pagesPerMs(bytesPerSecond))], left]);
    const figures = this.#figures(found, bytesPerSecond);
    if (this.#method.switchover === "judge") this.#ask(figures);
    const affordable = this.#affordablePages(bytesPerSecond);
    // Once QEMU looks as often as it can, it sometimes does when hardly anything is left besides what it then finds.
    const luck =
      this.#sinceSyncMs > 2 * CHUNK_MS
        ? 0
        : Math.min(this.#leftPages, this.#chunkPages(bytesPerSecond) / 2) * (1 - again);
    const downtimeOf = (pages: number) => estimateDowntimeMs(this.#figures(pages, bytesPerSecond, stopCost));
    if (this.#method.postcopy) {
      this.#postcopyDowntimeMs = estimateDowntimeMs({ ...figures, remainingBytes: 0 });
      this.#isPostcopy = true;
    } else if (found - luck <= affordable) {
      const last = Math.min(found, affordable);
      const downtimeMs = downtimeOf(last);
      this.#wireBytes += last * stopCost.wireBytes;
      const keepsGoal = this.#method.switchover === "stock" || downtimeMs <= downtimeMsMax * 1.001;
      this.#end(keepsGoal, downtimeMs, downtimeMs);
      return;
    } else {
      this.#watchProgress(found, downtimeOf(found), stopCost);
      this.#adaptThrottle(found * this.#options.guest.pageBytes);
    }
    this.#iteration++;
    this.#syncedMs = this.#nowMs;
    this.#beforeMs = this.#sinceSyncMs;
    this.#sentThisIteration = 0;
    this.#sinceSyncMs = 0;
    this.#leftPages = found;
    if (this.#isPostcopy && found === 0) this.#end(true, this.#postcopyDowntimeMs, 0);
  }

  /** Of pages that were dirty when QEMU looked last, those that have been written to since. */
  #againShare(): number {
    const ms = this.#sinceSyncMs * (1 - this.#throttle);
    const rewrittenShare = Math.min(1, ms / REWRITTEN_MS_MAX);
    if (this.#iteration === 0) return this.#dirtyPages() / this.#options.guest.pages;
    let [dirty, again] = [this.#rewritten(), this.#rewritten() * rewrittenShare];
    for (const { pages, changesPerSecond } of this.#options.guest.rateClasses) {
      const share = -Math.expm1((-changesPerSecond * ms) / 1000);
      dirty += pages * share;
      again += pages * share * share;
    }
    return dirty === 0 ? 0 : again / dirty;
  }

  /**
   * Of a page that is dirty now, on average, when it takes `nextMs` to send them all. Pages are sent in order: one that
   * was sent early in the iteration before has been dirty for longer than it is not at the destination. A page that was
   * written before it was sent then, and not again until it is sent now, is dirty and unchanged.
   */
  #costOf(dirty: number, nextMs: number): PageCost {
    const { guest } = this.#options;
    const unthrottled = 1 - this.#throttle;
    const sinceMs = this.#sinceSyncMs * unthrottled;
    const parts: (readonly [pages: number, cost: PageCost])[] = [];
    let kept = 0;
    for (const rateClass of guest.rateClasses) {
      const { pages, changesPerSecond } = rateClass;
      const written = pages * -Math.expm1((-changesPerSecond * sinceMs) / 1000);
      if (written === 0) continue;
      const unchangedShare = dirtyUnchangedShare(changesPerSecond / 1000, sinceMs, nextMs * unthrottled);
      const unchanged = pages * unchangedShare * this.#sentShare(changesPerSecond);
      const cached = this.#cached * this.#knownShare(changesPerSecond);
      kept += written * cached;
      const size = classDeltaSize(rateClass, guest.pageBytes, (sinceMs + nextMs * unthrottled) / 2);
      parts.push([written - unchanged, this.#method.changed(guest, size, cached)]);
      parts.push([unchanged, this.#method.rewritten(guest, cached)]);
    }
    const rewritten = this.#rewritten();
    const written = dirty - rewritten;
    const cached = written > 0 ? kept / written : this.#cached;
    parts.push([rewritten, this.#method.rewritten(guest, cached)]);
    return mean(parts);
  }

  /** Whether a page that is written so often was sent in the iteration before this one: whether it was dirty then. */
  #sentShare(changesPerSecond: number): number {
    if (this.#iteration === 0) return 1;
    return -Math.expm1((-changesPerSecond * this.#beforeMs * (1 - this.#throttle)) / 1000);
  }

  /** Whether a page that is written so often has been sent before in a way that has put it into the cache. */
  #knownShare(changesPerSecond: number): number {
    return this.#method.cachesFirstPass ? 1 : -Math.expm1((-changesPerSecond * this.#syncedMs) / 1000);
  }

  #ask(figures: SwitchoverFigures): void {
    const { released, aimMs } = this.#judge.judge(figures, this.#nowMs);
    if (released) this.#aimMs = aimMs;
  }

  /** So many may be left when the guest is stopped. */
  #affordablePages(bytesPerSecond: number): number {
    const { downtimeMsMax, guest } = this.#options;
    if (this.#method.switchover === "judge") {
      if (this.#aimMs === undefined) return -1;
      return remainingBytesFor(this.#aimMs, this.#figures(0, bytesPerSecond)) / guest.pageBytes;
    }
    // QEMU counts whole pages, and what it has sent of late. In the first pass those are not the zero pages.
    const { wireBytes, cpuMs } = this.#iteration === 0 ? this.#firstCost : this.#cost;
    const sentPerMs = Math.min(bytesPerSecond / 1000, (this.#method.cores / cpuMs) * wireBytes);
    return Math.max(1, (sentPerMs * downtimeMsMax) / guest.pageBytes);
  }

  #figures(dirtyPages: number, bytesPerSecond: number, cost = this.#cost): SwitchoverFigures {
    const { guest, roundTripMs } = this.#options;
    const { wireBytes, cpuMs } = cost;
    const tunnel = this.#method.name === "tunnel";
    const shortQueueBytes = (bytesPerSecond * SHORT_QUEUE_MS) / 1000;
    return {
      remainingBytes: dirtyPages * guest.pageBytes,
      wireBytesPerGuestByte: wireBytes / guest.pageBytes,
      handoverBytesPerSecond: (this.#method.cores / cpuMs) * guest.pageBytes * 1000,
      queuedBytes: this.#method.switchover === "judge" ? shortQueueBytes : 0,
      shortQueueBytes,
      linkBytesPerSecond: bytesPerSecond,
      roundTripMs,
      roundTrips: ROUND_TRIPS[tunnel ? "tunnel" : "direct"],
      deviceStateBytes: DEVICE_STATE_BYTES * (tunnel ? DEVICE_STATE_RATIO_TUNNEL : 1),
      fixedMs: STANDSTILL_MS_MIN,
    };
  }

  #watchProgress(dirtyPages: number, downtimeMs: number, stopCost: PageCost): void {
    if (dirtyPages < this.#bestPages * (1 - PROGRESS_SHARE)) {
      this.#bestPages = dirtyPages;
      this.#bestMs = this.#nowMs;
      this.#bestIteration = this.#iteration;
      return;
    }
    if (this.#iteration - this.#bestIteration < STALLED_ITERATIONS) return;
    const patienceMs = Math.max(STALLED_MS, this.#nowMs * STALLED_SHARE);
    if (this.#nowMs - this.#bestMs < patienceMs) return;
    this.#wireBytes += dirtyPages * stopCost.wireBytes;
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

/**
 * Of pages that are written at random moments, `rate` times per ms, and sent in either iteration: those written within an iteration of `sinceMs`, but
 * not between when they were sent in it and when they are sent in the next one, which takes `nextMs`; each is sent at
 * the same share of either, all shares alike likely.
 */
export function dirtyUnchangedShare(rate: number, sinceMs: number, nextMs: number): number {
  const [since, next] = [rate * sinceMs, rate * nextMs];
  const untouchedSince = meanOfExp(since, next);
  const neverWritten = meanOfExp(since, since + next);
  return Math.max(0, untouchedSince - neverWritten);
}

/** Mean of exp(-k) over k from `a` to `b`. */
function meanOfExp(a: number, b: number): number {
  return Math.abs(b - a) < 1e-9 ? Math.exp(-a) : (Math.exp(-a) - Math.exp(-b)) / (b - a);
}

function mean(parts: readonly (readonly [pages: number, cost: PageCost])[]): PageCost {
  const pages = parts.reduce((sum, [count]) => sum + count, 0);
  if (pages === 0) return parts.at(-1)![1];
  const of = (key: keyof PageCost) =>
    parts.reduce((sum, [count, cost]) => sum + count * cost[key], 0) / pages;
  return { wireBytes: of("wireBytes"), cpuMs: of("cpuMs") };
}
