// A link on virtual time for a sender that asks a delivery window: a queue in front of a line of some rate, a
// delay each way, acknowledgements that come back in order but not on time.

import type { Clock } from "../../src/base/clock.ts";
import type { DeliveryWindow } from "../../src/engine/transport/window.ts";

/** A clock that is set; nobody sets timers by it. */
export class SetClock implements Clock {
  atMs = 0;
  nowMs(): number {
    return this.atMs;
  }
  after(): () => void {
    throw new Error("no timers on this clock");
  }
}

export interface LinkConditions {
  bytesPerSecond: number;
  roundTripMs: number;
  /** So much passes at once after silence (a token bucket). */
  bucketBytes?: number;
  /** What is sent comes in pieces of at least so much (a batch of pages), however small the window is. */
  pieceBytesMin?: number;
  /** An acknowledgement comes up to this much too late. */
  jitterMs: number;
  /** Who sends and who answers get to it only now and then, up to so long after the last time. */
  asleepMsMax?: number;
  /** Of the packets: what is lost arrives a round trip later, and all that was sent behind it with it (BBR's way). */
  lossShare?: number;
}

export interface LinkUse {
  /** Share of the time that the line was busy. */
  utilisation: number;
  /** Longest time that a byte had to wait in front of the line or on it. */
  queueMsMax: number;
  deliveredBytes: number;
}

const PACKET_BYTES = 1448;

interface UnderWay {
  bytes: number;
  ackMs: number;
}

export class SimulatedLink {
  readonly #clock: SetClock;
  readonly #window: DeliveryWindow;
  readonly #random: () => number;
  conditions: LinkConditions;
  readonly #underWay: UnderWay[] = [];
  #lineFreeMs = 0;
  #lastAckMs = 0;
  #wakeMs = 0;

  constructor(clock: SetClock, window: DeliveryWindow, conditions: LinkConditions, random: () => number) {
    this.#clock = clock;
    this.#window = window;
    this.#random = random;
    this.conditions = conditions;
  }

  #awakeMs(dueMs: number): number {
    const { asleepMsMax } = this.conditions;
    if (asleepMsMax === undefined) return dueMs;
    while (this.#wakeMs < dueMs) this.#wakeMs += this.#random() * asleepMsMax;
    return this.#wakeMs;
  }

  /** No acknowledgement comes for so long; then those that are due come together. */
  holdAnswers(ms: number): void {
    const untilMs = this.#clock.atMs + ms;
    this.#lastAckMs = Math.max(this.#lastAckMs, untilMs);
    for (const piece of this.#underWay) piece.ackMs = Math.max(piece.ackMs, untilMs);
  }

  /**
   * Lets a sender send for `ms`. `supplyBytesPerSecond`: how much it has to send; more than the link takes if not
   * given, and then it never pauses.
   */
  run(ms: number, supplyBytesPerSecond?: number): LinkUse {
    const window = this.#window;
    const startMs = this.#clock.atMs;
    const endMs = startMs + ms;
    let supplyMs = startMs;
    let idleMs = 0;
    let queueMsMax = 0;
    let deliveredBytes = 0;
    for (;;) {
      const nowMs = this.#clock.atMs;
      while (window.hasRoom && window.mayMark && supplyMs <= nowMs) {
        const { bytesPerSecond, roundTripMs, jitterMs, lossShare = 0, bucketBytes = 0 } = this.conditions;
        const bytes = Math.max(window.turnBytes, this.conditions.pieceBytesMin ?? 0);
        idleMs += Math.max(0, nowMs - Math.max(startMs, this.#lineFreeMs));
        const savedMs = (bucketBytes / bytesPerSecond) * 1000;
        this.#lineFreeMs = Math.max(nowMs - savedMs, this.#lineFreeMs) + (bytes / bytesPerSecond) * 1000;
        queueMsMax = Math.max(queueMsMax, this.#lineFreeMs - nowMs);
        const isLost = this.#random() < 1 - (1 - lossShare) ** Math.ceil(bytes / PACKET_BYTES);
        const throughMs = Math.max(nowMs, this.#lineFreeMs);
        const dueMs = throughMs + (isLost ? 2 : 1) * roundTripMs + this.#random() * jitterMs;
        this.#lastAckMs = this.#awakeMs(Math.max(this.#lastAckMs, dueMs));
        this.#underWay.push({ bytes, ackMs: this.#lastAckMs });
        window.sent(bytes);
        window.marked(false);
        if (supplyBytesPerSecond !== undefined) {
          // What was not sent while the window was closed waits, but not without bounds.
          supplyMs = Math.max(supplyMs, nowMs - 100) + (bytes / supplyBytesPerSecond) * 1000;
        }
      }
      const ack = this.#underWay[0];
      const sendMs = window.hasRoom && window.mayMark ? supplyMs : endMs;
      this.#clock.atMs = Math.min(endMs, sendMs, ack?.ackMs ?? endMs);
      if (this.#clock.atMs >= endMs) break;
      if (ack !== undefined && ack.ackMs <= this.#clock.atMs) {
        this.#underWay.shift();
        deliveredBytes += ack.bytes;
        window.acknowledged();
      }
    }
    idleMs += Math.max(0, endMs - Math.max(startMs, this.#lineFreeMs));
    const utilisation = 1 - idleMs / ms;
    return { utilisation, queueMsMax, deliveredBytes };
  }
}
