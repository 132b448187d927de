// XBZRLE, the delta format of QEMU's migration stream: readable reference in plain TypeScript.
// Knows bytes of two pages and nothing of streams, caches or records. FORMAT.md has the grammar; its source is
// the behaviour of QEMU 7.2 to 10.x (migration/xbzrle.c; lengths: uleb128_*_small in util/cutils.c).
// Pages are compared through DataViews: they read words at any alignment, and a page inside a stream buffer
// has an arbitrary one. Nothing is allocated per page.

import { assert } from "../base/assert.ts";
import { DeltaveeError } from "../base/errors.ts";

/** Returned by xbzrleEncode when the delta would not fit: the page is cheaper sent whole. */
export const XBZRLE_OVERFLOW = -1;

/**
 * Largest page that QEMU's 14-bit lengths can describe: a zero run before a changed byte is at most 16383 long,
 * and a longer run of changed bytes would not make a delta smaller than the page.
 */
export const XBZRLE_PAGE_BYTES_MAX = 16384;

/** Lengths below this take one byte, others two. */
const TWO_BYTE_LENGTH_MIN = 0x80;

/** One view per buffer, kept as long as the buffer itself: slabs and stream buffers are few and long-lived. */
const views = new WeakMap<ArrayBufferLike, DataView>();

function viewOf(bytes: Uint8Array): DataView {
  let view = views.get(bytes.buffer);
  if (view === undefined) {
    view = new DataView(bytes.buffer);
    views.set(bytes.buffer, view);
  }
  return view;
}

/** Index of the lowest byte of a little-endian word that is not zero. `word` must not be 0. */
function lowestByteSet(word: number): number {
  return (31 - Math.clz32(word & -word)) >>> 3;
}

/** A bit at the lowest zero byte of `word` (and perhaps at higher ones); 0 when it has none. */
function zeroByteMark(word: number): number {
  return (word - 0x01010101) & ~word & 0x80808080;
}

/** First index >= `from` at which the pages differ, or `pageBytes`. Starts are offsets in the views. */
function equalRunEnd(
  oldView: DataView,
  oldStart: number,
  newView: DataView,
  newStart: number,
  from: number,
  pageBytes: number,
): number {
  let i = from;
  // Two words a turn: most of a dirty page is unchanged, so this loop is where the time goes.
  while (i + 8 <= pageBytes) {
    const low = oldView.getInt32(oldStart + i, true) ^ newView.getInt32(newStart + i, true);
    const high = oldView.getInt32(oldStart + i + 4, true) ^ newView.getInt32(newStart + i + 4, true);
    if ((low | high) !== 0) return low !== 0 ? i + lowestByteSet(low) : i + 4 + lowestByteSet(high);
    i += 8;
  }
  while (i < pageBytes && oldView.getUint8(oldStart + i) === newView.getUint8(newStart + i)) i++;
  return i;
}

/** First index >= `from` at which the pages are equal, or `pageBytes`. */
function differentRunEnd(
  oldView: DataView,
  oldStart: number,
  newView: DataView,
  newStart: number,
  from: number,
  pageBytes: number,
): number {
  let i = from;
  while (i + 4 <= pageBytes) {
    const mark = zeroByteMark(oldView.getInt32(oldStart + i, true) ^ newView.getInt32(newStart + i, true));
    if (mark !== 0) return i + lowestByteSet(mark);
    i += 4;
  }
  while (i < pageBytes && oldView.getUint8(oldStart + i) !== newView.getUint8(newStart + i)) i++;
  return i;
}

/**
 * End of the run of bytes to send that begins at `from`. A single unchanged byte between changed ones is sent
 * along: it costs one byte, and the two lengths that would skip it cost two.
 */
function changedRunEnd(
  oldView: DataView,
  oldStart: number,
  newView: DataView,
  newStart: number,
  from: number,
  pageBytes: number,
): number {
  let i = from;
  for (;;) {
    i = differentRunEnd(oldView, oldStart, newView, newStart, i, pageBytes);
    if (i + 1 >= pageBytes) return i;
    if (oldView.getUint8(oldStart + i + 1) === newView.getUint8(newStart + i + 1)) return i;
    i += 2;
  }
}

/** `from` and `to` are offsets in the views. Ranges do not overlap. */
function copyBytes(source: DataView, from: number, target: DataView, to: number, lengthBytes: number): void {
  let i = 0;
  for (; i + 4 <= lengthBytes; i += 4) target.setInt32(to + i, source.getInt32(from + i, true), true);
  for (; i < lengthBytes; i++) target.setUint8(to + i, source.getUint8(from + i));
}

function lengthBytesOf(length: number): number {
  return length < TWO_BYTE_LENGTH_MIN ? 1 : 2;
}

/** Writes a run length at `at`, returns the offset after it. */
function writeLength(view: DataView, at: number, length: number): number {
  if (length < TWO_BYTE_LENGTH_MIN) {
    view.setUint8(at, length);
    return at + 1;
  }
  view.setUint8(at, (length & 0x7f) | 0x80);
  view.setUint8(at + 1, length >>> 7);
  return at + 2;
}

/**
 * Writes to `out` the delta that turns the old page into the new one.
 * At most `outLimitBytes` (<= `pageBytes`, as QEMU refuses longer deltas) are written from `outOffset` on.
 * @returns length of the delta in bytes; 0 when the pages are equal (QEMU has no delta for that: send nothing);
 *   XBZRLE_OVERFLOW when it would not fit, `out` then holds the beginning of it
 */
