// What the kernels are compared with: XBZRLE encoding as a plain JavaScript loop over 32-bit words, as fast as we
// could write it. Its deltas are those of the kernels, byte for byte.

/** Index of the lowest byte of a little-endian word that is not zero. `word` must not be 0. */
function lowestByteSet(word: number): number {
  return (31 - Math.clz32(word & -word)) >>> 3;
}

export class PlainLoopEncoder {
  readonly #oldWords: Int32Array;
  readonly #newWords: Int32Array;
  readonly #oldBytes: Uint8Array;
  readonly #newBytes: Uint8Array;
  readonly #newView: DataView;
  readonly out: Uint8Array;
  readonly #outView: DataView;

  /** Both: whole pages from the beginning of their buffers on. */
  constructor(oldPages: Uint8Array, newPages: Uint8Array, pageBytes: number) {
    this.#oldBytes = oldPages;
    this.#newBytes = newPages;
    this.#oldWords = new Int32Array(oldPages.buffer);
    this.#newWords = new Int32Array(newPages.buffer);
    this.#newView = new DataView(newPages.buffer);
    this.out = new Uint8Array(pageBytes + 8);
    this.#outView = new DataView(this.out.buffer);
  }

  /** Length of the delta of the page at `start`; 0 equal; -1 overflow. */
  encode(start: number, pageBytes: number): number {
    const oldWords = this.#oldWords;
    const newWords = this.#newWords;
    const oldBytes = this.#oldBytes;
    const newBytes = this.#newBytes;
    const newView = this.#newView;
    const out = this.out;
    const outView = this.#outView;
    const end = start + pageBytes;
    let at = 0;
    let i = start;
    for (;;) {
      // The first byte that changed: word by word, four a turn, from the next border of words on.
      const covered = i;
      while ((i & 3) !== 0 && i < end && oldBytes[i] === newBytes[i]) i++;
      if ((i & 3) === 0) {
        let word = i >> 2;
        const endWord = end >> 2;
        while (
          word + 4 <= endWord &&
          ((oldWords[word]! ^ newWords[word]!) |
            (oldWords[word + 1]! ^ newWords[word + 1]!) |
            (oldWords[word + 2]! ^ newWords[word + 2]!) |
            (oldWords[word + 3]! ^ newWords[word + 3]!)) ===
            0
        ) {
          word += 4;
        }
        while (word < endWord && oldWords[word] === newWords[word]) word++;
        i = word << 2;
        if (word < endWord) i += lowestByteSet(oldWords[word]! ^ newWords[word]!);
      }
      if (i >= end) return at;
      // The end of the run, where two bytes in a row did not change.
      const runStart = i;
      i++;
      for (;;) {
        if ((i & 3) === 0) {
          // Words of which all four bytes changed.
          let word = i >> 2;
          const endWord = end >> 2;
          while (word < endWord) {
            const xor = oldWords[word]! ^ newWords[word]!;
            if (((xor - 0x01010101) & ~xor & 0x80808080) !== 0) break;
            word++;
          }
          i = word << 2;
        }
        while (i < end && oldBytes[i] !== newBytes[i]) {
          i++;
          if ((i & 3) === 0) break;
        }
        if (i < end && (i & 3) === 0 && oldBytes[i] !== newBytes[i]) continue;
        if (i + 1 >= end || oldBytes[i + 1] === newBytes[i + 1]) break;
        i += 2;
      }
      const zeroRun = runStart - covered;
      const run = i - runStart;
      if (at + (zeroRun < 128 ? 1 : 2) + (run < 128 ? 1 : 2) + run > pageBytes) return -1;
      if (zeroRun < 128) out[at++] = zeroRun;
      else {
        out[at++] = zeroRun | 128;
        out[at++] = zeroRun >> 7;
      }
      if (run < 128) out[at++] = run;
      else {
        out[at++] = run | 128;
        out[at++] = run >> 7;
      }
      // Up to three bytes too many, which the next run overwrites; at the end of the pages byte by byte.
      if (i + 4 <= newBytes.length) {
        for (let from = runStart, to = at; from < i; from += 4, to += 4) {
          outView.setInt32(to, newView.getInt32(from, true), true);
        }
      } else for (let from = runStart, to = at; from < i; from++, to++) out[to] = newBytes[from]!;
      at += run;
    }
  }
}
