// Rewriter, BatchSink and BatchExpander together, proved as rewriter.test.ts proves the stream: RAM after loading what
// the batches become is RAM after loading the original, for every delta codec, any size of cache, window and region,
// any cut of the bytes, and batches that are complete at any moment.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream, randomBytes } from "../../../test/support/arbitrary-stream.ts";
import { Loader, load } from "../../../test/support/loader.ts";
import {
  BatchRewriting,
  type BatchRewritingOptions,
  CACHE_SIZES,
  type CacheSize,
} from "../../../test/support/rewriting.ts";
import { be64, END, PART, StreamBuilder } from "../../../test/support/stream-builder.ts";
import { untouchedBy } from "../../../test/support/untouched.ts";
import { modelEncode } from "../../../test/support/xbzrle-model.ts";
import { DELTA_WORD_MASK, type DeltaCodecId } from "../../codec/delta/delta-codec.ts";
import { DELTA_CODEC_NAMES } from "../../codec/delta/delta-codecs.ts";
import { RAW_BYTES_MAX } from "../../wire/frame.ts";
import {
  BATCH_ENTRIES_MAX,
  decodeRamLayout,
  PAYLOAD_PAGES,
  PAYLOAD_RAM_LAYOUT,
  PAYLOAD_STREAM,
  readPagesHeader,
} from "../../wire/page-batch.ts";

const CODECS: readonly [string, DeltaCodecId | 0][] = [["no delta", 0], ...Object.entries(DELTA_CODEC_NAMES)];
/** One record, and hardly more. */
const SMALL_REGION_BYTES = 66_000;
const PLENTY: BatchRewritingOptions = { deltaCodec: DELTA_WORD_MASK, windowPages: 1024 };

describe.each(CODECS)("with %s", (_name, deltaCodec) => {
  test.each(CACHE_SIZES)("and a page cache of size %s, RAM is the guest's", (cacheSize) => {
    const turns = fc.array(
      fc.record({
        cutBytes: fc.integer({ min: 1, max: 20_000 }),
        seals: fc.boolean(),
        bypasses: fc.constantFrom(false, false, false, true),
      }),
      { minLength: 1, maxLength: 8 },
    );
    const options = fc.record({
      deltaCodec: fc.constant(deltaCodec),
      windowPages: fc.constantFrom(0, 1, 4, 1024),
      regionBytes: fc.constantFrom(SMALL_REGION_BYTES, RAW_BYTES_MAX),
      slotCount: fc.constantFrom(2, 3),
      observes: fc.boolean(),
    });
    const patterns = fc.array(fc.boolean(), { maxLength: 6 });
    const plan = arbitraryPlan(["none", "none", "none", "command", "device", "flag"]);
    fc.assert(
      fc.property(plan, turns, options, patterns, (plan, turns, options, pattern) => {
        const source = buildGuestStream(plan);
        const untouched = untouchedBy(pattern, plan.blocks, source.pageBytes);
        const rewriting = new BatchRewriting(cacheSize, { ...options, untouched });
        const [original, rewritten] = [
          new Loader(undefined, { untouched }),
          new Loader(undefined, { untouched }),
        ];
        let turn = 0;
        for (let at = 0; at < source.bytes.length; turn++) {
          const { cutBytes, seals, bypasses } = turns[turn % turns.length]!;
          const sectionEnd = source.sectionEnds.find((end) => end > at) ?? source.bytes.length;
          const next = Math.min(at + cutBytes, sectionEnd);
          original.push(source.bytes.subarray(at, next));
          rewriting.push(source.bytes.subarray(at, next));
          rewriting.rewriter.bypass(bypasses);
          if (seals) rewriting.seal();
          rewritten.push(rewriting.take());
          at = next;
          if (seals && at === sectionEnd) expectSameRam(rewritten, original);
        }
        rewriting.seal();
        rewritten.push(rewriting.take());
        expect(rewritten.complete).toBe(true);
        expectSameRam(rewritten, original);
        expect(rewritten.images.every((image, i) => image.equals(source.images[i]!))).toBe(true);
        expect(rewritten.pings).toEqual(original.pings);
        rewriting.expansion.expectGuards();
        for (const { rawBytes } of rewriting.batches) expect(rawBytes).toBeLessThanOrEqual(RAW_BYTES_MAX);
      }),
      { numRuns: 40 },
    );
  });
});

function expectSameRam(actual: Loader, expected: Loader): void {
  expect(actual.blocks.map(({ idstr }) => idstr)).toEqual(expected.blocks.map(({ idstr }) => idstr));
  actual.blocks.forEach((block, i) => {
    if (!block.bytes.equals(expected.blocks[i]!.bytes)) throw new Error(`RAM of ${block.idstr} differs`);
  });
}

