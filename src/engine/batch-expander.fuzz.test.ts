// Any payload: records, or one ProtocolError. No other error, no hang, nothing written outside the places that are
// the expander's, and never more output than the entries of a batch can need. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { randomBytes } from "../../test/support/arbitrary-stream.ts";
import { Expansion } from "../../test/support/expansion.ts";
import { fuzz, fuzzRuns } from "../../test/support/fuzzing.ts";
import { BatchRewriting } from "../../test/support/rewriting.ts";
import { END, PART, StreamBuilder } from "../../test/support/stream-builder.ts";
import { ProtocolError } from "../base/errors.ts";
import { DELTA_CODEC_NAMES } from "../codec/delta/delta-codecs.ts";
import {
  BATCH_ENTRIES_MAX,
  PAYLOAD_PAGES,
  PAYLOAD_RAM_LAYOUT,
  type PayloadKind,
} from "../wire/page-batch.ts";

const numRuns = fuzzRuns(400);
const REGION_BYTES = 70_000;
/** A record of a page of the largest size, and a section around it. */
const OUTPUT_BYTES_MAX = BATCH_ENTRIES_MAX * (65_536 + 300);
const LIMITS = { windowBytesMax: 1 << 20, baselineBytesMax: 1 << 20 };

interface Payload {
  kind: PayloadKind;
  bytes: Buffer;
}

/** Layout and batches of a small guest: every kind of entry, every string. */
function validPayloads(deltaCodec: number): Payload[] {
  const pages = 8;
  const page = (seed: number) => Uint8Array.from({ length: 4096 }, randomBytes(seed));
  const builder = new StreamBuilder().header().start(2, [
    { idstr: "pc.ram", pages },
    { idstr: "vga.vram", pages: 2 },
  ]);
  builder.endSection().section(PART);
  for (let i = 0; i < pages; i++) builder.page(0, i, page(1 + (i % 5)));
  builder.zero(1, 0).endSection().section(PART);
  for (let i = 0; i < pages; i++)
    builder.page(
      0,
      i,
      page(1 + (i % 5))
        .with(100 * i, 1)
        .with(2000, i),
    );
  builder.page(1, 1, page(3)).endSection().section(END).zero(0, 0).page(1, 0, page(9)).endSection();
  const rewriting = new BatchRewriting("plenty", {
    deltaCodec: deltaCodec as never,
    windowPages: 4,
    regionBytes: REGION_BYTES,
  });
  // Cut where it makes batches that say different things.
  for (let at = 0; at < builder.bytes.length; at += 30_000) {
    rewriting.push(builder.bytes.subarray(at, at + 30_000));
    rewriting.seal();
  }
  return rewriting.batches.map(({ kind }, i) => ({ kind, bytes: rewriting.payloads[i]! }));
}

/** True: it was refused. */
function feed(expansion: Expansion, kind: PayloadKind, payload: Uint8Array): boolean {
  try {
    if (kind === PAYLOAD_PAGES) {
      const pieces = expansion.expand(payload);
      expect(pieces.length).toBeLessThanOrEqual(BATCH_ENTRIES_MAX);
      expect(pieces.reduce((sum, { length }) => sum + length, 0)).toBeLessThanOrEqual(OUTPUT_BYTES_MAX);
    } else expansion.take(kind, payload);
    return false;
  } catch (thrown) {
    if (!(thrown instanceof ProtocolError)) throw thrown;
    expect(thrown.code).toBe("PROTOCOL_INVALID_FRAME");
    return true;
  } finally {
    expansion.expectGuards();
  }
}

const edits = fc.array(
  fc.record({
    at: fc.nat(),
    /** Close to one of the two ends, where headers and short strings are. */
    near: fc.constantFrom("start" as const, "end" as const, "anywhere" as const),
    value: fc.oneof(fc.constantFrom(0, 1, 2, 4, 127, 128, 255), fc.nat(255)),
  }),
  { minLength: 1, maxLength: 4 },
);

