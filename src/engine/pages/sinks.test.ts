// What both sinks have in common: bytes that are carried on as they are.

import { describe, expect, test } from "vitest";
import { randomBytes } from "../../../test/support/arbitrary-stream.ts";
import { makeHome } from "../../../test/support/engine-parts.ts";
import { InlineBatchCoder } from "../../codec/entropy/inline-batch-coder.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { BatchSink } from "./batch-sink.ts";
import { StreamSink } from "./stream-sink.ts";

const NO_CODING = { delta: undefined, window: undefined, windowPages: 0, baselinePages: 0 };
const BYTES = 100_000;
const someBytes = () => Uint8Array.from({ length: BYTES }, randomBytes(1));

const SINKS: [
  string,
  (memory: KernelMemory, kernel: Kernel) => { sink: StreamSink | BatchSink; read: () => Buffer },
][] = [
  [
    "a stream",
    (memory, kernel) => {
      const sink = new StreamSink(memory, kernel);
      return { sink, read: () => Buffer.from(sink.take().bytes) };
    },
  ],
  [
    "batches",
    (memory, kernel) => {
      const coder = new InlineBatchCoder(memory, kernel, { slotCount: 3, nowMs: () => 0 });
      const sink = new BatchSink(memory, kernel, coder, () => NO_CODING);
      const read = () => {
        sink.seal();
        const { slot, rawBytes } = sink.takeSealed()!;
        return Buffer.from(memory.bytes(coder.slots[slot]!.rawAddress, rawBytes));
      };
      return { sink, read };
    },
  ],
];

describe.each(SINKS)("bytes that are carried on, to %s,", (_name, make) => {
  test("are copied by the kernel where they lie in the home memory, however that has grown since", () => {
    const { memory, kernel } = makeHome();
    let copied = 0;
    const counting = {
      ...kernel,
      copy: (target: number, source: number, bytes: number) => {
        copied += bytes;
        kernel.copy(target, source, bytes);
      },
    };
    const input = memory.bytes(memory.allocate(BYTES), BYTES);
    input.set(someBytes());
    // As a page cache makes it.
    memory.allocate(64 * 1024 * 1024);
    const { sink, read } = make(memory, counting);
    sink.verbatim(input, 1, BYTES);
    expect(copied).toBe(BYTES - 1);
    expect(read().equals(input.subarray(1))).toBe(true);
  });

  test("may come from anywhere else", () => {
    const { memory, kernel } = makeHome();
    const { sink, read } = make(memory, kernel);
    const elsewhere = Buffer.from(someBytes());
    sink.verbatim(elsewhere, 0, BYTES);
    expect(read().equals(elsewhere)).toBe(true);
  });
});
