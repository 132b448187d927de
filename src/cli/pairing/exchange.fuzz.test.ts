// Any bytes from whoever comes to a pairing: a message by the code, or one ProtocolError. FUZZ_RUNS sets how many.

import fc from "fast-check";
import { expect, test } from "vitest";
import { fuzz, fuzzRuns, mutated } from "../../../test/support/fuzzing.ts";
import { ProtocolError } from "../../base/errors.ts";
import { MESSAGE_BYTES_MAX, messageBytes, PairingExchange } from "./exchange.ts";

const numRuns = fuzzRuns(1000);
const exchange = await PairingExchange.over({
  code: "K7QM-2XPD-9HTV-4WRC",
  binding: Buffer.alloc(32, 7),
  fingerprints: { listening: "aa".repeat(32), connecting: "bb".repeat(32) },
});
const MESSAGE = exchange.message("connecting", "host1.example");

test("any bytes, and a message with any damage, are refused with a ProtocolError", () => {
  const input = fc.oneof(mutated(fc.constant(MESSAGE)), fc.uint8Array({ maxLength: 400, size: "max" }));
  fuzz(
    fc.property(input, (bytes) => {
      const isTheMessage = MESSAGE.equals(bytes);
      try {
        const length = messageBytes(bytes);
        if (length !== undefined) expect(length).toBeLessThanOrEqual(MESSAGE_BYTES_MAX);
        exchange.read("connecting", bytes);
        expect(isTheMessage).toBe(true);
      } catch (thrown) {
        if (!(thrown instanceof ProtocolError)) throw thrown;
        expect(isTheMessage).toBe(false);
      }
    }),
    { numRuns },
  );
});
