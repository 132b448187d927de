// XBZRLE reference against FORMAT.md and against an independent, byte-by-byte model of QEMU's decoder.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { exampleBytes, formatSection, parseFormatBytes, tableRows } from "../../test/support/format-bytes.ts";
import { changed, noise, pagePairArbitrary } from "../../test/support/page-pairs.ts";
import { DeltaveeError } from "../base/errors.ts";
import { XBZRLE_OVERFLOW, XBZRLE_PAGE_BYTES_MAX, xbzrleDecode, xbzrleEncode } from "./xbzrle.ts";

const PAGE_BYTES = 4096;
const GUARD = 0xc3;

/** toEqual compares typed arrays element by element, far too slowly for thousands of pages. */
function expectSameBytes(actual: Uint8Array | undefined, expected: Uint8Array): void {
  if (actual === undefined || Buffer.compare(actual, expected) !== 0) expect(actual).toEqual(expected);
}

function expectGuard(bytes: Uint8Array): void {
  for (const byte of bytes)
    if (byte !== GUARD) expect(bytes).toEqual(new Uint8Array(bytes.length).fill(GUARD));
}

/** Encodes at unaligned offsets between guard bytes, checks the guards, returns the delta (or 0 / overflow). */
function encode(oldPage: Uint8Array, newPage: Uint8Array, limitBytes = oldPage.length): Uint8Array | number {
  const pageBytes = oldPage.length;
  const oldBuffer = new Uint8Array(pageBytes + 8).fill(GUARD);
  // Unlike what surrounds the old page: a comparison that leaves the page finds a difference.
  const newBuffer = new Uint8Array(pageBytes + 8).fill(GUARD ^ 0xff);
  const out = new Uint8Array(limitBytes + 8).fill(GUARD);
  oldBuffer.set(oldPage, 1);
  newBuffer.set(newPage, 3);
  const length = xbzrleEncode(oldBuffer, 1, newBuffer, 3, pageBytes, out, 5, limitBytes);
  expectGuard(out.subarray(0, 5));
  expectGuard(out.subarray(5 + limitBytes));
  expectSameBytes(oldBuffer.subarray(1, 1 + pageBytes), oldPage);
  expectSameBytes(newBuffer.subarray(3, 3 + pageBytes), newPage);
  return length > 0 ? out.slice(5, 5 + length) : length;
}

/** Decodes at unaligned offsets between guard bytes, checks the guards, also when it throws. */
function decode(delta: Uint8Array, page: Uint8Array): { page: Uint8Array; covered: number } {
  // Nothing follows the delta: reading on would be an untyped RangeError.
  const deltaBuffer = new Uint8Array(3 + delta.length).fill(0x01);
  const pageBuffer = new Uint8Array(page.length + 8).fill(GUARD);
  deltaBuffer.set(delta, 3);
  pageBuffer.set(page, 1);
  try {
    const covered = xbzrleDecode(deltaBuffer, 3, delta.length, pageBuffer, 1, page.length);
    return { page: pageBuffer.slice(1, 1 + page.length), covered };
  } finally {
    expectGuard(pageBuffer.subarray(0, 1));
    expectGuard(pageBuffer.subarray(1 + page.length));
  }
}

