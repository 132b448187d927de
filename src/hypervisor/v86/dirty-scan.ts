// Finds dirty pages by comparing guest RAM with a shadow copy: exact for any guest (paging, DMA, writes by the
// host), where tracking by v86's TLB would not be. The shadow is what has been handed to the migration stream,
// that is, what the destination will hold once it has read the stream so far. Knows nothing of v86.

import { assert } from "../../base/assert.ts";

export const PAGE_BYTES = 4096;

/**
 * Compared at once before single pages are looked at: most of RAM is clean, and one long comparison runs at
 * memory speed where sixteen short ones pay for sixteen calls.
 */
const PAGES_PER_SPAN = 16;

export class DirtyScan {
  readonly pageCount: number;
  readonly #memoryBytes: number;
  readonly #shadow: Buffer;
  readonly #dirtyPages: Uint32Array;

  /** The shadow starts as zeros, which is what a fresh destination holds. */
  constructor(memoryBytes: number) {
    assert(
      memoryBytes > 0 && memoryBytes % PAGE_BYTES === 0,
      `guest RAM of ${memoryBytes} bytes is not in pages`,
    );
    this.#memoryBytes = memoryBytes;
    this.pageCount = memoryBytes / PAGE_BYTES;
    this.#shadow = Buffer.alloc(memoryBytes);
    this.#dirtyPages = new Uint32Array(this.pageCount);
  }

  /** Indices, ascending, of the pages of `memory` that differ from the shadow. Valid until the next call. */
  scan(memory: Buffer): Uint32Array {
    assert(memory.length === this.#memoryBytes, "guest RAM has changed its size");
    const shadow = this.#shadow;
    const dirtyPages = this.#dirtyPages;
    const spanBytes = PAGES_PER_SPAN * PAGE_BYTES;
    let count = 0;
    for (let start = 0; start < memory.length; start += spanBytes) {
      const end = Math.min(start + spanBytes, memory.length);
      if (memory.compare(shadow, start, end, start, end) === 0) continue;
      for (let offset = start; offset < end; offset += PAGE_BYTES) {
        if (memory.compare(shadow, offset, offset + PAGE_BYTES, offset, offset + PAGE_BYTES) !== 0) {
          dirtyPages[count++] = offset / PAGE_BYTES;
        }
      }
    }
    return dirtyPages.subarray(0, count);
  }

  /** Hands a page out: copies it to `target` at `targetOffset`, and to the shadow. */
  take(memory: Buffer, pageIndex: number, target: Uint8Array, targetOffset: number): void {
    assert(pageIndex < this.pageCount, `no page ${pageIndex} among ${this.pageCount}`);
    const start = pageIndex * PAGE_BYTES;
    memory.copy(this.#shadow, start, start, start + PAGE_BYTES);
    memory.copy(target, targetOffset, start, start + PAGE_BYTES);
  }

  /** Forgets all that was handed out: the next destination is a fresh one and holds zeros. */
  reset(): void {
    this.#shadow.fill(0);
  }
}
