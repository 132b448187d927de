import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fillPayload, type PayloadKind } from "../../../test/support/batch-payloads.ts";
import { ProtocolError } from "../../base/errors.ts";
import { KernelMemory } from "../../kernel/memory.ts";
import type { EntropyCoder } from "./entropy-coder.ts";
import { ZstdDictionary } from "./zstd-dictionary.ts";
import { hasNativeZstd, ZstdNative } from "./zstd-native.ts";
import { ZstdWasm } from "./zstd-wasm.ts";

const RAW_BYTES_MAX = 300_000;
const memory = new KernelMemory();
const raw = memory.allocate(RAW_BYTES_MAX);
const coded = memory.allocate(RAW_BYTES_MAX + 4096);
const back = memory.allocate(RAW_BYTES_MAX);

interface Build {
  name: string;
  coder: EntropyCoder;
}
const wasm: Build = { name: "WebAssembly", coder: new ZstdWasm(memory, RAW_BYTES_MAX) };
const native: Build | undefined = hasNativeZstd()
  ? { name: "native", coder: new ZstdNative(memory) }
  : undefined;
const builds = native === undefined ? [wasm] : [wasm, native];

test.skipIf(native !== undefined)("native zstd is part of Node from 22.15 on", (context) => {
  context.skip("this Node has no zstd of its own: its side of the interoperation is not tested");
});

const arbitraryBatch = fc.record({
  rawBytes: fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: RAW_BYTES_MAX })),
  kind: fc.constantFrom<PayloadKind>("text", "words", "random", "mixed"),
  seed: fc.integer({ min: 1, max: 2 ** 31 }),
  level: fc.integer({ min: -5, max: 19 }).filter((level) => level !== 0),
});

for (const from of builds) {
  for (const to of builds) {
    test(`what the ${from.name} build codes, the ${to.name} build decodes`, () => {
      fc.assert(
        fc.property(arbitraryBatch, ({ rawBytes, kind, seed, level }) => {
          const content = memory.bytes(raw, rawBytes);
          fillPayload(content, kind, seed);
          const codedBytes = from.coder.compress(raw, rawBytes, coded, rawBytes + 4096, level);
          expect(codedBytes).toBeGreaterThan(0);
          memory.bytes(back, rawBytes).fill(0x5a);
          to.coder.decompress(coded, codedBytes, back, rawBytes);
          expect(Buffer.compare(memory.bytes(back, rawBytes), content)).toBe(0);
        }),
        { numRuns: 40 },
      );
    });
  }
}

/** Written by zstd of Node 22 at levels 1 and 19. */
const FRAMES = [
  "28b52ffd6090053d0100c0646972747920706167652c20636c65616e20616761696e3b04005936f541cd683b2178b72c01",
  "28b52ffd6090052d0100c8646972747920706167652c20636c65616e20616761696e3b2003006336f579270cef9625",
];

describe.each(builds)("the $name build", ({ coder }) => {
  test("decodes frames that were written elsewhere", () => {
    const text = "dirty page, clean page, dirty page again; ".repeat(40);
    for (const frame of FRAMES) {
      const bytes = Buffer.from(frame, "hex");
      memory.bytes(coded, bytes.length).set(bytes);
      coder.decompress(coded, bytes.length, back, text.length);
      expect(Buffer.from(memory.bytes(back, text.length)).toString("latin1")).toBe(text);
    }
  });

  test("gives up on a batch that does not get smaller than its limit, and writes nothing beyond it", () => {
    const content = memory.bytes(raw, 10_000);
    fillPayload(content, "text", 8);
    const codedBytes = coder.compress(raw, 10_000, coded, 10_000, 1);
    memory.bytes(coded, 10_000).fill(0xa5);
    expect(coder.compress(raw, 10_000, coded, codedBytes - 1, 1)).toBe(-1);
    expect(memory.bytes(coded + codedBytes - 1, 5000).every((byte) => byte === 0xa5)).toBe(true);
    expect(coder.compress(raw, 10_000, coded, codedBytes, 1)).toBe(codedBytes);
  });

  test("higher levels give smaller batches, negative ones larger, and -1 is no exception", () => {
    fillPayload(memory.bytes(raw, 200_000), "words", 21);
    const sizes = [-5, -1, 1, 6, 19].map((level) => coder.compress(raw, 200_000, coded, 200_000, level));
    expect(sizes).toEqual(sizes.toSorted((a, b) => b - a));
    expect(new Set(sizes).size).toBe(sizes.length);
  });

  test("a frame that is longer or shorter than the batch is refused, and nothing is written", () => {
    fillPayload(memory.bytes(raw, 100_000), "text", 8);
    const codedBytes = coder.compress(raw, 100_000, coded, 100_000, 1);
    memory.bytes(back, 100_000).fill(0xa5);
    expect(() => coder.decompress(coded, codedBytes, back, 50_000)).toThrow(ProtocolError);
    expect(() => coder.decompress(coded, codedBytes, back, 100_001)).toThrow(ProtocolError);
    expect(memory.bytes(back, 100_000).every((byte) => byte === 0xa5)).toBe(true);
  });

  test("a refused batch harms none that comes after it", () => {
    fillPayload(memory.bytes(raw, 100_000), "mixed", 8);
    const codedBytes = coder.compress(raw, 100_000, coded, 100_000, 1);
    for (let shorter = codedBytes - 1; shorter > 0; shorter = Math.floor(shorter / 2))
      expect(() => coder.decompress(coded, shorter, back, 100_000)).toThrow(ProtocolError);
    coder.decompress(coded, codedBytes, back, 100_000);
    expect(Buffer.compare(memory.bytes(back, 100_000), memory.bytes(raw, 100_000))).toBe(0);
  });
});