function started(blocks: readonly { idstr: string; pages: number }[]): StreamBuilder {
  return new StreamBuilder().header().configuration("pc").start(2, blocks).endSection();
}

function finished(builder: StreamBuilder): Buffer {
  return builder.section(END).endSection().device("cpu", Buffer.from("state")).eof().bytes;
}

function rewrite(bytes: Uint8Array, cacheSize: CacheSize, options: BatchRewritingOptions = PLENTY) {
  const rewriting = new BatchRewriting(cacheSize, options);
  rewriting.push(bytes);
  rewriting.seal();
  const loader = new Loader();
  loader.push(rewriting.take());
  return { rewriting, loader };
}

/** Headers of the batches of pages, in order. */
function headersOf({ batches, payloads }: BatchRewriting) {
  return payloads.flatMap((payload, i) => {
    if (batches[i]!.kind !== PAYLOAD_PAGES) return [];
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    return [readPagesHeader(view, 0, payload.length, 4096)];
  });
}

const random = (seed: number): Uint8Array => {
  const next = randomBytes(seed);
  return Uint8Array.from({ length: 4096 }, next);
};

test("bypass that ends in the middle of a section: from there on pages come as pages, and RAM is the guest's", () => {
  const builder = started([{ idstr: "pc.ram", pages: 40 }]);
  const begin = builder.bytes.length;
  builder.section(PART);
  for (let page = 0; page < 20; page++) builder.page(0, page, random(page + 1));
  const half = builder.bytes.length;
  for (let page = 20; page < 40; page++) builder.page(0, page, random(page + 1));
  const bytes = finished(builder.endSection());
  const rewriting = new BatchRewriting("plenty", { ...PLENTY, observes: false });
  rewriting.push(bytes.subarray(0, begin));
  rewriting.rewriter.bypass(true);
  rewriting.push(bytes.subarray(begin, half));
  rewriting.rewriter.bypass(false);
  rewriting.push(bytes.subarray(half));
  rewriting.seal();
  expect(headersOf(rewriting).map(({ wholePages }) => wholePages)).toEqual([20]);
  expect(rewriting.rewriter.pages.rawPages).toBe(40);
  const loader = new Loader();
  loader.push(rewriting.take());
  expectSameRam(loader, load(bytes));
});

test.each([
  ["looked at", false],
  ["carried on as they are", true],
])("zeros where the destination has touched nothing are left out, once: pages %s", (_name, bypasses) => {
  const blocks = [{ idstr: "pc.ram", pages: 12 }];
  const untouched = [{ idstr: "pc.ram", offsetBytes: 2 * 4096, lengthBytes: 9 * 4096 }];
  const builder = started(blocks);
  const begin = builder.bytes.length;
  // 0 to 3 and 6 to 11 are zeros, of which 0, 1 and 11 may be anything at the destination.
  builder.section(PART);
  for (let page = 0; page < 12; page++) {
    if (page === 4 || page === 5) builder.page(0, page, random(page));
    else builder.zero(0, page);
  }
  builder.endSection();
  // Dirtied, and zeros again, which the destination can only know if it is told.
  builder.section(PART).page(0, 3, random(3)).page(0, 8, random(8)).endSection();
  builder.section(PART).zero(0, 3).zero(0, 4).zero(0, 8).endSection();
  const bytes = finished(builder);
  const rewriting = new BatchRewriting("plenty", { ...PLENTY, observes: false, untouched });
  rewriting.push(bytes.subarray(0, begin));
  rewriting.rewriter.bypass(bypasses);
  rewriting.push(bytes.subarray(begin));
  rewriting.seal();
  const loader = new Loader(undefined, { untouched });
  loader.push(rewriting.take());
  const sent = (kind: string) => loader.records.filter((one) => one.kind === kind).map(({ page }) => page);
  expect(sent("zero")).toEqual([0, 1, 11, 3, 4, 8]);
  expect(loader.records.map(({ page }) => page)).toEqual([0, 1, 4, 5, 11, 3, 8, 3, 4, 8]);
  expectSameRam(loader, load(bytes));
  expect(rewriting.rewriter.pages.zeroPages).toBe(13);
});

