// Coded batches that were valid once: the batch as it was, or one ProtocolError; whatever is in between is found by the
// checksum. Nothing is written behind the place of a batch. FUZZ_RUNS sets how many.

import { expect, test } from "vitest";
import { fuzz, fuzzRuns, must, outcomeOf } from "../../../test/support/fuzzing.ts";
import { DeltaveeError, ProtocolError } from "../../base/errors.ts";
import { loadKernel } from "../../kernel/kernel.ts";
import { KernelMemory } from "../../kernel/memory.ts";
import type { DecodedBatch } from "./batch-coder.ts";
import { ENTROPY_CODECS, type EntropyCodecId } from "./entropy-coder.ts";
import { InlineBatchCoder } from "./inline-batch-coder.ts";

const runs = fuzzRuns(2000);
const RAW = Buffer.from("one dirty page and another dirty page, and what they have in common ".repeat(40));

test.each(ENTROPY_CODECS)("$name", ({ id, levelMin, name }) => {
  const memory = new KernelMemory();
  const coder = new InlineBatchCoder(memory, loadKernel(memory), { slotCount: 2, nowMs: () => 0 });
  const slot = coder.acquire();
  const { rawAddress, codedAddress } = coder.slots[slot]!;
  let valid = Buffer.alloc(0);
  let checksum = 0;
  memory.bytes(rawAddress, RAW.length).set(RAW);
  coder.encode(slot, RAW.length, id as EntropyCodecId, levelMin, (result) => {
    if (result instanceof DeltaveeError) throw result;
    valid = Buffer.from(memory.bytes(result.codedAddress, result.codedBytes));
    checksum = result.rawChecksum;
  });
  const guard = coder.acquire();
  const other = memory.bytes(coder.slots[guard]!.rawAddress, RAW.length).fill(0x5a);
  let refused = 0;
  fuzz(name, { seeds: [valid], runs, randomBytesMax: 300 }, (coded, random) => {
    if (coded.length === 0) return undefined;
    const rawBytes = random.chance(0.8) ? RAW.length : random.int(1, 1 << 20);
    const codecId = random.chance(0.9) ? id : random.int(0, 8);
    memory.bytes(codedAddress, coded.length).set(coded);
    let result: DecodedBatch | DeltaveeError | undefined;
    coder.decode(slot, coded.length, codecId, rawBytes, checksum, (decoded) => {
      result = decoded;
    });
    if (result instanceof DeltaveeError) {
      if (!(result instanceof ProtocolError)) throw result;
      refused++;
      return outcomeOf(result.message);
    }
    must(rawBytes === RAW.length, "what is taken is as long as it was");
    must(RAW.equals(memory.bytes(result!.rawAddress, rawBytes)), "what is taken is what it was");
    return "taken";
  });
  expect(other.every((byte) => byte === 0x5a)).toBe(true);
  // Damage is found by the checksum, where not by the coder.
  expect(refused).toBeGreaterThan(runs / 2);
  void coder.close();
});
