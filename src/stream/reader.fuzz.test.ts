// Any bytes, and valid streams with any damage: a QemuStreamError with its offset, or a reading. No hang, no other
// error, nothing handed over twice or left out, never more held back than one element. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream } from "../../test/support/arbitrary-stream.ts";
import { fuzz, fuzzRuns, must, outcomeOf, pieceBytes } from "../../test/support/fuzzing.ts";
import { QemuStreamError } from "../base/errors.ts";
import { RAM_BLOCKS_MAX } from "./format.ts";
import { ELEMENT_BYTES_MAX, type StreamHandler, StreamReader } from "./reader.ts";

const runs = fuzzRuns(2000);
/** Longer ones say nothing more. */
const STREAM_BYTES_MAX = 20_000;

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
    must(Number.isInteger(page) && page >= 0, "a page has a number");
    must((page + 1) * pageBytes <= blocks[block]!.lengthBytes, "a page lies in its RAMBlock");
  };
  const handler: StreamHandler = {
    verbatim(from, start, end) {
      must(0 <= start && start <= end && end <= from.length, "what is handed over is there");
      reading.verbatimBytes += end - start;
    },
    ramBlocks(list, size) {
      must(list.length <= RAM_BLOCKS_MAX, "RAMBlocks have a limit");
      must(size <= 16_384, "a page has a limit");
      [blocks, pageBytes] = [list, size];
    },
    ramSection: () => reading.calls++,
    ramSectionEnd: () => reading.calls++,
    zeroPage: checkPage,
    page(block, page, from, offset) {
      checkPage(block, page);
      must(offset + pageBytes <= from.length, "a page is whole");
    },
    xbzrlePage(block, page, from, offset, lengthBytes) {
      checkPage(block, page);
      must(lengthBytes <= pageBytes, "a delta is no longer than a page");
      must(offset + lengthBytes <= from.length, "a delta is whole");
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
      must(reader.offsetBytes <= pushed, "nothing is read before it comes");
      must(pushed - reader.offsetBytes <= ELEMENT_BYTES_MAX, "no more is held back than one element");
    }
    reader.end();
  } catch (thrown) {
    if (!(thrown instanceof QemuStreamError)) throw thrown;
    must(thrown.offsetBytes <= pushed, "the offset lies in what came");
    reading.error = thrown;
  }
  must(reading.verbatimBytes <= pushed, "nothing is handed over twice");
  return reading;
}

/** However it is cut, damage ends in the same place and says the same. */
function readTwice(bytes: Uint8Array, chunkBytes: number): Reading {
  const whole = read(bytes, Math.max(1, bytes.length));
  const cut = read(bytes, chunkBytes);
  must(
    cut.calls === whole.calls &&
      cut.verbatimBytes === whole.verbatimBytes &&
      cut.error?.message === whole.error?.message &&
      cut.error?.offsetBytes === whole.error?.offsetBytes,
    "it reads the same however it is cut",
  );
  return whole;
}

const BEGIN = Buffer.from("QEVM\0\0\0\x03");

test("any bytes, and valid streams with any damage", () => {
  // Damage to page contents is nothing to a reader: most of it goes where headers are.
  const plans = fc.sample(arbitraryPlan(["none", "command", "flag"]), { numRuns: 40, seed: 4 });
  const streams = plans.map(buildGuestStream).filter(({ bytes }) => bytes.length <= STREAM_BYTES_MAX);
  const seeds = [BEGIN, ...streams.map(({ bytes }) => bytes)];
  const places = [[8], ...streams.map(({ sectionEnds }) => [20, 60, ...sectionEnds])];
  let failed = 0;
  fuzz("stream", { seeds, places, runs, randomBytesMax: 2000 }, (bytes, random) => {
    const { error, calls } = readTwice(bytes, pieceBytes(random, 200000));
    if (error === undefined) return `whole ${Math.min(40, calls)}`;
    failed++;
    return outcomeOf(error.message);
  });
  // The fuzzer reaches the checks at all.
  expect(failed).toBeGreaterThan(runs / 10);
});

test("a stream cut off anywhere", () => {
  const stream = buildGuestStream(fc.sample(arbitraryPlan(), { numRuns: 1, seed: 2 })[0]!);
  for (let end = 0; end < stream.bytes.length; end += end < 500 ? 1 : 611) {
    readTwice(stream.bytes.subarray(0, end), 1000);
  }
});
