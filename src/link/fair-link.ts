// One rate that several channels share by weight, such as the migrations of a host that leave over one link. A channel
// whose own connection is slower than its share leaves the rest to the others. What may not go yet is held back, and
// said so by the return value of `write`: to the engine behind it, it is a slow link and nothing else, so that what is
// in flight stays bounded in time (engine/transport/window.ts). What is held is bounded by whoever respects that value.
//
// Whoever is to get its share must have something here whenever its turn comes, also when its engine is late because this
// thread has others to run. So some time's worth of its share is taken before it is told to wait; how much of that it
// uses is for its engine's window, which bounds what is in flight.

import type { Clock } from "../base/clock.ts";
import type { Channel, ChannelListener } from "../engine/ports.ts";
import { FairSchedule, type Flow } from "./fair-schedule.ts";
import { TokenBucket } from "./token-bucket.ts";

/** Sent at once after a pause: a few milliseconds of the rate. */
const BURST_MS = 4;
/** Channels take turns piece by piece: a small part of the time that an engine lets its bytes wait. */
const PIECE_MS = 1;
const PIECE_BYTES_MIN = 2048;
const PIECE_BYTES_MAX = 256 * 1024;
/** Of a channel's share: held before `write` says no. */
export const HOLD_MS = 100;
/** A channel whose engine is late with its next bytes by less than this makes up for it. */
const SLACK_MS = 200;
/** A timer that fires late costs no part of the rate, up to this. What goes at once then is bounded by it, too. */
const LATE_MS_MAX = 50;

export class FairLink {
  readonly #clock: Clock;
  readonly #bucket: TokenBucket;
  readonly #bytesPerSecond: number;
  readonly #holdMs: number;
  readonly #pieceBytes: number;
  readonly #schedule: FairSchedule<FairChannel>;
  #isWaiting = false;
  #isMoving = false;
  /** Since when there has been something to send all the time. */
  #busySinceMs: number | undefined;

  /** `holdMs`: what of a channel's share is held before `write` says no; 0: nothing, beside the write that says it. */
  constructor(clock: Clock, bytesPerSecond: number, holdMs: number = HOLD_MS) {
    this.#clock = clock;
    this.#bytesPerSecond = bytesPerSecond;
    this.#holdMs = holdMs;
    const bytesIn = (ms: number) => Math.floor((bytesPerSecond * ms) / 1000);
    this.#schedule = new FairSchedule(bytesIn(SLACK_MS));
    this.#pieceBytes = Math.min(PIECE_BYTES_MAX, Math.max(PIECE_BYTES_MIN, bytesIn(PIECE_MS)));
    this.#bucket = new TokenBucket(clock, bytesPerSecond, Math.max(2 * this.#pieceBytes, bytesIn(BURST_MS)));
  }

  /** Channels that share it now. */
  get size(): number {
    return this.#schedule.size;
  }

  /** `inner`, no faster than its share by `weight` (WEIGHT_MIN to WEIGHT_MAX). It leaves when its connection is over. */
  share(inner: Channel, weight: number): Channel {
    return new FairChannel(this, this.#clock, inner, weight);
  }

  /** @internal of FairChannel */
  enter(channel: FairChannel): void {
    this.#schedule.add(channel);
  }

  /** @internal */
  leave(channel: FairChannel): void {
    channel.isReady = false;
    this.#schedule.remove(channel);
  }

  /** How much of a channel may wait here. @internal */
  holdBytes(channel: FairChannel): number {
    return (this.#bytesPerSecond * this.#schedule.shareOf(channel) * this.#holdMs) / 1000;
  }

  /** Sends what the rate allows by now, in turn. @internal */
  move(): void {
    // A piece that is written may have its writer write more.
    if (this.#isWaiting || this.#isMoving) return;
    this.#isMoving = true;
    try {
      for (;;) {
        const channel = this.#schedule.next();
        if (channel === undefined) {
          this.#busySinceMs = undefined;
          return;
        }
        const nowMs = this.#clock.nowMs();
        this.#busySinceMs = Math.max(this.#busySinceMs ?? nowMs, nowMs - LATE_MS_MAX);
        const bytes = channel.pieceBytes(this.#pieceBytes);
        const waitMs = this.#bucket.take(bytes, this.#busySinceMs);
        if (waitMs > 0) {
          this.#wait(waitMs);
          return;
        }
        this.#schedule.sent(channel, bytes);
        channel.sendPiece(bytes);
      }
    } finally {
      this.#isMoving = false;
    }
  }

  #wait(ms: number): void {
    this.#isWaiting = true;
    this.#clock.after(ms, () => {
      this.#isWaiting = false;
      this.move();
    });
  }
}

export class FairChannel implements Channel, Flow {
  readonly weight: number;
  isReady = false;
  finish = 0;
  readonly #link: FairLink;
  readonly #clock: Clock;
  readonly #inner: Channel;
  readonly #queue: { bytes: Uint8Array; written: (() => void) | undefined }[] = [];
  #queuedBytes = 0;
  #listener: ChannelListener | undefined;
  #isBlocked = false;
  /** `write` has returned false since `drained` was last told. */
  #owesDrained = false;
  #isTelling = false;
  #isEnding = false;
  #isOver = false;

