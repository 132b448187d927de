// XBRLE, the delta of Svärd, Hudzia, Tordsson and Elmroth (VEE 2011): the XOR of two versions of a page, run-length
// encoded. Readable reference in plain TypeScript; FORMAT.md has the grammar. What the kernels do
// (assembly/xbrle.ts) is held to it byte for byte. No stock QEMU reads it: it is there to be compared with.

import { assert } from "../base/assert.ts";

/** Returned by xbrleEncode when the delta would not fit: the page is cheaper sent whole. */
export const XBRLE_OVERFLOW = -1;

/** A repeated byte shorter than this is cheaper inside a literal, which it would cut in two. */
const REPEAT_BYTES_MIN = 4;
const REPEAT_FLAG = 1;
const PAGE_BYTES_MAX = 65536;
/** Three bytes of seven bits hold the longest length and its flag. */
const VARINT_BYTES_MAX = 3;

/** @returns the delta; undefined when the pages are equal; XBRLE_OVERFLOW when it is longer than the limit */
export function xbrleEncode(
  oldPage: Uint8Array,
  newPage: Uint8Array,
  outLimitBytes: number,
): Uint8Array | typeof XBRLE_OVERFLOW | undefined {
  assert(oldPage.length === newPage.length, "two versions of one page");
  assert(newPage.length <= PAGE_BYTES_MAX, "page not too large");
  assert(outLimitBytes <= newPage.length, "delta limit no larger than the page");
  const xor = newPage.map((byte, i) => byte ^ oldPage[i]!);
  // What is unchanged up to the end of the page is not mentioned.
  const end = xor.findLastIndex((byte) => byte !== 0) + 1;
  const delta: number[] = [];
  let literalStart = 0;
  const endLiteral = (at: number) => {
    const literal = xor.subarray(literalStart, at);
    if (literal.length > 0) delta.push(...varint(literal.length * 2), ...literal);
  };
  for (let i = 0; i < end; ) {
    let repeatEnd = i + 1;
    while (repeatEnd < end && xor[repeatEnd] === xor[i]) repeatEnd++;
    if (repeatEnd - i >= REPEAT_BYTES_MIN) {
      endLiteral(i);
      delta.push(...varint((repeatEnd - i) * 2 + REPEAT_FLAG), xor[i]!);
      literalStart = repeatEnd;
    }
    i = repeatEnd;
  }
  endLiteral(end);
  if (delta.length === 0) return undefined;
  return delta.length > outLimitBytes ? XBRLE_OVERFLOW : Uint8Array.from(delta);
}

/** Seven bits a byte, the lowest first; the top bit says that more follow. */
function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(value >> 7)];
}

/**
 * Applies a delta to the page in place.
 * @returns bytes of the page that the delta mentions; for an invalid delta -1 - (offset of the token that breaks
 *   a rule), the page is then perhaps partly changed
 */
export function xbrleDecode(delta: Uint8Array, page: Uint8Array): number {
  assert(page.length > 0 && page.length <= PAGE_BYTES_MAX, "page not too large");
  if (delta.length === 0 || delta.length > page.length) return -1;
  let at = 0;
  let covered = 0;
  while (at < delta.length) {
    const tokenAt = at;
    const invalid = -1 - tokenAt;
    let token = 0;
    let last: number;
    do {
      if (at === delta.length || at - tokenAt === VARINT_BYTES_MAX) return invalid;
      last = delta[at]!;
      token += (last & 127) << (7 * (at - tokenAt));
      at++;
    } while (last >= 128);
    const length = token >> 1;
    if (last === 0 || length === 0 || covered + length > page.length) return invalid;
    const isRepeat = (token & REPEAT_FLAG) !== 0;
    const sentBytes = isRepeat ? 1 : length;
    if (at + sentBytes > delta.length) return invalid;
    for (let i = 0; i < length; i++) {
      page[covered + i] = page[covered + i]! ^ delta[isRepeat ? at : at + i]!;
    }
    at += sentBytes;
    covered += length;
  }
  return covered;
}
