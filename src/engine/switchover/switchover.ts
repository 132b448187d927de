// When to stop the guest: from the *encoded* size of what is left, not from the hypervisor's page count, within
// the downtime goal. Pure: figures and the time in, a decision with its reason out. The simulator
// and the embedded hypervisor's pre-copy loop use the same judgement.
//
// What is left is known for certain only to the hypervisor, and only in the moment in which it looks for dirty
// pages. So the decision is not "stop now" but how much may be left when it looks: as good as nothing at first, and
// with time more, up to the goal. Never above it, unless whoever carries the operator's policy out says so.

import { formatMs } from "../../base/units.ts";
import type { Proof } from "../transport/source-link.ts";

/** Of whoever names no goal: QEMU's own. */
export const DOWNTIME_MS_MAX_DEFAULT = 300;

/** What is known when the question is asked. */
export interface SwitchoverFigures {
  /** Dirty pages that the hypervisor still has to hand over, as bytes of guest RAM. */
  remainingBytes: number;
  /** How many bytes on the link a byte of guest RAM has cost lately (deltas, unchanged pages and all). */
  wireBytesPerGuestByte: number;
  /** How fast the hypervisor has handed over pages while the link had room: encoding takes time too. */
  handoverBytesPerSecond: number;
  /** Sent and unacknowledged, or encoded and waiting. */
  queuedBytes: number;
  /** What that will be, at most, when the guest is about to be stopped. */
  shortQueueBytes: number;
  /** 0: not known, since it has carried whatever was sent. What is not known is taken to take no time. */
  linkBytesPerSecond: number;
  /** What has lately gone through in one go: as much will again, whatever the rate says. */
  proof?: Proof | undefined;
  roundTripMs: number;
  /** Round trips from the last byte sent to the guest's resumption. */
  roundTrips: number;
  /** Encoded size of the device state, about. */
  deviceStateBytes: number;
  /** What takes its time whatever is left and however fast the link is: to stop vCPUs, to load devices, to start. */
  fixedMs: number;
}

export interface SwitchoverDecision {
  /** The guest may be stopped: once true, true for ever. */
  released: boolean;
  /** What the guest's standstill is to fit into at the moment. */
  aimMs: number;
  estimatedMs: number;
  /** For people. What stands before the colon changes only when the decision does. */
  reason: string;
}

/**
 * Figures are estimates, and the guest dirties pages until the last moment: more than this share of the goal is
 * not planned with, as long as less will do.
 */
const PLANNED_SHARE = 0.8;
/** More is allowed step by step while the hypervisor still finds too much. */
const STEP_RATIO = 1.5;
/**
 * What waiting for a shorter downtime may cost, from the release until `PLANNED_SHARE` is allowed: this share of the
 * migration's time so far, and no less than QEMU takes to go by a few limits (100 ms each).
 */
const PATIENCE_SHARE = 0.05;
const PATIENCE_MS_MIN = 600;
const STEP_EVERY_MS_MIN = 100;
/**
 * None is made while the estimate falls by this share of the time that passes. It falls by all of it when the guest
 * dirties nothing, by half when it dirties half as fast as its pages are sent.
 */
const FALLING_SHARE = 0.5;
/** Above that, to the whole goal. It had been within reach, so that our figures are a little wrong. */
const STEP_ABOVE_EVERY_MS = 5000;
/** Above what was named instead of the goal: the guest is to be stopped soon, whatever is left. */
const STEP_BEYOND_EVERY_MS = 1000;
/** This close to what can be reached at all, waiting gains nothing. */
const NEAR_FLOOR_RATIO = 1.1;
/**
 * So long, and this share of itself, what can be reached must have stood still to be believed: an answer that is
 * overdue makes it grow, and nobody should stop a guest for a link that stands still.
 */
const FLOOR_STABLE_MS = 400;
const FLOOR_STABLE_SHARE = 0.5;

/** Bytes of guest RAM that the link takes in a second: without bounds where it is not known, or pages cost nothing on it. */
export function guestBytesPerSecondByLink({
  linkBytesPerSecond,
  wireBytesPerGuestByte,
}: Pick<SwitchoverFigures, "linkBytesPerSecond" | "wireBytesPerGuestByte">): number {
  const isKnown = linkBytesPerSecond > 0 && wireBytesPerGuestByte > 0;
  return isKnown ? linkBytesPerSecond / wireBytesPerGuestByte : Number.POSITIVE_INFINITY;
}

/** What would have to cross the link if the guest were stopped now. */
export function wireBytesOf(figures: SwitchoverFigures): number {
  const { remainingBytes, wireBytesPerGuestByte, queuedBytes, deviceStateBytes } = figures;
  return remainingBytes * wireBytesPerGuestByte + queuedBytes + deviceStateBytes;
}

