// Two ends of a connection in memory, on virtual time: pieces of any size, back-pressure, a rate, a delay, and
// every way in which a connection can end. Strict about the contract of src/engine/ports.ts: what was written
// must not change, and what was read is spoilt as soon as the call is over, or the pause that it made.

import type { Clock } from "../../src/base/clock.ts";
import type { Channel, ChannelListener } from "../../src/engine/ports.ts";

export interface ChannelConditions {
  /** Longest piece that is delivered in one call. */
  chunkBytes: number;
  /** More than this undelivered: `write` says false. */
  bufferBytes: number;
  delayMs: number;
  bytesPerSecond: number;
  /** False: what was read stays as it is, as with a socket, which never uses its buffers again. */
  spoils: boolean;
}

const DEFAULTS: ChannelConditions = {
  chunkBytes: 65_536,
  bufferBytes: 256 * 1024,
  delayMs: 0,
  bytesPerSecond: 1e9,
  spoils: true,
};

interface Piece {
  bytes: Uint8Array;
  /** What it was when it was written. */
  copy: Buffer;
  atBytes: number;
  damagedByte: number;
  dueMs: number;
  written: (() => void) | undefined;
}

export class MemoryChannel implements Channel {
  peer!: MemoryChannel;
  /** Sees all bytes that are written here, at once. */
  onWrite: (bytes: Uint8Array) => void = () => {};
  writtenBytes = 0;
  readonly #clock: Clock;
  readonly #conditions: ChannelConditions;
  #listener: ChannelListener | undefined;
  #queue: Piece[] = [];
  #queuedBytes = 0;
  #lineFreeMs = 0;
  #wantsDrain = false;
  #damageAt = -1;
  #paused = false;
  /** Bytes of the call that paused. */
  #lent: Buffer | undefined;
  #ending = false;
  #deaf = false;
  /** Nothing written here arrives any more, and nobody is told. */
  #silent = false;
  #timer: (() => void) | undefined;

  constructor(clock: Clock, conditions: Partial<ChannelConditions>) {
    this.#clock = clock;
    this.#conditions = { ...DEFAULTS, ...conditions };
  }

  listen(listener: ChannelListener): void {
    if (this.#listener !== undefined) throw new Error("listen is called once");
    this.#listener = listener;
    this.peer.#schedule();
  }

  write(bytes: Uint8Array, written?: () => void): boolean {
    if (this.#deaf || this.#ending) return false;
    this.onWrite(bytes);
    const damagedByte = this.#damageAt - this.writtenBytes;
    this.writtenBytes += bytes.length;
    const { bytesPerSecond, delayMs, bufferBytes } = this.#conditions;
    const now = this.#clock.nowMs();
    this.#lineFreeMs = Math.max(now, this.#lineFreeMs) + (bytes.length / bytesPerSecond) * 1000;
    const dueMs = this.#lineFreeMs + delayMs;
    this.#queue.push({ bytes, copy: Buffer.from(bytes), atBytes: 0, damagedByte, dueMs, written });
    this.#queuedBytes += bytes.length;
    this.#schedule();
    if (this.#queuedBytes <= bufferBytes) return true;
    this.#wantsDrain = true;
    return false;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    if (this.#conditions.spoils) this.#lent?.fill(0xdb);
    this.#lent = undefined;
    this.peer.#schedule();
  }

  end(): void {
    this.#ending = true;
    this.#schedule();
  }

  /** The other side sees an end, behind what it has been sent already. */
  destroy(): void {
    if (this.#deaf) return;
    this.#deaf = true;
    this.peer.#queue = [];
    this.end();
  }

  /** The byte of this number that is written here arrives changed. */
  damageAt(offsetBytes: number): void {
    this.#damageAt = offsetBytes;
  }

  /** The connection breaks: both sides are told, what is under way is lost. */
  cut(): void {
    for (const side of [this, this.peer]) {
      side.#queue = [];
      if (side.#deaf) continue;
      side.#deaf = true;
      side.#listener?.failed(new Error("connection reset"));
    }
  }

  /** It breaks for this side alone; the other sees nothing of it. */
  cutHere(): void {
    this.#silent = true;
    this.peer.#silent = true;
    this.#deaf = true;
    this.#listener?.failed(new Error("connection reset"));
  }

  /** The connection is closed by something in the middle: both sides see an end, behind what was sent. */
  close(): void {
    this.end();
    this.peer.end();
  }

  /** Nothing arrives at either side any more, and neither is told. */
  blackOut(): void {
    for (const side of [this, this.peer]) side.#silent = true;
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#silent) return;
    const head = this.#queue[0];
    if (head === undefined && !this.#ending) return;
    const waitMs = Math.max(0, (head?.dueMs ?? 0) - this.#clock.nowMs());
    this.#timer = this.#clock.after(waitMs, () => {
      this.#timer = undefined;
      this.#deliver();
    });
  }

  #deliver(): void {
    const { peer } = this;
    const listener = peer.#listener;
    if (this.#silent || peer.#deaf || peer.#paused || listener === undefined) return;
    const head = this.#queue[0];
    if (head === undefined) {
      if (!this.#ending) return;
      this.#silent = true;
      listener.ended();
      return;
    }
    if (head.dueMs <= this.#clock.nowMs()) {
      // What a side has destroyed it does not own any more: the operating system has a copy.
      if (!this.#deaf && !head.copy.equals(head.bytes))
        throw new Error("bytes were changed after they had been written");
      const next = Math.min(head.copy.length, head.atBytes + this.#conditions.chunkBytes);
      const given = Buffer.from(head.copy.subarray(head.atBytes, next));
      const damaged = head.damagedByte - head.atBytes;
      if (damaged >= 0 && damaged < given.length) given[damaged]! ^= 0x40;
      this.#queuedBytes -= next - head.atBytes;
      head.atBytes = next;
      const isLast = next === head.copy.length;
      if (isLast) this.#queue.shift();
      listener.data(given);
      if (peer.#paused) peer.#lent = given;
      else if (this.#conditions.spoils) given.fill(0xdb);
      if (isLast && !this.#deaf) head.written?.();
      if (this.#wantsDrain && this.#queuedBytes === 0 && !this.#deaf) {
        this.#wantsDrain = false;
        this.#listener?.drained();
      }
    }
    this.#schedule();
  }
}

export function memoryChannels(
  clock: Clock,
  conditions: Partial<ChannelConditions> = {},
): [MemoryChannel, MemoryChannel] {
  const ends: [MemoryChannel, MemoryChannel] = [
    new MemoryChannel(clock, conditions),
    new MemoryChannel(clock, conditions),
  ];
  [ends[0].peer, ends[1].peer] = [ends[1], ends[0]];
  return ends;
}