describe("payloads that are full", () => {
  const PAGES = 600;

  test("of whole pages: more than one holds", () => {
    const builder = started([{ idstr: "pc.ram", pages: PAGES }]).section(PART);
    for (let page = 0; page < PAGES; page++) builder.page(0, page, random(page + 1));
    const bytes = finished(builder.endSection());
    const { rewriting, loader } = rewrite(bytes, "plenty");
    expectSameRam(loader, load(bytes));
    const headers = headersOf(rewriting);
    expect(headers.length).toBe(3);
    expect(headers[0]!.wholePages).toBe(255);
    expect(headers.every(({ ownSection }) => ownSection)).toBe(true);
    expect(headers.reduce((sum, { entryCount }) => sum + entryCount, 0)).toBe(PAGES);
  });

  test("of entries: more than BATCH_ENTRIES_MAX, in regions of any size", () => {
    const pages = 2 * BATCH_ENTRIES_MAX + 10;
    const builder = started([
      { idstr: "pc.ram", pages },
      { idstr: "a.block.with.a.long.name".repeat(10), pages },
    ]).section(PART);
    // Every second entry in another block: each record names its own, which is more than a region holds.
    for (let page = 0; page < pages / 2; page++) builder.zero(0, page).zero(1, page);
    const bytes = finished(builder.endSection());
    for (const regionBytes of [SMALL_REGION_BYTES, RAW_BYTES_MAX]) {
      const { rewriting, loader } = rewrite(bytes, "plenty", { ...PLENTY, regionBytes });
      expect(loader.records).toEqual(load(bytes).records);
      expect(headersOf(rewriting).map(({ entryCount }) => entryCount)).toEqual([4096, 4096, 10]);
    }
  });

  test.each(CODECS.slice(1))("of deltas by %s, up to those that say the whole page", (_name, deltaCodec) => {
    const builder = started([{ idstr: "pc.ram", pages: PAGES }]).section(PART);
    const content = Array.from({ length: PAGES }, (_, page) => random(page + 1));
    for (const [page, bytes] of content.entries()) builder.page(0, page, bytes);
    builder.endSection().section(PART);
    for (const [page, bytes] of content.entries()) {
      // More and more of the page changed; far into them deltas overflow.
      const changed = bytes.map((byte, i) => (i % 512 < page ? byte ^ (1 + ((i * 37) & 0x7f)) : byte));
      builder.page(0, page, changed);
    }
    const bytes = finished(builder.endSection());
    const { rewriting, loader } = rewrite(bytes, "plenty", { ...PLENTY, deltaCodec });
    expectSameRam(loader, load(bytes));
    const { deltaPages, overflowPages, unchangedPages } = rewriting.rewriter.pages;
    expect(unchangedPages).toBe(1);
    expect(deltaPages).toBeGreaterThan(300);
    expect(deltaPages + overflowPages).toBe(PAGES - 1);
    expect(overflowPages).toBeGreaterThan(0);
  });

  test("of a device state that is longer than a payload", () => {
    const { bytes } = started([{ idstr: "pc.ram", pages: 1 }])
      .section(END)
      .zero(0, 0)
      .endSection()
      .device("gpu", Buffer.concat(Array.from({ length: 700 }, (_, i) => random(i + 1))))
      .eof();
    const { rewriting, loader } = rewrite(bytes, "plenty");
    expect(loader.complete).toBe(true);
    const parts = rewriting.batches.filter(({ kind }) => kind === PAYLOAD_STREAM);
    expect(parts.length).toBeGreaterThan(3);
    const stateBytes = Buffer.concat(rewriting.payloads.slice(-3));
    expect(stateBytes.equals(bytes.subarray(bytes.length - stateBytes.length))).toBe(true);
  });
});

test("the layout says what the destination is to keep, and comes before the first batch of pages", () => {
  const blocks = [
    { idstr: "pc.ram", pages: 4 },
    { idstr: "vga.vram", pages: 2 },
  ];
  const bytes = finished(started(blocks).section(PART).page(0, 0, random(1)).endSection());
  for (const [cacheSize, deltaCodec, baselinePages] of [
    ["none", 0, 0],
    ["plenty", DELTA_CODEC_NAMES["word-mask"]!, 0],
    ["plenty", DELTA_CODEC_NAMES.xbrle!, expect.any(Number)],
  ] as const) {
    const { rewriting } = rewrite(bytes, cacheSize, { deltaCodec, windowPages: 16 });
    const kinds = rewriting.batches.map(({ kind }) => kind);
    expect(kinds).toEqual([
      PAYLOAD_STREAM,
      PAYLOAD_RAM_LAYOUT,
      PAYLOAD_STREAM,
      PAYLOAD_PAGES,
      PAYLOAD_STREAM,
    ]);
    expect(decodeRamLayout(rewriting.payloads[1]!)).toEqual({
      sectionId: 2,
      pageBytes: 4096,
      deltaCodec,
      windowPages: cacheSize === "none" ? 0 : 16,
      baselinePages,
      blocks: blocks.map(({ idstr, pages }) => ({ idstr, lengthBytes: pages * 4096 })),
    });
  }
});

