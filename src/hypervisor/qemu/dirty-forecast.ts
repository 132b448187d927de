// What QEMU says is left to send are the dirty pages that it knows of. It looks for dirty pages only when those
// are nearly sent, so that just before it looks next to nothing seems to be left, however busy the guest is.
// This adds what the guest is to be expected to have dirtied since. Pure: counts and the time in, bytes out.

import type { Clock } from "../../base/clock.ts";

export class DirtyForecast {
  readonly #clock: Clock;
  #iteration = 0;
  /** When QEMU was first seen in this iteration; before that, when it was first asked. */
  #sinceMs: number | undefined;
  #dirtyBytesPerMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes an answer as QEMU has just given it (iteration 0: first pass). Returns what is left in truth, about. */
  remainingBytes(iteration: number, knownBytes: number): number {
    const nowMs = this.#clock.nowMs();
    this.#sinceMs ??= nowMs;
    if (iteration > this.#iteration) {
      // What it found is what the guest has dirtied during the iteration before, or during each of several.
      const elapsedMs = (nowMs - this.#sinceMs) / (iteration - this.#iteration);
      if (elapsedMs > 0) this.#dirtyBytesPerMs = knownBytes / elapsedMs;
      this.#iteration = iteration;
      this.#sinceMs = nowMs;
    }
    return knownBytes + this.#dirtyBytesPerMs * (nowMs - this.#sinceMs);
  }
}
