import { describe, expect, test } from "vitest";
import { batchCoderSuite } from "../../../test/support/batch-coder-suite.ts";
import { fillPayload } from "../../../test/support/batch-payloads.ts";
import { loadKernel } from "../../kernel/kernel.ts";
import { KernelMemory } from "../../kernel/memory.ts";
import { ENTROPY_ZSTD } from "./entropy-coder.ts";
import { InlineBatchCoder } from "./inline-batch-coder.ts";

describe("InlineBatchCoder, at once", () => {
  batchCoderSuite((memory, slotCount) => {
    return new InlineBatchCoder(memory, loadKernel(memory), { slotCount, nowMs: () => performance.now() });
  });
});

describe("InlineBatchCoder, deferred", () => {
  batchCoderSuite((memory, slotCount) => {
    const defer = (callback: () => void) => void setImmediate(callback);
    return new InlineBatchCoder(memory, loadKernel(memory), {
      slotCount,
      nowMs: () => performance.now(),
      defer,
    });
  });
});

test("deferred results come in order even when what defers them has none", () => {
  const memory = new KernelMemory();
  const waiting: (() => void)[] = [];
  const defer = (callback: () => void) => void waiting.push(callback);
  const coder = new InlineBatchCoder(memory, loadKernel(memory), { slotCount: 3, nowMs: () => 0, defer });
  const order: number[] = [];
  for (let job = 0; job < 3; job++) {
    const slot = coder.acquire();
    fillPayload(memory.bytes(coder.slots[slot]!.rawAddress, 1000), "text", job + 1);
    coder.encode(slot, 1000, ENTROPY_ZSTD, 1, () => order.push(job));
  }
  expect(order).toEqual([]);
  for (const callback of waiting.reverse()) callback();
  expect(order).toEqual([0, 1, 2]);
});
