import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ProtocolError } from "../base/errors.ts";
import {
  BATCH_ENTRIES_MAX,
  decodeRamLayout,
  encodeRamLayout,
  isPayloadKind,
  PAGES_HEADER_BYTES,
  type PagesHeader,
  pagesPayloadBytes,
  type RamLayout,
  readPagesHeader,
  writePagesHeader,
} from "./page-batch.ts";

const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const pageBytes = fc.constantFrom(512, 1024, 4096, 16_384, 65_536);

test("kinds of payload are 1 to 3", () => {
  expect([0, 1, 2, 3, 4, 5, 255].filter((kind) => isPayloadKind(kind))).toEqual([1, 2, 3, 4]);
});

describe("the RAM layout", () => {
  const layout: fc.Arbitrary<RamLayout> = pageBytes.chain((pageBytes) =>
    fc.record({
      sectionId: uint32,
      pageBytes: fc.constant(pageBytes),
      deltaCodec: fc.integer({ min: 0, max: 255 }),
      windowPages: uint32,
      baselinePages: uint32,
      blocks: fc.array(
        fc.record({
          idstr: fc.string({
            unit: fc.integer({ min: 0, max: 255 }).map((c) => String.fromCharCode(c)),
            maxLength: 255,
          }),
          lengthBytes: fc.integer({ min: 0, max: 2 ** 31 }).map((pages) => pages * pageBytes),
        }),
        { maxLength: 6 },
      ),
    }),
  );

  test("is read as it was written", () => {
    fc.assert(
      fc.property(layout, (layout) => {
        expect(decodeRamLayout(encodeRamLayout(layout))).toEqual(layout);
      }),
    );
  });

  test("keeps nothing of the bytes that it was read from", () => {
    const bytes = encodeRamLayout(PLAIN);
    const read = decodeRamLayout(bytes);
    bytes.fill(0);
    expect(read).toEqual(PLAIN);
  });

  test("that is cut short or followed by anything is refused", () => {
    fc.assert(
      fc.property(layout, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 20 }), (layout, cut, more) => {
        const bytes = encodeRamLayout(layout);
        expect(() => decodeRamLayout(bytes.subarray(0, cut % bytes.length))).toThrow(ProtocolError);
        expect(() => decodeRamLayout(Buffer.concat([bytes, more]))).toThrow(/bytes too many/);
      }),
    );
  });

  test.each<[string, number, number[], RegExp]>([
    ["with pages of no bytes", 4, [0, 0], /pages of 0 bytes/],
    ["with pages that are too small", 4, [0, 1], /pages of 256 bytes/],
    ["with pages that are too large", 4, [0, 0, 2], /pages of 131072 bytes/],
    ["with pages that are no power of two", 4, [0, 3], /pages of 768 bytes/],
    ["with a first reserved byte", 9, [1], /reserved bytes/],
    ["with a last reserved byte", 11, [0x80], /reserved bytes/],
    ["with more RAMBlocks than there are", 20, [3], /ends in RAMBlock 2/],
    ["with a number of RAMBlocks beyond all bounds", 20, [255, 255, 255, 255], /ends in RAMBlock 2/],
    ["with fewer RAMBlocks than there are", 20, [1], /bytes too many/],
    ["with a RAMBlock that is no whole number of pages", 24, [1], /RAMBlock 0 of 4097 bytes/],
    ["with a RAMBlock that is too long", 24, [0, 16, 0, 0, 0, 16], /RAMBlock 0 of/],
    ["with a RAMBlock of 2^64 bytes", 24, Array<number>(8).fill(255), /RAMBlock 0 of/],
    ["with a name that is longer than what is left", 32, [255], /ends in RAMBlock 0/],
  ])("%s is refused", (_, at, values, message) => {
    const bytes = encodeRamLayout(PLAIN);
    bytes.set(values, at);
    expect(() => decodeRamLayout(bytes)).toThrow(ProtocolError);
    expect(() => decodeRamLayout(bytes)).toThrow(message);
  });

  const PLAIN: RamLayout = {
    sectionId: 2,
    pageBytes: 4096,
    deltaCodec: 1,
    windowPages: 3,
    baselinePages: 4,
    blocks: [
      { idstr: "pc.ram", lengthBytes: 4096 },
      { idstr: "", lengthBytes: 0 },
    ],
  };
});

