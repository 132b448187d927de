// StreamReader against streams written by an independent builder, which says what the reader must say. However
// the bytes are cut, the calls are the same, and every byte of the input stands behind one of them.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream, type StreamPlan } from "../../test/support/arbitrary-stream.ts";
import { byteByByte, expectCalls, read, whole } from "../../test/support/read-stream.ts";
import { be64, PART, StreamBuilder } from "../../test/support/stream-builder.ts";

const anyPlan = arbitraryPlan(["none", "none", "command", "device", "flag"]);
const chunks = fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 70_000 })), {
  minLength: 1,
  maxLength: 8,
});

describe("any valid stream", () => {
  test("is read as it was written, in one piece and in pieces of any size", () => {
    fc.assert(
      fc.property(anyPlan, chunks, (plan, sizes) => {
        const { bytes, calls } = buildGuestStream(plan);
        let turn = 0;
        for (const { calls: actual, reader, error } of [
          whole(bytes),
          read(bytes, () => sizes[turn++ % sizes.length]!),
        ]) {
          expect(error).toBeUndefined();
          expectCalls(actual, calls);
          expect(reader.offsetBytes).toBe(bytes.length);
          expect(reader.isOpaque).toBe(plan.unknown !== "none");
          reader.end();
        }
      }),
      { numRuns: 150 },
    );
  });

  test("is read the same byte by byte", () => {
    fc.assert(
      fc.property(anyPlan, (plan) => {
        const { bytes, calls } = buildGuestStream(plan);
        expectCalls(byteByByte(bytes).calls, calls);
      }),
      { numRuns: 12 },
    );
  });

  test("that ends early says where, unless it was opaque or had come to the device state", () => {
    fc.assert(
      fc.property(arbitraryPlan(), fc.double({ min: 0, max: 1, noNaN: true }), (plan, share) => {
        const { bytes, sectionEnds } = buildGuestStream(plan);
        const cut = Math.floor(share * bytes.length);
        const { reader, error } = whole(bytes.subarray(0, cut));
        expect(error).toBeUndefined();
        if (cut >= sectionEnds.at(-1)!) reader.end();
        else
          expect(() => reader.end()).toThrow(
            expect.objectContaining({ code: "STREAM_CORRUPT", offsetBytes: cut }),
          );
      }),
    );
  });
});

/** Header and configuration; the ram section has started, two blocks of two pages. */ describe("limits:", () => {
  test("never more than one element is held back", () => {
    const names = Array<string>(256).fill("x-ignore-shared");
    const builder = new StreamBuilder().header().configuration("m".repeat(4096)).capabilities(names);
    builder
      .command(2, new Uint8Array(65_535))
      .start(3, [{ idstr: "n".repeat(255), pages: 1 }])
      .endSection();
    builder.section(PART).page(0, 0, new Uint8Array(4096).fill(7), true);
    const { bytes } = builder;
    for (let cut = 0; cut <= bytes.length; cut += 97) {
      const { reader, error } = read(bytes.subarray(0, cut), () => 4999);
      expect(error).toBeUndefined();
      expect(cut - reader.offsetBytes).toBeLessThan(66_000);
    }
    expectCalls(byteByByte(bytes).calls, builder.calls);
  });

  test("a page may straddle chunks larger than any element", () => {
    const blocks = [
      { idstr: "pc.ram", pages: 2 },
      { idstr: "pc.bios", pages: 2 },
    ];
    const builder = new StreamBuilder().header().configuration("pc").start(3, blocks).endSection();
    for (let i = 0; i < 200; i++)
      builder
        .section(PART)
        .page(i % 2, i % 2, new Uint8Array(4096).fill(i), i % 3 === 0)
        .endSection();
    expectCalls(read(builder.bytes, () => 100_001).calls, builder.calls);
  });
});

test("pages of 16384 bytes are read as such when the stream says so", () => {
  const plan: StreamPlan = {
    ...fc.sample(arbitraryPlan(), { numRuns: 1, seed: 5 })[0]!,
    machine: "virt",
    pageBits: 14,
  };
  const { bytes, calls } = buildGuestStream(plan);
  expectCalls(whole(bytes).calls, calls);
  expect(calls).toContainEqual(expect.objectContaining({ call: "ramBlocks", pageBytes: 16384 }));
});

describe("RAMBlocks of huge pages, where post-copy may come,", () => {
  const [small, huge] = [{ pages: 2 }, { pages: 512, hugePageBytes: 0x200000 }];
  test.each([
    ["alone", [{ idstr: "pc.ram", ...huge }], 0x200000],
    [
      "before others",
      [
        { idstr: "pc.ram", ...huge },
        { idstr: "vga.vram", ...small },
      ],
      0x201000,
    ],
    [
      "behind others",
      [
        { idstr: "rom", ...small },
        { idstr: "pc.ram", ...huge },
      ],
      0x201000,
    ],
    [
      "of several sizes",
      [
        { idstr: "a", ...huge },
        { idstr: "b", ...huge, hugePageBytes: 2 ** 30 },
      ],
      0x40200000,
    ],
    // All of a host whose own pages are larger than the target's.
    ["of which none says so", [{ idstr: "pc.ram", ...small }], 0x10000],
  ])("are read as any others: %s", (_what, blocks, sizes) => {
    const builder = new StreamBuilder().header();
    builder.command(3, Buffer.concat([be64(sizes), be64(4096)])).start(2, blocks);
    builder.page(0, 1, new Uint8Array(4096).fill(1)).endSection();
    for (const { calls, reader, error } of [whole(builder.bytes), byteByByte(builder.bytes)]) {
      expect(error).toBeUndefined();
      expect(reader.isOpaque).toBe(false);
      expectCalls(calls, builder.calls);
    }
  });
});
