// Bytes of the return path that the source is not known to have: what a broken connection has lost of them is sent
// again. Numbered by their offset in the whole return path.

import { assert } from "../../base/assert.ts";
import { RETURN_BYTES_MAX } from "../../wire/frame.ts";

export class ReturnLog {
  #bytes = Buffer.alloc(0);
  #offset = 0;

  get retainedBytes(): number {
    return this.#bytes.length;
  }

  /** Offset behind the last byte. */
  get end(): number {
    return this.#offset + this.#bytes.length;
  }

  append(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
  }

  /** The source has everything up to this offset. False: it cannot, or has said before that it has more. */
  release(offset: number): boolean {
    if (offset < this.#offset || offset > this.end) return false;
    this.#bytes = this.#bytes.subarray(offset - this.#offset);
    this.#offset = offset;
    return true;
  }

  /** What is to be sent again from this offset on, in pieces that fit into frames. */
  from(offset: number): Uint8Array[] {
    assert(this.#offset <= offset && offset <= this.end, "what was released is not asked for again");
    return inPieces(this.#bytes.subarray(offset - this.#offset));
  }
}

/** The same bytes, as RETURN frames take them. */
export function inPieces(bytes: Uint8Array): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += RETURN_BYTES_MAX) {
    pieces.push(bytes.subarray(at, at + RETURN_BYTES_MAX));
  }
  return pieces;
}
