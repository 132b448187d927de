// Notices that strangers can cause: the first ones are said, then now and then how many there were. Else whoever knocks
// often enough fills the record of the run, and the disk that it is on.

import type { Clock } from "./clock.ts";

/** So many are said at once, and again after a while. */
const BURST = 20;
/**
 * That while is twice as long each time that more came, and as short as at first when fewer did: somebody who knocks all
 * year is told of some 200,000 times, not 10 million.
 */
const PERIOD_MS_MIN = 60_000;
const PERIOD_MS_MAX = 60 * 60_000;

export class RareNotices {
  readonly #clock: Clock;
  readonly #notice: (text: string) => void;
  #beganMs = Number.NEGATIVE_INFINITY;
  #periodMs = PERIOD_MS_MIN;
  #said = 0;
  #unsaid = 0;

  constructor(clock: Clock, notice: (text: string) => void) {
    this.#clock = clock;
    this.#notice = notice;
  }

  say(text: string): void {
    const nowMs = this.#clock.nowMs();
    if (nowMs - this.#beganMs >= this.#periodMs) {
      if (this.#unsaid > 0) this.#notice(`${this.#unsaid} more like that were not said`);
      this.#periodMs = this.#unsaid > 0 ? Math.min(PERIOD_MS_MAX, 2 * this.#periodMs) : PERIOD_MS_MIN;
      this.#beganMs = nowMs;
      this.#said = this.#unsaid = 0;
    }
    if (this.#said === BURST) {
      this.#unsaid++;
      return;
    }
    this.#said++;
    this.#notice(text);
  }
}
