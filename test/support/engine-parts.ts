// What an engine works with, on the calling thread and at once: for simulations on a virtual clock.

import type { Clock } from "../../src/base/clock.ts";
import { InlineBatchCoder } from "../../src/codec/entropy/inline-batch-coder.ts";
import { loadKernel } from "../../src/kernel/kernel.ts";
import { KernelMemory } from "../../src/kernel/memory.ts";

const SLOT_COUNT = 6;

export function makeHome() {
  const memory = new KernelMemory();
  return { memory, kernel: loadKernel(memory) };
}

export function makeParts(clock: Clock) {
  const home = makeHome();
  const nowMs = () => clock.nowMs();
  return { ...home, coder: new InlineBatchCoder(home.memory, home.kernel, { slotCount: SLOT_COUNT, nowMs }) };
}
