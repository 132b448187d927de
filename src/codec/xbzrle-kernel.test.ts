// The XBZRLE kernels against the reference xbzrle.ts: byte for byte, error for error.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatSection, parseFormatBytes, tableRows } from "../../test/support/format-bytes.ts";
import { expectSameBytes, KERNEL_VARIANTS, KernelArena } from "../../test/support/kernel-arena.ts";
import {
  changed,
  edgePagePairs,
  noise,
  type PagePair,
  pagePairArbitrary,
} from "../../test/support/page-pairs.ts";
import { XBZRLE_OVERFLOW, XBZRLE_PAGE_BYTES_MAX, xbzrleDecode, xbzrleEncode } from "./xbzrle.ts";

const PAGE_BYTES = [512, 1024, 4096, XBZRLE_PAGE_BYTES_MAX];
const format = formatSection(readFileSync(new URL("FORMAT.md", import.meta.url), "utf8"), "# XBZRLE");
const invalidDeltas = tableRows(formatSection(format, "## What is invalid")).map(([text]) =>
  parseFormatBytes(text!),
);
/** What the caller owns beyond the limit. */
const OUT_SLACK_BYTES = 16;

function referenceEncode({ oldPage, newPage }: PagePair, limitBytes: number): Uint8Array | number {
  const out = new Uint8Array(limitBytes);
  const length = xbzrleEncode(oldPage, 0, newPage, 0, oldPage.length, out, 0, limitBytes);
  return length > 0 ? out.subarray(0, length) : length;
}

/** As the kernel returns it: bytes covered, or -1 - offset of the error. */
function referenceDecode(delta: Uint8Array, page: Uint8Array): number {
  try {
    return xbzrleDecode(delta, 0, delta.length, page, 0, page.length);
  } catch (error) {
    return -1 - Number(/at its byte (\d+):/.exec((error as Error).message)![1]);
  }
}

/** Deltas that are nearly right, so that the fuzzer gets past the first length. */
const nearlyValid = fc
  .array(
    fc.tuple(fc.nat({ max: 300 }), fc.uint8Array({ maxLength: 40 }), fc.constantFrom(0, 0, 0, 0, 0, 0, 1)),
    { maxLength: 20 },
  )
  .map((runs) => {
    const length = (n: number, long: number) => (n < 128 && long === 0 ? [n] : [(n & 127) | 128, n >> 7]);
    return Uint8Array.from(
      runs.flatMap(([keep, bytes, long]) => [...length(keep, long), ...length(bytes.length, 0), ...bytes]),
    );
  });

