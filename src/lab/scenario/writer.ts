// The paced writer: pages are dirtied at a set rate, and a set number of bytes changes in each, to values that were not
// there before. The two axes on which it depends whether delta pays; and it can prove what it wrote (lab/guest/writer.c).

import type { Scenario } from "../model.ts";
import { numberOf, wordOf } from "../parameters.ts";
import { clientActivity } from "./client-activity.ts";
import { AFTER_MS, PROGRESS_PORT, READY_TIMEOUT_MS, startProgress, throughputMetrics } from "./progress.ts";

const PAGE_BYTES = 4096;
/** What the guest needs beside the working set: kernel, programs, the writer's own records. */
const GUEST_RESERVE_MIB = 96;

export const writer: Scenario = {
  name: "writer",
  title: "Paced writer",
  description:
    "A program that dirties pages at a set rate and changes a set number of bytes in each to new values: favours nobody, " +
    "as few bytes per page are delta's case and 4096 are nobody's.",
  guest: { memoryMiB: 1024, vcpus: 1 },
  smoke: {
    guest: { memoryMiB: 256, vcpus: 1 },
    parameters: {
      dirtyPagesPerSecond: 1000,
      bytesPerPage: 64,
      workingSetMiB: 32,
      contentKind: "random",
      spread: "run",
    },
  },
  parameters: {
    /** As many pages, each another one until all of the working set was written. */
    dirtyPagesPerSecond: 5000,
    bytesPerPage: 64,
    workingSetMiB: 256,
    /** random: incompressible. text: English words. */
    contentKind: "random",
    /** run: the bytes lie side by side. scattered: evenly over the page. */
    spread: "run",
  },
  warmParameters: [],
  metrics: [
    ...throughputMetrics({ title: "pages written", unit: "pages/s" }),
    { name: "missedShare", title: "pages not written in time", unit: "share", isLowerBetter: true },
    { name: "damagedPages", title: "damaged pages", unit: "", isLowerBetter: true },
  ],
  warmUp: async () => {},
  async begin(stage, parameters) {
    const workingSetMiBMax = stage.shape.memoryMiB - GUEST_RESERVE_MIB;
    const words = [
      PROGRESS_PORT,
      numberOf(parameters, "workingSetMiB", { min: 1, max: workingSetMiBMax }),
      numberOf(parameters, "dirtyPagesPerSecond", { max: 1_000_000 }),
      numberOf(parameters, "bytesPerPage", { min: 1, max: PAGE_BYTES }),
      wordOf(parameters, "contentKind", ["random", "text"]),
      wordOf(parameters, "spread", ["run", "scattered"]),
    ];
    await stage.guest.start(`/lab/bin/writer ${words.join(" ")}`, "/tmp/writer.log");
    const client = await startProgress(stage, {
      throughput: { field: "pages", kind: "counter", name: "pages written", unit: "pages/s" },
      missedField: "missedPages",
      verify: true,
    });
    await client.ready(READY_TIMEOUT_MS);
    return clientActivity(client, AFTER_MS);
  },
};
