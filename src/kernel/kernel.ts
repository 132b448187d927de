// The kernels: tight loops over pages and batches, compiled from assembly/ to WebAssembly. One instance per
// thread, all of them in the same memory. Addresses are byte offsets in that memory, of any alignment; nothing is
// checked beyond what each function says, so callers hand over only ranges that they own. Ranges of one call do
// not overlap. Formats: src/codec/FORMAT.md.

import { existsSync, readFileSync } from "node:fs";
import type { KernelMemory } from "./memory.ts";

/** simd: what runs. scalar: where an engine has no SIMD. debug: SIMD with assertions, for tests. */
export type KernelVariant = "simd" | "scalar" | "debug";

/**
 * What may be asked of pages: powers of two from 512 to 65536 bytes, where XBZRLE is involved to 16384.
 * Every function gives the same results in every variant.
 */
export interface Kernel {
  /** 1 when all `bytes` bytes are zero, else 0. */
  isZero(address: number, bytes: number): number;

  /** 1 when the ranges are equal, else 0. */
  isEqual(a: number, b: number, bytes: number): number;

  copy(target: number, source: number, bytes: number): void;

  /** `value`: 0 to 255. */
  fill(address: number, value: number, bytes: number): void;

  /**
   * Hash of content, to find pages that may be equal. It proves nothing and withstands no adversary: compare
   * what it finds. A signed 32-bit number, the same in every variant; codec/hash32.ts is its reference.
   */
  hash32(address: number, bytes: number): number;

  /**
   * The delta that turns the old page into the new one, as `xbzrleEncode` of codec/xbzrle.ts writes it.
   * `outLimitBytes` <= `pageBytes`; the caller owns 16 bytes beyond that limit, which are overwritten with anything.
   * @returns its length in bytes; 0 when the pages are equal; -1 when it is longer than the limit
   */
  xbzrleEncode(
    oldPage: number,
    newPage: number,
    pageBytes: number,
    out: number,
    outLimitBytes: number,
  ): number;

  /**
   * Applies a delta to the page in place. The delta may be hostile: nothing outside the two ranges is read or
   * written, and what codec/xbzrle.ts refuses is refused.
   * @returns bytes of the page up to and including the last one written; for an invalid delta -1 - (offset in the
   *   delta at which a rule is broken), the page is then perhaps partly changed
   */
  xbzrleDecode(delta: number, deltaBytes: number, page: number, pageBytes: number): number;

  /**
   * Writes to `masks` which lines and words changed, to `words` the new words. The caller owns 9 * `pageBytes` / 512
   * bytes from `masks` on and `pageBytes` bytes from `words` on, whatever the limit; what is not used of them is
   * overwritten with anything. All words of a page of 64 KiB always overflow.
   * @returns length of the masks + length of the words * 65536, so `& 0xffff` and `>>> 16`; 0 when the pages are
   *   equal; -1 when the words are longer than `wordsLimitBytes`
   */
  wordMaskEncode(
    oldPage: number,
    newPage: number,
    pageBytes: number,
    masks: number,
    words: number,
    wordsLimitBytes: number,
  ): number;

  /**
   * Applies the masks and words of one page, which stand at the beginning of longer ranges, to the page in place.
   * Both may be hostile: nothing outside the ranges is read or written.
   * On success two 32-bit integers are written to `result`: bytes of masks and bytes of words used.
   * @returns bytes of words used; -1 when the masks are invalid or either range is too short for them, the page
   *   is then as it was
   */
  wordMaskDecode(
    masks: number,
    maskBytesAvailable: number,
    words: number,
    wordBytesAvailable: number,
    page: number,
    pageBytes: number,
    result: number,
  ): number;

  /**
   * The XBZRLE delta that changes what the masks and words change: a run for each run of changed words. The caller
   * owns `pageBytes` bytes from `out` on. Hostile input and `result` as for `wordMaskDecode`.
   * @returns length of the delta; -1 also when every word of the page changed, since the delta would be longer
   *   than the page
   */
  wordMaskToXbzrle(
    masks: number,
    maskBytesAvailable: number,
    words: number,
    wordBytesAvailable: number,
    pageBytes: number,
    out: number,
    result: number,
  ): number;