/** Time on the link, without the round trip. */
function linkMs(bytes: number, { linkBytesPerSecond, proof, roundTripMs }: SwitchoverFigures): number {
  if (linkBytesPerSecond === 0) return 0;
  const ms = (bytes / linkBytesPerSecond) * 1000;
  const isProven = proof !== undefined && bytes <= proof.bytes;
  return isProven ? Math.min(ms, Math.max(0, proof.answeredMs - roundTripMs)) : ms;
}

/** How long the guest would stand still if it were stopped now. */
export function estimateDowntimeMs(figures: SwitchoverFigures): number {
  const { remainingBytes, handoverBytesPerSecond, fixedMs } = figures;
  const handoverMs = handoverBytesPerSecond === 0 ? 0 : (remainingBytes / handoverBytesPerSecond) * 1000;
  const sendMs = Math.max(
    linkMs(wireBytesOf(figures), figures),
    handoverMs + linkMs(wireBytesOf({ ...figures, remainingBytes: 0 }), figures),
  );
  return fixedMs + sendMs + figures.roundTripMs * figures.roundTrips;
}

/** As it will be when the guest is about to be stopped. */
export function withShortQueue(figures: SwitchoverFigures): SwitchoverFigures {
  return { ...figures, queuedBytes: Math.min(figures.queuedBytes, figures.shortQueueBytes) };
}

/** What is left of it when nothing is to be sent but the device state: no iteration makes that smaller. */
export function floorMsOf(figures: SwitchoverFigures): number {
  return estimateDowntimeMs({ ...figures, remainingBytes: 0, queuedBytes: 0 });
}

/** Bytes of guest RAM that may be left if the guest is to stand still no longer than `goalMs`. */
export function remainingBytesFor(goalMs: number, figures: SwitchoverFigures): number {
  const byRate = { ...figures, remainingBytes: 0, proof: undefined };
  const pagesMs = Math.max(0, goalMs - estimateDowntimeMs(byRate));
  const bytesPerSecond = Math.min(guestBytesPerSecondByLink(figures), figures.handoverBytesPerSecond);
  return Math.max(Math.floor((pagesMs / 1000) * bytesPerSecond), remainingBytesByProof(goalMs, figures));
}

/** As many as have gone through, if all of that fits into the goal. */
function remainingBytesByProof(goalMs: number, figures: SwitchoverFigures): number {
  const { proof, wireBytesPerGuestByte, handoverBytesPerSecond } = figures;
  if (proof === undefined || wireBytesPerGuestByte === 0) return 0;
  const withoutPages = { ...figures, remainingBytes: 0 };
  const bytes = (proof.bytes - wireBytesOf(withoutPages)) / wireBytesPerGuestByte;
  const handoverMs = goalMs - estimateDowntimeMs(withoutPages);
  const remainingBytes = Math.floor(Math.min(bytes, (handoverMs / 1000) * handoverBytesPerSecond));
  if (remainingBytes <= 0) return 0;
  // Where rounding takes it above what was proven, nothing is.
  return estimateDowntimeMs({ ...figures, remainingBytes }) <= goalMs ? remainingBytes : 0;
}

/** Asked again and again during iterations after the first. */
export class SwitchoverJudge {
  readonly #goalMs: number;
  /** What is planned with, of the goal. */
  readonly #plannedMs: number;
  readonly #startMs: number;
  #released = false;
  /** The goal does not count any more. */
  #isBeyond = false;
  /** Once released; changed only in steps that are decisions. */
  #aimMs = 0;
  #stepEveryMs = STEP_EVERY_MS_MIN;
  /** When the last step was made, or was not worth making, and what was estimated then. */
  #stepMs = 0;
  #stepEstimateMs = 0;
  #reason = "";
  /** Where the floor was when it began to stand still, and since when. */
  #floorMs = 0;
  #floorSinceMs = 0;

  /** `startMs`: when the migration began. */
  constructor(goalMs: number, startMs: number) {
    this.#goalMs = goalMs;
    this.#plannedMs = goalMs * PLANNED_SHARE;
    this.#startMs = startMs;
  }

