// Any payload: records, or one ProtocolError. No other error, no hang, nothing written outside the places that are
// the expander's, and never more output than the entries of a batch can need. FUZZ_RUNS sets how many.

import { describe, expect, test } from "vitest";
import type { Random } from "../../../test/sim/random.ts";
import { randomBytes } from "../../../test/support/arbitrary-stream.ts";
import { Expansion } from "../../../test/support/expansion.ts";
import { fuzz, fuzzRuns, must, outcomeOf } from "../../../test/support/fuzzing.ts";
import { BatchRewriting } from "../../../test/support/rewriting.ts";
import { END, PART, StreamBuilder } from "../../../test/support/stream-builder.ts";
import { ProtocolError } from "../../base/errors.ts";
import { DELTA_CODEC_NAMES } from "../../codec/delta/delta-codecs.ts";
import {
  BATCH_ENTRIES_MAX,
  PAYLOAD_PAGES,
  PAYLOAD_RAM_LAYOUT,
  type PayloadKind,
} from "../../wire/page-batch.ts";

const runs = fuzzRuns(2000);
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

/** Why it was refused; undefined: it was taken. */
function feed(expansion: Expansion, kind: PayloadKind, payload: Uint8Array): string | undefined {
  try {
    if (kind === PAYLOAD_PAGES) {
      const pieces = expansion.expand(payload);
      must(pieces.length <= BATCH_ENTRIES_MAX, "a batch is no more pieces than entries");
      must(pieces.reduce((sum, { length }) => sum + length, 0) <= OUTPUT_BYTES_MAX, "a batch has a limit");
    } else expansion.take(kind, payload);
    return undefined;
  } catch (thrown) {
    if (!(thrown instanceof ProtocolError)) throw thrown;
    must(thrown.code === "PROTOCOL_INVALID_FRAME", "it is refused as a frame");
    return thrown.message;
  } finally {
    expansion.expectGuards();
  }
}

/** Expansions cost more than payloads: each is fed many, and what it holds then is not only what was valid. */
class Expansions {
  readonly #perExpansion: number;
  readonly #prepare: (expansion: Expansion) => void;
  #expansion: Expansion | undefined;
  #uses = 0;

  constructor(perExpansion: number, prepare: (expansion: Expansion) => void = () => {}) {
    this.#perExpansion = perExpansion;
    this.#prepare = prepare;
  }

  next(): Expansion {
    if (this.#expansion === undefined || this.#uses++ % this.#perExpansion === 0) {
      this.#expansion = new Expansion({ regionBytes: REGION_BYTES, ...LIMITS });
      this.#prepare(this.#expansion);
    }
    return this.#expansion;
  }
}

/** Entries and what belongs to them lie behind the whole pages. */
function placesOf({ bytes }: Payload): number[] {
  return [0, 16, 32 + 4096 * bytes.readUInt32LE(8), bytes.length - 60];
}

describe.each(Object.entries(DELTA_CODEC_NAMES))("with %s", (name, deltaCodec) => {
  const payloads = validPayloads(deltaCodec).filter(({ kind }) => kind !== 1);
  const [layout, ...batches] = payloads;

  test("damaged batches are records or a ProtocolError", () => {
    let [refused, taken] = [0, 0];
    const expansions = new Expansions(200, (expansion) => {
      for (const { kind, bytes } of payloads) expect(feed(expansion, kind, bytes)).toBe(undefined);
    });
    const seeds = batches.map(({ bytes }) => bytes);
    fuzz(`batches, ${name}`, { seeds, places: batches.map(placesOf), runs }, (bytes) => {
      const refusal = feed(expansions.next(), PAYLOAD_PAGES, bytes);
      if (refusal !== undefined) refused++;
      else taken++;
      return outcomeOf(refusal ?? "taken");
    });
    // Both happen: content may be anything, what says where it is may not.
    expect(refused).toBeGreaterThan(runs / 10);
    expect(taken).toBeGreaterThan(0);
  });

  test("a damaged layout, any layout, and batches after it, are taken or a ProtocolError", () => {
    let refused = 0;
    const expansions = new Expansions(100);
    fuzz(`layouts, ${name}`, { seeds: [layout!.bytes], runs }, (bytes) => {
      const expansion = expansions.next();
      const before = expansion.memory.allocatedBytes;
      expansion.renew();
      const refusal = feed(expansion, PAYLOAD_RAM_LAYOUT, bytes);
      const isRefused = refusal !== undefined;
      if (isRefused) refused++;
      const later = isRefused ? -1 : batches.findIndex(({ kind, bytes }) => feed(expansion, kind, bytes));
      must(
        expansion.memory.allocatedBytes - before < 4 << 20,
        "a layout takes no more than the limits allow",
      );
      return outcomeOf(refusal ?? `taken until ${"x".repeat(later + 1)}`);
    });
    expect(refused).toBeGreaterThan(runs / 10);
  });
});

test("any bytes behind a header whose lengths add up are records or a ProtocolError", () => {
  const payloads = validPayloads(DELTA_CODEC_NAMES.xbrle!).filter(({ kind }) => kind !== 1);
  const expansions = new Expansions(200, (expansion) => {
    expect(feed(expansion, PAYLOAD_RAM_LAYOUT, payloads[0]!.bytes)).toBe(undefined);
  });
  fuzz("added up", { seeds: [], runs, generate: whoseLengthsAddUp }, (bytes) =>
    outcomeOf(feed(expansions.next(), PAYLOAD_PAGES, bytes) ?? "taken"),
  );
});

function whoseLengthsAddUp(random: Random): Uint8Array {
  const sizes = [random.int(1, 30), random.int(0, 2)];
  for (let i = 0; i < 5; i++) sizes.push(random.int(0, 40));
  const [entryCount = 0, wholePages = 0, ...rest] = sizes;
  const restAt = 32 + wholePages * 4096;
  const bytes = Buffer.alloc(restAt + entryCount + rest.reduce((sum, size) => sum + size, 0));
  // Mostly small numbers: kinds, distances and slots that may be right.
  for (let i = restAt; i < bytes.length; i++)
    bytes[i] = random.chance(0.15) ? random.bits() : random.int(0, 4);
  bytes[0] = 1;
  for (const [i, size] of sizes.entries()) bytes.writeUInt32LE(size, 4 + 4 * i);
  return bytes;
}
