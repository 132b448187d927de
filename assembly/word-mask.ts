// The word mask (src/codec/FORMAT.md): which lines of a page changed, which 8-byte words of these, and the new
// words. The encoder makes no decisions about words: of a changed line every one is stored, and the next overwrites
// it when it was not wanted.

import { changedWordsOfTwo, copy16, copyLine, LINE_BYTES, nonZeroBytes } from "./lines";
import { writeLengths, XBZRLE_PAGE_BYTES_MAX } from "./xbzrle";

/** A byte of the line mask stands for eight lines of eight words. */
const GROUP_BYTES: usize = 512;
const WORD_BYTES: usize = 8;
/** As many lines as a 64-bit mask has bits for. */
const BLOCK_BYTES: usize = 4096;
const PAGE_BYTES_MAX: usize = 65536;
const INVALID: i32 = -1;
const OVERFLOW: i32 = -1;

export function wordMaskEncode(
  oldPage: usize,
  newPage: usize,
  pageBytes: usize,
  masks: usize,
  words: usize,
  wordsLimitBytes: usize,
): i32 {
  assert(pageBytes % GROUP_BYTES == 0 && pageBytes <= PAGE_BYTES_MAX, "page of whole groups, not too large");
  // Of the result's 32 bits 16 are for the length of the words: a full page of the largest size has too many.
  const wordsEnd = words + min(wordsLimitBytes, PAGE_BYTES_MAX - WORD_BYTES);
  let lineMask = masks;
  let wordMask = masks + pageBytes / GROUP_BYTES;
  // First a word mask for every line, changed or not: without a branch that could be mispredicted, and the memory
  // is read ahead as fast as it can be. Those that are not 0 are then moved together.
  const ofAllLines = wordMask;
  for (let at: usize = 0; at < pageBytes; at += 2 * LINE_BYTES) {
    store<u16>(ofAllLines + at / LINE_BYTES, <u16>changedWordsOfTwo(oldPage + at, newPage + at));
  }
  let word = words;
  const blockBytes = min(pageBytes, BLOCK_BYTES);
  for (let block: usize = 0; block < pageBytes; block += blockBytes) {
    let changedLines: u64 = 0;
    for (let group: usize = 0; group < blockBytes; group += GROUP_BYTES) {
      const inGroup = nonZeroBytes(load<u64>(ofAllLines + (block + group) / LINE_BYTES));
      changedLines |= inGroup << <u64>(group / LINE_BYTES);
      store<u8>(lineMask++, <u8>inGroup);
    }
    while (changedLines != 0) {
      const line = block / LINE_BYTES + <usize>ctz(changedLines);
      changedLines &= changedLines - 1;
      const changed = <u32>load<u8>(ofAllLines + line);
      store<u8>(wordMask++, <u8>changed);
      const newLine = newPage + line * LINE_BYTES;
      if (changed == 0xff) {
        copyLine(word, newLine);
        word += LINE_BYTES;
      } else {
        word = storeWords(word, newLine, changed);
      }
    }
    if (word > wordsEnd) return OVERFLOW;
  }
  if (word == words) return 0;
  return <i32>((wordMask - masks) | ((word - words) << 16));
}

/** Stores the words of the line whose bit is set one after another; returns the address after them. */
@inline
function storeWords(at: usize, line: usize, changed: u32): usize {
  store<u64>(at, load<u64>(line));
  at += (changed & 1) << 3;
  store<u64>(at, load<u64>(line, 8));
  at += (changed & 2) << 2;
  store<u64>(at, load<u64>(line, 16));
  at += (changed & 4) << 1;
  store<u64>(at, load<u64>(line, 24));
  at += changed & 8;
  store<u64>(at, load<u64>(line, 32));
  at += (changed & 16) >> 1;
  store<u64>(at, load<u64>(line, 40));
  at += (changed & 32) >> 2;
  store<u64>(at, load<u64>(line, 48));
  at += (changed & 64) >> 3;
  store<u64>(at, load<u64>(line, 56));
  return at + ((changed & 128) >> 4);
}

/**
 * Length of the words that these masks ask for, or 0 when the masks are invalid or not all there, or more words
 * are asked for than there are. The masks are then `maskBytesOf` long.
 */
