// zstd of Node itself (node:zlib, since 22.15): up to half as fast again as the WebAssembly build. It makes a
// context and a buffer of its own per call, which node:zlib offers no way around. Frames are the same.

import zlib from "node:zlib";
import { assert } from "../../base/assert.ts";
import { toError } from "../../base/errors.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { damagedBatch, type EntropyCoder } from "./entropy-coder.ts";

/** A frame may ask for no larger window than a batch needs: hostile ones would have us allocate 128 MiB. */
const WINDOW_BITS_MAX = 21;

/** What the typings of the oldest Node that we support do not have. */
interface ZlibWithZstd {
  zstdCompressSync(
    raw: Uint8Array,
    options: { chunkSize: number; pledgedSrcSize: number; params: Record<number, number> },
  ): Uint8Array;
  zstdDecompressSync(
    coded: Uint8Array,
    options: { chunkSize: number; maxOutputLength: number; info: true; params: Record<number, number> },
  ): { buffer: Uint8Array; engine: { bytesWritten: number } };
  constants: { ZSTD_c_compressionLevel: number; ZSTD_d_windowLogMax: number };
}

function zlibWithZstd(): ZlibWithZstd | undefined {
  const maybe = zlib as unknown as Partial<ZlibWithZstd>;
  return maybe.zstdCompressSync === undefined ? undefined : (maybe as ZlibWithZstd);
}

/** Whether this Node has zstd. */
export function hasNativeZstd(): boolean {
  return zlibWithZstd() !== undefined;
}

export class ZstdNative implements EntropyCoder {
  readonly #memory: KernelMemory;
  readonly #zlib: ZlibWithZstd;

  constructor(memory: KernelMemory) {
    const zstd = zlibWithZstd();
    assert(zstd !== undefined, "this Node has zstd");
    this.#memory = memory;
    this.#zlib = zstd;
  }

  compress(
    rawAddress: number,
    rawBytes: number,
    codedAddress: number,
    codedLimitBytes: number,
    level: number,
  ): number {
    const coded = this.#zlib.zstdCompressSync(this.#memory.bytes(rawAddress, rawBytes), {
      // One output chunk even when nothing gets smaller: zstd adds 1/256 at most, and its header.
      chunkSize: rawBytes + (rawBytes >>> 8) + 128,
      pledgedSrcSize: rawBytes,
      // node:zlib takes a parameter of -1 for one that was not given.
      params: { [this.#zlib.constants.ZSTD_c_compressionLevel]: level === -1 ? -2 : level },
    });
    if (coded.length > codedLimitBytes) return -1;
    this.#memory.bytes(codedAddress, coded.length).set(coded);
    return coded.length;
  }

  decompress(codedAddress: number, codedBytes: number, rawAddress: number, rawBytes: number): void {
    let raw: Uint8Array;
    let usedBytes: number;
    try {
      const { buffer, engine } = this.#zlib.zstdDecompressSync(this.#memory.bytes(codedAddress, codedBytes), {
        // One output chunk for the whole batch; a spare byte, since zlib asks for another when the first is full.
        chunkSize: Math.max(64, rawBytes + 1),
        maxOutputLength: rawBytes,
        // `info` tells how much of the input was used, the one way to see bytes after the end of the frame.
        info: true,
        params: { [this.#zlib.constants.ZSTD_d_windowLogMax]: WINDOW_BITS_MAX },
      });
      raw = buffer;
      usedBytes = engine.bytesWritten;
    } catch (thrown) {
      throw damagedBatch("zstd", codedBytes, rawBytes, "damaged, cut short or too long", toError(thrown));
    }
    if (usedBytes !== codedBytes) throw damagedBatch("zstd", codedBytes, rawBytes, "bytes after its end");
    if (raw.length !== rawBytes) throw damagedBatch("zstd", codedBytes, rawBytes, `it gave ${raw.length}`);
    this.#memory.bytes(rawAddress, rawBytes).set(raw);
  }
}
