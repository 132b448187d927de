// When to stop the guest: from the *encoded* size of what is left, not from the hypervisor's page count, at a
// local minimum, within the downtime goal (DESIGN §5). Pure: figures in, a decision with its reason out. The
// simulator and the embedded hypervisor's pre-copy loop use the same judgement.

import { formatMs } from "../base/units.ts";

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
  linkBytesPerSecond: number;
  roundTripMs: number;
  /** Round trips from the last byte sent to the guest's resumption. */
  roundTrips: number;
  /** Encoded size of the device state, about. */
  deviceStateBytes: number;
}

export type SwitchoverDecision = { switchOver: boolean; estimatedMs: number; reason: string };

/** Stopping vCPUs, loading device state and starting again, on any machine we have seen. */
const FIXED_MS = 10;
/** A fall of the estimate by less than this share is no longer worth waiting for. */
const FALLING_SHARE = 0.9;
/** A goal that is met this often in a row is taken, however the estimate moves. */
const MET_IN_A_ROW_MAX = 8;
/** This close to what can be reached at all, waiting gains nothing. */
const NEAR_FLOOR_RATIO = 1.1;

/** How long the guest would stand still if it were stopped now. */
export function estimateDowntimeMs(figures: SwitchoverFigures): number {
  const { remainingBytes, linkBytesPerSecond, handoverBytesPerSecond } = figures;
  const wireBytes = remainingBytes * figures.wireBytesPerGuestByte;
  const pagesMs = Math.max(
    linkBytesPerSecond === 0 ? 0 : (wireBytes / linkBytesPerSecond) * 1000,
    handoverBytesPerSecond === 0 ? 0 : (remainingBytes / handoverBytesPerSecond) * 1000,
  );
  const otherBytes = figures.queuedBytes + figures.deviceStateBytes;
  const otherMs = linkBytesPerSecond === 0 ? 0 : (otherBytes / linkBytesPerSecond) * 1000;
  return FIXED_MS + pagesMs + otherMs + figures.roundTripMs * figures.roundTrips;
}

/** Bytes of guest RAM that may be left if the guest is to stand still no longer than `goalMs`. */
export function remainingBytesFor(goalMs: number, figures: SwitchoverFigures): number {
  const withoutPagesMs = estimateDowntimeMs({ ...figures, remainingBytes: 0 });
  const pagesMs = Math.max(0, goalMs - withoutPagesMs);
  const byLink =
    (pagesMs / 1000) * (figures.linkBytesPerSecond / Math.max(figures.wireBytesPerGuestByte, 1e-6));
  const byHandover = (pagesMs / 1000) * figures.handoverBytesPerSecond;
  return Math.floor(Math.min(byLink, byHandover));
}

/** Asked again and again during iterations after the first; remembers how the estimate moves. */
export class SwitchoverJudge {
  readonly #goalMs: number;
  #lastMs = Number.POSITIVE_INFINITY;
  #metInARow = 0;
  #atFloorInARow = 0;

  constructor(goalMs: number) {
    this.#goalMs = goalMs;
  }

  judge(figures: SwitchoverFigures): SwitchoverDecision {
    const estimatedMs = estimateDowntimeMs(figures);
    const falling = estimatedMs < this.#lastMs * FALLING_SHARE;
    this.#lastMs = estimatedMs;
    const estimate = `${formatMs(estimatedMs)} estimated, goal ${formatMs(this.#goalMs)}`;
    const floorMs = estimateDowntimeMs({ ...figures, remainingBytes: 0, queuedBytes: 0 });
    if (floorMs > this.#goalMs && estimatedMs <= floorMs * NEAR_FLOOR_RATIO) {
      // What is left is the device state and the round trips: no iteration makes those smaller.
      this.#atFloorInARow++;
      const switchOver = this.#atFloorInARow >= MET_IN_A_ROW_MAX;
      return {
        switchOver,
        estimatedMs,
        reason: `downtime above the goal even with nothing left: ${estimate}`,
      };
    }
    this.#atFloorInARow = 0;
    if (estimatedMs > this.#goalMs) {
      this.#metInARow = 0;
      return { switchOver: false, estimatedMs, reason: `downtime above the goal: ${estimate}` };
    }
    this.#metInARow++;
    if (falling && this.#metInARow < MET_IN_A_ROW_MAX) {
      return { switchOver: false, estimatedMs, reason: `downtime still falling: ${estimate}` };
    }
    return { switchOver: true, estimatedMs, reason: `downtime at a minimum within the goal: ${estimate}` };
  }
}
