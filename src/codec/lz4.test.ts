// The LZ4 kernels against a byte-by-byte model of the block format, both ways, and against hostile blocks.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { expectSameBytes, KERNEL_VARIANTS, KernelArena } from "../../test/support/kernel-arena.ts";
import { noise } from "../../test/support/page-pairs.ts";
import { LZ4_TABLE_BYTES } from "../kernel/kernel.ts";

interface Sequence {
  literals: number[];
  /** None in the last sequence. */
  match?: { distance: number; lengthBytes: number };
}

/** The block format as a grammar (lz4_Block_format.md of the reference implementation). Undefined = damaged. */
function modelParse(block: Uint8Array): Sequence[] | undefined {
  const sequences: Sequence[] = [];
  let at = 0;
  const lengthFrom = (nibble: number): number => {
    let length = nibble;
    for (let byte = nibble === 15 ? 255 : 0; byte === 255; ) {
      byte = block[at++] ?? Number.NaN;
      length += byte;
    }
    return length;
  };
  while (at < block.length) {
    const token = block[at++]!;
    const literalBytes = lengthFrom(token >> 4);
    if (!(literalBytes <= block.length - at)) return undefined;
    const literals = [...block.subarray(at, at + literalBytes)];
    at += literalBytes;
    if (at === block.length) return [...sequences, { literals }];
    if (at + 2 > block.length) return undefined;
    const distance = block[at]! + block[at + 1]! * 256;
    at += 2;
    const lengthBytes = 4 + lengthFrom(token & 15);
    if (Number.isNaN(lengthBytes)) return undefined;
    sequences.push({ literals, match: { distance, lengthBytes } });
  }
  return undefined;
}

/** What a block holds, if that is `outBytes` bytes. */
function modelDecompress(block: Uint8Array, outBytes: number): Uint8Array | undefined {
  const sequences = modelParse(block);
  if (sequences === undefined) return undefined;
  const out: number[] = [];
  for (const { literals, match } of sequences) {
    out.push(...literals);
    if (match === undefined) continue;
    if (match.distance === 0 || match.distance > out.length || out.length + match.lengthBytes > outBytes)
      return undefined;
    for (let i = 0; i < match.lengthBytes; i++) out.push(out[out.length - match.distance]!);
  }
  return out.length === outBytes ? Uint8Array.from(out) : undefined;
}

/** Compressible and not: pieces of noise, repeats of earlier bytes from near and far, runs of one byte. */
const content = fc
  .array(
    fc.oneof(
      fc.tuple(fc.constant("noise"), fc.nat({ max: 400 }), fc.nat()),
      fc.tuple(fc.constant("again"), fc.nat({ max: 700 }), fc.nat()),
      fc.tuple(fc.constant("run"), fc.nat({ max: 700 }), fc.nat()),
    ),
    { maxLength: 30 },
  )
  .map((pieces) => {
    const bytes: number[] = [];
    for (const [kind, lengthBytes, seed] of pieces) {
      if (kind === "noise") bytes.push(...noise(lengthBytes, seed));
      else if (kind === "run") bytes.push(...new Array<number>(lengthBytes).fill(seed % 256));
      else {
        const from = bytes.length === 0 ? 0 : seed % bytes.length;
        for (let i = 0; i < lengthBytes; i++) bytes.push(bytes[from + i] ?? seed % 256);
      }
    }
    return Uint8Array.from(bytes);
  });

/** Blocks that are nearly right. */
const nearlyValid = fc
  .array(
    fc.record({
      literals: fc.uint8Array({ maxLength: 20 }),
      distance: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.nat({ max: 70 })),
      lengthBytes: fc.integer({ min: 4, max: 60 }),
    }),
    { minLength: 1, maxLength: 8 },
  )
  .map((sequences) => {
    const more = (n: number) => (n < 15 ? [] : [n - 15]);
    return Uint8Array.from(
      sequences.flatMap(({ literals, distance, lengthBytes }, i) => {
        const last = i === sequences.length - 1;
        const token = (Math.min(15, literals.length) << 4) | (last ? 0 : Math.min(15, lengthBytes - 4));
        const head = [token, ...more(literals.length), ...literals];
        return last ? head : [...head, distance & 255, distance >> 8, ...more(lengthBytes - 4)];
      }),
    );
  });

const arenas = KERNEL_VARIANTS.map((variant) => ({ variant, arena: new KernelArena(variant) }));

function compress(arena: KernelArena, source: Uint8Array, limitBytes: number): Uint8Array | undefined {
  arena.reset();
  const table = arena.place(noise(LZ4_TABLE_BYTES, source.length + 1));
  const out = arena.placeEmpty(limitBytes);
  // Nothing behind the source is read.
  const length = arena.kernel.lz4Compress(arena.placeAtEnd(source), source.length, out, limitBytes, table);
  arena.expectGuards();
  return length < 0 ? undefined : arena.bytes(out, length).slice();
}

function worstBytes(sourceBytes: number): number {
  return sourceBytes + Math.floor(sourceBytes / 255) + 16;
}

