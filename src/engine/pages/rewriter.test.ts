// StreamRewriter proved by what a destination makes of its output: RAM after loading the rewritten stream is RAM
// after loading the original one, for any stream, any size of the page cache, any cut of the bytes, and with
// PINGs put in anywhere. The loader is a model of a destination that shares no code with what it judges.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream } from "../../../test/support/arbitrary-stream.ts";
import { Loader, load } from "../../../test/support/loader.ts";
import { CACHE_SIZES, type CacheSize, DirectRewriting } from "../../../test/support/rewriting.ts";
import { be64, counted, END, PART, StreamBuilder } from "../../../test/support/stream-builder.ts";
import { untouchedBy } from "../../../test/support/untouched.ts";
import { modelEncode } from "../../../test/support/xbzrle-model.ts";
import { DeltaveeError } from "../../base/errors.ts";
import { PageClass } from "../../trace/format.ts";

function rewrite(
  bytes: Uint8Array,
  cacheSize: CacheSize,
): { loader: Loader; rewriting: DirectRewriting; bytes: Buffer } {
  const rewriting = new DirectRewriting(cacheSize);
  rewriting.push(bytes);
  const output = rewriting.take();
  return { loader: load(output), rewriting, bytes: output };
}

/** As the direct link counts them. */
const pingValue = (turn: number) => 0x44560000 + (turn & 0xffff);

describe.each(CACHE_SIZES)("with a page cache of size %s", (cacheSize) => {
  test("an observer is told of every page what its class is, and shown what it holds", () => {
    fc.assert(
      fc.property(arbitraryPlan(["none"]), (plan) => {
        const source = buildGuestStream(plan);
        const rewriting = new DirectRewriting(cacheSize);
        rewriting.push(source.bytes);
        const loader = load(rewriting.take());
        const { pages } = rewriting.rewriter;
        const count = (pageClass: PageClass) =>
          rewriting.observed.filter((observed) => observed.pageClass === pageClass).length;
        expect(count(PageClass.ZERO)).toBe(pages.zeroPages);
        expect(count(PageClass.UNCHANGED)).toBe(pages.unchangedPages);
        expect(count(PageClass.OVERFLOW)).toBe(pages.overflowPages);
        // A whole page that comes once and never again is what the destination holds in the end.
        for (const { block, page, pageClass, content } of rewriting.observed) {
          const { idstr, bytes } = loader.blocks[block]!;
          const times = loader.records.filter((record) => record.block === idstr && record.page === page);
          if (pageClass !== PageClass.RAW || times.length !== 1) continue;
          const pageBytes = bytes.length / plan.blocks[block]!.pages;
          const start = page * pageBytes;
          expect(content.equals(bytes.subarray(start, start + content.length))).toBe(true);
        }
      }),
      { numRuns: 30 },
    );
  });

  test("RAM is the guest's after every section, wherever the stream is cut and PINGs are put in", () => {
    const cuts = fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 8 });
    const plan = arbitraryPlan(["none", "none", "command", "device", "flag"]);
    const bypasses = fc.array(fc.boolean(), { maxLength: 5 });
    const patterns = fc.array(fc.boolean(), { maxLength: 6 });
    fc.assert(
      fc.property(plan, cuts, fc.boolean(), bypasses, patterns, (plan, cuts, pings, bypasses, pattern) => {
        const source = buildGuestStream(plan);
        const untouched = untouchedBy(pattern, plan.blocks, source.pageBytes);
        const rewriting = new DirectRewriting(cacheSize, bypasses.length === 0, untouched);
        const pongs: number[] = [];
        const original = new Loader(undefined, { untouched });
        const rewritten = new Loader((message) => pongs.push(message.readUInt32BE(4)), { untouched });
        const sent: number[] = [];
        let turn = 0;
        for (let at = 0; at < source.bytes.length; ) {
          const sectionEnd = source.sectionEnds.find((end) => end > at) ?? source.bytes.length;
          const next = Math.min(at + cuts[turn++ % cuts.length]!, sectionEnd);
          original.push(source.bytes.subarray(at, next));
          rewriting.push(source.bytes.subarray(at, next));
          if (bypasses.length > 0) rewriting.rewriter.bypass(bypasses[turn % bypasses.length]!);
          if (pings && rewriting.mayPing && rewriting.writer.ping(pingValue(turn)))
            sent.push(pingValue(turn));
          rewritten.push(rewriting.take());
          at = next;
          if (at === sectionEnd) expectSameRam(rewritten, original);
        }
        expect(rewritten.complete).toBe(true);
        expectSameRam(rewritten, original);
        expect(rewritten.images.every((image, i) => image.equals(source.images[i]!))).toBe(true);
        expect(pongs.filter((value) => value >>> 16 === 0x4456)).toEqual(sent);
        expect(pongs.filter((value) => value >>> 16 !== 0x4456)).toEqual(original.pings);
      }),
      { numRuns: 60 },
    );
  });

  test("what is left out was unchanged, and nothing is sent that the source did not send", () => {
    fc.assert(
      fc.property(arbitraryPlan(), (plan) => {
        const source = buildGuestStream(plan);
        const { rewriting, loader } = rewrite(source.bytes, cacheSize);
        const original = load(source.bytes);
        const { unchangedPages } = rewriting.rewriter.pages;
        expect(loader.records.length).toBe(original.records.length - unchangedPages);
        // Each record of the output is the next one of the source that is for the same page.
        let at = 0;
        for (const { block, page } of loader.records) {
          while (original.records[at]?.block !== block || original.records[at]?.page !== page) {
            expect(at++).toBeLessThan(original.records.length);
          }
          at++;
        }
        if (cacheSize === "none") expect(unchangedPages).toBe(0);
      }),
      { numRuns: 40 },
    );
  });

  test("page classes add up to the pages of the source", () => {
    fc.assert(
      fc.property(arbitraryPlan(), (plan) => {
        const source = buildGuestStream(plan);
        const { zeroPages, unchangedPages, deltaPages, overflowPages, rawPages } = rewrite(
          source.bytes,
          cacheSize,
        ).rewriting.rewriter.pages;
        const pages = source.calls.filter(({ call }) => call.toLowerCase().endsWith("page")).length;
        expect(zeroPages + unchangedPages + deltaPages + overflowPages + rawPages).toBe(pages);
      }),
      { numRuns: 30 },
    );
  });
});

