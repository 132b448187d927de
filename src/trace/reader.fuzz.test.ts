// Any bytes, and good traces with any damage: a DeltaveeError TRACE_INVALID that names the offset, or a reading. No
// other error, no page that is not in its RAMBlock. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { test } from "vitest";
import { arbitraryTracePlan, traceBytes } from "../../test/support/arbitrary-trace.ts";
import { fuzz, fuzzRuns, must, outcomeOf, pieceBytes } from "../../test/support/fuzzing.ts";
import { DeltaveeError } from "../base/errors.ts";
import type { TraceHeader } from "./format.ts";
import { TraceReader } from "./reader.ts";

const runs = fuzzRuns(2000);

function readAny(bytes: Uint8Array, chunkBytes: number): string {
  let header: TraceHeader | undefined;
  const reader = new TraceReader("x", {
    header: (it) => {
      header = it;
    },
    iteration: (iteration) => must(iteration >= 0, "iterations are counted from 0"),
    codec: (name) => must(name.length > 0, "a codec has a name"),
    page(block, page, pageClass, deltaBytes, content, offset) {
      const { pageBytes, blocks, hasContents } = header!;
      must(page >= 0 && page < blocks[block]!.pageCount, "a page lies in its RAMBlock");
      must(deltaBytes <= pageBytes, "a delta is no longer than a page");
      if (hasContents && pageClass >= 3) must(offset + pageBytes <= content.length, "a page is whole");
    },
  });
  try {
    for (let at = 0; at < bytes.length; at += chunkBytes) reader.push(bytes.subarray(at, at + chunkBytes));
    return reader.end() ?? "whole";
  } catch (thrown) {
    if (!(thrown instanceof DeltaveeError)) throw thrown;
    must(thrown.code === "TRACE_INVALID", "it is refused as a trace");
    const offset = Number(/offset (\d+)/.exec(thrown.message)?.[1]);
    must(offset <= bytes.length, "the offset lies in it");
    return thrown.message;
  }
}

test("any bytes, and a trace with any damage; the same however it is cut", () => {
  const seeds = fc.sample(arbitraryTracePlan, { numRuns: 60, seed: 9 }).map(traceBytes);
  fuzz("trace", { seeds, runs, randomBytesMax: 200 }, (bytes, random) => {
    const whole = readAny(bytes, Math.max(1, bytes.length));
    must(readAny(bytes, pieceBytes(random, 1000)) === whole, "it says the same however it is cut");
    return outcomeOf(whole);
  });
});
