// Word mask as a codec of the tunnel: control is the masks, data the new words (../FORMAT.md, "Word mask").

import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { DELTA_INVALID, DELTA_WORD_MASK, type DeltaCodec } from "./delta-codec.ts";

/**
 * A page of which more than this share has changed is sent whole: the entropy coder makes more of a page in one
 * piece than of what is left of it between gaps (`npm run bench -- codec`).
 */
const CHANGED_SHARE_MAX = 0.75;

export class WordMaskCodec implements DeltaCodec {
  readonly id = DELTA_WORD_MASK;
  readonly needsBaseline = false;
  controlBytesUsed = 0;
  dataBytesUsed = 0;
  readonly #kernel: Kernel;
  readonly #pageBytes: number;
  readonly #wordBytesMax: number;
  readonly #used: Int32Array;
  readonly #usedAddress: number;

  constructor(memory: KernelMemory, kernel: Kernel, pageBytes: number) {
    this.#kernel = kernel;
    this.#pageBytes = pageBytes;
    this.#wordBytesMax = pageBytes * CHANGED_SHARE_MAX;
    this.#usedAddress = memory.allocate(8);
    this.#used = new Int32Array(memory.wasm.buffer, this.#usedAddress, 2);
  }

  encode(oldAddress: number, newAddress: number, controlAddress: number, dataAddress: number): number {
    const bytes = this.#pageBytes;
    return this.#kernel.wordMaskEncode(
      oldAddress,
      newAddress,
      bytes,
      controlAddress,
      dataAddress,
      this.#wordBytesMax,
    );
  }

  decode(
    controlAddress: number,
    controlBytes: number,
    dataAddress: number,
    dataBytes: number,
    out: number,
  ): number {
    const length = this.#kernel.wordMaskToXbzrle(
      controlAddress,
      controlBytes,
      dataAddress,
      dataBytes,
      this.#pageBytes,
      out,
      this.#usedAddress,
    );
    if (length < 0) return DELTA_INVALID;
    this.controlBytesUsed = this.#used[0]!;
    this.dataBytesUsed = this.#used[1]!;
    return length;
  }
}
