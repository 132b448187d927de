// What a migration waits for: the link, or one of its ends. What is sent in fewer bytes crosses a link sooner; where it is
// the hypervisor at the destination that takes no more, or this engine that cannot do more, it only costs work. How fast the
// link is does not show then, and what was seen before is remembered for a while. Pure.

import type { Pace } from "../../wire/frame.ts";

/** "unknown": it has not shown. */
export type Limit = "source" | "link" | "destination" | "unknown";

/** Each end is judged by what it has done for so long, and by the spans before, each of which counts half as much. */
const SPAN_MS = 100;
/** Busy for more than this share of the time, it is the limit: the rest lies between one batch and the next. */
const BUSY_SHARE_MIN = 0.9;
/** Busy for less, it is not. Between the two is what was, or nothing for so many spans if it has been there from the start. */
const BUSY_SHARE_MAX = 0.7;
const OPEN_SPANS_MAX = 4;
/** How long what a link was seen to carry is believed of it. */
const LINK_MEMORY_MS = 5000;
/** What it seems to carry later is still that as long as it is no more than so many times as much: figures vary. */
const SAME_RATIO_MAX = 1.25;

/** One end, by its own clock. */
class End {
  #tells = false;
  #from: Pace | undefined;
  #busyShare: number | undefined;
  /** In which it was neither idle nor always at work. */
  #betweenSpans = 0;
  #isLimit: boolean | undefined;

  /**
   * `isFull`: it is given as much as it takes; else it says nothing of what it could do.
   * @returns for how long it was busy in the span that has ended with this, if one has
   */
  paced(pace: Pace, isFull: boolean): number | undefined {
    this.#tells = true;
    this.#from = isFull ? (this.#from ?? pace) : undefined;
    if (this.#from === undefined) return undefined;
    const elapsedMs = pace.elapsedMs - this.#from.elapsedMs;
    if (elapsedMs < SPAN_MS) return undefined;
    const busyMs = pace.busyMs - this.#from.busyMs;
    this.#from = pace;
    const share = busyMs / elapsedMs;
    this.#busyShare = this.#busyShare === undefined ? share : (this.#busyShare + share) / 2;
    if (this.#busyShare >= BUSY_SHARE_MIN) this.#isLimit = true;
    else if (this.#busyShare < BUSY_SHARE_MAX) this.#isLimit = false;
    else if (++this.#betweenSpans >= OPEN_SPANS_MAX) this.#isLimit ??= false;
    return busyMs;
  }

  get isLimit(): boolean {
    return this.#isLimit === true;
  }

  /** It says how busy it is, and has not said enough. */
  get isOpen(): boolean {
    return this.#tells && this.#isLimit === undefined;
  }
}

export class Bottleneck {
  readonly #source = new End();
  readonly #destination = new End();
  /** What the destination had taken when its last span ended, and what it takes in a second of being busy. */
  #takenBytes = 0;
  #destinationBytesPerSecond = Number.POSITIVE_INFINITY;
  /** What the link was seen to carry when it was the limit. */
  #seen: { nowMs: number; bytesPerSecond: number } | undefined;

  /** This engine has worked on the stream for so long. `isFull`: the window has been full, and measures something. */
  sourcePaced(pace: Pace, isFull: boolean): void {
    this.#source.paced(pace, isFull);
  }

  /** The destination's hypervisor has taken `rawBytes` of all time. */
  destinationPaced(pace: Pace, isFull: boolean, rawBytes: number): void {
    const busyMs = this.#destination.paced(pace, isFull);
    if (busyMs !== undefined) {
      const bytesPerSecond = ((rawBytes - this.#takenBytes) / Math.max(1, busyMs)) * 1000;
      const known = this.#destinationBytesPerSecond;
      this.#destinationBytesPerSecond = Number.isFinite(known)
        ? (known + bytesPerSecond) / 2
        : bytesPerSecond;
    }
    if (busyMs !== undefined || !isFull) this.#takenBytes = rawBytes;
  }

  /** What the window has measured; `isKnown`: it was full. */
  limit(isKnown: boolean): Limit {
    if (this.#destination.isLimit) return "destination";
    if (this.#source.isLimit) return "source";
    return isKnown && !this.#source.isOpen && !this.#destination.isOpen ? "link" : "unknown";
  }

  /** What is known of the link, by what the window has measured, whatever the migration waits for. */
  link(
    nowMs: number,
    bytesPerSecond: number,
    isKnown: boolean,
  ): { bytesPerSecond: number; isKnown: boolean } {
    const limit = this.limit(isKnown);
    if (limit === "link") this.#seen = { nowMs, bytesPerSecond };
    if (limit === "link" || limit === "unknown") return { bytesPerSecond, isKnown: limit === "link" };
    const isFresh = this.#seen !== undefined && nowMs - this.#seen.nowMs <= LINK_MEMORY_MS;
    const seen = isFresh ? this.#seen!.bytesPerSecond : 0;
    return {
      bytesPerSecond: Math.max(seen, bytesPerSecond),
      isKnown: seen * SAME_RATIO_MAX >= bytesPerSecond,
    };
  }

  /** Of the hypervisor's stream, while it has some to take. Infinite: not known. */
  get destinationBytesPerSecond(): number {
    return this.#destinationBytesPerSecond;
  }
}