function expectSameRam(actual: Loader, expected: Loader): void {
  expect(actual.blocks.map(({ idstr }) => idstr)).toEqual(expected.blocks.map(({ idstr }) => idstr));
  actual.blocks.forEach((block, i) => {
    if (!block.bytes.equals(expected.blocks[i]!.bytes)) throw new Error(`RAM of ${block.idstr} differs`);
  });
}

const BLOCKS = [
  { idstr: "pc.ram", pages: 4 },
  { idstr: "vga.vram", pages: 4 },
];
const random = (seed: number): Uint8Array =>
  Uint8Array.from({ length: 4096 }, (_, i) => (i * seed * 7919) >>> 3);
const [A, B] = [random(11), random(23)];
const C = A.with(5, A[5]! ^ 1).with(900, A[900]! ^ 1);

/** Stream up to a first pass in which every page was sent: pc.ram holds A, vga.vram B, but for zeros at 3. */
function afterFirstPass(): StreamBuilder {
  const builder = new StreamBuilder()
    .header()
    .configuration("pc")
    .start(2, BLOCKS)
    .endSection()
    .section(PART);
  for (const [block, content] of [A, B].entries()) {
    for (let page = 0; page < 3; page++) builder.page(block, page, content);
    builder.zero(block, 3);
  }
  return builder.endSection();
}

function finished(builder: StreamBuilder): Buffer {
  return builder.section(END).endSection().device("cpu", Buffer.from("state")).eof().bytes;
}

test("a section in which nothing changed leaves no trace, a PART only with what did", () => {
  const builder = afterFirstPass();
  for (let i = 0; i < 50; i++) builder.section(PART).page(0, 0, A).page(1, 2, B).zero(0, 3).endSection();
  builder.section(PART).endSection();
  builder.section(PART).page(0, 1, A).page(0, 2, C).endSection();
  const { loader, rewriting } = rewrite(finished(builder), "plenty");
  expect(loader.sections).toEqual([1, PART, PART, END]);
  expect(loader.records.slice(8)).toEqual([{ block: "pc.ram", page: 2, kind: "xbzrle" }]);
  expect(rewriting.rewriter.pages).toMatchObject({ unchangedPages: 151, deltaPages: 1 });
});

