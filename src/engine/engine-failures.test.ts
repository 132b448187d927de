// Whole migrations in which something goes wrong, at every moment at which it may: never do two guests run, the
// outcome says the truth about where the VM is, and before the point of no return the guest goes on at the source.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream, type StreamPlan } from "../../test/support/arbitrary-stream.ts";
import { Migration } from "../../test/support/simulated-migration.ts";
import type { VmWhere } from "../base/errors.ts";

const PLAN: StreamPlan = {
  ...fc.sample(arbitraryPlan(), { numRuns: 1, seed: 12 })[0]!,
  machine: "pc",
  returnPath: true,
  switchoverStart: true,
  devicePayload: new Uint8Array(20_000).fill(3),
};
const stream = buildGuestStream(PLAN);
/** Slow enough that every moment lasts. */
const link = { bytesPerSecond: 1e6, delayMs: 5, bufferBytes: 4096, chunkBytes: 1000 };
const base = { stream, link, cacheBytes: 1 << 22 };

type When = (migration: Migration) => boolean;
const isIterating: When = (migration) =>
  migration.sourceEnd.writtenBytes > 5000 && !migration.outgoing.stopped;
const isInLastPass: When = (migration) => migration.outgoing.stopped;

const moments: { direct: Record<string, When>; tunnel: Record<string, When> } = {
  direct: {
    "at once": () => true,
    "while it iterates": isIterating,
    "in the last pass": isInLastPass,
    "while the device state is under way": (migration) =>
      migration.phase === "committed" && !migration.isLoaded,
    "when the destination has all of it": (migration) => migration.isLoaded,
  },
  tunnel: {
    "at once": () => true,
    "when welcomed": (migration) => migration.destinationFrames.includes("welcome"),
    "while it iterates": isIterating,
    "in the last pass": isInLastPass,
    "when the destination has all of it": (migration) => migration.isLoaded,
    "when LOADED is under way": (migration) => migration.destinationFrames.includes("loaded"),
    "when the source hypervisor has completed": (migration) => migration.outgoing.end !== undefined,
    "when COMMIT is under way": (migration) => migration.sourceFrames.includes("commit"),
    "when the guest runs at the destination": (migration) => migration.world.running.has("destination"),
  },
};

const disturbances: Record<string, (migration: Migration) => void> = {
  "the connection breaks": ({ sourceEnd }) => sourceEnd.cut(),
  "the link goes silent": ({ sourceEnd }) => sourceEnd.blackOut(),
  "the destination closes the connection": ({ destinationEnd }) => destinationEnd.destroy(),
  "the operator cancels": ({ source }) => void source.cancel(),
  "the operator cancels at the destination": ({ destination }) => destination?.cancel(),
  "the source hypervisor gives up": ({ outgoing }) => void outgoing.fail("the disk is full"),
};

function expectTruth(migration: Migration): void {
  const { world, outgoing, incoming, sourceOutcome, destinationOutcome, committedAt } = migration;
  const story = `${world.history.join(", ")}; source says ${JSON.stringify(sourceOutcome)}, destination ${JSON.stringify(destinationOutcome)}`;
  expect(world.violated, story).toBe(false);
  expect(migration.committedTooEarly, story).toBe(false);
  if (committedAt !== undefined) expect(world.history.slice(committedAt), story).not.toContain("source runs");
  const running = [...world.running].join();
  const truth: Record<VmWhere, boolean> = {
    "running on source": running === "source",
    "paused on source": running === "" && incoming?.discarded !== false,
    "running on destination": running === "destination",
    "paused on destination": running === "" && incoming?.discarded === false,
    unknown: running !== "source",
  };
  expect(truth[sourceOutcome!.vm], story).toBe(true);
  if (destinationOutcome !== undefined) {
    // It cannot see the source: of its own side what it says must be true.
    const { vm } = destinationOutcome;
    if (vm.endsWith("source")) expect(incoming!.discarded || incoming!.side === undefined, story).toBe(true);
    if (vm === "running on source") expect(running, story).toBe("source");
    if (vm === "paused on destination") expect(incoming!.discarded, story).toBe(false);
    expect(vm === "running on destination", story).toBe(world.running.has("destination"));
  }
  // Before the point of no return, and unless the hypervisor itself does not answer, the guest goes on here.
  const wasCommitted = migration.sourceRecord.events.some(
    (event) => event.type === "phase" && event.phase === "committed",
  );
  if (!wasCommitted) expect(running, story).toBe("source");
  if (sourceOutcome!.outcome === "completed") expect(outgoing.end, story).toEqual({ outcome: "completed" });
  const { outcome, vm } = sourceOutcome!;
  expect(migration.sourceRecord.events.at(-1)).toMatchObject({ type: "summary", outcome, vm });
}

for (const mode of ["direct", "tunnel"] as const) {
  describe.each(Object.entries(disturbances))(`${mode} mode: %s`, (_what, action) => {
    test.each(Object.entries(moments[mode]))("%s", async (_moment, when) => {
      const migration = await new Migration({ ...base, mode, disturb: { when, action } }).run();
      expectTruth(migration);
    });
  });
}
