// Any text, and records that were valid once: events, or a DeltaveeError RECORD_INVALID. Memory is bounded by the
// longest line, whatever comes. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryEntries } from "../../test/support/arbitrary-record.ts";
import { fuzz, fuzzRuns, mutated } from "../../test/support/fuzzing.ts";
import { writeRecord } from "../../test/support/write-record.ts";
import { DeltaveeError } from "../base/errors.ts";
import { RecordReader } from "./reader.ts";

const numRuns = fuzzRuns(200);
const records = fc
  .sample(arbitraryEntries, { numRuns: 20, seed: 5 })
  .map((entries) => writeRecord(entries).text);

function isRefused(text: string, chunkChars: number): boolean {
  const reader = new RecordReader("fuzz");
  try {
    for (let at = 0; at < text.length; at += chunkChars) reader.push(text.slice(at, at + chunkChars));
    reader.end();
    return false;
  } catch (thrown) {
    if (!(thrown instanceof DeltaveeError)) throw thrown;
    expect(thrown.code).toBe("RECORD_INVALID");
    return true;
  }
}

test("any text, and damaged records, are events or RECORD_INVALID, however they are cut", () => {
  let refused = 0;
  const bytes = fc.oneof(
    { weight: 4, arbitrary: mutated(fc.constantFrom(...records.map((text) => Buffer.from(text)))) },
    fc.string({ unit: "binary", maxLength: 300 }).map((text) => Buffer.from(text)),
    fc
      .array(fc.jsonValue(), { maxLength: 5 })
      .map((all) => Buffer.from(all.map((each) => JSON.stringify(each)).join("\n"))),
  );
  fuzz(
    fc.property(bytes, fc.integer({ min: 1, max: 5000 }), (bytes, chunkChars) => {
      const text = Buffer.from(bytes).toString("utf8");
      const whole = isRefused(text, Math.max(1, text.length));
      expect(isRefused(text, chunkChars)).toBe(whole);
      if (whole) refused++;
    }),
    { numRuns },
  );
  expect(refused).toBeGreaterThan(numRuns / 10);
});
