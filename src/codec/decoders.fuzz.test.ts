// Deltas that were valid once: the kernels take and refuse what the readable references take and refuse, byte for byte,
// and write nothing beside the page. Fixed cases stand in FORMAT.md. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fuzz, fuzzRuns, mutated } from "../../test/support/fuzzing.ts";
import { expectSameBytes, KERNEL_VARIANTS, KernelArena } from "../../test/support/kernel-arena.ts";
import { noise, pagePairArbitrary } from "../../test/support/page-pairs.ts";
import { DeltaveeError } from "../base/errors.ts";
import { XBRLE_OVERFLOW, xbrleDecode, xbrleEncode } from "./xbrle.ts";
import { xbzrleDecode, xbzrleEncode } from "./xbzrle.ts";

const PAGE_BYTES = 4096;
const numRuns = fuzzRuns(300);
const OLD_PAGE = noise(PAGE_BYTES);

const pairs = pagePairArbitrary([PAGE_BYTES]);

const CODECS = {
  xbzrle: {
    valid: pairs.map(({ oldPage, newPage }) => {
      const out = new Uint8Array(PAGE_BYTES);
      const length = xbzrleEncode(oldPage, 0, newPage, 0, PAGE_BYTES, out, 0, PAGE_BYTES);
      return out.slice(0, Math.max(1, length));
    }),
    decode: (delta: Uint8Array, page: Uint8Array): boolean => {
      try {
        xbzrleDecode(delta, 0, delta.length, page, 0, page.length);
        return true;
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(DeltaveeError);
        return false;
      }
    },
    kernel: "xbzrleDecode",
  },
  xbrle: {
    // Where there is none, or it would not pay, another one.
    valid: pairs.map(({ oldPage, newPage }) => {
      const delta = xbrleEncode(oldPage, newPage, PAGE_BYTES);
      return delta === undefined || delta === XBRLE_OVERFLOW ? Uint8Array.of(3, 1) : delta;
    }),
    decode: (delta: Uint8Array, page: Uint8Array): boolean => xbrleDecode(delta, page) >= 0,
    kernel: "xbrleDecode",
  },
} as const;

describe.each(Object.entries(CODECS))("%s", (_name, codec) => {
  const arenas = KERNEL_VARIANTS.map((variant) => new KernelArena(variant));

  test("what was a delta once is taken or refused, by reference and kernels alike", () => {
    let [taken, refused] = [0, 0];
    const input = fc.oneof(mutated(codec.valid), fc.uint8Array({ minLength: 1, maxLength: 200 }));
    fuzz(
      fc.property(input, (delta) => {
        if (delta.length === 0 || delta.length > PAGE_BYTES) return;
        const expected = OLD_PAGE.slice();
        const isValid = codec.decode(delta, expected);
        if (isValid) taken++;
        else refused++;
        for (const arena of arenas) {
          arena.reset();
          const page = arena.place(OLD_PAGE);
          const deltaAt = arena.place(delta);
          const result = arena.kernel[codec.kernel](deltaAt, delta.length, page, PAGE_BYTES);
          expect(result >= 0).toBe(isValid);
          arena.expectGuards();
          if (isValid) expectSameBytes(arena.bytes(page, PAGE_BYTES), expected);
        }
      }),
      { numRuns },
    );
    expect(taken).toBeGreaterThan(numRuns / 50);
    expect(refused).toBeGreaterThan(numRuns / 50);
  });
});
