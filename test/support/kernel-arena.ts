// Runs a kernel on ranges between guard bytes, and on ranges that end where the memory ends: what is written
// outside is found, and what is read outside traps.

import { expect } from "vitest";
import { type Kernel, type KernelVariant, loadKernel } from "../../src/kernel/kernel.ts";
import { KernelMemory } from "../../src/kernel/memory.ts";

export const KERNEL_VARIANTS: readonly KernelVariant[] = ["simd", "scalar", "debug"];

const ARENA_BYTES = 4 * 1024 * 1024;
const GUARD = 0xc3;
const GUARD_BYTES = 96;

interface Range {
  start: number;
  end: number;
}

export class KernelArena {
  readonly kernel: Kernel;
  readonly #memory = new KernelMemory();
  readonly #start: number;
  readonly #guard = new Uint8Array(GUARD_BYTES).fill(GUARD);
  #next: number;
  #guards: Range[] = [];

  constructor(variant: KernelVariant) {
    this.kernel = loadKernel(this.#memory, variant);
    this.#start = this.#memory.allocate(ARENA_BYTES);
    this.#next = this.#start;
  }

  /** Forgets all ranges. */
  reset(): void {
    this.#next = this.#start;
    this.#guards = [];
  }

  /** Address of a copy of `content`, `slackBytes` of anything, and guards around both; it has no alignment. */
  place(content: Uint8Array, slackBytes = 0): number {
    const address = this.#next + GUARD_BYTES + (this.#guards.length % 7);
    const end = address + content.length + slackBytes;
    this.bytes(address, content.length).set(content);
    this.#addGuard(address - GUARD_BYTES);
    this.#addGuard(end);
    this.#next = end + GUARD_BYTES;
    if (this.#next >= this.#start + ARENA_BYTES) throw new Error("The arena is full");
    return address;
  }

  /** As `place`, for output: what was there before is none of the expected. */
  placeEmpty(lengthBytes: number, slackBytes = 0): number {
    return this.place(new Uint8Array(lengthBytes).fill(GUARD ^ 0xff), slackBytes);
  }

  /** Address of a copy of `content` behind which there is no memory. One at a time. */
  placeAtEnd(content: Uint8Array): number {
    const address = this.#memory.wasm.buffer.byteLength - content.length;
    this.bytes(address, content.length).set(content);
    return address;
  }

  bytes(address: number, lengthBytes: number): Uint8Array {
    return this.#memory.bytes(address, lengthBytes);
  }

  expectGuards(): void {
    for (const { start, end } of this.#guards) {
      expectSameBytes(this.bytes(start, end - start), this.#guard);
    }
  }

  #addGuard(start: number): void {
    this.bytes(start, GUARD_BYTES).set(this.#guard);
    this.#guards.push({ start, end: start + GUARD_BYTES });
  }
}

/** Says where they differ first: toEqual takes seconds to compare and print pages. */
export function expectSameBytes(actual: Uint8Array, expected: Uint8Array): void {
  if (Buffer.compare(actual, expected) === 0) return;
  const at = expected.findIndex((byte, i) => byte !== actual[i]);
  const shown = (bytes: Uint8Array) =>
    at === -1 ? `${bytes.length} bytes` : `${bytes.length} bytes, byte ${at}: ${bytes[at]}`;
  expect(shown(actual)).toBe(shown(expected));
}
