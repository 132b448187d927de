// A thread that samples a guest's memory once, says what it has seen, and then answers questions about what is to be expected of it:
// the migration that goes on beside it is kept waiting by neither.

import { parentPort, workerData } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import type { GuestMemoryPlace } from "../../hypervisor/qemu/guest-memory.ts";
import { type PlanQuestion, planMigration } from "../../planner/forecast.ts";
import { type RemoteMemoryPlace, remoteMemory } from "./remote-memory.ts";
import { type HowSampled, sampleMemory, samplePlace } from "./sample.ts";

export interface SampleWorkerData {
  /** Of another process, or of a thread that answers at the other end of a port. */
  place: GuestMemoryPlace | RemoteMemoryPlace;
  how: HowSampled;
}

/** What it is asked once it has sampled the guest; or at any time, to end. */
export type SampleWorkerMessage = Omit<PlanQuestion, "guest"> | "end";

assert(parentPort !== null, "runs in a worker thread");
const { place, how } = workerData as SampleWorkerData;
const port = parentPort;
const sampling = "port" in place ? sampleMemory(remoteMemory(place), how) : samplePlace(place, how);
port.on("message", async (message: SampleWorkerMessage) => {
  if (message === "end") process.exit();
  port.postMessage(planMigration({ ...message, guest: await sampling }));
});
port.postMessage(await sampling);
