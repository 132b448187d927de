// Two versions of a page, as guests make them and as they are hardest to encode, for tests of codecs.

import fc from "fast-check";

export interface PagePair {
  oldPage: Uint8Array;
  newPage: Uint8Array;
}

/** Deterministic noise without zero bytes. */
export function noise(lengthBytes: number, seed = 1): Uint8Array {
  let state = seed;
  const bytes = new Uint8Array(lengthBytes);
  for (let i = 0; i < lengthBytes; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = 1 + ((state >>> 24) % 255);
  }
  return bytes;
}

/** Copy of `page` in which `lengthBytes` bytes from `start` on all differ. */
export function changed(page: Uint8Array, start: number, lengthBytes: number): Uint8Array {
  const result = page.slice();
  for (let i = start; i < start + lengthBytes; i++) result[i] = result[i]! ^ 0x5a;
  return result;
}

const EDIT_AT_MAX = 65535;

/** Scattered words, runs of any length, every second byte, a rewritten page; sometimes nothing. */
export function pagePairArbitrary(pageBytesChoices: readonly number[]): fc.Arbitrary<PagePair> {
  return fc
    .record({
      pageBytes: fc.constantFrom(...pageBytesChoices),
      seed: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
      zeroBaseline: fc.boolean(),
      edits: fc.array(
        fc.record({
          at: fc.nat({ max: EDIT_AT_MAX }),
          lengthBytes: fc.oneof(
            fc.constantFrom(1, 2, 4, 8, 127, 128, 129),
            fc.nat({ max: 300 }),
            fc.nat({ max: 16384 }),
          ),
          strideBytes: fc.constantFrom(1, 1, 2, 3, 4, 8),
          /** What is written: noise, or one byte again and again. */
          repeated: fc.boolean(),
        }),
        { maxLength: 12 },
      ),
    })
    .map(({ pageBytes, seed, zeroBaseline, edits }) => {
      const oldPage = zeroBaseline ? new Uint8Array(pageBytes) : noise(pageBytes, seed);
      const newPage = oldPage.slice();
      const fresh = noise(pageBytes, seed ^ 0x1234567);
      for (const edit of edits) {
        const start = edit.at % pageBytes;
        const end = Math.min(pageBytes, start + edit.lengthBytes);
        for (let i = start; i < end; i += edit.strideBytes) newPage[i] = fresh[edit.repeated ? start : i]!;
      }
      return { oldPage, newPage };
    });
}

/** Pages of every size that break an encoder first: nothing, all, ends, every second, around steps of lengths. */
export function* edgePagePairs(pageBytesChoices: readonly number[]): Generator<PagePair> {
  for (const pageBytes of pageBytesChoices) {
    const page = noise(pageBytes, pageBytes);
    const pair = (newPage: Uint8Array): PagePair => ({ oldPage: page, newPage });
    yield pair(page.slice());
    yield pair(changed(page, 0, pageBytes));
    yield pair(changed(page, 0, 1));
    yield pair(changed(page, pageBytes - 1, 1));
    yield pair(changed(changed(page, 0, 1), pageBytes - 1, 1));
    for (const strideBytes of [2, 3, 4, 8, 9, 16, 64, 65]) {
      for (const phase of [0, 1]) {
        yield pair(page.map((byte, i) => (i % strideBytes === phase ? byte ^ 0xff : byte)));
      }
    }
    for (const lengthBytes of [1, 2, 3, 15, 16, 17, 63, 64, 65, 126, 127, 128, 129, 255, 256, 257]) {
      for (const start of [0, 1, 7, 8, 63, 64, 126, 127, 128, 129]) {
        yield pair(changed(page, start, lengthBytes));
        yield pair(changed(page, pageBytes - lengthBytes - start, lengthBytes));
      }
    }
    // All but one byte, the gap at the border of a line and not.
    for (const gap of [0, 1, 62, 63, 64, 65, pageBytes - 2, pageBytes - 1]) {
      const all = changed(page, 0, pageBytes);
      all[gap] = page[gap]!;
      yield pair(all);
      yield pair(all.map((byte, i) => (i === gap + 1 ? page[i]! : byte)));
    }
  }
}
