// A compiler that is run over and over: short processes, fresh memory, a file system's cache.

import type { Scenario } from "../model.ts";
import { clientActivity } from "./client-activity.ts";
import { AFTER_MS, PROGRESS_PORT, READY_TIMEOUT_MS, startProgress, throughputMetrics } from "./progress.ts";

/** A program of the lab that is in the image as source, too. */
const COMMAND = "gcc -O1 -c /lab/src/lab/guest/loop.c -o /tmp/loop.o";
/** A compiler that is run for the first time is read from disk, and translated by an emulator. */
const WARM_UP_RUNS = 3;
const WARM_UP_TIMEOUT_MS = 120_000;

export const compile: Scenario = {
  name: "compile",
  title: "Compiler",
  description:
    "A C compiler run over and over in the guest: most of the pages that it dirties are new ones, so that there is little for " +
    "delta to gain.",
  guest: { memoryMiB: 1024, vcpus: 1 },
  smoke: { guest: { memoryMiB: 256, vcpus: 1 }, parameters: {} },
  parameters: {},
  warmParameters: [],
  metrics: throughputMetrics({ title: "files compiled", unit: "1/s" }),
  async warmUp({ guest }) {
    for (let run = 0; run < WARM_UP_RUNS; run++) await guest.run(COMMAND, WARM_UP_TIMEOUT_MS);
  },
  async begin(stage) {
    await stage.guest.start(`/lab/bin/loop ${PROGRESS_PORT} 0 '${COMMAND}'`, "/tmp/loop.log");
    const client = await startProgress(stage, {
      throughput: { field: "runs", kind: "counter", name: "files compiled", unit: "1/s" },
      failures: { field: "failedRuns", words: "files could not be compiled" },
      // A file takes about a second under emulation.
      beforeMs: 8000,
      stepMs: 2000,
    });
    await client.ready(READY_TIMEOUT_MS);
    return clientActivity(client, AFTER_MS);
  },
};