describe.each(arenas)("the $variant kernel", ({ arena }) => {
  /** What the kernel makes of the block, held to the model. */
  function expectDecompressedAsByModel(block: Uint8Array, outBytes: number): boolean {
    const expected = modelDecompress(block, outBytes);
    for (const atEnd of ["block", "out"]) {
      arena.reset();
      const blockAt = atEnd === "block" ? arena.placeAtEnd(block) : arena.place(block);
      const out = atEnd === "out" ? arena.placeAtEnd(new Uint8Array(outBytes)) : arena.placeEmpty(outBytes);
      const result = arena.kernel.lz4Decompress(blockAt, block.length, out, outBytes);
      arena.expectGuards();
      expect(result).toBe(expected === undefined ? -1 : outBytes);
      if (expected !== undefined) expectSameBytes(arena.bytes(out, outBytes), expected);
    }
    return expected !== undefined;
  }

  function expectRoundTrip(source: Uint8Array): Uint8Array {
    const block = compress(arena, source, worstBytes(source.length))!;
    expect(block.length).toBeLessThanOrEqual(worstBytes(source.length));
    expectSameBytes(modelDecompress(block, source.length)!, source);
    expect(expectDecompressedAsByModel(block, source.length)).toBe(true);
    return block;
  }

  test("what is compressed comes back, and the block obeys the rules about its end", () => {
    fc.assert(
      fc.property(content, (source) => {
        const sequences = modelParse(expectRoundTrip(source))!;
        const last = sequences.at(-1)!;
        if (sequences.length > 1) {
          expect(last.literals.length).toBeGreaterThanOrEqual(5);
          expect(sequences.at(-2)!.match!.lengthBytes + last.literals.length).toBeGreaterThanOrEqual(12);
        }
      }),
      { numRuns: 300 },
    );
  });

  test("every length around the steps of lengths comes back", () => {
    for (let lengthBytes = 0; lengthBytes <= 40; lengthBytes++) {
      expectRoundTrip(noise(lengthBytes));
      expectRoundTrip(new Uint8Array(lengthBytes));
    }
    for (const lengthBytes of [269, 270, 271, 272, 524, 525, 526, 527, 528, 4096]) {
      expectRoundTrip(Uint8Array.of(...noise(lengthBytes), ...noise(lengthBytes)));
      expectRoundTrip(new Uint8Array(lengthBytes));
    }
  });

  test("every short period comes back", () => {
    for (let periodBytes = 1; periodBytes <= 40; periodBytes++) {
      const period = noise(periodBytes, periodBytes);
      for (const lengthBytes of [periodBytes * 2 + 20, 300, 301]) {
        expectRoundTrip(Uint8Array.from({ length: lengthBytes }, (_, i) => period[i % periodBytes]!));
      }
    }
  });

  test("repeats are found, up to 65535 bytes back and no further", () => {
    const piece = noise(2000, 5);
    const apart = (distance: number) => {
      const source = noise(distance + 2000, 77);
      source.set(piece, 0);
      source.set(piece, distance);
      return source;
    };
    expect(compress(arena, apart(65535), 80_000)!.length).toBeLessThan(66_500);
    expect(compress(arena, apart(65536), 80_000)!.length).toBeGreaterThan(67_000);
    expectSameBytes(modelDecompress(compress(arena, apart(65535), 80_000)!, 67_535)!, apart(65535));
  });

  test("a block fits a limit of exactly its length and not one byte less", () => {
    fc.assert(
      fc.property(content, (source) => {
        const block = compress(arena, source, worstBytes(source.length))!;
        expectSameBytes(compress(arena, source, block.length)!, block);
        expect(compress(arena, source, block.length - 1)).toBeUndefined();
      }),
      { numRuns: 150 },
    );
  });

  test("writes the same block as the other builds", () => {
    fc.assert(
      fc.property(content, (source) => {
        const [first] = arenas;
        const limit = worstBytes(source.length);
        expectSameBytes(compress(arena, source, limit)!, compress(first!.arena, source, limit)!);
      }),
      { numRuns: 100 },
    );
  });

  test("a damaged block is refused or holds other bytes, and nothing else is touched", () => {
    fc.assert(
      fc.property(content, fc.nat(), fc.nat(), fc.boolean(), (source, at, bit, cut) => {
        const block = compress(arena, source, worstBytes(source.length))!;
        const damaged = cut ? block.subarray(0, at % block.length) : block.slice();
        if (!cut) damaged[at % block.length] = damaged[at % block.length]! ^ (1 << (bit % 8));
        expectDecompressedAsByModel(damaged, source.length);
      }),
      { numRuns: 400 },
    );
  });

  test("any bytes are taken as the model takes them", () => {
    const seen = { accepted: 0, refused: 0 };
    fc.assert(
      fc.property(nearlyValid, (block) => {
        const outBytes = (modelParse(block) ?? []).reduce(
          (sum, { literals, match }) => sum + literals.length + (match?.lengthBytes ?? 0),
          0,
        );
        seen[expectDecompressedAsByModel(block, outBytes) ? "accepted" : "refused"]++;
        expectDecompressedAsByModel(block, outBytes + 1);
        if (outBytes > 0) expectDecompressedAsByModel(block, outBytes - 1);
      }),
      { numRuns: 1000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat({ max: 300 }), (block, outBytes) => {
        expectDecompressedAsByModel(block, outBytes);
      }),
      { numRuns: 1000 },
    );
    // Lengths that would leave the address space if they were believed.
    expectDecompressedAsByModel(Uint8Array.of(0xf0, ...new Array<number>(60_000).fill(255)), 100);
    expectDecompressedAsByModel(
      Uint8Array.of(0x1f, 1, 1, 0, ...new Array<number>(60_000).fill(255), 0, 0),
      100,
    );
    expect(seen.accepted).toBeGreaterThan(50);
    expect(seen.refused).toBeGreaterThan(50);
  });
});