describe.each(KERNEL_VARIANTS)("the %s kernel", (variant) => {
  const arena = new KernelArena(variant);
  const { kernel } = arena;

  function encode({ oldPage, newPage }: PagePair, limitBytes: number): Uint8Array | number {
    arena.reset();
    const out = arena.placeEmpty(limitBytes, OUT_SLACK_BYTES);
    const length = kernel.xbzrleEncode(
      arena.place(oldPage),
      arena.place(newPage),
      oldPage.length,
      out,
      limitBytes,
    );
    arena.expectGuards();
    return length > 0 ? arena.bytes(out, length).slice() : length;
  }

  function expectDecodedAsByReference(delta: Uint8Array, oldPage: Uint8Array): number {
    const expectedPage = oldPage.slice();
    const expected = referenceDecode(delta, expectedPage);
    // Each input once where there is no memory behind it.
    for (const atEnd of ["delta", "page"]) {
      arena.reset();
      const deltaAt = atEnd === "delta" ? arena.placeAtEnd(delta) : arena.place(delta);
      const page = atEnd === "page" ? arena.placeAtEnd(oldPage) : arena.place(oldPage);
      expect(kernel.xbzrleDecode(deltaAt, delta.length, page, oldPage.length)).toBe(expected);
      arena.expectGuards();
      expectSameBytes(arena.bytes(page, oldPage.length), expectedPage);
    }
    return expected;
  }

  function expectAsReference(pair: PagePair): void {
    const pageBytes = pair.oldPage.length;
    const expected = referenceEncode(pair, pageBytes);
    const actual = encode(pair, pageBytes);
    if (!(expected instanceof Uint8Array) || !(actual instanceof Uint8Array)) {
      expect(actual).toBe(expected);
      return;
    }
    expectSameBytes(actual, expected);
    expectDecodedAsByReference(actual, pair.oldPage);
    expectSameBytes(encode(pair, expected.length) as Uint8Array, expected);
    expect(encode(pair, expected.length - 1)).toBe(XBZRLE_OVERFLOW);
  }

  test("writes what the reference writes, for the pages that are hardest", () => {
    for (const pair of edgePagePairs([512, 4096])) expectAsReference(pair);
  });

  test("writes what the reference writes, and reads it back, for any two pages", () => {
    fc.assert(fc.property(pagePairArbitrary(PAGE_BYTES), expectAsReference), { numRuns: 500 });
  });

  test("treats every pattern of changed bytes at the border of two lines as the reference does", () => {
    const oldPage = noise(512);
    for (let pattern = 0; pattern < 1 << 10; pattern++) {
      const newPage = oldPage.slice();
      for (let bit = 0; bit < 10; bit++) {
        if ((pattern & (1 << bit)) !== 0) newPage[123 + bit] = oldPage[123 + bit]! ^ 0x5a;
      }
      expect(encode({ oldPage, newPage }, 512)).toEqual(referenceEncode({ oldPage, newPage }, 512));
    }
  });

  test("does not see what lies behind the pages", () => {
    arena.reset();
    const page = noise(512);
    // The last byte is unchanged between a changed one and one that differs, but is no longer of the page.
    const [oldPage, newPage] = [page, changed(page, 510, 1)];
    const out = arena.placeEmpty(512, OUT_SLACK_BYTES);
    const oldAt = arena.place(Uint8Array.of(...oldPage, 1));
    const newAt = arena.place(Uint8Array.of(...newPage, 2));
    expect(kernel.xbzrleEncode(oldAt, newAt, 512, out, 512)).toBe(4);
    expect([...arena.bytes(out, 4)]).toEqual([0xfe, 0x03, 1, newPage[510]]);
  });

  test("refuses what FORMAT.md calls invalid, at the same byte as the reference", () => {
    expect(invalidDeltas.length).toBeGreaterThanOrEqual(10);
    for (const delta of invalidDeltas) {
      expect(expectDecodedAsByReference(delta, noise(4096))).toBeLessThan(0);
    }
  });

  test("makes of hostile deltas what the reference makes of them, and touches nothing else", () => {
    const seen = { accepted: 0, refused: 0 };
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 300 }),
          { weight: 3, arbitrary: nearlyValid },
          fc.uint8Array({ size: "max", maxLength: 5000 }),
        ),
        fc.constantFrom(512, 4096),
        (delta, pageBytes) => {
          seen[expectDecodedAsByReference(delta, noise(pageBytes)) >= 0 ? "accepted" : "refused"]++;
        },
      ),
      // Making a delta of thousands of bytes smaller takes minutes and tells little.
      { numRuns: 2000, endOnFailure: true },
    );
    // Both ways must have been walked for the comparison to mean anything.
    expect(seen.accepted).toBeGreaterThan(50);
    expect(seen.refused).toBeGreaterThan(50);
  });

  test("makes of a damaged delta what the reference makes of it", () => {
    fc.assert(
      fc.property(pagePairArbitrary([512, 4096]), fc.nat(), fc.nat(), fc.boolean(), (pair, at, bit, cut) => {
        const delta = referenceEncode(pair, pair.oldPage.length);
        fc.pre(delta instanceof Uint8Array);
        const bytes = delta as Uint8Array;
        const damaged = cut ? bytes.subarray(0, at % bytes.length) : bytes.slice();
        if (!cut) damaged[at % bytes.length] = damaged[at % bytes.length]! ^ (1 << (bit % 8));
        expectDecodedAsByReference(damaged, pair.oldPage);
      }),
      { numRuns: 500 },
    );
  });
});
