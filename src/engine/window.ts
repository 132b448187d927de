// How much may be under way to the destination: a window that is bounded in time on the link, not in bytes.
// What the window holds when the guest is stopped is downtime that no hypervisor sees, so it is kept at about
// `QUEUE_MS` of link rate above the round trip: enough to keep the link busy, little enough to be forgotten.
//
// The link's rate and round trip are learned from acknowledged markers, as BBR learns them from packets
// (Cardwell et al., "BBR: congestion-based congestion control", 2016): rate = highest delivery rate of the
// last second; round trip = lowest of the last ten. Pure: knows bytes and a clock, no sockets.

import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";

/** Time on the link that may be queued beyond what the round trip itself holds. */
export const QUEUE_MS = 20;
export const WINDOW_BYTES_MIN = 32 * 1024;
export const WINDOW_BYTES_MAX = 256 * 1024 * 1024;
/** Markers that may be unanswered; a sender asks `mayMark` before it sets one. */
const MARKERS_MAX = 1024;

const RATE_MEMORY_MS = 1000;
const ROUND_TRIP_MEMORY_MS = 10_000;
/**
 * Every so often the queue is let run dry for a moment, so that the round trip is measured without it;
 * otherwise our own queue would be taken for the link's delay, and the window would creep up.
 */
const DRAIN_EVERY_MS = 5000;
const DRAIN_MS_MIN = 20;
/** Samples over less time than this say more about timers than about the link. */
const SAMPLE_MS_MIN = 2;

interface Marker {
  /** All bytes sent up to this marker. */
  sentBytes: number;
  sentMs: number;
  /** What was known to be delivered when it was sent, and since when. */
  deliveredBytes: number;
  deliveredMs: number;
  /** The sender had less to send than the window allowed: the sample says nothing about the link's limit. */
  limitedBySender: boolean;
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
  #startingUp = true;
  #windowBytes = WINDOW_BYTES_MIN;
  /** Two halves of the rate memory: the maximum over the last one to two halves is known at any time. */
  #rateMax = 0;
  #rateMaxBefore = 0;
  #rateHalfEndsMs: number;
  #roundTripMs = Number.POSITIVE_INFINITY;
  #roundTripExpiresMs = 0;
  #drainEndsMs = 0;
  #nextDrainMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    const nowMs = clock.nowMs();
    this.#deliveredMs = nowMs;
    this.#rateHalfEndsMs = nowMs + RATE_MEMORY_MS / 2;
    this.#nextDrainMs = nowMs + DRAIN_EVERY_MS;
    for (let i = 0; i < MARKERS_MAX; i++) {
      this.#markers.push({
        sentBytes: 0,
        sentMs: 0,
        deliveredBytes: 0,
        deliveredMs: 0,
        limitedBySender: false,
      });
    }
  }

  get inFlightBytes(): number {
    return this.#sentBytes - this.#deliveredBytes;
  }

  get windowBytes(): number {
    return this.#windowBytes;
  }

  get hasRoom(): boolean {
    return this.inFlightBytes < this.#windowBytes;
  }

  /** 0 until something was measured. */
  get linkBytesPerSecond(): number {
    return Math.max(this.#rateMax, this.#rateMaxBefore);
  }

  /** Undefined until something was measured. */
  get roundTripMs(): number | undefined {
    return Number.isFinite(this.#roundTripMs) ? this.#roundTripMs : undefined;
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
    if (this.inFlightBytes === 0) this.#deliveredMs = this.#clock.nowMs();
    this.#sentBytes += bytes;
  }

  /**
   * A marker went out behind the bytes sent so far. Markers are answered in order.
   * `limitedBySender`: nothing more was waiting to be sent.
   */
  marked(limitedBySender: boolean): void {
    assert(this.mayMark, "the sender asked mayMark");
    const marker = this.#markers[(this.#first + this.#count++) % MARKERS_MAX]!;
    marker.sentBytes = this.#sentBytes;
    marker.sentMs = this.#clock.nowMs();
    marker.deliveredBytes = this.#deliveredBytes;
    marker.deliveredMs = this.#deliveredMs;
    marker.limitedBySender = limitedBySender;
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
    this.#deliveredBytes = marker.sentBytes;
    this.#deliveredMs = nowMs;
    const roundTripMs = nowMs - marker.sentMs;
    this.#learnRoundTrip(roundTripMs, nowMs);
    this.#learnRate(marker, nowMs);
    this.#adjust(newlyDeliveredBytes, roundTripMs, nowMs);
  }

  #learnRoundTrip(roundTripMs: number, nowMs: number): void {
    if (roundTripMs <= this.#roundTripMs || nowMs >= this.#roundTripExpiresMs) {
      this.#roundTripMs = roundTripMs;
      this.#roundTripExpiresMs = nowMs + ROUND_TRIP_MEMORY_MS;
    }
  }

  #learnRate(marker: Marker, nowMs: number): void {
    if (nowMs >= this.#rateHalfEndsMs) {
      // Long silence empties both halves only if something new is known: an old rate beats none.
      if (this.#rateMax > 0) this.#rateMaxBefore = this.#rateMax;
      this.#rateMax = 0;
      this.#rateHalfEndsMs = nowMs + RATE_MEMORY_MS / 2;
    }
    const elapsedMs = nowMs - marker.deliveredMs;
    if (elapsedMs < SAMPLE_MS_MIN) return;
    const bytesPerSecond = ((this.#deliveredBytes - marker.deliveredBytes) / elapsedMs) * 1000;
    // A sender with little to say measures itself, not the link: such a sample may only raise the estimate.
    if (marker.limitedBySender && bytesPerSecond <= this.linkBytesPerSecond) {
      this.#rateMax = Math.max(this.#rateMax, this.#rateMaxBefore);
      return;
    }
    this.#rateMax = Math.max(this.#rateMax, bytesPerSecond);
  }

  #adjust(newlyDeliveredBytes: number, roundTripMs: number, nowMs: number): void {
    if (this.#startingUp) {
      // Doubles per round trip until a queue shows that the link is full.
      this.#windowBytes = Math.min(WINDOW_BYTES_MAX, this.#windowBytes + newlyDeliveredBytes);
      if (roundTripMs - this.#roundTripMs < QUEUE_MS) return;
      this.#startingUp = false;
    }
    if (nowMs >= this.#nextDrainMs) {
      this.#drainEndsMs = nowMs + Math.max(DRAIN_MS_MIN, 2 * this.#roundTripMs);
      this.#nextDrainMs = this.#drainEndsMs + DRAIN_EVERY_MS;
    }
    const queueMs = nowMs < this.#drainEndsMs ? 0 : QUEUE_MS;
    const bytes = (this.linkBytesPerSecond * (this.#roundTripMs + queueMs)) / 1000;
    this.#windowBytes = Math.max(WINDOW_BYTES_MIN, Math.min(WINDOW_BYTES_MAX, Math.ceil(bytes)));
  }
}
