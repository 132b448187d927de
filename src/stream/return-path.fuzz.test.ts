// Any bytes on the return path: messages, with nothing lost, made up, or held back beyond one. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { test } from "vitest";
import { fuzz, fuzzRuns, must } from "../../test/support/fuzzing.ts";
import { pageRequest, pongValue, ReturnPathReader, returnPathMessage, shutValue } from "./return-path.ts";

const MESSAGE_BYTES_MAX = 4 + 65_535;
const runs = fuzzRuns(5000);
const valid = fc
  .array(
    fc.record({ type: fc.integer({ min: 0, max: 8 }), value: fc.option(fc.nat(), { nil: undefined }) }),
    {
      maxLength: 6,
    },
  )
  .map((all) => Buffer.concat(all.map(({ type, value }) => returnPathMessage(type, value))));

test("any bytes are messages, and what is left of the last one", () => {
  const seeds = fc.sample(valid, { numRuns: 40, seed: 7 });
  fuzz("return path", { seeds, runs }, (bytes, random) => {
    const chunkBytes = random.int(1, 60);
    const reader = new ReturnPathReader();
    const out: Buffer[] = [];
    let kinds = "";
    for (let at = 0; at < bytes.length; at += chunkBytes) {
      for (const message of reader.push(bytes.subarray(at, at + chunkBytes))) {
        out.push(message.bytes);
        for (const value of [pongValue(message), shutValue(message), pageRequest(message)?.lengthBytes]) {
          must(value === undefined || (value >= 0 && value < 2 ** 32), "a value is one of 32 bits");
          kinds += value === undefined ? "-" : value;
        }
      }
    }
    const all = Buffer.concat(out);
    must(all.equals(bytes.subarray(0, all.length)), "messages are the bytes that came");
    must(bytes.length - all.length < MESSAGE_BYTES_MAX, "no more is held back than one message");
    return kinds.slice(0, 24);
  });
});