test("each kind of page is sent the cheapest way that is right", () => {
  const zeros = new Uint8Array(4096);
  const builder = afterFirstPass().section(PART);
  builder
    .page(0, 0, C)
    .page(0, 1, B)
    .zero(0, 2)
    .page(0, 3, zeros)
    .zero(1, 0, 0xff)
    .page(1, 0, B)
    .page(1, 3, zeros.with(7, 1));
  const { loader, rewriting } = rewrite(finished(builder.endSection()), "plenty");
  const kinds = loader.records.slice(8).map(({ block, page, kind }) => `${block} ${page} ${kind}`);
  expect(kinds).toEqual([
    "pc.ram 0 xbzrle",
    "pc.ram 1 page",
    "pc.ram 2 zero",
    "vga.vram 0 zero",
    "vga.vram 0 page",
    "vga.vram 3 xbzrle",
  ]);
  expect(rewriting.rewriter.pages).toEqual({
    zeroPages: 3,
    unchangedPages: 1,
    deltaPages: 2,
    overflowPages: 1,
    rawPages: 8,
    duplicatePages: 0,
    deltaBytes: 10,
  });
});

test("zeros of a page that was not zero are sent as zeros, also by a source that does not look for them", () => {
  const builder = afterFirstPass().section(PART).page(0, 0, new Uint8Array(4096)).endSection();
  const { loader } = rewrite(finished(builder), "plenty");
  expect(loader.records.at(-1)).toEqual({ block: "pc.ram", page: 0, kind: "zero" });
});

test("the first zero page is sent, since the destination's RAM may hold firmware", () => {
  const builder = new StreamBuilder()
    .header()
    .start(2, BLOCKS)
    .endSection()
    .section(PART)
    .zero(0, 0)
    .endSection();
  expect(rewrite(finished(builder), "plenty").loader.blocks[0]!.known.has(0)).toBe(true);
});

test("a delta of the source is made anew against a page that we hold, and passed on where we do not", () => {
  const delta = modelEncode(A, C)!;
  const stream = finished(
    afterFirstPass().section(PART).xbzrle(0, 0, delta).xbzrle(0, 1, delta).endSection(),
  );
  for (const size of CACHE_SIZES) {
    const { loader } = rewrite(stream, size);
    expect(loader.blocks[0]!.bytes.subarray(0, 4096).equals(C)).toBe(true);
    expect(loader.records.slice(8).map(({ kind }) => kind)).toEqual(["xbzrle", "xbzrle"]);
  }
});

test("a delta of the source that is none ends in a typed error", () => {
  const stream = finished(afterFirstPass().section(PART).xbzrle(0, 0, Uint8Array.of(0, 0)).endSection());
  expect(() => new DirectRewriting("plenty").push(stream)).toThrow(
    expect.objectContaining({ code: "XBZRLE_CORRUPT" }),
  );
  expect(() => new DirectRewriting("plenty").push(stream)).toThrow(DeltaveeError);
});

describe("when the stream goes opaque and the last page was left out, CONTINUE still means its RAMBlock:", () => {
  // The destination was told of vga.vram last; the source's last record is of pc.ram, and was dropped.
  const dropped = () => afterFirstPass().section(PART).page(0, 0, A);
  const continued = Buffer.concat([be64(4096 + 0x28), C]);
  const unknowns: [string, () => StreamBuilder][] = [
    ["inside a section", () => dropped().opaque().verbatim(Buffer.from("0000000000000200", "hex"))],
    ["between sections", () => dropped().endSection().command(99).section(PART)],
    [
      "between sections, later",
      () => dropped().endSection().section(PART).endSection().command(99).section(PART),
    ],
  ];
  test.each(unknowns)("%s", (_where, builder) => {
    const stream = finished(builder().verbatim(continued).endSection());
    for (const size of CACHE_SIZES) {
      const { loader, rewriting } = rewrite(stream, size);
      expect(rewriting.events.some((event) => event.startsWith("opaque"))).toBe(true);
      expectSameRam(loader, load(stream));
      expect(loader.blocks[0]!.bytes.subarray(4096, 8192).equals(C)).toBe(true);
    }
  });

  test("a dropped page of zeros is sent once more as zeros", () => {
    const builder = afterFirstPass().section(PART).zero(0, 3).endSection().command(99).section(PART);
    const { loader } = rewrite(finished(builder.verbatim(continued).endSection()), "plenty");
    expect(loader.records.slice(-2).map(({ block, page }) => [block, page])).toEqual([
      ["pc.ram", 3],
      ["pc.ram", 1],
    ]);
  });
});

