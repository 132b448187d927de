// BatchExpander alone: what PROTOCOL.md's worked batch becomes, what it refuses, and what it keeps at most. That it
// undoes what BatchSink does is proved in batch-sink.test.ts, that no bytes harm it in batch-expander.fuzz.test.ts.

import { describe, expect, test } from "vitest";
import { Expansion } from "../../../test/support/expansion.ts";
import { PART, StreamBuilder } from "../../../test/support/stream-builder.ts";
import { workedBytesIn } from "../../../test/support/worked-bytes.ts";
import { ProtocolError } from "../../base/errors.ts";
import { DELTA_CODEC_NAMES } from "../../codec/delta/delta-codecs.ts";
import {
  BATCH_ENTRIES_MAX,
  encodeRamLayout,
  PAYLOAD_PAGES,
  PAYLOAD_RAM_LAYOUT,
  pagesPayloadBytes,
  type RamLayout,
  writePagesHeader,
} from "../../wire/page-batch.ts";

const PAGE_BYTES = 512;
const [ZERO, WHOLE, DELTA, REFERENCE] = [1, 2, 3, 4] as const;
const NO_SLOT = [255, 255, 255, 255];

const LAYOUT: RamLayout = {
  sectionId: 2,
  pageBytes: PAGE_BYTES,
  deltaCodec: DELTA_CODEC_NAMES["word-mask"]!,
  windowPages: 2,
  baselinePages: 0,
  blocks: [
    { idstr: "pc.ram", lengthBytes: 8 * PAGE_BYTES },
    { idstr: "vga.vram", lengthBytes: 2 * PAGE_BYTES },
  ],
};
const WITH_BASELINE: RamLayout = { ...LAYOUT, deltaCodec: DELTA_CODEC_NAMES.xbrle!, baselinePages: 3 };

interface Parts {
  ownSection?: boolean;
  /** Values that fill a page each. */
  whole?: number[];
  data?: number[];
  control?: number[];
  references?: number[];
  slots?: number[];
  kinds: number[];
  addresses: number[];
}

function batch(parts: Parts): Buffer {
  const {
    ownSection = true,
    whole = [],
    data = [],
    control = [],
    references = [],
    slots = [],
    kinds,
    addresses,
  } = parts;
  const header = {
    ownSection,
    entryCount: kinds.length,
    wholePages: whole.length,
    dataBytes: data.length,
    controlBytes: control.length,
    referenceBytes: references.length,
    slotBytes: slots.length,
    addressBytes: addresses.length,
  };
  const view = new DataView(new ArrayBuffer(32));
  writePagesHeader(view, 0, header);
  const bytes = Buffer.concat([
    new Uint8Array(view.buffer),
    ...whole.map((value) => Buffer.alloc(PAGE_BYTES, value)),
    Buffer.from([...data, ...control, ...references, ...slots, ...kinds, ...addresses]),
  ]);
  expect(bytes.length).toBe(pagesPayloadBytes(header, PAGE_BYTES));
  return bytes;
}

function laidOut(layout: RamLayout = LAYOUT): Expansion {
  const expansion = new Expansion();
  expansion.take(PAYLOAD_RAM_LAYOUT, encodeRamLayout(layout));
  return expansion;
}

const stream = () =>
  new StreamBuilder(PAGE_BYTES)
    .start(2, [
      { idstr: "pc.ram", pages: 8 },
      { idstr: "vga.vram", pages: 2 },
    ])
    .endSection();
/** What `build` writes behind the start of a stream. */
function records(build: (builder: StreamBuilder) => StreamBuilder): Buffer {
  const before = stream().lengthBytes;
  return build(stream()).bytes.subarray(before);
}
const filled = (value: number) => Buffer.alloc(PAGE_BYTES, value);

