// isZeroPage against a plain loop.

import fc from "fast-check";
import { expect, test } from "vitest";
import { isZeroPage } from "./zero.ts";

test("a page of zeros between other bytes is zero at any alignment", () => {
  for (const pageBytes of [1, 8, 4096, 16384, 65536]) {
    for (let offset = 0; offset < 9; offset++) {
      const buffer = new Uint8Array(offset + pageBytes + 3).fill(0xff);
      buffer.fill(0, offset, offset + pageBytes);
      expect(isZeroPage(buffer, offset, pageBytes)).toBe(true);
    }
  }
});

test("a single bit anywhere in the page makes it not zero", () => {
  const buffer = new Uint8Array(4096 + 7);
  for (let i = 0; i < 4096; i++) {
    buffer[3 + i] = 1 << (i % 8);
    expect(isZeroPage(buffer, 3, 4096)).toBe(false);
    buffer[3 + i] = 0;
  }
  expect(isZeroPage(buffer, 3, 4096)).toBe(true);
});

test("it agrees with a loop over the bytes", () => {
  const input = fc.record({
    bytes: fc.array(fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 1, 0x80), { minLength: 1, maxLength: 64 }),
    offset: fc.nat({ max: 63 }),
    pageBytes: fc.integer({ min: 1, max: 64 }),
  });
  fc.assert(
    fc.property(input, ({ bytes, offset, pageBytes }) => {
      fc.pre(offset + pageBytes <= bytes.length);
      const expected = bytes.slice(offset, offset + pageBytes).every((byte) => byte === 0);
      expect(isZeroPage(Uint8Array.from(bytes), offset, pageBytes)).toBe(expected);
    }),
  );
});

test("a page outside its buffer is our own mistake", () => {
  expect(() => isZeroPage(new Uint8Array(4096), 1, 4096)).toThrow(/Assertion/);
  expect(() => isZeroPage(new Uint8Array(4096), -1, 4096)).toThrow(/Assertion/);
  expect(() => isZeroPage(new Uint8Array(4096), 0, 0)).toThrow(/Assertion/);
});
