// The linear memory that the kernels work in: WebAssembly memory shared between threads, handed out once and
// never given back. Input, page cache, batches and scratch pages of one migration lie in it, so that a page is
// copied once on its way in. Knows nothing of what is stored.

import { assert } from "../base/assert.ts";
import { DeltaveeError } from "../base/errors.ts";

const WASM_PAGE_BYTES = 65536;
/** The most that a 32-bit WebAssembly memory can be. Only the address space is reserved; it costs nothing. */
const WASM_PAGES_MAX = 65536;
export const KERNEL_MEMORY_BYTES_MAX = WASM_PAGES_MAX * WASM_PAGE_BYTES;
/** So far beyond the ranges they are given kernels may read (never write, never use) what is in the memory. */
const OVERREAD_BYTES = 64;
/** Below this lies what the compiler itself puts into the memory (static data of the debug build). */
const ARENA_START_BYTES = 64 * 1024;

export class KernelMemory {
  readonly wasm: WebAssembly.Memory;
  /** A memory that has grown shows itself as another buffer; earlier ones stay valid, and do not equal it. */
  readonly #buffers = new WeakSet<ArrayBufferLike>();
  #next = ARENA_START_BYTES;

  /** `wasm`: the memory of another thread, to be worked in but not allocated from. */
  constructor(wasm?: WebAssembly.Memory) {
    this.wasm = wasm ?? new WebAssembly.Memory({ initial: 2, maximum: WASM_PAGES_MAX, shared: true });
    this.#buffers.add(this.wasm.buffer);
  }

  get allocatedBytes(): number {
    return this.#next;
  }

  /** Whether `bytes` more can be had. */
  hasRoom(bytes: number): boolean {
    return this.#next + bytes + WASM_PAGE_BYTES <= KERNEL_MEMORY_BYTES_MAX;
  }

  /**
   * Address of `bytes` zero bytes. Physical memory is taken by the operating system when they are touched.
   * @throws DeltaveeError OUT_OF_MEMORY when the 4 GiB of one memory, or the machine's, are used up
   */
  allocate(bytes: number, alignBytes = 64): number {
    assert(
      bytes >= 0 && (alignBytes & (alignBytes - 1)) === 0,
      "sizes are not negative, alignments powers of two",
    );
    const address = Math.ceil(this.#next / alignBytes) * alignBytes;
    const end = address + bytes;
    const missing = end + OVERREAD_BYTES - this.wasm.buffer.byteLength;
    if (missing > 0) {
      try {
        this.wasm.grow(Math.ceil(missing / WASM_PAGE_BYTES));
      } catch (thrown) {
        throw new DeltaveeError("OUT_OF_MEMORY", `No ${bytes} bytes more for pages beside ${this.#next}`, {
          cause: thrown,
        });
      }
      this.#buffers.add(this.wasm.buffer);
    }
    this.#next = end;
    return address;
  }

  /** A view. It stays valid when the memory grows, since a shared memory never moves. */
  bytes(address: number, lengthBytes: number): Uint8Array {
    return new Uint8Array(this.wasm.buffer, address, lengthBytes);
  }

  /** Whether this is a view of the memory, made at whatever time: its `byteOffset` is then its address. */
  holds(bytes: Uint8Array): boolean {
    return this.#buffers.has(bytes.buffer);
  }
}
