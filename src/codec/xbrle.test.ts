// XBRLE: reference and kernels against FORMAT.md, against each other byte for byte, and against hostile bytes.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { exampleBytes, formatSection, parseFormatBytes, tableRows } from "../../test/support/format-bytes.ts";
import { expectSameBytes, KERNEL_VARIANTS, KernelArena } from "../../test/support/kernel-arena.ts";
import { edgePagePairs, noise, type PagePair, pagePairArbitrary } from "../../test/support/page-pairs.ts";
import { XBRLE_OVERFLOW, xbrleDecode, xbrleEncode } from "./xbrle.ts";

const PAGE_BYTES = [512, 4096, 16384];
const format = formatSection(readFileSync(new URL("FORMAT.md", import.meta.url), "utf8"), "# XBRLE");
const invalidRows = tableRows(formatSection(format, "## What makes an XBRLE delta invalid")).map(
  ([delta, offset, rule]) => ({ delta: delta!, offset: offset!, rule: rule! }),
);

const varint = (value: number): number[] =>
  value < 128 ? [value] : [(value & 127) | 128, ...varint(value >> 7)];

/** Deltas that are nearly right, so that the fuzzer gets past the first token. */
const nearlyValid = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 40 }).map((bytes) => [...varint(bytes.length * 2), ...bytes]),
      fc.tuple(fc.nat({ max: 600 }), fc.nat({ max: 255 })).map(([n, byte]) => [...varint(n * 2 + 1), byte]),
      { weight: 1, arbitrary: fc.array(fc.nat({ max: 255 }), { maxLength: 3 }) },
    ),
    { maxLength: 8 },
  )
  .map((tokens) => Uint8Array.from(tokens.flat()));

describe("the reference", () => {
  test("writes and reads the worked example of FORMAT.md", () => {
    const [oldPage, newPage, delta] = ["old", "new", "delta"].map((name) => exampleBytes(format, name)) as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
    expect(oldPage.length).toBe(4096);
    expect(xbrleEncode(oldPage, newPage, 4096)).toEqual(delta);
    const page = oldPage.slice();
    expect(xbrleDecode(delta, page)).toBe(1017);
    expect(page).toEqual(newPage);
  });

  test("FORMAT.md lists at least ten invalid deltas", () =>
    expect(invalidRows.length).toBeGreaterThanOrEqual(10));

  test.each(invalidRows)("refuses '$delta' at its byte $offset: $rule", ({ delta, offset }) => {
    expect(xbrleDecode(parseFormatBytes(delta), noise(4096))).toBe(-1 - Number(offset));
  });

  test("shortens what grew by the same everywhere, as XBZRLE cannot", () => {
    const oldPage = new Uint8Array(4096).fill(0x40);
    expect(xbrleEncode(oldPage, new Uint8Array(4096).fill(0x41), 4096)).toEqual(Uint8Array.of(0x81, 0x40, 1));
  });
});

describe.each(KERNEL_VARIANTS)("the %s kernel", (variant) => {
  const arena = new KernelArena(variant);
  const { kernel } = arena;

  function encode({ oldPage, newPage }: PagePair, limitBytes: number): Uint8Array | number {
    arena.reset();
    const out = arena.placeEmpty(limitBytes);
    const oldAt = arena.place(oldPage);
    // Nothing behind the new page is looked at.
    const newAt = arena.placeAtEnd(newPage);
    const length = kernel.xbrleEncode(oldAt, newAt, oldPage.length, out, limitBytes);
    arena.expectGuards();
    return length > 0 ? arena.bytes(out, length).slice() : length;
  }

  function expectDecodedAsByReference(delta: Uint8Array, oldPage: Uint8Array): number {
    const expectedPage = oldPage.slice();
    const expected = xbrleDecode(delta, expectedPage);
    for (const atEnd of ["delta", "page"]) {
      arena.reset();
      const deltaAt = atEnd === "delta" ? arena.placeAtEnd(delta) : arena.place(delta);
      const page = atEnd === "page" ? arena.placeAtEnd(oldPage) : arena.place(oldPage);
      expect(kernel.xbrleDecode(deltaAt, delta.length, page, oldPage.length)).toBe(expected);
      arena.expectGuards();
      expectSameBytes(arena.bytes(page, oldPage.length), expectedPage);
    }
    return expected;
  }

  function expectAsReference(pair: PagePair): void {
    const expected = xbrleEncode(pair.oldPage, pair.newPage, pair.oldPage.length);
    const actual = encode(pair, pair.oldPage.length);
    if (!(expected instanceof Uint8Array) || !(actual instanceof Uint8Array)) {
      expect(actual).toBe(expected ?? 0);
      return;
    }
    expectSameBytes(actual, expected);
    expectDecodedAsByReference(actual, pair.oldPage);
    expectSameBytes(encode(pair, expected.length) as Uint8Array, expected);
    expect(encode(pair, expected.length - 1)).toBe(XBRLE_OVERFLOW);
  }

  test("writes what the reference writes, for the pages that are hardest", () => {
    for (const pair of edgePagePairs([512, 4096])) expectAsReference(pair);
  });

  test("writes what the reference writes, and reads it back, for any two pages", () => {
    fc.assert(fc.property(pagePairArbitrary(PAGE_BYTES), expectAsReference), { numRuns: 400 });
    expectAsReference({ oldPage: new Uint8Array(65536), newPage: new Uint8Array(65536).fill(9) });
  });

  test("writes what the reference writes where few different bytes stand", () => {
    const byte = fc.constantFrom(0, 0, 0, 1, 0xff);
    fc.assert(
      fc.property(fc.array(byte, { minLength: 1, maxLength: 120 }), fc.nat({ max: 392 }), (bytes, at) => {
        const newPage = new Uint8Array(512);
        newPage.set(bytes, at);
        expectAsReference({ oldPage: new Uint8Array(512), newPage });
      }),
      { numRuns: 1000 },
    );
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
    for (const { delta } of invalidRows) {
      expect(expectDecodedAsByReference(parseFormatBytes(delta), noise(4096))).toBeLessThan(0);
    }
    // Both ways must have been walked for the comparison to mean anything.
    expect(seen.accepted).toBeGreaterThan(50);
    expect(seen.refused).toBeGreaterThan(50);
  });
});