function wordBytesAsked(masks: usize, maskBytesAvailable: usize, wordBytesAvailable: usize, pageBytes: usize): usize {
  const lineMaskBytes = pageBytes / GROUP_BYTES;
  if (maskBytesAvailable < lineMaskBytes) return 0;
  let changedLines: usize = 0;
  for (let i: usize = 0; i < lineMaskBytes; i++) changedLines += <usize>popcnt<u32>(load<u8>(masks + i));
  if (maskBytesAvailable - lineMaskBytes < changedLines) return 0;
  const end = masks + lineMaskBytes + changedLines;
  let words: usize = 0;
  for (let at = masks + lineMaskBytes; at < end; at++) {
    const changed = <u32>load<u8>(at);
    if (changed == 0) return 0;
    words += <usize>popcnt<u32>(changed);
  }
  const wordBytes = words * WORD_BYTES;
  return wordBytes > wordBytesAvailable ? 0 : wordBytes;
}

export function wordMaskDecode(
  masks: usize,
  maskBytesAvailable: usize,
  words: usize,
  wordBytesAvailable: usize,
  page: usize,
  pageBytes: usize,
  result: usize,
): i32 {
  assert(pageBytes % GROUP_BYTES == 0 && pageBytes <= PAGE_BYTES_MAX, "page of whole groups, not too large");
  const wordBytes = wordBytesAsked(masks, maskBytesAvailable, wordBytesAvailable, pageBytes);
  if (wordBytes == 0) return INVALID;
  let lineMask = masks;
  let wordMask = masks + pageBytes / GROUP_BYTES;
  let word = words;
  for (let group = page; group < page + pageBytes; group += GROUP_BYTES) {
    let changedLines = <u32>load<u8>(lineMask++);
    while (changedLines != 0) {
      const line = group + <usize>ctz(changedLines) * LINE_BYTES;
      changedLines &= changedLines - 1;
      let changed = <u32>load<u8>(wordMask++);
      if (changed == 0xff) {
        copyLine(line, word);
        word += LINE_BYTES;
        continue;
      }
      while (changed != 0) {
        store<u64>(line + <usize>ctz(changed) * WORD_BYTES, load<u64>(word));
        word += WORD_BYTES;
        changed &= changed - 1;
      }
    }
  }
  assert(word == words + wordBytes, "as many words used as counted");
  store<u32>(result, <u32>(wordMask - masks));
  store<u32>(result, <u32>wordBytes, 4);
  return <i32>wordBytes;
}

export function wordMaskToXbzrle(
  masks: usize,
  maskBytesAvailable: usize,
  words: usize,
  wordBytesAvailable: usize,
  pageBytes: usize,
  out: usize,
  result: usize,
): i32 {
  assert(pageBytes % GROUP_BYTES == 0 && pageBytes <= XBZRLE_PAGE_BYTES_MAX, "page of whole groups, not too large");
  const wordBytes = wordBytesAsked(masks, maskBytesAvailable, wordBytesAvailable, pageBytes);
  if (wordBytes == 0) return INVALID;
  const outEnd = out + pageBytes;
  let at = out;
  let lineMask = masks;
  let wordMask = masks + pageBytes / GROUP_BYTES;
  let word = words;
  let covered: usize = 0;
  let runStart: usize = 0;
  /** 1 while the run that began at runStart goes on. */
  let open: u64 = 0;
  for (let group: usize = 0; group < pageBytes; group += GROUP_BYTES) {
    /** Bit k stands for word k of the group. */
    let runs: u64 = 0;
    let changedLines = <u32>load<u8>(lineMask++);
    while (changedLines != 0) {
      runs |= load<u8>(wordMask++) as u64 << (ctz(changedLines) * 8);
      changedLines &= changedLines - 1;
    }
    let ends = runs ^ ((runs << 1) | open);
    while (ends != 0) {
      const position = group + <usize>ctz(ends) * WORD_BYTES;
      ends &= ends - 1;
      if (open == 0) {
        runStart = position;
        open = 1;
        continue;
      }
      at = writeLengths(at, outEnd, runStart - covered, position - runStart);
      if (at == 0) return INVALID;
      copyWords(at, word, position - runStart);
      at += position - runStart;
      word += position - runStart;
      covered = position;
      open = 0;
    }
  }
  if (open != 0) {
    at = writeLengths(at, outEnd, runStart - covered, pageBytes - runStart);
    if (at == 0) return INVALID;
    copyWords(at, word, pageBytes - runStart);
    at += pageBytes - runStart;
  }
  store<u32>(result, <u32>(wordMask - masks));
  store<u32>(result, <u32>wordBytes, 4);
  return <i32>(at - out);
}

/** `bytes`: a multiple of 8, not 0. */
@inline
function copyWords(target: usize, source: usize, bytes: usize): void {
  store<u64>(target, load<u64>(source));
  for (let i = bytes & WORD_BYTES; i < bytes; i += 16) copy16(target + i, source + i);
}
