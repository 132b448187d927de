// How fast a link is, learned from what has been delivered, as BBR learns it from packets (Cardwell et al., "BBR:
// congestion-based congestion control", 2016): the highest rate of the last second in which the link was the limit. What only
// looks like a slower link is told apart from one by how long answers take, and what only looks like a faster one by what a
// token bucket may have saved up. Pure.

import type { Latency } from "./latency.ts";

const MEMORY_MS = 1000;
/** More than this is a difference. */
export const GROWTH_MIN = 1.25;
/** Samples over less time than this say more about timers than about the link. */
const SAMPLE_MS_MIN = 2;
const LIMITED_SAMPLE_MS_MIN = 10;
/**
 * When for so long nothing has gone through at the rate that is known, but all faster, it is not what was saved up: the link
 * has become faster, and a guest that sends little must not wait.
 */
const FASTER_FOR_MS = 120_000;
/** Nor is any single sample believed more than that the link is so many times as fast as it was taken for. */
const SAMPLE_GROWTH_MAX = 2;
/** Answers that come later than any without a queue by this share of what the queue may be stood in one. */
const QUEUED_SHARE = 0.25;

/** What an answer says. */
export interface RateSample {
  /** Delivered since the answered marker was sent, and how long that took. */
  bytes: number;
  elapsedMs: number;
  /** From the marker to its answer. */
  answerMs: number;
  /** The sender had less to send than the link took: it says nothing about the link's limit. */
  limitedBySender: boolean;
  /** The connection itself took no more. */
  linkIsFull: boolean;
  /** What the link may have saved up by then: time at its own rate. */
  savedMs: number;
}

export class LinkRate {
  readonly #latency: Latency;
  /** Two halves of the memory: the maximum over the last one to two halves is known at any time. */
  #max = 0;
  #maxBefore = 0;
  #halfEndsMs: number;
  /** Answers in this half that the sender was not the limit of, and how long they took. */
  #fullAnswers = 0;
  #fullMs = 0;
  #wasBlocked = false;
  #isMeasured = false;
  /** When it was last no faster than is known. */
  #asKnownMs: number;
  /** What was known before it fell, how long answers took then, and how many drains there had been. */
  #doubted: { bytesPerSecond: number; answerMs: number; drains: number } | undefined;

  constructor(nowMs: number, latency: Latency) {
    this.#latency = latency;
    this.#asKnownMs = nowMs;
    this.#halfEndsMs = nowMs + MEMORY_MS / 2;
  }

  /** At its best, as far as a single answer tells. 0 until something was measured. */
  get bytesPerSecond(): number {
    return Math.max(this.#max, this.#maxBefore);
  }

  /** The sender was not always the limit. */
  get isMeasured(): boolean {
    return this.#isMeasured;
  }

  /** Time that the link takes for so much, as far as is known. */
  msOf(bytes: number): number {
    return this.bytesPerSecond === 0 ? 0 : (bytes / this.bytesPerSecond) * 1000;
  }

  /** `queueMs`: what the queue may be. `startingUp`: nothing is known yet that would have to be defended. */
  answered(sample: RateSample, nowMs: number, queueMs: number, startingUp: boolean): void {
    if (nowMs >= this.#halfEndsMs) this.#beginHalf(nowMs, queueMs);
    const { limitedBySender, linkIsFull, answerMs } = sample;
    const elapsedMs = Math.max(sample.elapsedMs, SAMPLE_MS_MIN);
    const bytesPerSecond = this.#believed(sample, elapsedMs, nowMs, startingUp);
    if (!limitedBySender) {
      this.#isMeasured = true;
      this.#fullAnswers++;
      this.#fullMs += answerMs;
      this.#wasBlocked ||= linkIsFull;
    }
    // A sender with little to say measures itself, not the link: such a sample may only raise the estimate, and
    // not when it is so short that all of it may have fitted into some buffer on the way.
    else if (this.bytesPerSecond > 0 && elapsedMs < LIMITED_SAMPLE_MS_MIN) return;
    this.#max = Math.max(this.#max, bytesPerSecond);
  }

  /** A drain may have ended, and have told that what was taken for a slower link was none. */
  judgeDoubted(queueMs: number): void {
    const { drains, isDraining } = this.#latency;
    const doubted = this.#doubted;
    if (doubted === undefined || isDraining || drains === doubted.drains) return;
    this.#doubted = undefined;
    if (!this.#isQueued(doubted.answerMs, queueMs))
      this.#maxBefore = Math.max(this.#maxBefore, doubted.bytesPerSecond);
  }

  #beginHalf(nowMs: number, queueMs: number): void {
    // A half in which the link was not the limit says nothing new: what was known before stands.
    const known = this.bytesPerSecond;
    const answerMs = this.#fullMs / this.#fullAnswers;
    const wasLimit = this.#fullAnswers > 0 && (this.#wasBlocked || this.#isQueued(answerMs, queueMs));
    this.#maxBefore = wasLimit ? this.#max : known;
    if (wasLimit && !this.#wasBlocked && this.#max * GROWTH_MIN < known) this.#doubt(known, answerMs);
    this.#max = 0;
    this.#fullAnswers = this.#fullMs = 0;
    this.#wasBlocked = false;
    this.#halfEndsMs = nowMs + MEMORY_MS / 2;
  }

  /**
   * Whoever waits for answers that would take as long without any queue waits for something else than the link. Were he to
   * take this for the link's rate his window would shrink, and with it what he measures next.
   */
  #isQueued(answerMs: number, queueMs: number): boolean {
    const { unqueuedMsMax } = this.#latency;
    return unqueuedMsMax === undefined || answerMs >= unqueuedMsMax + queueMs * QUEUED_SHARE;
  }

  /** It may be the way to the link that takes longer, and not the link that has become slower: the next drain will tell. */
  #doubt(known: number, answerMs: number): void {
    this.#latency.drainSoon();
    const bytesPerSecond = Math.max(known, this.#doubted?.bytesPerSecond ?? 0);
    this.#doubted = { bytesPerSecond, answerMs, drains: this.#latency.drains };
  }

  #believed(sample: RateSample, elapsedMs: number, nowMs: number, startingUp: boolean): number {
    const known = this.bytesPerSecond;
    const measured = (sample.bytes / elapsedMs) * 1000;
    if (!sample.limitedBySender && measured < known * GROWTH_MIN) this.#asKnownMs = nowMs;
    if (measured <= known || startingUp || nowMs - this.#asKnownMs >= FASTER_FOR_MS) return measured;
    // It has become faster only as far as what was saved up does not explain it.
    const beyondSaved = (sample.bytes / (elapsedMs + sample.savedMs)) * 1000;
    return Math.max(known, Math.min(beyondSaved, known * SAMPLE_GROWTH_MAX));
  }
}
