// The word mask: reference and kernels against FORMAT.md, against each other byte for byte, and against hostile
// bytes.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { exampleBytes, formatSection, parseFormatBytes, tableRows } from "../../test/support/format-bytes.ts";
import { expectSameBytes, KERNEL_VARIANTS, KernelArena } from "../../test/support/kernel-arena.ts";
import { edgePagePairs, noise, type PagePair, pagePairArbitrary } from "../../test/support/page-pairs.ts";
import { type WordMask, wordMaskDecode, wordMaskEncode, wordMaskToXbzrle } from "./word-mask.ts";
import { xbzrleDecode } from "./xbzrle.ts";

const PAGE_BYTES = [512, 1024, 4096, 16384];
const format = formatSection(readFileSync(new URL("FORMAT.md", import.meta.url), "utf8"), "# Word mask");
const invalidRows = tableRows(formatSection(format, "## What makes a word mask invalid")).map(
  ([masks, words, rule]) => ({ masks: masks!, words: words!, rule: rule! }),
);

const example = {
  oldPage: exampleBytes(format, "old"),
  newPage: exampleBytes(format, "new"),
  masks: exampleBytes(format, "masks"),
  words: exampleBytes(format, "words"),
  delta: exampleBytes(format, "delta"),
};

/** Masks that are nearly right, or right, with about as many words as they ask for. */
const hostile = fc.record({
  pageBytes: fc.constantFrom(512, 1024, 4096),
  density: fc.constantFrom(0, 0, 0.1, 1),
  wordMasks: fc.array(fc.oneof({ weight: 9, arbitrary: fc.integer({ min: 1, max: 255 }) }, fc.constant(0)), {
    maxLength: 64,
  }),
  /** Bytes of masks and words more or fewer than needed. */
  maskSurplus: fc.integer({ min: -3, max: 3 }),
  wordSurplus: fc.integer({ min: -9, max: 9 }),
  seed: fc.nat(),
});

function hostileInput(value: typeof hostile extends fc.Arbitrary<infer T> ? T : never): WordMask {
  const { pageBytes, density, wordMasks, maskSurplus, wordSurplus, seed } = value;
  const lineMask = noise(pageBytes / 512, seed).map((byte) =>
    density === 0 ? byte : density === 1 ? 255 : byte & 8,
  );
  const lines = lineMask.reduce((count, byte) => count + bitsOf(byte), 0);
  const used = Array.from({ length: lines }, (_, i) => wordMasks[i] ?? 1 + ((seed + i) % 255));
  const masks = Uint8Array.of(...lineMask, ...used, ...noise(3, seed));
  const words = noise(used.reduce((count, byte) => count + bitsOf(byte), 0) * 8 + 9, seed);
  return {
    masks: masks.subarray(0, Math.max(0, lineMask.length + lines + maskSurplus)),
    words: words.subarray(0, Math.max(0, words.length - 9 + wordSurplus)),
  };
}

function bitsOf(byte: number): number {
  let count = 0;
  for (let rest = byte; rest > 0; rest &= rest - 1) count++;
  return count;
}

describe("the reference", () => {
  test("writes and reads the worked example of FORMAT.md", () => {
    const { oldPage, newPage, masks, words, delta } = example;
    expect(oldPage.length).toBe(512);
    expect(wordMaskEncode(oldPage, newPage)).toEqual({ masks, words });
    expect(wordMaskToXbzrle(masks, words, 512)).toEqual({ delta, maskBytes: 3, wordBytes: 24 });
    const page = oldPage.slice();
    expect(wordMaskDecode(masks, words, page)).toEqual({ maskBytes: 3, wordBytes: 24 });
    expect(page).toEqual(newPage);
  });

  test("FORMAT.md lists at least ten invalid inputs", () =>
    expect(invalidRows.length).toBeGreaterThanOrEqual(10));

  test.each(invalidRows)("refuses '$masks' with words '$words': $rule", ({ masks, words }) => {
    const page = noise(512);
    expect(wordMaskDecode(parseFormatBytes(masks), parseFormatBytes(words), page)).toBeUndefined();
    expectSameBytes(page, noise(512));
    expect(wordMaskToXbzrle(parseFormatBytes(masks), parseFormatBytes(words), 512)).toBeUndefined();
  });

  test("gives a delta that makes the new page of the old one, unless every word changed", () => {
    fc.assert(
      fc.property(pagePairArbitrary(PAGE_BYTES), ({ oldPage, newPage }) => {
        const change = wordMaskEncode(oldPage, newPage);
        fc.pre(change !== undefined);
        const { masks, words } = change as WordMask;
        const decoded = oldPage.slice();
        wordMaskDecode(masks, words, decoded);
        expectSameBytes(decoded, newPage);
        const xbzrle = wordMaskToXbzrle(masks, words, oldPage.length);
        expect(xbzrle === undefined).toBe(words.length === oldPage.length);
        if (xbzrle === undefined) return;
        const page = oldPage.slice();
        xbzrleDecode(xbzrle.delta, 0, xbzrle.delta.length, page, 0, page.length);
        expectSameBytes(page, newPage);
      }),
      { numRuns: 200 },
    );
  });
});

