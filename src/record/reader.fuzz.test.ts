// Any text, and records that were valid once: events, or a DeltaveeError RECORD_INVALID. Memory is bounded by the
// longest line, whatever comes. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryEntries } from "../../test/support/arbitrary-record.ts";
import { fuzz, fuzzRuns, JSON_WORDS, must, outcomeOf, pieceBytes } from "../../test/support/fuzzing.ts";
import { writeRecord } from "../../test/support/write-record.ts";
import { DeltaveeError } from "../base/errors.ts";
import { RecordReader } from "./reader.ts";

const runs = fuzzRuns(1000);
const records = fc
  .sample(arbitraryEntries, { numRuns: 20, seed: 5 })
  .map((entries) => writeRecord(entries).text);
const WORDS = [...JSON_WORDS, "0.1", '"type":', '"\\ud800"', '"__proto__":{}'];

/** What was wrong with it; undefined: nothing. */
function refusal(text: string, chunkChars: number): string | undefined {
  const reader = new RecordReader("fuzz");
  try {
    for (let at = 0; at < text.length; at += chunkChars) reader.push(text.slice(at, at + chunkChars));
    reader.end();
    return undefined;
  } catch (thrown) {
    if (!(thrown instanceof DeltaveeError)) throw thrown;
    must(thrown.code === "RECORD_INVALID", "it is refused as a record");
    return thrown.message;
  }
}

test("any text, and damaged records, are events or RECORD_INVALID, however they are cut", () => {
  let refused = 0;
  const lines = fc.sample(fc.jsonValue(), { numRuns: 40, seed: 8 }).map((value) => JSON.stringify(value));
  // Records in part too, so that damage to one line is not lost among the others.
  const seeds = [...records, ...records.map((text) => text.split("\n").slice(0, 4).join("\n")), ...lines];
  const options = { seeds: seeds.map((text) => Buffer.from(text)), runs, words: WORDS };
  fuzz("record", options, (bytes, random) => {
    const text = Buffer.from(bytes).toString("utf8");
    const whole = refusal(text, Math.max(1, text.length));
    must(refusal(text, pieceBytes(random, 10000)) === whole, "it is the same however it is cut");
    if (whole === undefined) return "taken";
    refused++;
    return outcomeOf(whole);
  });
  expect(refused).toBeGreaterThan(runs / 10);
});