test("commands, configuration and device state go through byte by byte", () => {
  const builder = new StreamBuilder().header().configuration("pc").command(1).command(2, Buffer.from("pong"));
  const stream = finished(builder.start(2, []).endSection().command(11));
  expect(rewrite(stream, "plenty").bytes).toEqual(stream);
  expect(rewrite(stream, "plenty").rewriting.events).toEqual(["stopped", "deviceState"]);
});

test("any damage to a stream ends in a typed error or in a stream", () => {
  const { bytes } = buildGuestStream(fc.sample(arbitraryPlan(), { numRuns: 1, seed: 3 })[0]!);
  const listEnd = bytes.indexOf(Buffer.concat([be64(0x10)])) + 13;
  fc.assert(
    fc.property(
      // The RAMBlock list stays: the cache's index is as large as the RAM that the list announces.
      fc.array(fc.tuple(fc.integer({ min: listEnd, max: bytes.length - 1 }), fc.nat(255)), {
        minLength: 1,
        maxLength: 4,
      }),
      (edits) => {
        const damaged = Buffer.from(bytes);
        for (const [at, value] of edits) damaged[at] = value;
        try {
          new DirectRewriting("tiny").push(damaged);
        } catch (thrown) {
          if (!(thrown instanceof DeltaveeError)) throw thrown;
        }
      },
    ),
    { numRuns: Number(process.env.FUZZ_RUNS ?? 300) },
  );
});

test("a whole page of a source goes out with its name, and with CONTINUE only behind its like", () => {
  const { bytes } = rewrite(finished(afterFirstPass()), "plenty");
  expect(bytes.indexOf(Buffer.concat([be64(8), counted("pc.ram"), A]))).toBeGreaterThan(0);
  expect(bytes.indexOf(Buffer.concat([be64(4096 + 0x28), A]))).toBeGreaterThan(0);
  expect(bytes.indexOf(Buffer.concat([be64(8), counted("vga.vram"), B]))).toBeGreaterThan(0);
});

describe("post-copy", () => {
  /** As QEMU does it: first pass, one of deltas, then what is dirty is forgotten and comes after the device state. */
  function switchedOver(): StreamBuilder {
    const builder = afterFirstPass().section(PART).page(0, 0, C).page(1, 0, B).endSection();
    builder.discard(0, [0, 2]).discard(1, [2, 2]).package(Buffer.from("device state"));
    return builder;
  }

  test.each(CACHE_SIZES)("what was forgotten comes whole and once, with a page cache of size %s", (size) => {
    const builder = switchedOver().section(PART).page(1, 2, B).page(0, 0, C).zero(1, 3).endSection();
    const bytes = builder.section(END).page(0, 1, A).endSection().verbatim(Buffer.of(0)).bytes;
    const { loader, rewriting } = rewrite(bytes, size);
    expect(loader.isPostcopy).toBe(true);
    expect(loader.records.slice(-4).map(({ block, page, kind }) => `${block} ${page} ${kind}`)).toEqual([
      "vga.vram 2 page",
      "pc.ram 0 page",
      "vga.vram 3 zero",
      "pc.ram 1 page",
    ]);
    const original = load(bytes);
    expect(loader.images.every((image, i) => image.equals(original.images[i]!))).toBe(true);
    expect(rewriting.events).toEqual(["stopped", "deviceState"]);
  });

  test("before it pages go as deltas, and unchanged ones not at all", () => {
    const bytes = switchedOver().section(END).endSection().verbatim(Buffer.of(0)).bytes;
    expect(rewrite(bytes, "plenty").rewriting.rewriter.pages).toMatchObject({
      deltaPages: 1,
      unchangedPages: 1,
    });
  });

  test("what the destination has forgotten is no baseline, even if pre-copy went on", () => {
    const builder = afterFirstPass().discard(0, [1, 1]).section(PART).page(0, 1, A).endSection();
    expect(rewrite(finished(builder), "plenty").loader.records.at(-1)).toMatchObject({
      page: 1,
      kind: "page",
    });
  });
});

