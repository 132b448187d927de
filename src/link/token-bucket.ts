// Pacing as arithmetic: how many bytes may go now, and if not, how long to wait. Sets no timer, holds no data.
// Over any stretch of time it lets through at most rate × time + burst. Tokens are counted from the clock and
// never from the waits that were advised, so nothing adds up in the long run.

import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";

/** Waits are rounded up to whole microseconds: a rounding error can then not advise a wait that moves no clock. */
const WAITS_PER_MS = 1000;

export class TokenBucket {
  readonly #clock: Clock;
  #bytesPerSecond: number;
  #burstBytes: number;
  #tokensBytes: number;
  #countedToMs: number;

  /** Starts full: the first `burstBytes` go at once. */
  constructor(clock: Clock, bytesPerSecond: number, burstBytes: number) {
    assertPositive(bytesPerSecond, burstBytes);
    this.#clock = clock;
    this.#bytesPerSecond = bytesPerSecond;
    this.#burstBytes = burstBytes;
    this.#tokensBytes = burstBytes;
    this.#countedToMs = clock.nowMs();
  }

  get bytesPerSecond(): number {
    return this.#bytesPerSecond;
  }

  /**
   * 0: the bytes may go now, and are counted. Otherwise nothing is counted, and the answer is how many
   * milliseconds to wait before asking again. `bytes` is at most the burst.
   *
   * A caller that asks again late loses what does not fit into the burst. If it says since when its bytes have
   * been waiting (a time on the clock, never earlier than in the call before), then the burst bounds only what
   * is gathered while nothing waits: what was missed by asking late goes at once, on top of the burst.
   */
  take(bytes: number, waitingSinceMs?: number): number {
    assert(bytes >= 0 && bytes <= this.#burstBytes, "bytes to take fit into the burst");
    const nowMs = this.#clock.nowMs();
    this.#gatherIdle(waitingSinceMs ?? nowMs);
    this.#gather(nowMs);
    const missingBytes = bytes - this.#tokensBytes;
    if (missingBytes <= 0) {
      this.#tokensBytes -= bytes;
      return 0;
    }
    return Math.ceil((missingBytes / this.#bytesPerSecond) * 1000 * WAITS_PER_MS) / WAITS_PER_MS;
  }

  /** From now on; tokens gathered so far were gathered at the old rate. Waits advised before are out of date. */
  setRate(bytesPerSecond: number, burstBytes: number = this.#burstBytes): void {
    assertPositive(bytesPerSecond, burstBytes);
    this.#gather(this.#clock.nowMs());
    this.#bytesPerSecond = bytesPerSecond;
    this.#burstBytes = burstBytes;
    this.#tokensBytes = Math.min(this.#tokensBytes, burstBytes);
  }

  /** Up to a time until which nothing waited: the bucket may run over. Nothing, if that is counted already. */
  #gatherIdle(untilMs: number): void {
    if (untilMs < this.#countedToMs) return;
    this.#gather(untilMs);
    this.#tokensBytes = Math.min(this.#burstBytes, this.#tokensBytes);
  }

  #gather(untilMs: number): void {
    this.#tokensBytes += ((untilMs - this.#countedToMs) / 1000) * this.#bytesPerSecond;
    this.#countedToMs = untilMs;
  }
}

function assertPositive(bytesPerSecond: number, burstBytes: number): void {
  assert(bytesPerSecond > 0 && Number.isFinite(bytesPerSecond), "rate above zero");
  assert(burstBytes > 0 && Number.isFinite(burstBytes), "burst above zero");
}
