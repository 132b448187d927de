// Deltas that were valid once: the kernels take and refuse what the readable references take and refuse, byte for byte,
// and write nothing beside the page. Fixed cases stand in FORMAT.md. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fuzz, fuzzRuns, must } from "../../test/support/fuzzing.ts";
import { expectSameBytes, KERNEL_VARIANTS, KernelArena } from "../../test/support/kernel-arena.ts";
import { noise, pagePairArbitrary } from "../../test/support/page-pairs.ts";
import { DeltaveeError } from "../base/errors.ts";
import { XBRLE_OVERFLOW, xbrleDecode, xbrleEncode } from "./xbrle.ts";
import { xbzrleDecode, xbzrleEncode } from "./xbzrle.ts";

const PAGE_BYTES = 4096;
const runs = fuzzRuns(2000);
const OLD_PAGE = noise(PAGE_BYTES);

const pairs = fc.sample(pagePairArbitrary([PAGE_BYTES]), { numRuns: 60, seed: 6 });

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
        if (!(thrown instanceof DeltaveeError)) throw thrown;
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
    fuzz(codec.kernel, { seeds: codec.valid, runs, randomBytesMax: 200 }, (delta) => {
      if (delta.length === 0 || delta.length > PAGE_BYTES) return undefined;
      const expected = OLD_PAGE.slice();
      const isValid = codec.decode(delta, expected);
      if (isValid) taken++;
      else refused++;
      let length = 0;
      for (const arena of arenas) {
        arena.reset();
        const page = arena.place(OLD_PAGE);
        const deltaAt = arena.place(delta);
        length = arena.kernel[codec.kernel](deltaAt, delta.length, page, PAGE_BYTES);
        must(length >= 0 === isValid, "kernel and reference take the same");
        arena.expectGuards();
        if (isValid) expectSameBytes(arena.bytes(page, PAGE_BYTES), expected);
      }
      // Deltas that reach differently far.
      return isValid ? `taken ${length >> 4}` : `refused ${length}`;
    });
    expect(taken).toBeGreaterThan(runs / 50);
    expect(refused).toBeGreaterThan(runs / 50);
  });
});
