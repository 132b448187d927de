// LZ4 blocks, by the kernel: straight from and to the kernel memory, the fastest coder on fast links.

import type { KernelMemory } from "../../kernel/memory.ts";
import { damagedBatch, type EntropyCoder } from "./entropy-coder.ts";

/** Bytes of the table in which the compressor keeps where it has seen what; its contents do not matter. */
const TABLE_BYTES = 64 * 1024;

/** The part of the kernel that is used here. Both give -1 for what does not fit, or is damaged. */
export interface Lz4Kernel {
  lz4Compress(source: number, sourceBytes: number, out: number, outLimitBytes: number, table: number): number;
  lz4Decompress(source: number, sourceBytes: number, out: number, outBytes: number): number;
}

/** Memory of a Lz4 coder, to be allocated once per thread. */
export function allocateLz4Table(memory: KernelMemory): number {
  return memory.allocate(TABLE_BYTES);
}

export class Lz4 implements EntropyCoder {
  readonly #kernel: Lz4Kernel;
  readonly #tableAddress: number;

  /** `tableAddress`: from allocateLz4Table, used by no other thread. */
  constructor(kernel: Lz4Kernel, tableAddress: number) {
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
