// How much may be under way to the destination: a window that is bounded in time on the link, not in bytes.
// What the window holds when the guest is stopped is downtime that no hypervisor sees, so it is kept at about
// `QUEUE_MS` of link rate above the round trip: enough to keep the link busy, little enough to be forgotten.
//
// The link's rate (link-rate.ts) and round trip (latency.ts) are learned from acknowledged markers. Pure: knows bytes and a
// clock, no sockets.

import { assert } from "../../base/assert.ts";
import type { Clock } from "../../base/clock.ts";
import { Latency } from "./latency.ts";
import { GROWTH_MIN, LinkRate } from "./link-rate.ts";
import { SustainedRate } from "./sustained-rate.ts";

/** Time on the link that may be queued beyond what the round trip itself holds. */
export const QUEUE_MS = 20;
/** While the guest may be stopped at any moment: the link may be idle now and then. */
export const SHORT_QUEUE_MS = 6;
export const WINDOW_BYTES_MAX = 256 * 1024 * 1024;
/** Before anything is known of the link. */
const WINDOW_BYTES_INITIAL = 32 * 1024;
/** Time on the link between two markers: a small part of the queue, but neither a few packets nor a long turn. */
const TURN_MS = QUEUE_MS / 16;
const TURN_BYTES_MIN = 4 * 1024;
const TURN_BYTES_MAX = 256 * 1024;
/** Markers that may be unanswered; a sender asks `mayMark` before it sets one. */
export const MARKERS_MAX = 1024;

/**
 * Answers that come late by themselves, from one to the next, are no queue, but what is under way meanwhile must fit into
 * the window all the same, or it would close on itself: by Little's law it carries window ÷ mean round trip. How late
 * they are on average is seen while the queue is dry, and this many times that is allowed for.
 */
const LATENESS_ROOM = 1.5;
/**
 * At most so much: where others send over the same link it is their queue that makes answers late, and senders who each
 * made room for the others' would never stop.
 */
export const LATENESS_MS_MAX = 100;
/** More than this on its way alone takes a slow link long enough to be a queue by itself. */
const ALONE_BYTES_MAX = 12 * 1024;
/** Answers later than this many queues are no longer a matter of queueing. */
const OVERDUE_QUEUES = 5;
/**
 * A link that was not used all the time may have saved up for it (a token bucket), and lets so much pass at any rate: time at
 * its own.
 */
const SAVED_MS_MAX = 1000;

interface Marker {
  /** All bytes sent up to this marker. */
  sentBytes: number;
  sentMs: number;
  /** What was known to be delivered when it was sent, since when, and when that had been sent. */
  deliveredBytes: number;
  deliveredMs: number;
  deliveredSentMs: number;
  /** The sender had less to send than the link took: the sample says nothing about the link's limit. */
  limitedBySender: boolean;
  /** The connection itself took no more. */
  linkIsFull: boolean;
  /** `#savedMs` when it was sent. */
  savedMs: number;
  /** So little was under way that nothing can have stood in a queue of ours. */
  isUnqueued: boolean;
}

export class DeliveryWindow {
  readonly #clock: Clock;
  /** Ring of unanswered markers, oldest at #first. */
  readonly #markers: Marker[] = [];
  #first = 0;
  #count = 0;
  #sentBytes = 0;
  #deliveredBytes = 0;
  #deliveredMs: number;
  #deliveredSentMs: number;
  #startingUp = true;
  #isShort = false;
  /** When all had last been answered. */
  #emptySinceMs: number;
  /** What it may have saved up: grows with what it could have carried, as far as is known, and has not. */
  #savedMs = 0;
  /** While starting up: a round trip, whether all of its answers were late, and what got across in the one before. */
  #roundStartMs: number;
  #roundStartBytes = 0;
  #roundMs = QUEUE_MS;
  #isLateRound = false;
  #roundBytesPerMs = 0;
  #windowBytes = WINDOW_BYTES_INITIAL;
  /** What the window is when it is neither starting up nor drained. */
  #steadyBytes = 0;
  readonly #rate: LinkRate;
  readonly #sustained = new SustainedRate();
  readonly #latency: Latency;