test("a page equal to one that was sent whole is a reference, wherever it lies", () => {
  const [A, B] = [random(1), random(2)];
  const blocks = [
    { idstr: "pc.ram", pages: 4 },
    { idstr: "vga.vram", pages: 2 },
  ];
  const builder = started(blocks).section(PART).page(0, 0, A).page(0, 1, B).page(0, 2, A).page(1, 1, B);
  builder.endSection().section(PART).page(0, 0, B).page(0, 3, B);
  const bytes = finished(builder.endSection());
  const { rewriting, loader } = rewrite(bytes, "plenty");
  expectSameRam(loader, load(bytes));
  expect(rewriting.rewriter.pages).toMatchObject({ rawPages: 2, duplicatePages: 4, overflowPages: 0 });
  expect(headersOf(rewriting)[0]).toMatchObject({ wholePages: 2, referenceBytes: 16, entryCount: 6 });
});

test("sections of the source leave no trace: batches have their own", () => {
  const builder = started([{ idstr: "pc.ram", pages: 4 }]);
  for (let i = 0; i < 30; i++)
    builder
      .section(PART)
      .page(0, i % 4, random(i + 1))
      .endSection();
  builder.section(PART).endSection();
  const { rewriting, loader } = rewrite(finished(builder), "plenty");
  expect(loader.sections).toEqual([1, PART, END]);
  expect(headersOf(rewriting).length).toBe(1);
});

test("records that cannot be coded stand in sections of their own, and order is kept", () => {
  const [A, B] = [random(1), random(2)];
  const delta = modelEncode(A, A.with(7, 1))!;
  const builder = started([{ idstr: "pc.ram", pages: 4 }])
    .section(PART)
    .page(0, 0, A)
    .page(0, 1, A);
  builder.zero(0, 0, 0xff).xbzrle(0, 1, delta).page(0, 2, B).endSection();
  const bytes = finished(builder);
  const { loader } = rewrite(bytes, "none");
  expectSameRam(loader, load(bytes));
  expect(loader.records.map(({ page, kind }) => `${page} ${kind}`)).toEqual([
    "0 page",
    "1 page",
    "0 zero",
    "1 xbzrle",
    "2 page",
  ]);
  expect(loader.sections).toEqual([1, PART, PART, PART, PART, END]);
});

test("a stream that is opaque from its first byte goes through, without a layout", () => {
  const bytes = Buffer.concat([
    Buffer.from([0x16, 3, 3]),
    ...Array.from({ length: 500 }, (_, i) => random(i + 1)),
  ]);
  const rewriting = new BatchRewriting("plenty", PLENTY);
  rewriting.push(bytes);
  rewriting.seal();
  expect(rewriting.take().equals(bytes)).toBe(true);
  expect(rewriting.batches.every(({ kind }) => kind === PAYLOAD_STREAM)).toBe(true);
});

describe("when the stream goes opaque and the last page was left out, CONTINUE still means its RAMBlock:", () => {
  const [A, B, C] = [random(1), random(2), random(3)];
  // The destination was told of vga.vram last; the source's last record is of pc.ram, and was dropped.
  const dropped = () => {
    const blocks = [
      { idstr: "pc.ram", pages: 2 },
      { idstr: "vga.vram", pages: 2 },
    ];
    const builder = started(blocks).section(PART).page(0, 0, A).page(0, 1, A).page(1, 0, B).endSection();
    return builder.section(PART).page(0, 0, A);
  };
  const continued = Buffer.concat([be64(4096 + 0x28), C]);
  const unknowns: [string, () => StreamBuilder][] = [
    ["inside a section", () => dropped().opaque().verbatim(Buffer.from("0000000000000200", "hex"))],
    ["between sections", () => dropped().endSection().command(99).section(PART)],
  ];
  test.each(unknowns)("%s", (_where, builder) => {
    const bytes = finished(builder().verbatim(continued).endSection());
    for (const size of CACHE_SIZES) {
      const { loader } = rewrite(bytes, size, { ...PLENTY, slotCount: 2 });
      expectSameRam(loader, load(bytes));
      expect(loader.blocks[0]!.bytes.subarray(4096, 8192).equals(C)).toBe(true);
    }
  });
});
