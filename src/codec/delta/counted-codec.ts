// Codecs whose delta is one string of bytes: control is its length (16 bits, little-endian), data the string.
// XBZRLE goes to the hypervisor as it is; XBRLE and zstd with the old page as dictionary are applied to the page
// as it was (../FORMAT.md).

import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import {
  DELTA_INVALID,
  DELTA_XBRLE,
  DELTA_XBZRLE,
  type DeltaCodec,
  type DeltaCodecId,
} from "./delta-codec.ts";

const LENGTH_BYTES = 2;

export interface CountedDelta {
  readonly id: DeltaCodecId;
  readonly needsBaseline: boolean;
  /** @returns length (at most `pageBytes` - 1), 0 when the pages are equal, -1 when it would be longer */
  encode(oldAddress: number, newAddress: number, outAddress: number): number;
  /** As DeltaCodec.decode, of one delta. `out` may not overlap it. */
  decode(deltaAddress: number, deltaBytes: number, out: number): number;
}

export class CountedCodec implements DeltaCodec {
  readonly id: DeltaCodecId;
  readonly needsBaseline: boolean;
  readonly controlBytesUsed = LENGTH_BYTES;
  dataBytesUsed = 0;
  readonly #delta: CountedDelta;
  readonly #pageBytes: number;
  /** The home memory as far as it was allocated when this was made: batches lie in that. */
  readonly #bytes: Uint8Array;

  constructor(memory: KernelMemory, pageBytes: number, delta: CountedDelta) {
    this.#pageBytes = pageBytes;
    this.id = delta.id;
    this.needsBaseline = delta.needsBaseline;
    this.#delta = delta;
    this.#bytes = new Uint8Array(memory.wasm.buffer);
  }

  encode(oldAddress: number, newAddress: number, controlAddress: number, dataAddress: number): number {
    const length = this.#delta.encode(oldAddress, newAddress, dataAddress);
    if (length <= 0) return length;
    this.#bytes[controlAddress] = length & 0xff;
    this.#bytes[controlAddress + 1] = length >>> 8;
    return LENGTH_BYTES + length * 65536;
  }

  decode(
    controlAddress: number,
    controlBytes: number,
    dataAddress: number,
    dataBytes: number,
    out: number,
  ): number {
    if (controlBytes < LENGTH_BYTES) return DELTA_INVALID;
    const length = this.#bytes[controlAddress]! | (this.#bytes[controlAddress + 1]! << 8);
    if (length === 0 || length > dataBytes || length >= this.#pageBytes) return DELTA_INVALID;
    this.dataBytesUsed = length;
    return this.#delta.decode(dataAddress, length, out);
  }
}

export function xbzrleDelta(kernel: Kernel, pageBytes: number): CountedDelta {
  return {
    id: DELTA_XBZRLE,
    needsBaseline: false,
    encode: (oldAddress, newAddress, outAddress) =>
      kernel.xbzrleEncode(oldAddress, newAddress, pageBytes, outAddress, pageBytes - 1),
    decode(deltaAddress, deltaBytes, out) {
      kernel.copy(out, deltaAddress, deltaBytes);
      return deltaBytes;
    },
  };
}

export function xbrleDelta(kernel: Kernel, pageBytes: number): CountedDelta {
  return {
    id: DELTA_XBRLE,
    needsBaseline: true,
    encode: (oldAddress, newAddress, outAddress) =>
      kernel.xbrleEncode(oldAddress, newAddress, pageBytes, outAddress, pageBytes - 1),
    decode: (deltaAddress, deltaBytes, out) =>
      kernel.xbrleDecode(deltaAddress, deltaBytes, out, pageBytes) < 0 ? DELTA_INVALID : pageBytes,
  };
}
