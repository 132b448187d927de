// What must be true of every migration, however it ended.

import { expect } from "vitest";
import type { VmWhere } from "../../src/base/errors.ts";
import type { Migration } from "./simulated-migration.ts";

/**
 * Never two guests; COMMIT only after the source hypervisor had completed, and never a guest at the source after it;
 * each side says the truth about where the VM is; and before the point of no return the guest goes on at the source,
 * unless `sourceIsLost`: its hypervisor does not do what it is told.
 */
export function expectTruth(migration: Migration, sourceIsLost = false): void {
  const { world, outgoing, incoming, sourceOutcome, destinationOutcome, committedAt } = migration;
  const story = `${world.history.join(", ")}; source says ${JSON.stringify(sourceOutcome)}, destination ${JSON.stringify(destinationOutcome)}`;
  expect(world.violated, story).toBe(false);
  expect(migration.committedTooEarly, story).toBe(false);
  if (committedAt !== undefined) expect(world.history.slice(committedAt), story).not.toContain("source runs");
  // A destination that starts by itself: the source is out of the question before it can, where that can be seen.
  const startsByItself = committedAt === undefined && world.history.includes("destination runs");
  const isOpaque = migration.sourceRecord.events.some(({ type }) => type === "opaque");
  // In post-copy it does not resume by itself anyway.
  if (startsByItself && !isOpaque && !outgoing.isPostcopy) expect(outgoing.committedInTime, story).toBe(true);
  const running = [...world.running].join();
  const truth: Record<VmWhere, boolean> = {
    "running on source": running === "source",
    "paused on source": running === "" && incoming?.discarded !== false,
    "running on destination": running === "destination",
    "paused on destination": running === "" && incoming?.discarded === false,
    "with the destination": running !== "source" && incoming?.discarded !== true,
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
  if (!wasCommitted && !sourceIsLost) expect(running, story).toBe("source");
  if (sourceOutcome!.outcome === "completed") expect(outgoing.end, story).toEqual({ outcome: "completed" });
  const { outcome, vm } = sourceOutcome!;
  expect(migration.sourceRecord.events.at(-1)).toMatchObject({ type: "summary", outcome, vm });
}