test("PROTOCOL.md's worked batch becomes the records that it says", () => {
  const page = new URL("../../wire/PROTOCOL.md", import.meta.url);
  const [layout, pages] = workedBytesIn(page, "hex-payloads").map(([, bytes]) => bytes);
  const expansion = new Expansion();
  expansion.take(PAYLOAD_RAM_LAYOUT, layout!);
  const delta = Buffer.from([64, 8, ...Buffer.from("new word")]);
  const A = filled("A".charCodeAt(0));
  expect(expansion.take(PAYLOAD_PAGES, pages!).toString("hex")).toBe(
    records((builder) =>
      builder.section(PART).page(0, 0, A).xbzrle(0, 1, delta).page(0, 2, A).zero(1, 0).endSection(),
    ).toString("hex"),
  );
});

test("records without a section of their own stand in the one that is open", () => {
  const payload = batch({ ownSection: false, whole: [7], kinds: [ZERO, WHOLE], addresses: [1, 0, 8] });
  const expected = records((builder) => builder.section(PART).zero(0, 0).page(0, 3, filled(7)));
  expect(laidOut().take(PAYLOAD_PAGES, payload).equals(expected.subarray(5))).toBe(true);
});

test("addresses go forward, backward, and to another RAMBlock", () => {
  // Page 5 of block 0; 2 back from 6; on; page 1 of block 1; page 0 of it.
  const payload = batch({ kinds: [ZERO, ZERO, ZERO, ZERO, ZERO], addresses: [21, 0, 6, 0, 5, 1, 6] });
  const expected = records((builder) =>
    builder.section(PART).zero(0, 5).zero(0, 4).zero(0, 5).zero(1, 1).zero(1, 0).endSection(),
  );
  expect(laidOut().take(PAYLOAD_PAGES, payload).equals(expected)).toBe(true);
});

test("the window keeps the last pages, through all batches, and counts around", () => {
  const expansion = laidOut();
  expansion.take(
    PAYLOAD_PAGES,
    batch({ whole: [1, 2, 3], kinds: [WHOLE, WHOLE, WHOLE], addresses: [1, 0, 0, 0] }),
  );
  const references = [0, 0, 0, 0, 1, 0, 0, 0];
  const payload = batch({ references, kinds: [REFERENCE, REFERENCE], addresses: [1, 0, 0] });
  const expected = records((builder) =>
    builder.section(PART).page(0, 0, filled(3)).page(0, 1, filled(2)).endSection(),
  );
  expect(expansion.take(PAYLOAD_PAGES, payload).equals(expected)).toBe(true);
});

