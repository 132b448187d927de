// Any bytes, and valid streams with any damage: a QemuStreamError with its offset, or a reading. No hang, no other
// error, nothing handed over twice or left out, never more held back than one element. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream } from "../../test/support/arbitrary-stream.ts";
import { fuzz, fuzzRuns } from "../../test/support/fuzzing.ts";
import { QemuStreamError } from "../base/errors.ts";
import { RAM_BLOCKS_MAX } from "./format.ts";
import { ELEMENT_BYTES_MAX, type StreamHandler, StreamReader } from "./reader.ts";

const numRuns = fuzzRuns(250);

interface Reading {
  calls: number;
  /** Of the input, given verbatim. */
  verbatimBytes: number;
  error: QemuStreamError | undefined;
}

/** Reads, and checks on the way what must hold whatever the bytes are. */
function read(bytes: Uint8Array, chunkBytes: number): Reading {
  let pageBytes = 0;
  let blocks: readonly { lengthBytes: number }[] = [];
  const reading: Reading = { calls: 0, verbatimBytes: 0, error: undefined };
  const checkPage = (block: number, page: number) => {
    reading.calls++;
    expect(page).toBeGreaterThanOrEqual(0);
    expect((page + 1) * pageBytes).toBeLessThanOrEqual(blocks[block]!.lengthBytes);
    expect(Number.isInteger(page)).toBe(true);
  };
  const handler: StreamHandler = {
    verbatim(from, start, end) {
      expect(0 <= start && start <= end && end <= from.length).toBe(true);
      reading.verbatimBytes += end - start;
    },
    ramBlocks(list, size) {
      expect(list.length).toBeLessThanOrEqual(RAM_BLOCKS_MAX);
      expect(size).toBeLessThanOrEqual(16_384);
      [blocks, pageBytes] = [list, size];
    },
    ramSection: () => reading.calls++,
    ramSectionEnd: () => reading.calls++,
    zeroPage: checkPage,
    page(block, page, from, offset) {
      checkPage(block, page);
      expect(offset + pageBytes).toBeLessThanOrEqual(from.length);
    },
    xbzrlePage(block, page, from, offset, lengthBytes) {
      checkPage(block, page);
      expect(lengthBytes).toBeLessThanOrEqual(pageBytes);
      expect(offset + lengthBytes).toBeLessThanOrEqual(from.length);
    },
    command: () => reading.calls++,
    stopped: () => reading.calls++,
    deviceState: () => reading.calls++,
    opaque: () => reading.calls++,
  };
  const reader = new StreamReader(handler);
  let pushed = 0;
  try {
    for (; pushed < bytes.length; ) {
      const chunk = bytes.subarray(pushed, pushed + chunkBytes);
      pushed += chunk.length;
      reader.push(chunk);
      expect(reader.offsetBytes).toBeLessThanOrEqual(pushed);
      expect(pushed - reader.offsetBytes).toBeLessThanOrEqual(ELEMENT_BYTES_MAX);
    }
    reader.end();
  } catch (thrown) {
    if (!(thrown instanceof QemuStreamError)) throw thrown;
    expect(thrown.offsetBytes).toBeLessThanOrEqual(pushed);
    reading.error = thrown;
  }
  expect(reading.verbatimBytes).toBeLessThanOrEqual(pushed);
  return reading;
}

/** However it is cut, damage ends in the same place and says the same. */
function readTwice(bytes: Uint8Array, chunkBytes: number): Reading {
  const whole = read(bytes, Math.max(1, bytes.length));
  const cut = read(bytes, chunkBytes);
  expect(cut).toEqual(whole);
  return whole;
}

const chunkBytes = fc.oneof(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: 100_000 }));

test("any bytes", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 2000 }),
    fc.uint8Array({ maxLength: 2000 }).map((rest) => Buffer.concat([Buffer.from("QEVM\0\0\0\x03"), rest])),
  );
  fuzz(
    fc.property(bytes, chunkBytes, (bytes, chunkBytes) => {
      readTwice(bytes, chunkBytes);
    }),
    { numRuns: 4 * numRuns },
  );
});

test("a valid stream with bytes changed, left out and put in", () => {
  // Damage to page contents is nothing to a reader: most of it goes where headers are.
  const streams = fc
    .sample(arbitraryPlan(["none", "command", "flag"]), { numRuns: 25, seed: 4 })
    .map(buildGuestStream);
  const edit = fc.record({
    where: fc.double({ min: 0, max: 1, noNaN: true }),
    nearSection: fc.boolean(),
    dropBytes: fc.nat(9),
    insert: fc.uint8Array({ maxLength: 9 }),
  });
  let failed = 0;
  fuzz(
    fc.property(
      fc.constantFrom(...streams),
      fc.array(edit, { minLength: 1, maxLength: 3 }),
      chunkBytes,
      (stream, edits, chunkBytes) => {
        const { sectionEnds } = stream;
        let bytes: Uint8Array = stream.bytes;
        for (const { where, nearSection, dropBytes, insert } of edits) {
          const share = Math.floor(where * bytes.length);
          const nearest = sectionEnds.find((end) => end > share) ?? 60;
          const at = nearSection ? Math.max(0, nearest - 20 + (share % 60)) : share;
          bytes = Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at + dropBytes)]);
        }
        if (readTwice(bytes, chunkBytes).error !== undefined) failed++;
      },
    ),
    { numRuns },
  );
  // The fuzzer reaches the checks at all.
  expect(failed).toBeGreaterThan(numRuns / 10);
});

test("a stream cut off anywhere", () => {
  const stream = buildGuestStream(fc.sample(arbitraryPlan(), { numRuns: 1, seed: 2 })[0]!);
  for (let end = 0; end < stream.bytes.length; end += end < 500 ? 1 : 611) {
    readTwice(stream.bytes.subarray(0, end), 1000);
  }
});
