// The baseline of the codec benchmark: XBZRLE as fast as plain JavaScript does it on pages that are aligned, a loop
// over 32-bit words of typed arrays. Writes what src/codec/xbzrle.ts writes, which takes pages at any alignment
// and is slower for it. What the kernels are given as multiples of.

import { XBZRLE_OVERFLOW } from "../src/codec/xbzrle.ts";

/** A word's bytes that are zero are marked; the lowest mark is right, higher ones need not be. */
function zeroByteMark(word: number): number {
  return (word - 0x01010101) & ~word & 0x80808080;
}

function lowestByteSet(word: number): number {
  return (31 - Math.clz32(word & -word)) >>> 3;
}

/** Pages lie one after another in `oldWords` and `newWords`; `newBytes` is the same memory as `newWords`. */
export class PlainLoop {
  readonly #oldWords: Int32Array;
  readonly #newWords: Int32Array;
  readonly #newBytes: Uint8Array;
  readonly #pageWords: number;

  constructor(oldPages: ArrayBuffer, newPages: ArrayBuffer, pageBytes: number) {
    this.#oldWords = new Int32Array(oldPages);
    this.#newWords = new Int32Array(newPages);
    this.#newBytes = new Uint8Array(newPages);
    this.#pageWords = pageBytes / 4;
  }

  /** As xbzrleEncode of page `page` of both. */
  encode(page: number, out: Uint8Array, outOffset: number, outLimitBytes: number): number {
    const pageWords = this.#pageWords;
    const pageBytes = pageWords * 4;
    const first = page * pageWords;
    const bytes = this.#newBytes;
    const start = page * pageBytes;
    const outEnd = outOffset + outLimitBytes;
    let at = outOffset;
    let i = 0;
    for (;;) {
      const changedStart = this.#equalEnd(first, i, pageWords);
      if (changedStart === pageBytes) return at - outOffset;
      const changedEnd = this.#changedEnd(first, changedStart, pageWords);
      const zeroRun = changedStart - i;
      const changedRun = changedEnd - changedStart;
      if (at + (zeroRun < 128 ? 1 : 2) + (changedRun < 128 ? 1 : 2) + changedRun > outEnd)
        return XBZRLE_OVERFLOW;
      if (zeroRun < 128) out[at++] = zeroRun;
      else {
        out[at++] = zeroRun | 0x80;
        out[at++] = zeroRun >>> 7;
      }
      if (changedRun < 128) {
        out[at++] = changedRun;
        for (let from = start + changedStart, to = start + changedEnd; from < to; )
          out[at++] = bytes[from++]!;
      } else {
        out[at++] = changedRun | 0x80;
        out[at++] = changedRun >>> 7;
        out.set(bytes.subarray(start + changedStart, start + changedEnd), at);
        at += changedRun;
      }
      i = changedEnd;
    }
  }

  /** First byte >= `from` that differs, or the page's length. `first`: the page's first word. */
  #equalEnd(first: number, from: number, pageWords: number): number {
    const [old, now] = [this.#oldWords, this.#newWords];
    let word = from >>> 2;
    const odd = from & 3;
    if (odd !== 0) {
      const different = (old[first + word]! ^ now[first + word]!) >>> (8 * odd);
      if (different !== 0) return from + lowestByteSet(different);
      word++;
    }
    for (; (word & 3) !== 0 && word < pageWords; word++) {
      const different = old[first + word]! ^ now[first + word]!;
      if (different !== 0) return 4 * word + lowestByteSet(different);
    }
    for (; word < pageWords; word += 4) {
      const at = first + word;
      const a = old[at]! ^ now[at]!;
      const b = old[at + 1]! ^ now[at + 1]!;
      const c = old[at + 2]! ^ now[at + 2]!;
      const d = old[at + 3]! ^ now[at + 3]!;
      if ((a | b | c | d) === 0) continue;
      if (a !== 0) return 4 * word + lowestByteSet(a);
      if (b !== 0) return 4 * word + 4 + lowestByteSet(b);
      if (c !== 0) return 4 * word + 8 + lowestByteSet(c);
      return 4 * word + 12 + lowestByteSet(d);
    }
    return 4 * pageWords;
  }

  /** End of the run of changed bytes that begins at `from`; a single unchanged byte does not end it. */
  #changedEnd(first: number, from: number, pageWords: number): number {
    const [old, now] = [this.#oldWords, this.#newWords];
    let i = from;
    for (;;) {
      let word = i >>> 2;
      if (word >= pageWords) return 4 * pageWords;
      // Bytes of the word before `i` are of no interest: they are made to look different.
      let different = (old[first + word]! ^ now[first + word]!) | ((1 << (8 * (i & 3))) - 1);
      let mark = zeroByteMark(different);
      while (mark === 0) {
        if (++word === pageWords) return 4 * pageWords;
        different = old[first + word]! ^ now[first + word]!;
        mark = zeroByteMark(different);
      }
      const end = 4 * word + lowestByteSet(mark);
      const after = end + 1;
      if (after >= 4 * pageWords) return end;
      const shift = 8 * (after & 3);
      const next = old[first + (after >>> 2)]! ^ now[first + (after >>> 2)]!;
      if (((next >>> shift) & 0xff) === 0) return end;
      i = after + 1;
    }
  }
}