test.skipIf(native === undefined)(
  "native: a frame that asks for a larger window than any batch is refused",
  () => {
    // Magic number; no content size; window of 2 MiB, then of 4 MiB; one last raw block of a byte.
    const frame = (window: number) => [0x28, 0xb5, 0x2f, 0xfd, 0x00, window, 0x09, 0x00, 0x00, 0x41];
    memory.bytes(coded, 10).set(frame(0x58));
    native!.coder.decompress(coded, 10, back, 1);
    memory.bytes(coded, 10).set(frame(0x60));
    expect(() => native!.coder.decompress(coded, 10, back, 1)).toThrow(ProtocolError);
  },
);

describe("with the old page as dictionary", () => {
  const zstd = new ZstdDictionary(memory, RAW_BYTES_MAX);
  const old = memory.allocate(RAW_BYTES_MAX);

  /** An old page, and a new one in which some words changed. */
  function pages(pageBytes: number, seed: number, changes: number): void {
    const oldPage = memory.bytes(old, pageBytes);
    fillPayload(oldPage, "random", seed);
    const newPage = memory.bytes(raw, pageBytes);
    newPage.set(oldPage);
    for (let change = 0; change < changes; change++)
      newPage.fill(change, (change * 977) % pageBytes, ((change * 977) % pageBytes) + 8);
  }

  test("a page costs what has changed in it", () => {
    pages(4096, 5, 6);
    const codedBytes = zstd.compress(old, 4096, raw, 4096, coded, 4095, 3);
    expect(codedBytes).toBeGreaterThan(0);
    expect(codedBytes).toBeLessThan(200);
  });

  test("what was coded with a dictionary decodes with it", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(512, 4096, 65536),
        fc.integer({ min: 1, max: 2 ** 31 }),
        fc.nat({ max: 60 }),
        fc.constantFrom(-5, -1, 1, 3, 12, 19),
        (pageBytes, seed, changes, level) => {
          pages(pageBytes, seed, changes);
          const codedBytes = zstd.compress(old, pageBytes, raw, pageBytes, coded, pageBytes + 512, level);
          memory.bytes(back, pageBytes).fill(0);
          zstd.decompress(old, pageBytes, coded, codedBytes, back, pageBytes);
          expect(Buffer.compare(memory.bytes(back, pageBytes), memory.bytes(raw, pageBytes))).toBe(0);
        },
      ),
    );
  });

  test("damaged or of another length, it is refused and nothing is written", () => {
    pages(4096, 9, 6);
    const codedBytes = zstd.compress(old, 4096, raw, 4096, coded, 4095, 3);
    memory.bytes(back, 8192).fill(0xa5);
    for (const [codedLength, rawLength] of [
      [codedBytes - 1, 4096],
      [codedBytes + 1, 4096],
      [codedBytes, 4095],
      [codedBytes, 4097],
      [0, 4096],
    ] as const)
      expect(() => zstd.decompress(old, 4096, coded, codedLength, back, rawLength)).toThrow(ProtocolError);
    expect(memory.bytes(back, 8192).every((byte) => byte === 0xa5)).toBe(true);
  });

  test("a dictionary that looks like one of zstd's own format is no harm", () => {
    pages(4096, 11, 6);
    for (const page of [old, raw]) memory.bytes(page, 4).set([0x37, 0xa4, 0x30, 0xec]);
    expect(zstd.compress(old, 4096, raw, 4096, coded, 4095, 3)).toBe(-1);
    pages(4096, 12, 6);
    expect(zstd.compress(old, 4096, raw, 4096, coded, 4095, 3)).toBeGreaterThan(0);
  });
});