  judge(figures: SwitchoverFigures, nowMs: number): SwitchoverDecision {
    // Once the queue is short, what is in it becomes no less as long as iterations go on.
    const expected = this.#released ? figures : withShortQueue(figures);
    const estimatedMs = estimateDowntimeMs(expected);
    const floorMs = floorMsOf(figures);
    const floorIsStable = this.#watchFloor(floorMs, nowMs);
    if (this.#isBeyond) this.#stepBeyond(nowMs);
    else if (this.#released) this.#step(estimatedMs, floorMs, floorIsStable, nowMs);
    else {
      const withoutPagesMs = estimateDowntimeMs({ ...expected, remainingBytes: 0 });
      this.#consider(estimatedMs, withoutPagesMs, nowMs);
    }
    const reason =
      `${this.#reason}: ${formatMs(estimatedMs)} estimated, ${formatMs(this.#aimMs)} aimed at, ` +
      `goal ${formatMs(this.#goalMs)}`;
    return { released: this.#released, aimMs: this.#aimMs, estimatedMs, reason };
  }

  /**
   * The guest is slowed down, and so writes in bursts: the estimate, an average, may never come down to the goal at a
   * look of ours, although between two bursts little is left. The hypervisor counts exactly, at the moment at which it
   * would stop the guest: whatever it finds within the goal is taken.
   */
  takeWhatIsFound(nowMs: number): void {
    if (this.#released) return;
    this.#released = true;
    this.#aimMs = this.#goalMs;
    this.#stepMs = nowMs;
    this.#reason = "the guest is slowed down, and any moment within the goal will do";
  }

  /** From here on the guest may be stopped with a downtime of `aimMs`, and soon with more, whatever the goal. */
  goBeyond(aimMs: number, nowMs: number): void {
    if (this.#isBeyond) return;
    this.#isBeyond = true;
    this.#released = true;
    this.#aimMs = Math.max(aimMs, this.#goalMs);
    this.#stepMs = nowMs;
    this.#reason = "the goal does not count any more";
  }

  /** While the guest is held: whether the goal can be met. */
  #consider(estimatedMs: number, withoutPagesMs: number, nowMs: number): void {
    // To the least that can be had, if that can be had soon.
    this.#aimMs = Math.min(withoutPagesMs * NEAR_FLOOR_RATIO, this.#goalMs);
    this.#stepMs = nowMs;
    this.#stepEstimateMs = estimatedMs;
    if (estimatedMs > this.#goalMs) {
      this.#reason = "downtime above the goal";
      return;
    }
    this.#reason = "downtime within the goal";
    this.#released = true;
    const steps = Math.ceil(Math.log(this.#plannedMs / this.#aimMs) / Math.log(STEP_RATIO));
    const patienceMs = Math.max(PATIENCE_MS_MIN, (nowMs - this.#startMs) * PATIENCE_SHARE);
    this.#stepEveryMs = Math.max(STEP_EVERY_MS_MIN, patienceMs / Math.max(1, steps));
  }

  /** The hypervisor may stop the guest and has not: each time that it looked, too much was left. */
  #step(estimatedMs: number, floorMs: number, floorIsStable: boolean, nowMs: number): void {
    if (floorMs >= this.#aimMs) {
      // Whatever is left is too much. Believed when it has lasted, and then it is what can be had.
      this.#stepMs = nowMs;
      if (!floorIsStable || this.#aimMs === this.#goalMs) return;
      this.#aimMs = Math.min(floorMs * NEAR_FLOOR_RATIO, this.#goalMs);
      this.#reason = "what must follow the last page takes longer than was aimed at";
      return;
    }
    const fast = this.#aimMs < this.#plannedMs;
    const sinceMs = nowMs - this.#stepMs;
    if (sinceMs < (fast ? this.#stepEveryMs : STEP_ABOVE_EVERY_MS) || this.#aimMs === this.#goalMs) return;
    const fallenMs = this.#stepEstimateMs - estimatedMs;
    this.#stepMs = nowMs;
    this.#stepEstimateMs = estimatedMs;
    if (fallenMs >= sinceMs * FALLING_SHARE) return;
    this.#reason = `more left than ${formatMs(this.#aimMs)} allow`;
    if (!fast) this.#reason += `, for ${formatMs(STEP_ABOVE_EVERY_MS)}`;
    this.#aimMs = Math.min(fast ? this.#plannedMs : this.#goalMs, this.#aimMs * STEP_RATIO);
  }

  #stepBeyond(nowMs: number): void {
    if (nowMs - this.#stepMs < STEP_BEYOND_EVERY_MS) return;
    this.#stepMs = nowMs;
    this.#reason = `more left than ${formatMs(this.#aimMs)} allow`;
    this.#aimMs *= STEP_RATIO;
  }

  /** Whether the floor has stood still for long enough to be believed. */
  #watchFloor(floorMs: number, nowMs: number): boolean {
    if (floorMs > this.#floorMs * NEAR_FLOOR_RATIO || floorMs * NEAR_FLOOR_RATIO < this.#floorMs) {
      this.#floorMs = floorMs;
      this.#floorSinceMs = nowMs;
    }
    return nowMs - this.#floorSinceMs >= Math.max(FLOOR_STABLE_MS, floorMs * FLOOR_STABLE_SHARE);
  }
}