  constructor(link: FairLink, clock: Clock, inner: Channel, weight: number) {
    this.#link = link;
    this.#clock = clock;
    this.#inner = inner;
    this.weight = weight;
    link.enter(this);
  }

  listen(listener: ChannelListener): void {
    this.#listener = listener;
    this.#inner.listen({
      ...(listener.space === undefined ? {} : { space: () => listener.space!() }),
      data: (bytes) => listener.data(bytes),
      drained: () => {
        this.#isBlocked = false;
        this.#changed();
        this.#link.move();
        this.#tellDrained();
      },
      // The other direction may go on.
      ended: () => listener.ended(),
      failed: (error) => {
        this.#leave();
        listener.failed(error);
      },
    });
  }

  write(bytes: Uint8Array, written?: () => void): boolean {
    if (this.#isOver) return false;
    this.#queue.push({ bytes, written });
    this.#queuedBytes += bytes.length;
    this.#changed();
    this.#link.move();
    if (this.#takesMore) {
      // Not from within the call: whoever writes may be in the middle of a frame.
      if (this.#owesDrained) this.#tellSoon();
      return true;
    }
    this.#owesDrained = true;
    return false;
  }

  pause(): void {
    this.#inner.pause();
  }

  resume(): void {
    this.#inner.resume();
  }

  end(): void {
    this.#isEnding = true;
    this.#endIfSent();
  }

  destroy(): void {
    this.#leave();
    this.#inner.destroy();
  }

  /** Of what is to be sent next, at most so many. @internal */
  pieceBytes(bytesMax: number): number {
    return Math.min(bytesMax, this.#queue[0]!.bytes.length);
  }

  /** @internal */
  sendPiece(count: number): void {
    const head = this.#queue[0]!;
    const isLast = count === head.bytes.length;
    const piece = isLast ? head.bytes : head.bytes.subarray(0, count);
    if (isLast) this.#queue.shift();
    else head.bytes = head.bytes.subarray(count);
    this.#queuedBytes -= count;
    this.#isBlocked = !this.#inner.write(piece, isLast ? head.written : undefined);
    this.#changed();
    if (this.#owesDrained && this.#hasDrained) this.#tellSoon();
    this.#endIfSent();
  }

  get #takesMore(): boolean {
    return !this.#isBlocked && this.#queuedBytes <= this.#link.holdBytes(this);
  }

  /** Not at the first byte that there is room for: half of it, so that the engine has something to do. */
  get #hasDrained(): boolean {
    return !this.#isBlocked && this.#queuedBytes <= this.#link.holdBytes(this) / 2;
  }

  #changed(): void {
    this.isReady = !this.#isOver && !this.#isBlocked && this.#queue.length > 0;
  }

  #tellSoon(): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    this.#clock.after(0, () => {
      this.#isTelling = false;
      this.#tellDrained();
    });
  }

  #tellDrained(): void {
    if (!this.#owesDrained || !this.#hasDrained || this.#isOver || this.#isEnding) return;
    this.#owesDrained = false;
    this.#listener?.drained();
  }

  #endIfSent(): void {
    if (!this.#isEnding || this.#queue.length > 0 || this.#isOver) return;
    this.#link.leave(this);
    this.#inner.end();
  }

  /** What waits is given up. */
  #leave(): void {
    this.#isOver = true;
    this.#queue.length = 0;
    this.#queuedBytes = 0;
    this.#link.leave(this);
  }
}