describe("in bypass, pages whose records name no RAMBlock", () => {
  const PAGES = 300;

  /** As QEMU writes a pass: the RAMBlock once, then one page after the other. Every third is of zeros, with `fill` 0. */
  function pass(builder: StreamBuilder, fill: number): number {
    builder.section(PART);
    for (let index = 0; index < PAGES; index++) {
      if (fill === 0 && index % 3 === 0) builder.zero(0, index);
      else builder.page(0, index, Buffer.alloc(4096, 1 + ((index + fill) % 255)));
    }
    return builder.endSection().bytes.length;
  }

  /** Each pass with what it is filled with, and whether it is in bypass. */
  function move(passes: readonly { fill: number; bypass: boolean }[], observes: boolean) {
    const builder = new StreamBuilder().header().configuration("pc");
    builder.start(2, [{ idstr: "pc.ram", pages: PAGES }]).endSection();
    const rewriting = new DirectRewriting("plenty", observes);
    rewriting.push(builder.bytes);
    let sent = builder.bytes.length;
    for (const { fill, bypass } of passes) {
      const end = pass(builder, fill);
      rewriting.rewriter.bypass(bypass);
      rewriting.push(builder.bytes.subarray(sent, end));
      sent = end;
    }
    const { bytes } = builder.section(END).endSection().device("cpu", Buffer.from("state")).eof();
    rewriting.push(bytes.subarray(sent));
    const output = rewriting.take();
    expectSameRam(load(output), load(bytes));
    return { pages: { ...rewriting.rewriter.pages }, output };
  }

  const bypassed = { fill: 0, bypass: true };
  const looked = { fill: 0, bypass: false };

  test("go on together, to the same effect and with the same count as one by one", () => {
    const [together, each] = [false, true].map((observes) => move([bypassed, looked], observes));
    expect(together!.pages).toEqual(each!.pages);
    // Zeros are known from the first pass on, and nothing else is.
    expect(together!.pages).toMatchObject({ zeroPages: 100, unchangedPages: 100, rawPages: 400 });
    expect(together!.output.equals(each!.output)).toBe(true);
  });

  test("are forgotten by the cache: what it knew of them is no baseline any more", () => {
    const { pages } = move([looked, { fill: 1, bypass: true }, looked], false);
    expect(pages).toMatchObject({
      zeroPages: 200,
      rawPages: 200 + PAGES + 200,
      deltaPages: 0,
      overflowPages: 0,
    });
  });

  test("are looked at from the next record on, in the middle of a section", () => {
    const builder = new StreamBuilder().header().configuration("pc");
    builder.start(2, [{ idstr: "pc.ram", pages: PAGES }]).endSection();
    const begin = builder.bytes.length;
    pass(builder, 1);
    const rewriting = new DirectRewriting("plenty", false);
    rewriting.push(builder.bytes.subarray(0, begin));
    rewriting.rewriter.bypass(true);
    const half = begin + 1 + 4 + (8 + 7) + 4096 + ((PAGES / 2) | 0) * (8 + 4096);
    rewriting.push(builder.bytes.subarray(begin, half));
    expect(rewriting.rewriter.cache!.stats.misses).toBe(0);
    rewriting.rewriter.bypass(false);
    const { bytes } = builder.section(END).endSection().device("cpu", Buffer.from("state")).eof();
    rewriting.push(bytes.subarray(half));
    expect(rewriting.rewriter.cache!.stats.misses).toBe(PAGES - 1 - PAGES / 2);
    expectSameRam(load(rewriting.take()), load(bytes));
  });
});
