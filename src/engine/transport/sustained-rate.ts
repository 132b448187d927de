// What a link carries for a while on end. The highest rate between two acknowledgements says more: answers that were held up come
// together, and a token bucket lets a little pass at any rate. A window does no harm by going by that; whoever reckons how long
// something takes would be wrong by as much. Pure.

/** So long, and so many answers, it must have been the link that was the limit. */
const SPAN_MS = 100;
const SPAN_ANSWERS = 8;
/** The highest of so long, or of twice as long, counts; who was not kept waiting by the link for longer knows nothing any more. */
const MEMORY_MS = 500;
const FORGOTTEN_AFTER_MS = 1000;

export class SustainedRate {
  #startMs = 0;
  #startBytes = 0;
  #answers = 0;
  /** A span in which the link was not the limit all the time: what was carried in it can be carried. */
  #openMs = 0;
  #openBytes = 0;
  #wasOpen = false;
  #max = 0;
  #maxBefore = 0;
  #halfEndsMs = 0;
  #measuredMs = Number.NEGATIVE_INFINITY;

  /** `deliveredBytes`: of all time. `isFull`: the link, and not the sender, has been the limit since the answer before. */
  answered(deliveredBytes: number, nowMs: number, isFull: boolean): void {
    this.#raise(deliveredBytes, nowMs, isFull);
    if (!isFull) this.#answers = 0;
    else if (++this.#answers > SPAN_ANSWERS && nowMs - this.#startMs >= SPAN_MS) {
      this.#measured(((deliveredBytes - this.#startBytes) / (nowMs - this.#startMs)) * 1000, nowMs);
      this.#answers = 1;
    } else if (this.#answers > 1) return;
    this.#startMs = nowMs;
    this.#startBytes = deliveredBytes;
  }

  /** A sender that does not fill the link does not say what it could carry at most, but what it carries at least. */
  #raise(deliveredBytes: number, nowMs: number, isFull: boolean): void {
    if (!isFull) this.#wasOpen = true;
    const elapsedMs = nowMs - this.#openMs;
    if (elapsedMs < SPAN_MS) return;
    const bytesPerSecond = ((deliveredBytes - this.#openBytes) / elapsedMs) * 1000;
    const known = this.bytesPerSecond(nowMs);
    if (this.#wasOpen && known > 0 && bytesPerSecond > known) this.#measured(bytesPerSecond, nowMs);
    this.#openMs = nowMs;
    this.#openBytes = deliveredBytes;
    this.#wasOpen = false;
  }

  /** Time has passed in which nothing could be delivered. */
  interrupt(): void {
    this.#answers = 0;
  }

  /** 0: not known. */
  bytesPerSecond(nowMs: number): number {
    return nowMs - this.#measuredMs > FORGOTTEN_AFTER_MS ? 0 : Math.max(this.#max, this.#maxBefore);
  }

  #measured(bytesPerSecond: number, nowMs: number): void {
    if (nowMs >= this.#halfEndsMs) {
      this.#maxBefore = nowMs - this.#halfEndsMs < MEMORY_MS ? this.#max : 0;
      this.#max = 0;
      this.#halfEndsMs = nowMs + MEMORY_MS;
    }
    this.#max = Math.max(this.#max, bytesPerSecond);
    this.#measuredMs = nowMs;
  }
}
