// A connection on virtual time with what operating systems put between two programs: buffers of the sender that end
// with its process, buffers of the system that do not, a line with a rate and a delay, and a receiver that gets
// pieces cut and joined at random. Every way in which a connection can end. Strict about src/engine/ports.ts:
// what was written must not change until the system has it, what was read is spoilt after the call.

import type { Channel, ChannelListener } from "../../src/engine/ports.ts";
import type { Random } from "./random.ts";
import type { SimClock } from "./sim-clock.ts";

export interface LineConditions {
  bytesPerSecond: number;
  delayMs: number;
  /** A piece comes up to this much later, and those behind it with it. */
  jitterMs: number;
  /** Pieces that are read at once are of any size up to this, or as large as what has come. */
  pieceBytesMax: number;
  /** What the system takes off a sender without anybody reading it. */
  systemBytesMax: number;
  /** `write` says false when more than this waits for the system. */
  highWaterBytes: number;
}

interface Write {
  bytes: Uint8Array;
  copy: Buffer;
  takenBytes: number;
  written: (() => void) | undefined;
}

interface Segment {
  bytes: Buffer;
  readBytes: number;
  dueMs: number;
}

/** What a program reads at once. */
const READ_BYTES_MAX = 64 * 1024;
const SPOILT = 0xdb;

export class SimEnd implements Channel {
  peer!: SimEnd;
  /** Sees the pieces that are written here, before they go anywhere. */
  onWrite: (bytes: Uint8Array) => void = () => {};
  /** May change what is written here, on its way. */
  alter: (bytes: Buffer) => void = () => {};
  /** Most that has ever waited for the system. */
  waitingBytesMax = 0;
  readonly #clock: SimClock;
  readonly #random: Random;
  readonly #line: LineConditions;
  #listener: ChannelListener | undefined;
  #space: Uint8Array | undefined;
  /** In this program, not taken by the system. */
  #writes: Write[] = [];
  #waitingBytes = 0;
  /** With the system: under way, or arrived and not read. */
  #segments: Segment[] = [];
  #systemBytes = 0;
  #lineFreeMs = 0;
  #lastDueMs = 0;
  #stalledUntilMs = 0;
  #slowness = 1;
  #wantsDrain = false;
  #paused = false;
  #lent: Uint8Array | undefined;
  #ending = false;
  #closed = false;
  /** The other side's end has been told; or what comes from it can never be told any more. */
  #peerEnded = false;
  #deliveryIsDue = false;
  /** What the program is to be told, in order. */
  readonly #news: (() => void)[] = [];

  constructor(clock: SimClock, random: Random, line: LineConditions) {
    this.#clock = clock;
    this.#random = random;
    this.#line = line;
  }

  /** Bytes in this program that the system has not taken. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  listen(listener: ChannelListener): void {
    if (this.#listener !== undefined) throw new Error("listen is called once");
    this.#listener = listener;
    if (!this.#closed) this.#space = listener.space?.();
    this.peer.#scheduleDelivery();
  }

  write(bytes: Uint8Array, written?: () => void): boolean {
    if (this.#closed || this.#ending) return false;
    this.onWrite(bytes);
    if (this.#peerEnded || this.peer.#closed) {
      // Nobody is there to take it: the system says so some time later.
      this.#clock.after(this.#random.real(0, 2 * this.#line.delayMs), () => this.#break("EPIPE"));
      return false;
    }
    this.#writes.push({ bytes, copy: Buffer.from(bytes), takenBytes: 0, written });
    this.#waitingBytes += bytes.length;
    this.#handOver();
    this.waitingBytesMax = Math.max(this.waitingBytesMax, this.#waitingBytes);
    if (this.#waitingBytes <= this.#line.highWaterBytes) return true;
    this.#wantsDrain = true;
    return false;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#lent?.fill(SPOILT);
    this.#lent = undefined;
    this.peer.#scheduleDelivery();
  }

  end(): void {
    this.#paused = false;
    this.#ending = true;
    this.#scheduleDelivery();
    this.peer.#scheduleDelivery();
  }

  /** Also what the system does when the program ends. */
  destroy(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#writes = [];
    this.#waitingBytes = 0;
    // Whatever had arrived and was not read makes the system say "reset", which may overtake what is under way.
    if (this.peer.#segments.length > 0 && this.#random.chance(0.5)) {
      this.#segments = [];
      this.#clock.after(this.#random.real(0, 2 * this.#line.delayMs), () => this.peer.#break("ECONNRESET"));
    }
    this.peer.#segments = [];
    this.#ending = true;
    this.#scheduleDelivery();
  }

  /** Another program holds this end from here on: whatever this one had not given to the system is lost. */
  handTo(listener: ChannelListener): void {
    this.#listener = listener;
    this.#space = undefined;
    this.#writes = [];
    this.#waitingBytes = 0;
    this.#wantsDrain = false;
    this.resume();
  }

  /** Nothing comes from here for so long. */
  stall(ms: number): void {
    if (ms <= 0) return;
    this.#stalledUntilMs = Math.max(this.#stalledUntilMs, this.#clock.nowMs() + ms);
  }

  /** The line from here takes so many times as long as before. */
  slowDown(times: number): void {
    this.#slowness = times;
  }

  /** The connection is gone, with all that was under way. This side notices after so long, or never by itself. */
  cut(noticedMs: number | undefined): void {
    this.#segments = [];
    this.#writes = [];
    this.#waitingBytes = 0;
    this.#peerEnded = this.#peerEnded || noticedMs !== undefined;
    this.#stalledUntilMs = Number.POSITIVE_INFINITY;
    if (noticedMs !== undefined) this.#clock.after(noticedMs, () => this.#break("ECONNRESET"));
  }