export function xbzrleEncode(
  oldPage: Uint8Array,
  oldOffset: number,
  newPage: Uint8Array,
  newOffset: number,
  pageBytes: number,
  out: Uint8Array,
  outOffset: number,
  outLimitBytes: number,
): number {
  assert(pageBytes > 0 && pageBytes <= XBZRLE_PAGE_BYTES_MAX, "page size within what XBZRLE can describe");
  assert(outLimitBytes >= 0 && outLimitBytes <= pageBytes, "delta limit no larger than the page");
  assert(oldOffset >= 0 && oldOffset + pageBytes <= oldPage.length, "old page within its buffer");
  assert(newOffset >= 0 && newOffset + pageBytes <= newPage.length, "new page within its buffer");
  assert(outOffset >= 0 && outOffset + outLimitBytes <= out.length, "delta within its buffer");

  const oldView = viewOf(oldPage);
  const newView = viewOf(newPage);
  const outView = viewOf(out);
  const oldStart = oldPage.byteOffset + oldOffset;
  const newStart = newPage.byteOffset + newOffset;
  const outStart = out.byteOffset + outOffset;
  const outEnd = outStart + outLimitBytes;

  let at = outStart;
  let i = 0;
  for (;;) {
    const changedStart = equalRunEnd(oldView, oldStart, newView, newStart, i, pageBytes);
    // What is unchanged up to the end of the page is not mentioned.
    if (changedStart === pageBytes) return at - outStart;
    const changedEnd = changedRunEnd(oldView, oldStart, newView, newStart, changedStart, pageBytes);
    const zeroRun = changedStart - i;
    const changedRun = changedEnd - changedStart;
    if (at + lengthBytesOf(zeroRun) + lengthBytesOf(changedRun) + changedRun > outEnd) return XBZRLE_OVERFLOW;
    at = writeLength(outView, at, zeroRun);
    at = writeLength(outView, at, changedRun);
    copyBytes(newView, newStart + changedStart, outView, at, changedRun);
    at += changedRun;
    i = changedEnd;
  }
}

function corrupt(offsetBytes: number, rule: string): DeltaveeError {
  return new DeltaveeError("XBZRLE_CORRUPT", `Applying a delta failed at its byte ${offsetBytes}: ${rule}`);
}

/**
 * Reads the run length at `at` (an offset from `start`). A run length is never the last byte of a delta, so two
 * bytes must be there. @throws DeltaveeError XBZRLE_CORRUPT
 */
function readLength(view: DataView, start: number, at: number, deltaBytes: number): number {
  if (at + 2 > deltaBytes) throw corrupt(at, "ends inside a run");
  const low = view.getUint8(start + at);
  if (low < TWO_BYTE_LENGTH_MIN) return low;
  const high = view.getUint8(start + at + 1);
  if (high >= TWO_BYTE_LENGTH_MIN) throw corrupt(at, "run length of more than 14 bits");
  if (high === 0) throw corrupt(at, "run length longer than needed");
  return (low & 0x7f) | (high << 7);
}

/**
 * Applies a delta to the page in place. The delta may be hostile: nothing outside the two ranges is read or
 * written. Everything accepted here QEMU accepts too; FORMAT.md lists what only QEMU accepts.
 * @returns bytes of the page up to and including the last one written; those after it are unchanged
 * @throws DeltaveeError XBZRLE_CORRUPT with the offset and the rule broken; the page may then be partly changed
 */
export function xbzrleDecode(
  delta: Uint8Array,
  deltaOffset: number,
  deltaBytes: number,
  page: Uint8Array,
  pageOffset: number,
  pageBytes: number,
): number {
  assert(pageBytes > 0 && pageBytes <= XBZRLE_PAGE_BYTES_MAX, "page size within what XBZRLE can describe");
  assert(deltaOffset >= 0 && deltaBytes >= 0, "delta range not negative");
  assert(deltaOffset + deltaBytes <= delta.length, "delta within its buffer");
  assert(pageOffset >= 0 && pageOffset + pageBytes <= page.length, "page within its buffer");
  if (deltaBytes === 0) throw corrupt(0, "delta is empty");
  if (deltaBytes > pageBytes) throw corrupt(0, "delta is longer than the page");

  const deltaView = viewOf(delta);
  const pageView = viewOf(page);
  const deltaStart = delta.byteOffset + deltaOffset;
  const pageStart = page.byteOffset + pageOffset;

  let at = 0;
  let covered = 0;
  while (at < deltaBytes) {
    const zeroRun = readLength(deltaView, deltaStart, at, deltaBytes);
    if (zeroRun === 0 && at > 0) throw corrupt(at, "zero run of length 0 after the first");
    at += lengthBytesOf(zeroRun);
    covered += zeroRun;

    const changedRun = readLength(deltaView, deltaStart, at, deltaBytes);
    if (changedRun === 0) throw corrupt(at, "non-zero run of length 0");
    if (covered + changedRun > pageBytes) throw corrupt(at, "run goes beyond the page");
    at += lengthBytesOf(changedRun);
    if (at + changedRun > deltaBytes) throw corrupt(at, "ends inside a run");
    copyBytes(deltaView, deltaStart + at, pageView, pageStart + covered, changedRun);
    at += changedRun;
    covered += changedRun;
  }
  return covered;
}
