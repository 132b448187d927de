// A thread that samples a guest's memory once and posts the model: the migration that goes on beside it is not kept
// waiting by that.

import { parentPort, workerData } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import type { GuestMemoryPlace } from "../../hypervisor/qemu/guest-memory.ts";
import { samplePlace } from "./sample.ts";

export interface SampleWorkerData {
  place: GuestMemoryPlace;
  samplePages: number;
  spanMs: number;
}

assert(parentPort !== null, "runs in a worker thread");
const { place, ...how } = workerData as SampleWorkerData;
parentPort.postMessage(await samplePlace(place, how));
