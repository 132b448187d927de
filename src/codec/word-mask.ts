// The word mask, the change of a page as the tunnel carries it: readable reference in plain TypeScript.
// FORMAT.md has the grammar. Pages are encoded and decoded by the kernels (assembly/word-mask.ts); this says what
// they must do, and tests hold them to it byte for byte.

import { assert } from "../base/assert.ts";

const WORD_BYTES = 8;
const LINE_BYTES = 64;
/** A byte of the line mask stands for eight lines. */
const GROUP_BYTES = 512;
const PAGE_BYTES_MAX = 65536;

/** The change of one page. */
export interface WordMask {
  /** Line mask, then a word mask for each changed line. */
  masks: Uint8Array;
  /** The new content of every changed word. */
  words: Uint8Array;
}

/** @returns undefined when the pages are equal */
export function wordMaskEncode(oldPage: Uint8Array, newPage: Uint8Array): WordMask | undefined {
  assert(oldPage.length === newPage.length, "two versions of one page");
  assertPageBytes(oldPage.length);
  const lineMask = new Uint8Array(newPage.length / GROUP_BYTES);
  const wordMasks: number[] = [];
  const words: number[] = [];
  for (let line = 0; line < newPage.length; line += LINE_BYTES) {
    let wordMask = 0;
    for (let word = 0; word < LINE_BYTES / WORD_BYTES; word++) {
      const start = line + word * WORD_BYTES;
      const newWord = newPage.subarray(start, start + WORD_BYTES);
      if (newWord.every((byte, i) => byte === oldPage[start + i])) continue;
      wordMask |= 1 << word;
      words.push(...newWord);
    }
    if (wordMask === 0) continue;
    wordMasks.push(wordMask);
    const group = Math.floor(line / GROUP_BYTES);
    lineMask[group] = lineMask[group]! | (1 << ((line % GROUP_BYTES) / LINE_BYTES));
  }
  if (words.length === 0) return undefined;
  return { masks: Uint8Array.of(...lineMask, ...wordMasks), words: Uint8Array.from(words) };
}

/** What one page takes of longer ranges: where its changed words begin in the page, and how much was read. */
interface Parsed {
  changedOffsets: number[];
  maskBytes: number;
  wordBytes: number;
}

/** @returns undefined when the masks are invalid, or `masks` or `words` too short for what they say */
function parse(masks: Uint8Array, words: Uint8Array, pageBytes: number): Parsed | undefined {
  assertPageBytes(pageBytes);
  let maskBytes = pageBytes / GROUP_BYTES;
  if (masks.length < maskBytes) return undefined;
  const changedOffsets: number[] = [];
  for (let line = 0; line < pageBytes; line += LINE_BYTES) {
    const bit = 1 << ((line % GROUP_BYTES) / LINE_BYTES);
    if ((masks[Math.floor(line / GROUP_BYTES)]! & bit) === 0) continue;
    const wordMask = masks[maskBytes++];
    if (wordMask === undefined || wordMask === 0) return undefined;
    for (let word = 0; word < LINE_BYTES / WORD_BYTES; word++) {
      if ((wordMask & (1 << word)) !== 0) changedOffsets.push(line + word * WORD_BYTES);
    }
  }
  const wordBytes = changedOffsets.length * WORD_BYTES;
  if (wordBytes === 0 || wordBytes > words.length) return undefined;
  return { changedOffsets, maskBytes, wordBytes };
}

/**
 * Applies the first page's change in `masks` and `words` to the page in place.
 * @returns bytes used of both; undefined when invalid, the page is then as it was
 */
export function wordMaskDecode(
  masks: Uint8Array,
  words: Uint8Array,
  page: Uint8Array,
): { maskBytes: number; wordBytes: number } | undefined {
  const parsed = parse(masks, words, page.length);
  if (parsed === undefined) return undefined;
  parsed.changedOffsets.forEach((offset, i) => {
    page.set(words.subarray(i * WORD_BYTES, (i + 1) * WORD_BYTES), offset);
  });
  return { maskBytes: parsed.maskBytes, wordBytes: parsed.wordBytes };
}

/**
 * The first page's change in `masks` and `words` as an XBZRLE delta.
 * @returns undefined when invalid, and when the delta would be longer than the page: when every word changed
 */
export function wordMaskToXbzrle(
  masks: Uint8Array,
  words: Uint8Array,
  pageBytes: number,
): { delta: Uint8Array; maskBytes: number; wordBytes: number } | undefined {
  const parsed = parse(masks, words, pageBytes);
  if (parsed === undefined) return undefined;
  const { changedOffsets, maskBytes, wordBytes } = parsed;
  const delta: number[] = [];
  let covered = 0;
  for (let first = 0; first < changedOffsets.length; ) {
    const start = changedOffsets[first]!;
    let next = first + 1;
    while (changedOffsets[next] === changedOffsets[next - 1]! + WORD_BYTES) next++;
    const run = words.subarray(first * WORD_BYTES, next * WORD_BYTES);
    delta.push(...xbzrleLength(start - covered), ...xbzrleLength(run.length), ...run);
    covered = start + run.length;
    first = next;
  }
  if (delta.length > pageBytes) return undefined;
  return { delta: Uint8Array.from(delta), maskBytes, wordBytes };
}

function xbzrleLength(length: number): number[] {
  return length < 128 ? [length] : [(length & 127) | 128, length >> 7];
}

function assertPageBytes(pageBytes: number): void {
  assert(
    pageBytes > 0 && pageBytes % GROUP_BYTES === 0 && pageBytes <= PAGE_BYTES_MAX,
    "page of whole groups of lines, not too large",
  );
}