  /**
   * The XOR of the two pages, run-length encoded, as `xbrleEncode` of codec/xbrle.ts writes it. Nothing beyond
   * `outLimitBytes` (<= `pageBytes`) is written.
   * @returns its length in bytes; 0 when the pages are equal; -1 when it is longer than the limit
   */
  xbrleEncode(
    oldPage: number,
    newPage: number,
    pageBytes: number,
    out: number,
    outLimitBytes: number,
  ): number;

  /** As `xbzrleDecode`, for deltas of `xbrleEncode`. */
  xbrleDecode(delta: number, deltaBytes: number, page: number, pageBytes: number): number;

  /**
   * A block of LZ4 (the raw block format, without a frame). `table`: address of LZ4_TABLE_BYTES of scratch, whose
   * content does not matter. Nothing beyond `outLimitBytes` is written.
   * @returns length of the block; -1 when it is longer than the limit
   */
  lz4Compress(source: number, sourceBytes: number, out: number, outLimitBytes: number, table: number): number;

  /**
   * The block may be hostile: nothing outside the two ranges is read or written.
   * @returns `outBytes`; -1 when the block is damaged or holds any other number of bytes, `out` is then perhaps
   *   partly written
   */
  lz4Decompress(source: number, sourceBytes: number, out: number, outBytes: number): number;

  /**
   * How random these bytes (at least 8) look, from a sample: 0 all the same, 255 not to be made smaller. Cheap, and
   * blind to repeated strings. `scratch`: ENTROPY_SCRATCH_BYTES, whose content does not matter.
   */
  sampledEntropy(address: number, bytes: number, scratch: number): number;
}

export const LZ4_TABLE_BYTES = 16 * 1024;
export const ENTROPY_SCRATCH_BYTES = 1024;

/** A module with one function, which makes a vector: valid only where there is SIMD. */
const SIMD_PROBE = Uint8Array.of(
  ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  // Type section: () -> v128. Function section. Code section: i32.const 0, i8x16.splat, end.
  ...[1, 5, 1, 0x60, 0, 1, 0x7b],
  ...[3, 2, 1, 0],
  ...[10, 8, 1, 6, 0, 0x41, 0, 0xfd, 0x0f, 0x0b],
);

/** An instance of the kernels for this thread. Without `variant`: the fastest that the engine can run. */
export function loadKernel(memory: KernelMemory, variant: KernelVariant = fastestVariant()): Kernel {
  const module = new WebAssembly.Module(readFileSync(fileOf(variant)));
  const abort = (message: number, file: number, line: number): never => {
    throw new Error(
      `Assertion failed: ${stringAt(memory, message)} (kernel ${stringAt(memory, file)}:${line})`,
    );
  };
  const instance = new WebAssembly.Instance(module, { env: { memory: memory.wasm, abort } });
  return instance.exports as unknown as Kernel;
}

function fastestVariant(): KernelVariant {
  return WebAssembly.validate(SIMD_PROBE) ? "simd" : "scalar";
}

/** Compiled kernels lie in the package's dist/, whether this runs from dist/, from the sources or from build/. */
function fileOf(variant: KernelVariant): URL {
  let folder = new URL("./", import.meta.url);
  while (!existsSync(new URL("package.json", folder))) {
    const parent = new URL("../", folder);
    if (parent.href === folder.href) throw new Error("The kernels lie in no package");
    folder = parent;
  }
  return new URL(`dist/kernel/${variant}.wasm`, folder);
}

/** A string of AssemblyScript: UTF-16, its length in bytes before it. Only the debug build has any. */
function stringAt(memory: KernelMemory, address: number): string {
  const { buffer } = memory.wasm;
  const lengthBytes = new DataView(buffer).getUint32(address - 4, true);
  return String.fromCharCode(...new Uint16Array(buffer, address, lengthBytes / 2));
}