describe("the header of a batch of pages", () => {
  const header: fc.Arbitrary<PagesHeader> = fc.record({
    ownSection: fc.boolean(),
    entryCount: fc.integer({ min: 1, max: BATCH_ENTRIES_MAX }),
    wholePages: uint32,
    dataBytes: uint32,
    controlBytes: uint32,
    referenceBytes: uint32,
    slotBytes: uint32,
    addressBytes: uint32,
  });
  const written = (header: PagesHeader, at = 0) => {
    const view = new DataView(new ArrayBuffer(at + PAGES_HEADER_BYTES));
    new Uint8Array(view.buffer).fill(0xee);
    writePagesHeader(view, at, header);
    return view;
  };
  const PLAIN: PagesHeader = {
    ownSection: true,
    entryCount: 2,
    wholePages: 1,
    dataBytes: 3,
    controlBytes: 4,
    referenceBytes: 0,
    slotBytes: 0,
    addressBytes: 5,
  };
  const PLAIN_BYTES = PAGES_HEADER_BYTES + 4096 + 3 + 4 + 2 + 5;

  test("is read as it was written, wherever it stands", () => {
    fc.assert(
      fc.property(header, pageBytes, fc.nat(9), (header, pageBytes, at) => {
        const payloadBytes = pagesPayloadBytes(header, pageBytes);
        expect(readPagesHeader(written(header, at), at, payloadBytes, pageBytes)).toEqual(header);
      }),
    );
  });

  test("whose parts are not as long as the payload together is refused", () => {
    expect(readPagesHeader(written(PLAIN), 0, PLAIN_BYTES, 4096)).toEqual(PLAIN);
    const members = [
      "wholePages",
      "dataBytes",
      "controlBytes",
      "referenceBytes",
      "slotBytes",
      "addressBytes",
    ] as const;
    for (const member of [...members, "entryCount"] as const) {
      for (const more of [1, -1, 2 ** 32 - 1]) {
        const value = PLAIN[member] + more;
        if (value < 0 || value > 0xffff_ffff) continue;
        const read = () => readPagesHeader(written({ ...PLAIN, [member]: value }), 0, PLAIN_BYTES, 4096);
        expect(read).toThrow(ProtocolError);
      }
    }
    expect(() => readPagesHeader(written(PLAIN), 0, PLAIN_BYTES + 1, 4096)).toThrow(/whose parts are/);
    expect(() => readPagesHeader(written(PLAIN), 0, PLAIN_BYTES, 8192)).toThrow(/whose parts are/);
  });

  test("lengths that add up only when they wrap around are refused", () => {
    const wrapped = { ...PLAIN, wholePages: 2 ** 31, dataBytes: 2 ** 31 + 3 };
    expect(() => readPagesHeader(written(wrapped), 0, PLAIN_BYTES, 4096)).toThrow(ProtocolError);
  });

  test.each<[string, number, number, RegExp]>([
    ["another flag", 0, 2, /flags 2/],
    ["a flag in the last byte", 3, 0x80, /flags/],
    ["no entries", 4, 0, /batch of 0 pages/],
    ["too many entries", 5, 0x20, /batch of 8194 pages/],
  ])("with %s is refused", (_, at, value, message) => {
    const view = written(PLAIN);
    view.setUint8(at, value);
    expect(() => readPagesHeader(view, 0, PLAIN_BYTES, 4096)).toThrow(message);
  });

  test("that is cut short is refused before it is read", () => {
    const view = new DataView(new ArrayBuffer(0));
    for (const bytes of [0, 1, PAGES_HEADER_BYTES - 1]) {
      expect(() => readPagesHeader(view, 0, bytes, 4096)).toThrow(`batch of pages of ${bytes} bytes`);
    }
  });
});