  #break(reason: string): void {
    if (this.#closed) return;
    const listener = this.#listener;
    this.#closed = true;
    this.#writes = [];
    this.#waitingBytes = 0;
    this.peer.#segments = [];
    listener?.failed(new Error(reason));
  }

  /** The system takes what it has room for. */
  #handOver(): void {
    const { systemBytesMax, bytesPerSecond, delayMs, jitterMs } = this.#line;
    while (this.#writes.length > 0 && this.#systemBytes < systemBytesMax) {
      const write = this.#writes[0]!;
      const bytes = Math.min(write.copy.length - write.takenBytes, systemBytesMax - this.#systemBytes);
      const taken = write.copy.subarray(write.takenBytes, write.takenBytes + bytes);
      if (!taken.equals(write.bytes.subarray(write.takenBytes, write.takenBytes + bytes)))
        throw new Error("bytes were changed before they had been written");
      write.takenBytes += bytes;
      this.alter(taken);
      const nowMs = this.#clock.nowMs();
      this.#lineFreeMs = Math.max(nowMs, this.#lineFreeMs) + (bytes / bytesPerSecond) * 1000 * this.#slowness;
      const lateMs = delayMs + this.#random.share() * jitterMs;
      this.#lastDueMs = Math.max(this.#lastDueMs, this.#lineFreeMs + lateMs);
      this.#segments.push({ bytes: taken, readBytes: 0, dueMs: this.#lastDueMs });
      this.#systemBytes += bytes;
      this.#waitingBytes -= bytes;
      if (write.takenBytes < write.copy.length) break;
      this.#writes.shift();
      const { written } = write;
      if (written !== undefined) this.#tell(written);
    }
    if (this.#wantsDrain && this.#writes.length === 0) {
      this.#wantsDrain = false;
      this.#tell(() => this.#listener?.drained());
    }
    this.#scheduleDelivery();
  }

  /** Later, and in order. */
  #tell(news: () => void): void {
    this.#news.push(news);
    this.#clock.after(this.#random.chance(0.7) ? 0 : this.#random.real(0, 2), () => {
      const next = this.#news.shift();
      if (!this.#closed) next?.();
    });
  }

  #scheduleDelivery(): void {
    if (this.#deliveryIsDue) return;
    const head = this.#segments[0];
    if (head === undefined && !this.#ending) return;
    const dueMs = Math.max(head?.dueMs ?? this.#lastDueMs, this.#stalledUntilMs);
    if (!Number.isFinite(dueMs)) return;
    this.#deliveryIsDue = true;
    this.#clock.after(dueMs - this.#clock.nowMs(), () => {
      this.#deliveryIsDue = false;
      this.#deliver();
    });
  }

  /** To the other side, one piece of any size. */
  #deliver(): void {
    const { peer } = this;
    const listener = peer.#listener;
    if (listener === undefined || peer.#closed || peer.#paused || peer.#peerEnded) return;
    const nowMs = this.#clock.nowMs();
    if (nowMs < this.#stalledUntilMs) {
      this.#scheduleDelivery();
      return;
    }
    if (this.#segments.length === 0) {
      if (!this.#ending || this.#writes.length > 0) return;
      peer.#peerEnded = true;
      listener.ended();
      return;
    }
    const arrived = this.#arrivedBytes(nowMs);
    if (arrived > 0) {
      const given = this.#read(Math.min(arrived, this.#pieceBytes()), peer.#space);
      listener.data(given);
      if (peer.#paused) peer.#lent = peer.#space === undefined ? given : undefined;
      else if (peer.#space === undefined) given.fill(SPOILT);
      if (!peer.#closed && peer.#space !== undefined) peer.#space = listener.space?.();
      this.#handOver();
    }
    this.#scheduleDelivery();
  }

  #pieceBytes(): number {
    const { pieceBytesMax } = this.#line;
    return this.#random.chance(0.6) ? READ_BYTES_MAX : this.#random.int(1, pieceBytesMax);
  }

  #arrivedBytes(nowMs: number): number {
    let bytes = 0;
    for (const segment of this.#segments) {
      if (segment.dueMs > nowMs) break;
      bytes += segment.bytes.length - segment.readBytes;
    }
    return bytes;
  }

  #read(bytesMax: number, space: Uint8Array | undefined): Uint8Array {
    if (space?.length === 0) throw new Error("a listener that is not paused has room");
    const given = space?.subarray(0, Math.min(bytesMax, space.length)) ?? new Uint8Array(bytesMax);
    let at = 0;
    while (at < given.length) {
      const segment = this.#segments[0]!;
      const bytes = Math.min(given.length - at, segment.bytes.length - segment.readBytes);
      given.set(segment.bytes.subarray(segment.readBytes, segment.readBytes + bytes), at);
      at += bytes;
      segment.readBytes += bytes;
      if (segment.readBytes === segment.bytes.length) this.#segments.shift();
    }
    this.#systemBytes -= given.length;
    return given;
  }
}

/** Both ends of a connection, each with the line that leads away from it. */
export function connection(
  clock: SimClock,
  random: Random,
  lines: readonly [LineConditions, LineConditions],
): [SimEnd, SimEnd] {
  const ends: [SimEnd, SimEnd] = [
    new SimEnd(clock, random.fork(), lines[0]),
    new SimEnd(clock, random.fork(), lines[1]),
  ];
  [ends[0].peer, ends[1].peer] = [ends[1], ends[0]];
  return ends;
}