describe("is refused", () => {
  const numbers = (...values: number[]) => values.flatMap((value) => [value & 255, value >> 8, 0, 0]);
  const cases: [string, RamLayout, Parts, RegExp][] = [
    ["an entry of kind 0", LAYOUT, { kinds: [0], addresses: [1, 0] }, /entry of kind 0/],
    ["an entry of kind 5", LAYOUT, { kinds: [5], addresses: [1, 0] }, /entry of kind 5/],
    ["a first entry without a RAMBlock", LAYOUT, { kinds: [ZERO], addresses: [0] }, /page of RAMBlock -1/],
    ["an unknown RAMBlock", LAYOUT, { kinds: [ZERO], addresses: [1, 2] }, /page of RAMBlock 2/],
    [
      "a page behind the RAMBlock",
      LAYOUT,
      { kinds: [ZERO], addresses: [33, 0] },
      /page 8 of RAMBlock "pc.ram"/,
    ],
    ["a page before the RAMBlock", LAYOUT, { kinds: [ZERO], addresses: [3, 0] }, /page -1 of/],
    [
      "the page behind the last one",
      LAYOUT,
      { kinds: [ZERO, ZERO], addresses: [5, 1, 0] },
      /page 2 of RAMBlock "vga/,
    ],
    ["addresses that end early", LAYOUT, { kinds: [ZERO, ZERO], addresses: [1, 0] }, /addresses end early/],
    ["a number that goes on", LAYOUT, { kinds: [ZERO], addresses: [129] }, /addresses end early/],
    [
      "a number of six bytes",
      LAYOUT,
      { kinds: [ZERO], addresses: [129, 128, 128, 128, 128, 0, 0] },
      /too long/,
    ],
    ["an address too many", LAYOUT, { kinds: [ZERO], addresses: [1, 0, 0] }, /belong to no entry/],
    ["fewer whole pages than entries", LAYOUT, { kinds: [WHOLE], addresses: [1, 0] }, /fewer whole pages/],
    ["a whole page too many", LAYOUT, { whole: [1], kinds: [ZERO], addresses: [1, 0] }, /belong to no entry/],
    [
      "a reference that is missing",
      LAYOUT,
      { kinds: [REFERENCE], addresses: [1, 0] },
      /references end early/,
    ],
    [
      "half a reference",
      LAYOUT,
      { references: [0, 0], kinds: [REFERENCE], addresses: [1, 0] },
      /references end early/,
    ],
    [
      "a reference to a page that has not come",
      LAYOUT,
      { whole: [1], references: numbers(1), kinds: [WHOLE, REFERENCE], addresses: [1, 0, 0] },
      /reference to page 1/,
    ],
    [
      "a reference beyond the window",
      LAYOUT,
      {
        whole: [1, 2, 3],
        references: numbers(2),
        kinds: [WHOLE, WHOLE, WHOLE, REFERENCE],
        addresses: [1, 0, 0, 0, 0],
      },
      /reference to page 2/,
    ],
    [
      "a reference without a window",
      { ...LAYOUT, windowPages: 0 },
      { whole: [1], references: numbers(0), kinds: [WHOLE, REFERENCE], addresses: [1, 0, 0] },
      /reference to page 0/,
    ],
    [
      "a delta without its data",
      LAYOUT,
      { control: [1, 1], kinds: [DELTA], addresses: [1, 0] },
      /delta of page 0/,
    ],
    [
      "a delta without its control",
      LAYOUT,
      { data: [1], kinds: [DELTA], addresses: [1, 0] },
      /delta of page 0/,
    ],
    ["delta data too many", LAYOUT, { data: [1], kinds: [ZERO], addresses: [1, 0] }, /belong to no entry/],
    [
      "delta control too much",
      LAYOUT,
      { control: [1], kinds: [ZERO], addresses: [1, 0] },
      /belong to no entry/,
    ],
    [
      "a delta without a delta codec",
      { ...LAYOUT, deltaCodec: 0 },
      { data: [1], control: [1], kinds: [DELTA], addresses: [1, 0] },
      /without a delta codec/,
    ],
    [
      "slots without a baseline",
      LAYOUT,
      { slots: numbers(0), kinds: [ZERO], addresses: [1, 0] },
      /belong to no entry/,
    ],
    [
      "a slot that is missing",
      WITH_BASELINE,
      { whole: [1], kinds: [WHOLE], addresses: [1, 0] },
      /slots end early/,
    ],
    [
      "a slot beyond the baseline",
      WITH_BASELINE,
      { whole: [1], slots: numbers(3), kinds: [WHOLE], addresses: [1, 0] },
      /slot 3 of the baseline/,
    ],
    [
      "a delta of a slot that holds nothing",
      WITH_BASELINE,
      {
        whole: [1],
        data: [0, 1],
        control: [2, 0],
        slots: numbers(0, 1),
        kinds: [WHOLE, DELTA],
        addresses: [1, 0, 0],
      },
      /page that is not kept/,
    ],
    [
      "a delta of no slot",
      WITH_BASELINE,
      { data: [0, 1], control: [2, 0], slots: NO_SLOT, kinds: [DELTA], addresses: [1, 0] },
      /page that is not kept/,
    ],
  ];

  test.each(cases)("%s", (_, layout, parts, message) => {
    const expansion = laidOut(layout);
    expect(() => expansion.take(PAYLOAD_PAGES, batch(parts))).toThrow(ProtocolError);
    const again = laidOut(layout);
    expect(() => again.take(PAYLOAD_PAGES, batch(parts))).toThrow(message);
    again.expectGuards();
  });

  test("a batch before the layout, and a second layout", () => {
    const payload = batch({ kinds: [ZERO], addresses: [1, 0] });
    expect(() => new Expansion().take(PAYLOAD_PAGES, payload)).toThrow(/pages before the RAM layout/);
    expect(() => laidOut().take(PAYLOAD_RAM_LAYOUT, encodeRamLayout(LAYOUT))).toThrow(/a second RAM layout/);
  });

  const layouts: [string, Partial<RamLayout>, RegExp][] = [
    ["a window above the limit", { windowPages: 129 }, /129 pages to keep for references/],
    ["a window whose bytes wrap around", { windowPages: 2 ** 32 - 1, pageBytes: 65_536 }, /pages to keep/],
    [
      "a baseline above the limit",
      { deltaCodec: DELTA_CODEC_NAMES.xbrle!, baselinePages: 65 },
      /33280 bytes of pages/,
    ],
    ["an unknown delta codec", { deltaCodec: 9 }, /delta codec 9/],
    ["a delta codec for pages that are too large", { pageBytes: 65_536, windowPages: 0 }, /delta codec 2/],
  ];
  test.each(layouts)("%s", (_, changes, message) => {
    const limits = { windowBytesMax: 128 * PAGE_BYTES, baselineBytesMax: 64 * PAGE_BYTES };
    const blocks = changes.pageBytes === undefined ? LAYOUT.blocks : [];
    const expansion = new Expansion(limits);
    const layout = encodeRamLayout({ ...LAYOUT, blocks, ...changes });
    expect(() => expansion.take(PAYLOAD_RAM_LAYOUT, layout)).toThrow(ProtocolError);
    const within = { ...WITH_BASELINE, windowPages: 128, baselinePages: 64 };
    expect(() => new Expansion(limits).take(PAYLOAD_RAM_LAYOUT, encodeRamLayout(within))).not.toThrow();
    expect(() => new Expansion(limits).take(PAYLOAD_RAM_LAYOUT, layout)).toThrow(message);
  });
});

