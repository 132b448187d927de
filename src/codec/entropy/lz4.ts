// LZ4 blocks, by the kernel: straight from and to the kernel memory, for links that outrun zstd.

import { type Kernel, LZ4_TABLE_BYTES } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { damagedBatch, type EntropyCoder } from "./entropy-coder.ts";

/** The scratch memory of a Lz4, to be allocated once per thread. */
export function allocateLz4Table(memory: KernelMemory): number {
  return memory.allocate(LZ4_TABLE_BYTES);
}

export class Lz4 implements EntropyCoder {
  readonly #kernel: Kernel;
  readonly #tableAddress: number;

  /** `tableAddress`: from allocateLz4Table, used by no other thread. */
  constructor(kernel: Kernel, tableAddress: number) {
    this.#kernel = kernel;
    this.#tableAddress = tableAddress;
  }

  compress(rawAddress: number, rawBytes: number, codedAddress: number, codedLimitBytes: number): number {
    return this.#kernel.lz4Compress(rawAddress, rawBytes, codedAddress, codedLimitBytes, this.#tableAddress);
  }

  decompress(codedAddress: number, codedBytes: number, rawAddress: number, rawBytes: number): void {
    const decoded = this.#kernel.lz4Decompress(codedAddress, codedBytes, rawAddress, rawBytes);
    if (decoded !== rawBytes)
      throw damagedBatch("lz4", codedBytes, rawBytes, "damaged, or of another length decoded");
  }
}
