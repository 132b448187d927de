// A connection that is listened to by two, one after the other: first by whoever finds out what it is, then by whoever
// it is for, who hears all of it from the first byte. Knows nothing of what is said.

import { assert } from "../base/assert.ts";
import type { Channel, ChannelListener } from "../engine/ports.ts";

/** For the time in which nobody has room of his own. */
const READ_BYTES_MAX = 16 * 1024;

export class WaitingChannel implements Channel {
  readonly #inner: Channel;
  readonly #ownRoom = new Uint8Array(READ_BYTES_MAX);
  #listener: ChannelListener | undefined;
  /** Read and put back, or come since: for the second listener. */
  #before: Uint8Array | undefined;
  /** How it ended while nobody listened. */
  #end: ((listener: ChannelListener) => void) | undefined;
  #paused = false;
  #destroyed = false;

  constructor(inner: Channel) {
    this.#inner = inner;
    const call = (tell: (listener: ChannelListener) => void) => {
      if (this.#listener === undefined || this.#before !== undefined) this.#end = tell;
      else tell(this.#listener);
    };
    inner.listen({
      space: () => this.#listener?.space?.() ?? this.#ownRoom,
      data: (bytes) => {
        assert(this.#listener !== undefined, "nothing is read while nobody listens");
        this.#listener.data(bytes);
      },
      drained: () => this.#listener?.drained(),
      ended: () => call((listener) => listener.ended()),
      failed: (error) => call((listener) => listener.failed(error)),
    });
  }

  listen(listener: ChannelListener): void {
    assert(this.#listener === undefined, "one listens at a time");
    this.#listener = listener;
    if (this.#before !== undefined) process.nextTick(() => this.#giveBefore());
  }

  /** The first listener has heard enough: `before` is all that it has read. Nothing comes until another one listens. */
  leave(before: Uint8Array): void {
    assert(this.#listener !== undefined && this.#before === undefined, "only who listens leaves, and once");
    this.#listener = undefined;
    this.#before = before;
    this.#inner.pause();
  }

  #giveBefore(): void {
    const listener = this.#listener;
    if (this.#destroyed || this.#paused || listener === undefined || this.#before === undefined) return;
    const bytes = this.#before;
    this.#before = undefined;
    listener.data(bytes);
    if (this.#destroyed) return;
    this.#end?.(listener);
    if (!this.#paused) this.#inner.resume();
  }

  write(bytes: Uint8Array, written?: () => void): boolean {
    return this.#inner.write(bytes, written);
  }

  pause(): void {
    this.#paused = true;
    this.#inner.pause();
  }

  resume(): void {
    this.#paused = false;
    if (this.#before === undefined) this.#inner.resume();
    else process.nextTick(() => this.#giveBefore());
  }

  end(): void {
    this.#inner.end();
  }

  destroy(): void {
    this.#destroyed = true;
    this.#inner.destroy();
  }
}
