// When to leave pages alone altogether: on a link that is faster than we can look at pages, the fastest
// is to carry them on as they are. A link shows what it can do only when it is filled, so bypass is tried for a
// moment when we are the brake, kept if more gets across, and left as soon as the link is the limit. Pure.

import { formatBytesPerSecond } from "../base/units.ts";

/** Cumulative counters of one moment. */
export interface Progress {
  nowMs: number;
  /** Bytes that the hypervisor has handed over. */
  handedOverBytes: number;
  /** Time that we have worked on them. */
  busyMs: number;
}

/** Worked for more than this share of the time: we are the brake. For less than the other: the link is. */
const BRAKE_SHARE_MIN = 0.85;
const LINK_SHARE_MAX = 0.5;
/** How long a rate is measured, with pages looked at and without. */
const MEASURE_MS = 400;
/** More must get across by this much. */
const GAIN_MIN = 1.15;
/** Between two tries, doubled with each that gained nothing: what bypass carries on the cache forgets. */
const RETRY_MS = 2000;
const RETRY_MS_MAX = 60_000;

export class BypassJudge {
  readonly #decided: (choice: string, reason: string) => void;
  #state: "looking" | "trying" | "bypassing" = "looking";
  #since: Progress | undefined;
  /** Bytes per second with pages looked at, before the try. */
  #rateBefore = 0;
  #retryMs = RETRY_MS;
  #notBeforeMs = 0;

  constructor(decided: (choice: string, reason: string) => void) {
    this.#decided = decided;
  }

  /** To be asked several times a second. @returns whether pages are to be left alone from here on */
  judge(progress: Progress): boolean {
    this.#since ??= progress;
    const elapsedMs = progress.nowMs - this.#since.nowMs;
    if (elapsedMs >= MEASURE_MS) {
      const bytesPerSecond = ((progress.handedOverBytes - this.#since.handedOverBytes) / elapsedMs) * 1000;
      const busyShare = (progress.busyMs - this.#since.busyMs) / elapsedMs;
      this.#since = progress;
      this.#measured(bytesPerSecond, busyShare, progress.nowMs);
    }
    return this.#state !== "looking";
  }

  #measured(bytesPerSecond: number, busyShare: number, nowMs: number): void {
    switch (this.#state) {
      case "looking":
        if (busyShare < BRAKE_SHARE_MIN || nowMs < this.#notBeforeMs) return;
        this.#rateBefore = bytesPerSecond;
        this.#state = "trying";
        this.#decided(
          "bypass",
          `looking at pages is the brake, at ${formatBytesPerSecond(bytesPerSecond)}: tried`,
        );
        return;
      case "trying":
        if (bytesPerSecond > this.#rateBefore * GAIN_MIN) {
          this.#state = "bypassing";
          this.#retryMs = RETRY_MS;
          this.#decided("bypass", `${this.#compare(bytesPerSecond)}: kept`);
          return;
        }
        this.#leave(nowMs, `${this.#compare(bytesPerSecond)}: no gain`);
        return;
      case "bypassing":
        if (busyShare < LINK_SHARE_MAX) this.#leave(nowMs, "the link has become the limit");
        return;
    }
  }

  #compare(bytesPerSecond: number): string {
    return `${formatBytesPerSecond(bytesPerSecond)} against ${formatBytesPerSecond(this.#rateBefore)} before`;
  }

  #leave(nowMs: number, reason: string): void {
    this.#state = "looking";
    this.#notBeforeMs = nowMs + this.#retryMs;
    this.#retryMs = Math.min(RETRY_MS_MAX, 2 * this.#retryMs);
    this.#decided("look at pages", reason);
  }
}
