// How long answers take when nothing of ours stands in front of them: at the least, and on average. The rest is queue. Every so
// often the queue is let run dry for a moment, so that this is measured without it; otherwise our own queue would be taken for
// the link's delay, and the window would creep up. Pure.

const DRAIN_EVERY_MS = 5000;
/** A drain that is asked for in between comes no sooner than this after the last one. */
const DRAIN_SOON_MS = 500;
/** It lasts until so many answers have come, or as many as come in that time, or none. */
const DRAIN_ANSWERS = 4;
const DRAIN_EXTRA_MS = 500;
const DRAIN_EXTRA_MS_MAX = 2000;

export class Latency {
  /** A minimum is remembered until two drains have passed, so that what is known always includes one. */
  #min = Number.POSITIVE_INFINITY;
  #minBefore = Number.POSITIVE_INFINITY;
  #drainStartMs = Number.NEGATIVE_INFINITY;
  /** The least that a drain takes is over. */
  #drainEndsMs = Number.NEGATIVE_INFINITY;
  #isDraining = false;
  #drains = 0;
  #nextDrainMs: number;
  /** Of unqueued answers: as last known, and what is being gathered. */
  #unqueued: { meanMs: number; maxMs: number } | undefined;
  #totalMs = 0;
  #maxMs = 0;
  #answers = 0;

  constructor(nowMs: number) {
    this.#nextDrainMs = nowMs + DRAIN_EVERY_MS;
  }

  /** Without any queue, at its best. Undefined until something was measured. */
  get roundTripMs(): number | undefined {
    const minMs = Math.min(this.#min, this.#minBefore);
    return Number.isFinite(minMs) ? minMs : undefined;
  }

  /** Answers that stood in no queue of ours took no longer than this. Undefined until there was a drain. */
  get unqueuedMsMax(): number | undefined {
    return this.#unqueued?.maxMs;
  }

  /** How much later than at its best an answer comes on average, whatever we do. */
  get latenessMs(): number {
    const meanMs = this.#unqueued?.meanMs ?? 0;
    return Math.max(0, meanMs - (this.roundTripMs ?? meanMs));
  }

  /** So many drains have begun. */
  get drains(): number {
    return this.#drains;
  }

  get isDraining(): boolean {
    return this.#isDraining;
  }

  /** What was known may not hold any more. */
  drainSoon(): void {
    this.#nextDrainMs = Math.min(this.#nextDrainMs, this.#drainStartMs + DRAIN_SOON_MS);
  }

  /** `isUnqueued`: so little was under way that nothing can have stood in a queue of ours. */
  answered(roundTripMs: number, isUnqueued: boolean): void {
    this.#min = Math.min(this.#min, roundTripMs);
    if (!isUnqueued) return;
    this.#totalMs += roundTripMs;
    this.#maxMs = Math.max(this.#maxMs, roundTripMs);
    this.#answers++;
    // Those that were under way when it ended count as well.
    if (!this.#isDraining) this.#learn();
  }

  #learn(): void {
    this.#unqueued = { meanMs: this.#totalMs / this.#answers, maxMs: this.#maxMs };
  }

  /** Begins and ends drains. `queueMs`: what the queue may be. */
  pass(nowMs: number, queueMs: number): void {
    if (!this.#isDraining && nowMs >= this.#nextDrainMs) {
      const roundTripMs = this.roundTripMs ?? 0;
      this.#minBefore = this.#min;
      this.#min = Number.POSITIVE_INFINITY;
      this.#isDraining = true;
      this.#drains++;
      this.#drainStartMs = nowMs;
      this.#drainEndsMs = nowMs + queueMs + 2 * roundTripMs;
      this.#totalMs = this.#maxMs = this.#answers = 0;
    }
    if (!this.#isDraining || nowMs < this.#drainEndsMs) return;
    const extraMs =
      this.#answers >= DRAIN_ANSWERS ? 0 : this.#answers > 0 ? DRAIN_EXTRA_MS : DRAIN_EXTRA_MS_MAX;
    if (nowMs < this.#drainEndsMs + extraMs) return;
    this.#isDraining = false;
    this.#nextDrainMs = nowMs + DRAIN_EVERY_MS;
    if (this.#answers > 0) this.#learn();
  }
}
