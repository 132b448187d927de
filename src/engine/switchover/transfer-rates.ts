// What the last second or so of a migration says about the next: how many bytes on the link a byte of guest
// RAM costs, and how fast the hypervisor hands pages over. Both from cumulative counters, forgetting slowly.

import type { Clock } from "../../base/clock.ts";

/** After this long, or this many bytes of guest RAM, a figure counts for about a third. */
const MEMORY_MS = 1000;
const MEMORY_BYTES = 8 * 1024 * 1024;

export class TransferRates {
  readonly #clock: Clock;
  #lastMs: number;
  #handedOverBytes = 0;
  #wireBytes = 0;
  #handoverMs = 0;
  /** Exponentially forgotten sums. */
  #recentMs = 0;
  #recentHandedOver = 0;
  #recentWire = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#lastMs = clock.nowMs();
  }

  /**
   * Takes the counters as they stand. `handoverMs`: time that handing over has taken, where it is not all of the
   * time: a hypervisor that has little to hand over is not slow.
   */
  sample(handedOverBytes: number, wireBytes: number, handoverMs?: number): void {
    const nowMs = this.#clock.nowMs();
    const elapsedMs = nowMs - this.#lastMs;
    const newBytes = handedOverBytes - this.#handedOverBytes;
    const keep = Math.exp(-elapsedMs / MEMORY_MS - newBytes / MEMORY_BYTES);
    const newMs = handoverMs === undefined ? elapsedMs : handoverMs - this.#handoverMs;
    this.#recentMs = this.#recentMs * keep + newMs;
    this.#recentHandedOver = this.#recentHandedOver * keep + newBytes;
    this.#recentWire = this.#recentWire * keep + (wireBytes - this.#wireBytes);
    this.#lastMs = nowMs;
    this.#handedOverBytes = handedOverBytes;
    this.#wireBytes = wireBytes;
    this.#handoverMs += newMs;
  }

  /** 1 until something was handed over. */
  get wireBytesPerGuestByte(): number {
    return this.#recentHandedOver === 0 ? 1 : this.#recentWire / this.#recentHandedOver;
  }

  /** 0 until something was handed over. */
  get handoverBytesPerSecond(): number {
    return this.#recentMs === 0 ? 0 : (this.#recentHandedOver / this.#recentMs) * 1000;
  }
}
