// A thread that codes batches, for as long as it lives: takes a job from the ring, does it, sleeps when there is
// none. Ended by the main thread's terminate(). A mistake of ours ends it too, and the main thread hears of it.

import { parentPort, workerData } from "node:worker_threads";
import { assert } from "../base/assert.ts";
import type { BatchSlot } from "../codec/entropy/batch-coder.ts";
import { BatchJobs } from "../codec/entropy/batch-job.ts";
import { loadKernel } from "../kernel/kernel.ts";
import { KernelMemory } from "../kernel/memory.ts";
import { BatchRing, type JobHandler } from "./batch-ring.ts";

export interface BatchWorkerData {
  memory: WebAssembly.Memory;
  ring: SharedArrayBuffer;
  slots: readonly BatchSlot[];
  lz4TableAddress: number;
}

/** What it posts. */
export type BatchWorkerMessage = "ready" | "ended";

assert(parentPort !== null, "runs in a worker thread");
const { memory: wasm, ring: buffer, slots, lz4TableAddress } = workerData as BatchWorkerData;
const memory = new KernelMemory(wasm);
const jobs = new BatchJobs(memory, loadKernel(memory), lz4TableAddress, () => performance.now());
const ring = new BatchRing(slots.length, buffer);
const handler: JobHandler = {
  encode: (slot, rawBytes, codecId, level) => jobs.encode(slots[slot]!, rawBytes, codecId, level),
  decode: (slot, codedBytes, codecId, rawBytes, rawChecksum) =>
    jobs.decode(slots[slot]!, codedBytes, codecId, rawBytes, rawChecksum),
};

jobs.warmUp();
parentPort.postMessage("ready" satisfies BatchWorkerMessage);
for (;;) {
  const ended = ring.run(ring.take(), handler);
  if (ended) parentPort.postMessage("ended" satisfies BatchWorkerMessage);
}
