// Any bytes on the return path: messages, with nothing lost, made up, or held back beyond one. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { expect, test } from "vitest";
import { fuzz, fuzzRuns, mutated } from "../../test/support/fuzzing.ts";
import { pageRequest, pongValue, ReturnPathReader, returnPathMessage, shutValue } from "./return-path.ts";

const MESSAGE_BYTES_MAX = 4 + 65_535;
const numRuns = fuzzRuns(1000);
const valid = fc
  .array(
    fc.record({ type: fc.integer({ min: 0, max: 8 }), value: fc.option(fc.nat(), { nil: undefined }) }),
    {
      maxLength: 6,
    },
  )
  .map((all) => Buffer.concat(all.map(({ type, value }) => returnPathMessage(type, value))));

test("any bytes are messages, and what is left of the last one", () => {
  const input = fc.oneof(mutated(valid), fc.uint8Array({ maxLength: 300, size: "max" }));
  fuzz(
    fc.property(input, fc.integer({ min: 1, max: 60 }), (bytes, chunkBytes) => {
      const reader = new ReturnPathReader();
      const out: Buffer[] = [];
      for (let at = 0; at < bytes.length; at += chunkBytes) {
        for (const message of reader.push(bytes.subarray(at, at + chunkBytes))) {
          out.push(message.bytes);
          for (const value of [pongValue(message), shutValue(message), pageRequest(message)?.lengthBytes])
            expect(value === undefined || (value >= 0 && value < 2 ** 32)).toBe(true);
        }
      }
      const all = Buffer.concat(out);
      expect(all.equals(bytes.subarray(0, all.length))).toBe(true);
      expect(bytes.length - all.length).toBeLessThan(MESSAGE_BYTES_MAX);
    }),
    { numRuns },
  );
});
