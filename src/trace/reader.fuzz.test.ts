// Any bytes, and good traces with any damage: a DeltaveeError TRACE_INVALID that names the offset, or a reading. No
// other error, no page that is not in its RAMBlock. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryTracePlan, traceBytes } from "../../test/support/arbitrary-trace.ts";
import { fuzz, fuzzRuns } from "../../test/support/fuzzing.ts";
import { DeltaveeError } from "../base/errors.ts";
import type { TraceHeader } from "./format.ts";
import { TraceReader } from "./reader.ts";

const numRuns = fuzzRuns(300);

function readAny(bytes: Uint8Array, chunkBytes: number): string {
  let header: TraceHeader | undefined;
  const reader = new TraceReader("x", {
    header: (it) => {
      header = it;
    },
    iteration: (iteration) => expect(iteration).toBeGreaterThanOrEqual(0),
    codec: (name) => expect(name.length).toBeGreaterThan(0),
    page(block, page, pageClass, deltaBytes, content, offset) {
      const { pageBytes, blocks, hasContents } = header!;
      expect(page).toBeGreaterThanOrEqual(0);
      expect(page).toBeLessThan(blocks[block]!.pageCount);
      expect(deltaBytes).toBeLessThanOrEqual(pageBytes);
      if (hasContents && pageClass >= 3) expect(offset + pageBytes).toBeLessThanOrEqual(content.length);
    },
  });
  try {
    for (let at = 0; at < bytes.length; at += chunkBytes) reader.push(bytes.subarray(at, at + chunkBytes));
    return reader.end() ?? "whole";
  } catch (thrown) {
    if (!(thrown instanceof DeltaveeError)) throw thrown;
    expect(thrown.code).toBe("TRACE_INVALID");
    const offset = Number(/offset (\d+)/.exec(thrown.message)?.[1]);
    expect(offset).toBeLessThanOrEqual(bytes.length);
    return thrown.message;
  }
}

test("any bytes", () => {
  fuzz(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      readAny(bytes, 16);
    }),
    { numRuns },
  );
});

test("a trace with some bytes changed, left out or put in; and the same however it is cut", () => {
  const damage = fc.record({
    at: fc.nat(),
    kind: fc.constantFrom("change", "drop", "insert"),
    value: fc.nat({ max: 255 }),
  });
  fuzz(
    fc.property(arbitraryTracePlan, fc.array(damage, { maxLength: 4 }), (plan, list) => {
      const bytes = [...traceBytes(plan)];
      for (const { at, kind, value } of list) {
        const place = at % bytes.length;
        if (kind === "change") bytes[place] = value;
        else bytes.splice(place, kind === "drop" ? 1 : 0, ...(kind === "drop" ? [] : [value]));
      }
      const damaged = Uint8Array.from(bytes);
      expect(readAny(damaged, 7)).toBe(readAny(damaged, damaged.length));
    }),
    { numRuns },
  );
});
