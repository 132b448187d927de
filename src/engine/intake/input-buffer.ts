// What the hypervisor has handed over and nobody has read yet: one region of the home memory, so that the records
// in it are read where they lie. A channel that can do so reads straight into it. Bounded: whoever does not take
// what is in it must stop the channel.

import { assert } from "../../base/assert.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { ELEMENT_BYTES_MAX } from "../../stream/reader.ts";

/** What one read may bring. */
const READ_BYTES_MAX = 256 * 1024;

export class InputBuffer {
  /** The region. */
  readonly bytes: Uint8Array;
  #head = 0;
  #tail = 0;
  #readBytesMax = READ_BYTES_MAX;

  constructor(memory: KernelMemory) {
    // Two reads and the beginning of an element: when a read has come and nothing of it could be taken, there is
    // room for the next one all the same, which a channel may have asked for already.
    const lengthBytes = 2 * READ_BYTES_MAX + ELEMENT_BYTES_MAX;
    this.bytes = memory.bytes(memory.allocate(lengthBytes, 4096), lengthBytes);
  }

  /** Reads bring no more than this from now on: what waits here stands before what comes next. */
  limitReads(bytes: number): void {
    this.#readBytesMax = Math.min(bytes, READ_BYTES_MAX);
  }

  get head(): number {
    return this.#head;
  }

  get tail(): number {
    return this.#tail;
  }

  get lengthBytes(): number {
    return this.#tail - this.#head;
  }

  /**
   * Where the next bytes may be put, until `filled` or `append`. Empty while more than a read waits to be taken.
   * Moves what is in the buffer: to be asked when nobody writes to an earlier answer.
   */
  space(): Uint8Array {
    if (this.#head > 0) {
      this.bytes.copyWithin(0, this.#head, this.#tail);
      this.#tail -= this.#head;
      this.#head = 0;
    }
    const end = Math.min(this.bytes.length, this.#tail + this.#readBytesMax);
    return this.bytes.subarray(this.#tail, end);
  }

  /** So many bytes have been put into the last space(). */
  filled(bytes: number): void {
    assert(this.#tail + bytes <= this.bytes.length, "no more is put into the input than there is room for");
    this.#tail += bytes;
  }

  /** Copies as much as there is room for. @returns bytes copied */
  append(bytes: Uint8Array): number {
    const space = this.space();
    const length = Math.min(space.length, bytes.length);
    space.set(length === bytes.length ? bytes : bytes.subarray(0, length));
    this.#tail += length;
    return length;
  }

  /** Everything before `position` has been read. */
  taken(position: number): void {
    assert(this.#head <= position && position <= this.#tail, "only what is there is taken");
    this.#head = position;
  }
}