describe.each(KERNEL_VARIANTS)("the %s kernel", (variant) => {
  const arena = new KernelArena(variant);
  const { kernel } = arena;

  function encode({ oldPage, newPage }: PagePair, limitBytes = oldPage.length): WordMask | number {
    arena.reset();
    const pageBytes = oldPage.length;
    const masks = arena.placeEmpty((9 * pageBytes) / 512);
    const words = arena.placeEmpty(pageBytes);
    const result = kernel.wordMaskEncode(
      arena.place(oldPage),
      arena.place(newPage),
      pageBytes,
      masks,
      words,
      limitBytes,
    );
    arena.expectGuards();
    if (result === 0 || result === -1) return result;
    return {
      masks: arena.bytes(masks, result & 0xffff).slice(),
      words: arena.bytes(words, result >>> 16).slice(),
    };
  }

  /** What the two decoding kernels make of the input, held to what the reference makes of it. */
  function expectDecodedAsByReference(masks: Uint8Array, words: Uint8Array, pageBytes: number): boolean {
    const oldPage = noise(pageBytes, 7);
    const expectedPage = oldPage.slice();
    const decoded = wordMaskDecode(masks, words, expectedPage);
    const converted = pageBytes > 16384 ? undefined : wordMaskToXbzrle(masks, words, pageBytes);
    // Either input once where there is no memory behind it.
    for (const atEnd of ["neither", "masks", "words", "page"]) {
      arena.reset();
      const masksAt = atEnd === "masks" ? arena.placeAtEnd(masks) : arena.place(masks);
      const wordsAt = atEnd === "words" ? arena.placeAtEnd(words) : arena.place(words);
      const page = atEnd === "page" ? arena.placeAtEnd(oldPage) : arena.place(oldPage);
      const result = arena.placeEmpty(8);
      const input = [masksAt, masks.length, wordsAt, words.length] as const;
      const used = kernel.wordMaskDecode(...input, page, pageBytes, result);
      arena.expectGuards();
      expect(used).toBe(decoded?.wordBytes ?? -1);
      expectSameBytes(arena.bytes(page, pageBytes), expectedPage);
      if (decoded !== undefined) expectResult(result, decoded);

      if (pageBytes > 16384) continue;
      const out = arena.placeEmpty(pageBytes);
      const deltaBytes = kernel.wordMaskToXbzrle(...input, pageBytes, out, result);
      arena.expectGuards();
      expect(deltaBytes).toBe(converted?.delta.length ?? -1);
      if (converted === undefined) continue;
      expectSameBytes(arena.bytes(out, deltaBytes), converted.delta);
      expectResult(result, converted);
    }
    return decoded !== undefined;
  }

  function expectResult(result: number, used: { maskBytes: number; wordBytes: number }): void {
    const view = new DataView(arena.bytes(result, 8).slice().buffer);
    expect([view.getInt32(0, true), view.getInt32(4, true)]).toEqual([used.maskBytes, used.wordBytes]);
  }

  function expectAsReference(pair: PagePair): void {
    const actual = encode(pair);
    const expected = wordMaskEncode(pair.oldPage, pair.newPage);
    if (expected === undefined) {
      expect(actual).toBe(0);
      return;
    }
    const { masks, words } = actual as WordMask;
    expectSameBytes(masks, expected.masks);
    expectSameBytes(words, expected.words);
    expectDecodedAsByReference(masks, words, pair.newPage.length);
  }

  test("writes what the reference writes, for the pages that are hardest", () => {
    for (const pair of edgePagePairs([512, 4096])) expectAsReference(pair);
  });

  test("writes what the reference writes, and reads it back, for any two pages", () => {
    fc.assert(fc.property(pagePairArbitrary(PAGE_BYTES), expectAsReference), { numRuns: 300 });
  });

  test("takes pages of 64 KiB, and overflows when all of one changed", () => {
    const oldPage = noise(65536, 3);
    const all = oldPage.map((byte) => byte ^ 1);
    expect(encode({ oldPage, newPage: all })).toBe(-1);
    // All words but one: the longest result there is.
    expectAsReference({ oldPage, newPage: all.map((byte, i) => (i < 8 ? byte ^ 1 : byte)) });
    expectAsReference({ oldPage, newPage: oldPage.map((byte, i) => (i === 65535 ? byte ^ 1 : byte)) });
  });

  test("a change fits a limit of exactly its words and overflows below", () => {
    fc.assert(
      fc.property(pagePairArbitrary(PAGE_BYTES), (pair) => {
        const expected = wordMaskEncode(pair.oldPage, pair.newPage);
        fc.pre(expected !== undefined);
        const wordBytes = (expected as WordMask).words.length;
        const fitting = encode(pair, wordBytes) as WordMask;
        expectSameBytes(fitting.masks, (expected as WordMask).masks);
        expectSameBytes(fitting.words, (expected as WordMask).words);
        expect(encode(pair, wordBytes - 1)).toBe(-1);
        expect(encode(pair, 0)).toBe(-1);
      }),
      { numRuns: 100 },
    );
  });

  test("refuses what FORMAT.md calls invalid", () => {
    for (const { masks, words } of invalidRows) {
      expect(expectDecodedAsByReference(parseFormatBytes(masks), parseFormatBytes(words), 512)).toBe(false);
    }
  });

  test("makes of hostile input what the reference makes of it, and touches nothing else", () => {
    const seen = { accepted: 0, refused: 0 };
    fc.assert(
      fc.property(hostile, (value) => {
        const { masks, words } = hostileInput(value);
        const accepted = expectDecodedAsByReference(masks, words, value.pageBytes);
        seen[accepted ? "accepted" : "refused"]++;
      }),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 90 }), fc.uint8Array({ maxLength: 600 }), (masks, words) => {
        expectDecodedAsByReference(masks, words, 512);
      }),
      { numRuns: 300 },
    );
    // Both ways must have been walked for the comparison to mean anything.
    expect(seen.accepted).toBeGreaterThan(50);
    expect(seen.refused).toBeGreaterThan(50);
  });
});
