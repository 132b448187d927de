// XBRLE (src/codec/FORMAT.md): the XOR of two pages, run-length encoded, as Svärd et al. describe it (VEE 2011).
// The XOR is never stored: what is compared is formed where it is needed. Byte for byte what the reference
// src/codec/xbrle.ts writes.

import { areLinesEqual, LINE_BYTES } from "./lines";
import { corruptAt } from "./xbzrle";

/** A repeated byte shorter than this is cheaper inside a literal, which it would cut in two. */
const REPEAT_BYTES_MIN: usize = 4;
const REPEAT_FLAG: usize = 1;
const PAGE_BYTES_MAX: usize = 65536;
const OVERFLOW: i32 = -1;

export function xbrleEncode(
  oldPage: usize,
  newPage: usize,
  pageBytes: usize,
  out: usize,
  outLimitBytes: usize,
): i32 {
  assert(pageBytes % LINE_BYTES == 0 && pageBytes <= PAGE_BYTES_MAX, "page of whole lines, not too large");
  assert(outLimitBytes <= pageBytes, "delta limit no larger than the page");
  const end = changedEnd(oldPage, newPage, pageBytes);
  const outEnd = out + outLimitBytes;
  let at = out;
  let i: usize = 0;
  while (i < end) {
    const repeatStart = nextRepeat(oldPage, newPage, i, end);
    if (repeatStart > i) {
      const literal = repeatStart - i;
      if (at + lengthBytesOf(literal << 1) + literal > outEnd) return OVERFLOW;
      at = writeVarint(at, literal << 1);
      xorInto(at, oldPage + i, newPage + i, literal);
      at += literal;
      i = repeatStart;
    }
    if (i == end) break;
    const repeatEnd = endOfRepeat(oldPage, newPage, i, end);
    const token = ((repeatEnd - i) << 1) | REPEAT_FLAG;
    if (at + lengthBytesOf(token) + 1 > outEnd) return OVERFLOW;
    at = writeVarint(at, token);
    store<u8>(at++, load<u8>(oldPage + i) ^ load<u8>(newPage + i));
    i = repeatEnd;
  }
  return <i32>(at - out);
}

/** Index after the last byte that differs; 0 when none does. */
@inline
function changedEnd(oldPage: usize, newPage: usize, pageBytes: usize): usize {
  let end = pageBytes;
  while (end >= LINE_BYTES && areLinesEqual(oldPage + end - LINE_BYTES, newPage + end - LINE_BYTES)) end -= LINE_BYTES;
  while (end > 0 && load<u8>(oldPage + end - 1) == load<u8>(newPage + end - 1)) end--;
  return end;
}

/** First index >= `from` at which a byte stands at least REPEAT_BYTES_MIN times, or `end`. */
@inline
function nextRepeat(oldPage: usize, newPage: usize, from: usize, end: usize): usize {
  let i = from;
  if (ASC_FEATURE_SIMD) {
    while (i + 17 <= end) {
      const here = v128.xor(v128.load(oldPage + i), v128.load(newPage + i));
      const next = v128.xor(v128.load(oldPage + i, 1), v128.load(newPage + i, 1));
      const same = <u32>i8x16.bitmask(i8x16.eq(here, next));
      const starts = same & (same >> 1) & (same >> 2);
      if (starts != 0) return i + <usize>ctz(starts);
      i += 14;
    }
  }
  for (; i + REPEAT_BYTES_MIN <= end; i++) {
    const xor = load<u32>(oldPage + i) ^ load<u32>(newPage + i);
    if (xor == rotl<u32>(xor, 8)) return i;
  }
  return end;
}

/** First index > `from` at which the XOR is another than at `from`, or `end`. */
@inline
function endOfRepeat(oldPage: usize, newPage: usize, from: usize, end: usize): usize {
  const byte = load<u8>(oldPage + from) ^ load<u8>(newPage + from);
  let i = from + REPEAT_BYTES_MIN;
  if (ASC_FEATURE_SIMD) {
    const repeated = i8x16.splat(byte);
    for (; i + 16 <= end; i += 16) {
      const same = i8x16.eq(v128.xor(v128.load(oldPage + i), v128.load(newPage + i)), repeated);
      const other = ~(<u32>i8x16.bitmask(same)) & 0xffff;
      if (other != 0) return i + <usize>ctz(other);
    }
  } else {
    const repeated = <u64>byte * 0x0101010101010101;
    for (; i + 8 <= end; i += 8) {
      const other = load<u64>(oldPage + i) ^ load<u64>(newPage + i) ^ repeated;
      if (other != 0) return i + <usize>(ctz(other) >> 3);
    }
  }
  while (i < end && (load<u8>(oldPage + i) ^ load<u8>(newPage + i)) == byte) i++;
  return i;
}

/** target = a XOR b, exactly these bytes. `target` may be `a`. */
@inline
function xorInto(target: usize, a: usize, b: usize, bytes: usize): void {
  let i: usize = 0;
  if (ASC_FEATURE_SIMD) {
    for (; i + 16 <= bytes; i += 16) v128.store(target + i, v128.xor(v128.load(a + i), v128.load(b + i)));
  }
  for (; i + 8 <= bytes; i += 8) store<u64>(target + i, load<u64>(a + i) ^ load<u64>(b + i));
  for (; i < bytes; i++) store<u8>(target + i, load<u8>(a + i) ^ load<u8>(b + i));
}

@inline
function lengthBytesOf(value: usize): usize {
  return 1 + usize(value >= 0x80) + usize(value >= 0x4000);
}

@inline
function writeVarint(at: usize, value: usize): usize {
  while (value >= 0x80) {
    store<u8>(at++, <u8>(value | 0x80));
    value >>= 7;
  }
  store<u8>(at, <u8>value);
  return at + 1;
}

export function xbrleDecode(delta: usize, deltaBytes: usize, page: usize, pageBytes: usize): i32 {
  assert(pageBytes > 0 && pageBytes <= PAGE_BYTES_MAX, "page size within what XBRLE is used for");
  if (deltaBytes == 0 || deltaBytes > pageBytes) return corruptAt(0);
  let at: usize = 0;
  let covered: usize = 0;
  while (at < deltaBytes) {
    const tokenAt = at;
    let token: usize = 0;
    let shift: usize = 0;
    let byte: usize;
    do {
      // Three bytes are enough for the largest page; a fourth, like a last one of 0, is never written.
      if (at == deltaBytes || shift > 14) return corruptAt(tokenAt);
      byte = <usize>load<u8>(delta + at++);
      token |= (byte & 0x7f) << shift;
      shift += 7;
    } while (byte >= 0x80);
    if (byte == 0) return corruptAt(tokenAt);
    const length = token >> 1;
    if (length == 0 || covered + length > pageBytes) return corruptAt(tokenAt);
    const target = page + covered;
    if ((token & REPEAT_FLAG) != 0) {
      if (at == deltaBytes) return corruptAt(tokenAt);
      const repeated = load<u8>(delta + at++);
      if (repeated != 0) xorRepeated(target, repeated, length);
    } else {
      if (at + length > deltaBytes) return corruptAt(tokenAt);
      xorInto(target, target, delta + at, length);
      at += length;
    }
    covered += length;
  }
  return <i32>covered;
}

@inline
function xorRepeated(target: usize, byte: u8, bytes: usize): void {
  const word = <u64>byte * 0x0101010101010101;
  let i: usize = 0;
  for (; i + 8 <= bytes; i += 8) store<u64>(target + i, load<u64>(target + i) ^ word);
  for (; i < bytes; i++) store<u8>(target + i, load<u8>(target + i) ^ byte);
}
