// What an engine works with, made once for each migration: its home memory, this thread's kernel in it, and
// workers that code its batches.

import { systemClock } from "../base/clock.ts";
import { type Kernel, loadKernel } from "../kernel/kernel.ts";
import { KernelMemory } from "../kernel/memory.ts";
import { WorkerBatchCoder } from "../worker/worker-batch-coder.ts";

/** Batches under way at once: enough for every worker to have a next one, while others are with the sockets. */
const SLOT_COUNT = 8;

export interface Home {
  readonly memory: KernelMemory;
  readonly kernel: Kernel;
  readonly clock: typeof systemClock;
}

export function makeHome(): Home {
  const memory = new KernelMemory();
  return { memory, kernel: loadKernel(memory), clock: systemClock };
}

/** To be closed when the migration is over. Its workers start when there is enough to code: a fast link needs none. */
export function makeBatchCoder({ memory, kernel }: Home): WorkerBatchCoder {
  return new WorkerBatchCoder(memory, kernel, { slotCount: SLOT_COUNT });
}
