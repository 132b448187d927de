// DATA frames that were sent and are not acknowledged, as they were written: header and payload in one piece. A ring
// as large as what it had to hold at one time, up to a limit. Knows no link.

import { assert } from "../../base/assert.ts";
import {
  DATA_FIXED_BYTES,
  DATA_FRAME_BYTES_MAX,
  type DataFrame,
  dataFrameBytes,
  HEADER_BYTES,
  writeDataFrame,
} from "../../wire/frame.ts";
import { MARKERS_MAX } from "./window.ts";

/** Room at first: a slow link never needs more, and it stays in the processor's cache. */
const BYTES_INITIAL = 1024 * 1024;
/** The most that is sent without an acknowledgement: with 100 ms of round trip, some 2.5 Gbit/s. */
const BYTES_MAX = 32 * 1024 * 1024;
/** As many as there may be unanswered. */
const FRAMES_MAX = MARKERS_MAX;
/** What the headers of those frames come to that are being coded at one time, and what alignment takes. */
const HEADERS_BYTES = 16 * 1024;

/**
 * Frames lie so that their coded bytes begin at a multiple of this, as those of the batches do: between a shared memory
 * and another V8 copies word by word only what is aligned alike, and all else byte by byte.
 */
const ALIGNMENT_BYTES = 8;
const FIRST_BYTES = ALIGNMENT_BYTES - ((HEADER_BYTES + DATA_FIXED_BYTES) % ALIGNMENT_BYTES);

export class SentFrames {
  readonly #bytesMax: number;
  #ring: Uint8Array;
  /** Where the frame of sequence n lies, at n modulo FRAMES_MAX. */
  readonly #starts = new Uint32Array(FRAMES_MAX);
  readonly #lengths = new Uint32Array(FRAMES_MAX);
  #firstSequence = 1;
  #nextSequence = 1;
  #usedBytes = 0;
  /** Behind the last frame. Not above the first one's start: the frames between have gone round. */
  #tail = 0;

  constructor(bytesMax = BYTES_MAX) {
    this.#bytesMax = bytesMax;
    this.#ring = makeRing(Math.min(BYTES_INITIAL, bytesMax));
  }

  /** Sequence of the frame that was put in last; 0: none was. */
  get lastSequence(): number {
    return this.#nextSequence - 1;
  }

  get ringBytes(): number {
    return this.#ring.length;
  }

  /** Whether frames of so many coded bytes in all may be put in, however long each of them is. */
  hasRoomFor(codedBytes: number): boolean {
    // One that does not fit between the last one and the ring's end leaves that end empty.
    return this.#usedBytes + codedBytes + HEADERS_BYTES + DATA_FRAME_BYTES_MAX <= this.#bytesMax;
  }

  /** Takes a copy of the frame, whose sequence is the next, and returns its bytes: they stay until it is released. */
  put(frame: DataFrame): Uint8Array {
    const { sequence } = frame;
    assert(sequence === this.#nextSequence, "frames are put in in order");
    assert(sequence - this.#firstSequence < FRAMES_MAX, "there are no more frames than markers");
    const length = dataFrameBytes(frame);
    const start = this.#place(stride(length));
    this.#starts[sequence % FRAMES_MAX] = start;
    this.#lengths[sequence % FRAMES_MAX] = length;
    this.#nextSequence++;
    this.#usedBytes += stride(length);
    this.#tail = start + stride(length);
    const bytes = this.#ring.subarray(start, start + length);
    writeDataFrame(frame, bytes);
    return bytes;
  }

  /**
   * The peer has all frames up to this one: so whoever was to write them has no use for them any more either.
   * Harmless for frames that have been released.
   */
  release(sequence: number): void {
    assert(sequence < this.#nextSequence, "only what was put in is released");
    while (this.#firstSequence <= sequence) {
      this.#usedBytes -= stride(this.#lengths[this.#firstSequence % FRAMES_MAX]!);
      this.#firstSequence++;
    }
  }

  /** Shows the frames after this one, in order. */
  after(sequence: number, show: (sequence: number, bytes: Uint8Array) => void): void {
    for (let next = Math.max(sequence + 1, this.#firstSequence); next < this.#nextSequence; next++) {
      const start = this.#starts[next % FRAMES_MAX]!;
      show(next, this.#ring.subarray(start, start + this.#lengths[next % FRAMES_MAX]!));
    }
  }

  /** Where a frame of this length goes, in one piece. */
  #place(length: number): number {
    if (this.#usedBytes + length > this.#ring.length) this.#grow(length);
    if (this.#usedBytes === 0) return 0;
    const head = this.#starts[this.#firstSequence % FRAMES_MAX]!;
    const hasGoneRound = this.#tail <= head;
    if (this.#tail + length <= (hasGoneRound ? head : this.#ring.length)) return this.#tail;
    if (!hasGoneRound && length <= head) return 0;
    this.#grow(length);
    return this.#tail;
  }

  /**
   * To a ring in which the frame has room behind those that are there. The old one stays as it is for those who
   * are still to write from it.
   */
  #grow(length: number): void {
    const old = this.#ring;
    let ringBytes = old.length;
    do {
      assert(ringBytes < this.#bytesMax, "whoever puts a frame in has asked whether there is room");
      ringBytes = Math.min(2 * ringBytes, this.#bytesMax);
    } while (this.#usedBytes + length > ringBytes);
    this.#ring = makeRing(ringBytes);
    this.#tail = 0;
    for (let sequence = this.#firstSequence; sequence < this.#nextSequence; sequence++) {
      const at = sequence % FRAMES_MAX;
      const start = this.#starts[at]!;
      this.#ring.set(old.subarray(start, start + this.#lengths[at]!), this.#tail);
      this.#starts[at] = this.#tail;
      this.#tail += stride(this.#lengths[at]!);
    }
  }
}

/** What a frame of this length takes of the ring. */
function stride(length: number): number {
  return Math.ceil(length / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

function makeRing(bytes: number): Uint8Array {
  return new Uint8Array(FIRST_BYTES + bytes).subarray(FIRST_BYTES);
}
