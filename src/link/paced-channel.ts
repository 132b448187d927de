// A channel that sends no faster than a given rate: `--max-bandwidth`. Holds back what the rate does not
// allow yet and says so by the return value of `write`, so the engine's window sees a slow link and nothing
// else. What it holds is bounded by whoever respects that value.

import type { Clock } from "../base/clock.ts";
import type { Channel, ChannelListener } from "../engine/ports.ts";
import { TokenBucket } from "./token-bucket.ts";

/** Sent at once after a pause: a few milliseconds of the rate, at least one packet or two. */
const BURST_MS = 4;
const BURST_BYTES_MIN = 4096;

export class PacedChannel implements Channel {
  readonly #inner: Channel;
  readonly #clock: Clock;
  readonly #bucket: TokenBucket;
  readonly #pieceBytes: number;
  readonly #queue: { bytes: Uint8Array; written: (() => void) | undefined }[] = [];
  #listener: ChannelListener | undefined;
  #waiting = false;
  #innerBlocked = false;
  /** `write` has returned false since `drained` was last told. */
  #owesDrained = false;
  #ending = false;
  #destroyed = false;

  constructor(inner: Channel, clock: Clock, bytesPerSecond: number) {
    this.#inner = inner;
    this.#clock = clock;
    const burstBytes = Math.max(BURST_BYTES_MIN, (bytesPerSecond * BURST_MS) / 1000);
    this.#bucket = new TokenBucket(clock, bytesPerSecond, burstBytes);
    // Half a burst per piece: a timer that fires late then costs no part of the rate (see TokenBucket.take).
    this.#pieceBytes = Math.floor(burstBytes / 2);
  }

  listen(listener: ChannelListener): void {
    this.#listener = listener;
    this.#inner.listen({
      data: (bytes) => listener.data(bytes),
      drained: () => {
        this.#innerBlocked = false;
        this.#drain();
      },
      ended: () => listener.ended(),
      failed: (error) => listener.failed(error),
    });
  }

  write(bytes: Uint8Array, written?: () => void): boolean {
    if (this.#destroyed) return false;
    this.#queue.push({ bytes, written });
    this.#move();
    const flows = this.#flows;
    if (!flows) this.#owesDrained = true;
    // Not from within the call: whoever writes may be in the middle of a frame.
    else if (this.#owesDrained) this.#clock.after(0, () => this.#tellDrained());
    return flows;
  }

  pause(): void {
    this.#inner.pause();
  }

  resume(): void {
    this.#inner.resume();
  }

  end(): void {
    this.#ending = true;
    this.#drain();
  }

  destroy(): void {
    this.#destroyed = true;
    this.#queue.length = 0;
    this.#inner.destroy();
  }

  get #flows(): boolean {
    return this.#queue.length === 0 && !this.#innerBlocked;
  }

  #drain(): void {
    this.#move();
    this.#tellDrained();
  }

  #tellDrained(): void {
    if (!this.#owesDrained || !this.#flows || this.#destroyed || this.#ending) return;
    this.#owesDrained = false;
    this.#listener?.drained();
  }

  /** Writes what the rate allows by now. */
  #move(): void {
    while (this.#queue.length > 0 && !this.#waiting && !this.#innerBlocked && !this.#destroyed) {
      const head = this.#queue[0]!;
      const piece = head.bytes.subarray(0, this.#pieceBytes);
      const waitMs = this.#bucket.take(piece.length);
      if (waitMs > 0) {
        this.#waiting = true;
        this.#clock.after(waitMs, () => {
          this.#waiting = false;
          this.#drain();
        });
        return;
      }
      const isLast = piece.length === head.bytes.length;
      if (isLast) this.#queue.shift();
      else head.bytes = head.bytes.subarray(piece.length);
      this.#innerBlocked = !this.#inner.write(piece, isLast ? head.written : undefined);
    }
    if (this.#ending && this.#queue.length === 0 && !this.#destroyed) this.#inner.end();
  }
}