/** QEMU's rules as a grammar over a queue of bytes, one byte at a time: the model. Undefined = refused. */
function modelDecode(delta: Uint8Array, oldPage: Uint8Array): Uint8Array | undefined {
  if (delta.length > oldPage.length) return undefined;
  const queue = delta.values();
  let left = delta.length;
  const take = (): number => {
    const { value, done } = queue.next();
    if (done === true) throw new RangeError("delta used up");
    left--;
    return value;
  };
  const takeLength = (): number => {
    const first = take();
    if (left === 0) throw new RangeError("a length is never last");
    if (first <= 127) return first;
    const second = take();
    if (second > 127) throw new RangeError("more than two bytes");
    return second * 128 + (first - 128);
  };
  const result: number[] = [];
  const put = (byte: number | undefined): void => {
    if (byte === undefined || result.length === oldPage.length) throw new RangeError("page used up");
    result.push(byte);
  };
  try {
    for (let runs = 0; left > 0; runs++) {
      const keep = takeLength();
      if (keep === 0 && runs > 0) return undefined;
      for (let i = 0; i < keep; i++) put(oldPage[result.length]);
      const replace = takeLength();
      if (replace === 0) return undefined;
      for (let i = 0; i < replace; i++) put(take());
    }
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
  return Uint8Array.from([...result, ...oldPage.subarray(result.length)]);
}

/** Length of the delta of an encoder that skips every unchanged byte, as QEMU's does. */
function plainDeltaBytes(oldPage: Uint8Array, newPage: Uint8Array): number {
  let total = 0;
  let keep = 0;
  for (let i = 0; i < oldPage.length; ) {
    if (oldPage[i] === newPage[i]) {
      keep++;
      i++;
      continue;
    }
    let replace = 0;
    while (i < oldPage.length && oldPage[i] !== newPage[i]) {
      replace++;
      i++;
    }
    total += (keep < 128 ? 1 : 2) + (replace < 128 ? 1 : 2) + replace;
    keep = 0;
  }
  return total;
}

function expectRoundTrip(oldPage: Uint8Array, newPage: Uint8Array): void {
  const delta = encode(oldPage, newPage);
  const plainBytes = plainDeltaBytes(oldPage, newPage);
  if (delta === 0) {
    expectSameBytes(newPage, oldPage);
  } else if (delta === XBZRLE_OVERFLOW) {
    expect(plainBytes).toBeGreaterThan(oldPage.length);
  } else {
    expect(delta).toBeInstanceOf(Uint8Array);
    const bytes = delta as Uint8Array;
    expect(bytes.length).toBeLessThanOrEqual(plainBytes);
    expectSameBytes(decode(bytes, oldPage).page, newPage);
    expectSameBytes(modelDecode(bytes, oldPage), newPage);
  }
}

const pagePair = pagePairArbitrary([64, 100, PAGE_BYTES, 8192, XBZRLE_PAGE_BYTES_MAX]);

function caught(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

const format = formatSection(readFileSync(new URL("FORMAT.md", import.meta.url), "utf8"), "# XBZRLE");

describe("FORMAT.md", () => {
  test("the worked example encodes and decodes to the bytes printed", () => {
    const [oldPage, newPage, delta] = ["old", "new", "delta"].map((name) => exampleBytes(format, name)) as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
    expect(oldPage.length).toBe(PAGE_BYTES);
    expect(encode(oldPage, newPage)).toEqual(delta);
    expect(decode(delta, oldPage)).toEqual({ page: newPage, covered: 1009 });
  });

  const rows = tableRows(formatSection(format, "## What is invalid")).map(([text, rule]) => ({
    text: text!,
    rule: rule!,
  }));

  test("lists at least ten invalid deltas", () => expect(rows.length).toBeGreaterThanOrEqual(10));

  test.each(rows)("the invalid delta '$text' is refused: $rule", ({ text, rule }) => {
    const error = caught(() => decode(parseFormatBytes(text), noise(PAGE_BYTES)));
    expect(error).toBeInstanceOf(DeltaveeError);
    expect((error as DeltaveeError).code).toBe("XBZRLE_CORRUPT");
    expect((error as DeltaveeError).message).toContain(rule);
    expect((error as DeltaveeError).message).toMatch(/at its byte \d+: /);
  });

  test("the model refuses them too, but for the two that QEMU takes", () => {
    const taken = rows.filter(
      (row) => modelDecode(parseFormatBytes(row.text), noise(PAGE_BYTES)) !== undefined,
    );
    expect(taken.map((row) => row.rule)).toEqual(["delta is empty", "run length longer than needed"]);
  });
});

describe("xbzrleEncode", () => {
  test("equal pages have no delta", () => {
    for (const pageBytes of [1, 7, 64, PAGE_BYTES, XBZRLE_PAGE_BYTES_MAX]) {
      expect(encode(noise(pageBytes), noise(pageBytes))).toBe(0);
    }
  });

  test("a page in which every byte changed overflows", () => {
    for (const pageBytes of [64, PAGE_BYTES, 8192, XBZRLE_PAGE_BYTES_MAX]) {
      const page = noise(pageBytes);
      expect(encode(page, changed(page, 0, pageBytes))).toBe(XBZRLE_OVERFLOW);
    }
  });

  test("a page in which every second byte changed overflows", () => {
    const page = noise(PAGE_BYTES);
    for (const parity of [0, 1]) {
      const other = page.map((byte, i) => (i % 2 === parity ? byte ^ 0xff : byte));
      expect(encode(page, other)).toBe(XBZRLE_OVERFLOW);
    }
  });

  test("a changed first byte and a changed last byte cost three and four bytes", () => {
    const page = noise(PAGE_BYTES);
    expect(encode(page, changed(page, 0, 1))).toEqual(Uint8Array.of(0, 1, page[0]! ^ 0x5a));
    expect(encode(page, changed(page, 4095, 1))).toEqual(Uint8Array.of(0xff, 0x1f, 1, page[4095]! ^ 0x5a));
    expectRoundTrip(page, changed(changed(page, 0, 1), 4095, 1));
  });

  test("runs of every length at and around a step of the length's own size survive", () => {
    const page = noise(XBZRLE_PAGE_BYTES_MAX);
    const lengths = [
      1, 2, 3, 4, 5, 7, 8, 9, 126, 127, 128, 129, 255, 256, 4094, 4095, 4096, 8191, 8192, 16000,
    ];
    for (const keep of [0, ...lengths]) {
      for (const replace of lengths) {
        if (keep + replace <= page.length) expectRoundTrip(page, changed(page, keep, replace));
      }
    }
  });

  test("every start and every end of a run is exact to the byte", () => {
    const page = noise(64);
    for (let start = 0; start < 64; start++) {
      for (let end = start + 1; end <= 64; end++) expectRoundTrip(page, changed(page, start, end - start));
    }
  });

  test("the largest page takes the longest runs that 14 bits can say", () => {
    const page = noise(XBZRLE_PAGE_BYTES_MAX);
    expect(encode(page, changed(page, 16383, 1))).toEqual(Uint8Array.of(0xff, 0x7f, 1, page[16383]! ^ 0x5a));
    const delta = encode(page, changed(page, 0, 16381));
    expect(delta).toBeInstanceOf(Uint8Array);
    expect((delta as Uint8Array).length).toBe(XBZRLE_PAGE_BYTES_MAX);
    expectRoundTrip(page, changed(page, 0, 16381));
  });

  test("one unchanged byte between changed ones is sent along, two are skipped", () => {
    const page = new Uint8Array(PAGE_BYTES);
    const one = page.slice();
    one.set([1, 0, 2], 10);
    expect(encode(page, one)).toEqual(Uint8Array.of(10, 3, 1, 0, 2));
    const two = page.slice();
    two.set([1, 0, 0, 2], 10);
    expect(encode(page, two)).toEqual(Uint8Array.of(10, 1, 1, 2, 1, 2));
  });

  test("a delta fits a limit of exactly its length and overflows one byte below", () => {
    fc.assert(
      fc.property(pagePair, ({ oldPage, newPage }) => {
        const delta = encode(oldPage, newPage);
        fc.pre(delta instanceof Uint8Array);
        const bytes = delta as Uint8Array;
        expectSameBytes(encode(oldPage, newPage, bytes.length) as Uint8Array, bytes);
        expect(encode(oldPage, newPage, bytes.length - 1)).toBe(XBZRLE_OVERFLOW);
      }),
      { numRuns: 200 },
    );
  });

  test("a limit larger than the page, and a range outside its buffer, are our own mistakes", () => {
    const page = noise(64);
    const out = new Uint8Array(128);
    expect(() => xbzrleEncode(page, 0, page, 0, 64, out, 0, 65)).toThrow(/Assertion/);
    expect(() => xbzrleEncode(page, 1, page, 0, 64, out, 0, 64)).toThrow(/Assertion/);
    expect(() => xbzrleEncode(page, 0, page, 1, 64, out, 0, 64)).toThrow(/Assertion/);
    expect(() => xbzrleEncode(page, 0, page, 0, 64, out, 65, 64)).toThrow(/Assertion/);
    expect(() => xbzrleDecode(page, 1, 64, page, 0, 64)).toThrow(/Assertion/);
    expect(() => xbzrleDecode(page, 0, 64, page, 1, 64)).toThrow(/Assertion/);
    const large = new Uint8Array(XBZRLE_PAGE_BYTES_MAX * 2);
    expect(() => xbzrleEncode(large, 0, large, 0, large.length, large, 0, 1)).toThrow(/Assertion/);
  });
});

describe("encoding and decoding", () => {
  test("the new page comes back, no delta is longer than QEMU's, and nothing outside the ranges is touched", () => {
    fc.assert(
      fc.property(pagePair, ({ oldPage, newPage }) => expectRoundTrip(oldPage, newPage)),
      { numRuns: 1500 },
    );
  });

  test("any two short pages survive", () => {
    const byte = fc.constantFrom(0, 1, 0x80, 0xff);
    const pair = fc
      .array(fc.tuple(byte, byte), { minLength: 1, maxLength: 40 })
      .map((bytes) => [Uint8Array.from(bytes, ([a]) => a), Uint8Array.from(bytes, ([, b]) => b)] as const);
    fc.assert(
      fc.property(pair, ([oldPage, newPage]) => expectRoundTrip(oldPage, newPage)),
      { numRuns: 3000 },
    );
  });
});

describe("xbzrleDecode", () => {
  /** Deltas that are nearly right, so that the fuzzer gets past the first length. */
  const nearlyValid = fc
    .array(
      fc.oneof(
        {
          weight: 4,
          arbitrary: fc.tuple(fc.nat({ max: 20 }), fc.uint8Array({ minLength: 1, maxLength: 20 })),
        },
        { weight: 1, arbitrary: fc.tuple(fc.nat({ max: 5000 }), fc.uint8Array({ maxLength: 300 })) },
      ),
      { maxLength: 20 },
    )
    .map((runs) => {
      const length = (n: number) => (n < 128 ? [n] : [(n & 127) | 128, n >> 7]);
      return Uint8Array.from(
        runs.flatMap(([keep, bytes]) => [...length(keep), ...length(bytes.length), ...bytes]),
      );
    });

  test("any bytes give QEMU's result or a typed error, and leave everything around the page alone", () => {
    const seen = { accepted: 0, refused: 0 };
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 300 }),
          nearlyValid,
          fc.uint8Array({ size: "max", maxLength: 5000 }),
        ),
        fc.constantFrom(64, 256, PAGE_BYTES),
        (delta, pageBytes) => {
          const page = noise(pageBytes);
          const model = modelDecode(delta, page);
          let decoded: Uint8Array;
          try {
            decoded = decode(delta, page).page;
          } catch (error) {
            expect(error).toBeInstanceOf(DeltaveeError);
            expect((error as DeltaveeError).code).toBe("XBZRLE_CORRUPT");
            if (!/delta is empty|longer than needed/.test((error as DeltaveeError).message)) {
              expect(model).toBeUndefined();
            }
            seen.refused++;
            return;
          }
          expectSameBytes(decoded, model ?? new Uint8Array(0));
          seen.accepted++;
        },
      ),
      { numRuns: 4000 },
    );
    // Both ways must have been walked for the comparison to mean anything.
    expect(seen.accepted).toBeGreaterThan(100);
    expect(seen.refused).toBeGreaterThan(100);
  });

  test("a delta cut short or with one bit flipped never passes the end of the page", () => {
    fc.assert(
      fc.property(pagePair, fc.nat(), fc.nat(), fc.boolean(), ({ oldPage, newPage }, at, bit, cut) => {
        const delta = encode(oldPage, newPage);
        fc.pre(delta instanceof Uint8Array);
        const bytes = delta as Uint8Array;
        const damaged = cut ? bytes.subarray(0, at % bytes.length) : bytes.slice();
        if (!cut) damaged[at % bytes.length] = damaged[at % bytes.length]! ^ (1 << (bit % 8));
        const error = caught(() => decode(damaged, oldPage));
        if (error !== undefined) expect((error as DeltaveeError).code).toBe("XBZRLE_CORRUPT");
      }),
      { numRuns: 500 },
    );
  });

  test("it tells how far into the page the delta reached", () => {
    expect(decode(Uint8Array.of(10, 2, 7, 8, 100, 1, 9), new Uint8Array(256)).covered).toBe(113);
  });
});
