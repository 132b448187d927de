// Notices that strangers can cause: the first ones are said, then now and then how many there were. Else whoever knocks
// often enough fills the record of the run, and the disk that it is on.

import type { Clock } from "./clock.ts";

/** So many are said at once, and again after a while in which fewer came. */
const BURST = 20;
const PERIOD_MS = 60_000;

export class RareNotices {
  readonly #clock: Clock;
  readonly #notice: (text: string) => void;
  #beganMs = Number.NEGATIVE_INFINITY;
  #said = 0;
  #unsaid = 0;

  constructor(clock: Clock, notice: (text: string) => void) {
    this.#clock = clock;
    this.#notice = notice;
  }

  say(text: string): void {
    const nowMs = this.#clock.nowMs();
    if (nowMs - this.#beganMs >= PERIOD_MS) {
      if (this.#unsaid > 0) this.#notice(`${this.#unsaid} more like that were not said`);
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