  constructor(clock: Clock) {
    this.#clock = clock;
    const nowMs = clock.nowMs();
    this.#deliveredMs = this.#deliveredSentMs = nowMs;
    this.#emptySinceMs = this.#roundStartMs = nowMs;
    this.#latency = new Latency(nowMs);
    this.#rate = new LinkRate(nowMs, this.#latency);
    for (let i = 0; i < MARKERS_MAX; i++) {
      this.#markers.push({
        sentBytes: 0,
        sentMs: 0,
        deliveredBytes: 0,
        deliveredMs: 0,
        deliveredSentMs: 0,
        limitedBySender: false,
        linkIsFull: false,
        savedMs: 0,
        isUnqueued: false,
      });
    }
  }

  get inFlightBytes(): number {
    return this.#sentBytes - this.#deliveredBytes;
  }

  get windowBytes(): number {
    return this.#windowBytes;
  }

  /** What the window is going to be once it has been shortened. */
  get shortBytes(): number {
    return this.#bytesIn((this.roundTripMs ?? 0) + this.#slackMsOf(SHORT_QUEUE_MS));
  }

  /** From here on little is to be under way, since the guest will soon have to wait for it. Never taken back. */
  shorten(): void {
    this.#isShort = true;
  }

  get hasRoom(): boolean {
    return this.inFlightBytes < this.#windowBytes;
  }

  /** How much to send at most between two looks at the window, and between two markers. */
  get turnBytes(): number {
    return Math.min(TURN_BYTES_MAX, this.#bytesIn(TURN_MS));
  }

  /** 0 until something was measured. What it carries at least, unless `isLinkKnown`. */
  get linkBytesPerSecond(): number {
    const sustained = this.#sustained.bytesPerSecond(this.#clock.nowMs());
    return sustained === 0 ? this.#rate.bytesPerSecond : Math.min(sustained, this.#rate.bytesPerSecond);
  }

  /** False: so far it has carried whatever was sent, and what it could carry is not known. */
  get isLinkKnown(): boolean {
    return this.#rate.isMeasured && !this.#startingUp;
  }

  /** Undefined until something was measured. */
  get roundTripMs(): number | undefined {
    return this.#latency.roundTripMs;
  }

  /** The round trip, and what the oldest marker is overdue by, if it is: the link may stand still. */
  get currentRoundTripMs(): number | undefined {
    const { roundTripMs } = this;
    if (roundTripMs === undefined || this.#count === 0) return roundTripMs;
    const ageMs = this.#clock.nowMs() - this.#markers[this.#first]!.sentMs;
    return ageMs > roundTripMs + OVERDUE_QUEUES * this.#slackMsOf(QUEUE_MS) ? ageMs : roundTripMs;
  }

  get unansweredMarkers(): number {
    return this.#count;
  }

  get mayMark(): boolean {
    return this.#count < MARKERS_MAX;
  }

  /** Bytes have been handed to the link. */
  sent(bytes: number): void {
    // After silence the clock of delivery begins anew: idle time is not transfer time.
    if (this.inFlightBytes === 0) {
      const nowMs = this.#clock.nowMs();
      this.#deliveredMs = this.#deliveredSentMs = nowMs;
      this.#save(nowMs - this.#emptySinceMs);
    }
    this.#sentBytes += bytes;
  }

  /**
   * A marker went out behind the bytes sent so far. Markers are answered in order.
   * `linkIsFull`: the connection itself takes no more, although the window might have room.
   */
  marked(linkIsFull: boolean): void {
    assert(this.mayMark, "the sender asked mayMark");
    const marker = this.#markers[(this.#first + this.#count++) % MARKERS_MAX]!;
    marker.sentBytes = this.#sentBytes;
    marker.sentMs = this.#clock.nowMs();
    marker.deliveredBytes = this.#deliveredBytes;
    marker.deliveredMs = this.#deliveredMs;
    marker.deliveredSentMs = this.#deliveredSentMs;
    // Whoever has enough to send fills the window; while it still doubles, nearly.
    const filledBytes = this.#startingUp ? this.#windowBytes / 2 : this.#steadyBytes;
    marker.limitedBySender = this.inFlightBytes < filledBytes && !linkIsFull;
    marker.linkIsFull = linkIsFull;
    marker.savedMs = this.#savedMs;
    // What is alone on its way stands in no queue either, unless it is one by itself.
    const isAlone = this.#count === 1 && this.inFlightBytes <= ALONE_BYTES_MAX;
    marker.isUnqueued =
      this.#latency.isDraining && (isAlone || this.inFlightBytes <= this.#bytesIn(this.roundTripMs ?? 0));
  }

  /** Time on the link that the window holds beyond the round trip. */
  get #slackMs(): number {
    return this.#slackMsOf(this.#isShort ? SHORT_QUEUE_MS : QUEUE_MS);
  }

  #slackMsOf(queueMs: number): number {
    return Math.max(queueMs, Math.min(LATENESS_MS_MAX, this.#latency.latenessMs * LATENESS_ROOM));
  }

  /** The destination has answered the oldest `markers` markers. */
  acknowledged(markers = 1): void {
    assert(markers >= 1 && markers <= this.#count, "only what was sent is answered");
    this.#first = (this.#first + markers - 1) % MARKERS_MAX;
    const marker = this.#markers[this.#first]!;
    this.#first = (this.#first + 1) % MARKERS_MAX;
    this.#count -= markers;

    const nowMs = this.#clock.nowMs();
    const newlyDeliveredBytes = marker.sentBytes - this.#deliveredBytes;
    const unusedMs = nowMs - this.#deliveredMs - this.#rate.msOf(newlyDeliveredBytes);
    this.#deliveredBytes = marker.sentBytes;
    // Where something else is under way it may be that which took so long.
    this.#save(this.inFlightBytes === 0 ? unusedMs : Math.min(0, unusedMs));
    this.#deliveredMs = nowMs;
    this.#deliveredSentMs = marker.sentMs;
    if (this.inFlightBytes === 0) this.#emptySinceMs = nowMs;
    const roundTripMs = nowMs - marker.sentMs;
    this.#latency.answered(roundTripMs, marker.isUnqueued);
    this.#learnRate(marker, nowMs);
    // With half of a queue behind what it holds by itself it was not idle, whatever keeps the sender from filling the window.
    const isFull = this.inFlightBytes >= this.#bytesIn((this.roundTripMs ?? 0) + this.#slackMs / 2);
    this.#sustained.answered(this.#deliveredBytes, nowMs, isFull);
    this.#adjust(roundTripMs, newlyDeliveredBytes, nowMs);
  }

  /**
   * The connection broke and is there again. The oldest `markers` markers have been answered, nobody knows when; all
   * others are sent once more, now. So the outage is not taken for a property of the link.
   */
  resumed(markers: number): void {
    assert(markers >= 0 && markers <= this.#count, "only what was sent is answered");
    if (markers > 0) {
      this.#first = (this.#first + markers) % MARKERS_MAX;
      this.#count -= markers;
      this.#deliveredBytes = this.#markers[(this.#first + MARKERS_MAX - 1) % MARKERS_MAX]!.sentBytes;
    }
    const nowMs = this.#clock.nowMs();
    this.#sustained.interrupt();
    this.#deliveredMs = this.#deliveredSentMs = nowMs;
    for (let i = 0; i < this.#count; i++) {
      const marker = this.#markers[(this.#first + i) % MARKERS_MAX]!;
      marker.sentMs = marker.deliveredMs = marker.deliveredSentMs = nowMs;
      marker.deliveredBytes = this.#deliveredBytes;
    }
  }

  #learnRate(marker: Marker, nowMs: number): void {
    const sample = {
      bytes: this.#deliveredBytes - marker.deliveredBytes,
      // Answers that were held up come in a bunch: then the time that sending took is the truer one.
      elapsedMs: Math.max(nowMs - marker.deliveredMs, marker.sentMs - marker.deliveredSentMs),
      answerMs: nowMs - marker.sentMs,
      limitedBySender: marker.limitedBySender,
      linkIsFull: marker.linkIsFull,
      savedMs: marker.savedMs,
    };
    this.#rate.answered(sample, nowMs, this.#slackMs, this.#startingUp);
  }

  #adjust(sampleMs: number, newlyDeliveredBytes: number, nowMs: number): void {
    const roundTripMs = this.roundTripMs ?? sampleMs;
    if (this.#startingUp) {
      // Doubles per round trip until a queue shows that the link is full.
      this.#windowBytes = Math.min(WINDOW_BYTES_MAX, this.#windowBytes + newlyDeliveredBytes);
      if (!this.#isFull(sampleMs, nowMs)) return;
      this.#startingUp = false;
      // A queue says that nothing is left.
      this.#savedMs = 0;
      this.#latency.drainSoon();
    }
    this.#latency.pass(nowMs, this.#slackMs);
    this.#rate.judgeDoubted(this.#slackMs);
    this.#steadyBytes = this.#bytesIn(roundTripMs + this.#slackMs);
    // Drained to less than what the link seems to hold by itself, since that may be our own queue in part.
    const aimBytes = this.#latency.isDraining ? this.#bytesIn(roundTripMs / 2) : this.#steadyBytes;
    // Opened again gradually: what is sent at once stands in a queue, however empty the link is.
    const openBytes = this.#windowBytes + Math.ceil(newlyDeliveredBytes / 2);
    this.#windowBytes = Math.min(aimBytes, openBytes);
  }

  /**
   * A queue that stays although no more gets across: of what has been sent in one round trip, as long as one takes now, no
   * more than in the one before. One that does not stay says that somebody stood still for a moment, as at the start of the
   * other end.
   */
  #isFull(sampleMs: number, nowMs: number): boolean {
    const isLate = sampleMs - (this.roundTripMs ?? sampleMs) >= QUEUE_MS;
    if (!isLate) this.#isLateRound = false;
    if (isLate && !this.#isLateRound) {
      this.#isLateRound = true;
      this.#beginRound(sampleMs, nowMs);
      return false;
    }
    const elapsedMs = nowMs - this.#roundStartMs;
    if (elapsedMs < this.#roundMs) return false;
    const before = this.#roundBytesPerMs;
    const isFull = this.#isLateRound && this.#bytesPerMsOfRound(nowMs) < before * GROWTH_MIN;
    this.#beginRound(sampleMs, nowMs);
    return isFull;
  }

  #bytesPerMsOfRound(nowMs: number): number {
    return (this.#deliveredBytes - this.#roundStartBytes) / (nowMs - this.#roundStartMs);
  }

  #beginRound(sampleMs: number, nowMs: number): void {
    if (nowMs - this.#roundStartMs >= this.#roundMs / 2)
      this.#roundBytesPerMs = this.#bytesPerMsOfRound(nowMs);
    this.#roundStartMs = nowMs;
    this.#roundStartBytes = this.#deliveredBytes;
    this.#roundMs = Math.max(QUEUE_MS, sampleMs);
  }

  #save(ms: number): void {
    this.#savedMs = Math.max(0, Math.min(SAVED_MS_MAX, this.#savedMs + ms));
  }

  /** What the link carries in so many milliseconds, within the limits of a window. */
  #bytesIn(ms: number): number {
    const bytes = Math.ceil((this.#rate.bytesPerSecond * ms) / 1000);
    return Math.max(TURN_BYTES_MIN, Math.min(WINDOW_BYTES_MAX, bytes));
  }
}