test("a layout that asks for more than is allowed has nothing allocated for it", () => {
  const expansion = new Expansion({ windowBytesMax: 1 << 30, baselineBytesMax: 0 });
  const before = expansion.memory.allocatedBytes;
  const greedy = encodeRamLayout({ ...WITH_BASELINE, windowPages: 2 ** 20 });
  expect(() => expansion.take(PAYLOAD_RAM_LAYOUT, greedy)).toThrow(ProtocolError);
  expect(expansion.memory.allocatedBytes).toBe(before);
});

test("a batch that does not fit into a region is expanded in pieces, each with a section of its own", () => {
  const expansion = new Expansion({ regionBytes: 66_000 });
  const blocks = [
    { idstr: "a".repeat(255), lengthBytes: 4096 * PAGE_BYTES },
    { idstr: "b".repeat(255), lengthBytes: 4096 * PAGE_BYTES },
  ];
  expansion.take(PAYLOAD_RAM_LAYOUT, encodeRamLayout({ ...LAYOUT, blocks }));
  const kinds = Array<number>(BATCH_ENTRIES_MAX).fill(ZERO);
  const addresses = kinds.flatMap((_, i) => [1, i % 2]);
  const pieces = expansion.expand(batch({ kinds, addresses }));
  expect(pieces.length).toBeGreaterThan(4);
  for (const piece of pieces) {
    expect(piece.length).toBeLessThanOrEqual(66_000);
    expect(piece.subarray(0, 5).toString("hex")).toBe("0200000002");
    expect(piece.subarray(-5).toString("hex")).toBe("7e00000002");
  }
});
