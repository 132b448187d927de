// Any bytes from whoever comes to a pairing: a message by the code, or one ProtocolError. FUZZ_RUNS sets how many.

import { test } from "vitest";
import { fuzz, fuzzRuns, must, outcomeOf } from "../../../test/support/fuzzing.ts";
import { ProtocolError } from "../../base/errors.ts";
import { MESSAGE_BYTES_MAX, messageBytes, PairingExchange } from "./exchange.ts";

const runs = fuzzRuns(5000);
const exchange = await PairingExchange.over({
  code: "K7QM-2XPD-9HTV-4WRC",
  binding: Buffer.alloc(32, 7),
  fingerprints: { listening: "aa".repeat(32), connecting: "bb".repeat(32) },
});
const MESSAGE = exchange.message("connecting", "host1.example");

test("any bytes, and a message with any damage, are refused with a ProtocolError", () => {
  fuzz("pairing", { seeds: [MESSAGE], runs, words: ["{", "}", '"', "null", "[]", "\\u0000"] }, (bytes) => {
    const isTheMessage = MESSAGE.equals(bytes);
    try {
      const length = messageBytes(Buffer.from(bytes));
      if (length !== undefined) must(length <= MESSAGE_BYTES_MAX, "a message has a limit");
      exchange.read("connecting", Buffer.from(bytes));
      must(isTheMessage, "only the message itself is taken");
      return "taken";
    } catch (thrown) {
      if (!(thrown instanceof ProtocolError)) throw thrown;
      must(!isTheMessage, "the message itself is taken");
      return outcomeOf(thrown.message);
    }
  });
});