function damaged(bytes: Uint8Array, edits: { at: number; near: string; value: number }[]): Buffer {
  const copy = Buffer.from(bytes);
  for (const { at, near, value } of edits) {
    const end = Math.min(64, copy.length);
    if (near === "start") copy[at % end] = value;
    else if (near === "end") copy[copy.length - 1 - (at % end)] = value;
    else copy[at % copy.length] = value;
  }
  return copy;
}

describe.each(Object.entries(DELTA_CODEC_NAMES))("with %s", (_name, deltaCodec) => {
  const payloads = validPayloads(deltaCodec).filter(({ kind }) => kind !== 1);

  test("damaged batches are records or a ProtocolError", () => {
    let [refused, taken] = [0, 0];
    fuzz(
      fc.property(fc.nat(), edits, (which, edits) => {
        const target = 1 + (which % (payloads.length - 1));
        const expansion = new Expansion({ regionBytes: REGION_BYTES, ...LIMITS });
        for (const { kind, bytes } of payloads.slice(0, target))
          expect(feed(expansion, kind, bytes)).toBe(false);
        if (feed(expansion, PAYLOAD_PAGES, damaged(payloads[target]!.bytes, edits))) refused++;
        else taken++;
      }),
      { numRuns },
    );
    // Both happen: content may be anything, what says where it is may not.
    expect(refused).toBeGreaterThan(numRuns / 10);
    expect(taken).toBeGreaterThan(0);
  });

  test("a damaged layout, and batches after it, are taken or a ProtocolError", () => {
    let refused = 0;
    fuzz(
      fc.property(edits, (edits) => {
        const expansion = new Expansion({ regionBytes: REGION_BYTES, ...LIMITS });
        const layout = damaged(payloads[0]!.bytes, edits);
        if (feed(expansion, PAYLOAD_RAM_LAYOUT, layout)) refused++;
        else payloads.slice(1).some(({ kind, bytes }) => feed(expansion, kind, bytes));
        expect(expansion.memory.allocatedBytes).toBeLessThan(16 << 20);
      }),
      { numRuns },
    );
    expect(refused).toBeGreaterThan(numRuns / 10);
  });
});

test("any bytes are a layout, or a batch, or a ProtocolError", () => {
  const payloads = validPayloads(DELTA_CODEC_NAMES["word-mask"]!).filter(({ kind }) => kind !== 1);
  fuzz(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 200, size: "max" }),
      fc.boolean(),
      (bytes, isBatch) => {
        const expansion = new Expansion({ regionBytes: REGION_BYTES, ...LIMITS });
        if (isBatch) feed(expansion, PAYLOAD_RAM_LAYOUT, payloads[0]!.bytes);
        feed(expansion, isBatch ? PAYLOAD_PAGES : PAYLOAD_RAM_LAYOUT, bytes);
      },
    ),
    { numRuns },
  );
});

test("any bytes behind a header whose lengths add up are records or a ProtocolError", () => {
  const payloads = validPayloads(DELTA_CODEC_NAMES.xbrle!).filter(({ kind }) => kind !== 1);
  const size = fc.integer({ min: 0, max: 40 });
  fuzz(
    fc.property(
      fc.tuple(fc.integer({ min: 1, max: 30 }), fc.nat(2), size, size, size, size, size),
      fc.integer(),
      (sizes, seed) => {
        const [entryCount, wholePages, ...rest] = sizes;
        const restBytes = rest.reduce((sum, bytes) => sum + bytes, 0);
        const bytes = Buffer.alloc(32 + wholePages * 4096 + entryCount + restBytes);
        const random = randomBytes(seed);
        // Mostly small numbers: kinds, distances and slots that may be right.
        for (let i = 32; i < bytes.length; i++) bytes[i] = random() < 40 ? random() : random() % 5;
        bytes[0] = 1;
        for (const [i, value] of sizes.entries()) bytes.writeUInt32LE(value, 4 + 4 * i);
        const expansion = new Expansion({ regionBytes: REGION_BYTES, ...LIMITS });
        feed(expansion, PAYLOAD_RAM_LAYOUT, payloads[0]!.bytes);
        feed(expansion, PAYLOAD_PAGES, bytes);
      },
    ),
    { numRuns },
  );
});
