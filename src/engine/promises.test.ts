// Promises about the whole migration, kept by the engine: at whatever moment it gives up the guest goes on at the
// source, and nowhere else; and once the guest has been stopped it does not give up any more.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream, type StreamPlan } from "../../test/support/arbitrary-stream.ts";
import { expectTruth } from "../../test/support/expect-truth.ts";
import { Migration, type MigrationSetup } from "../../test/support/simulated-migration.ts";
import { parsed } from "../base/schema.ts";
import { recordEventSchema } from "../record/schema.ts";

const PLAN: StreamPlan = {
  ...fc.sample(arbitraryPlan(), { numRuns: 1, seed: 12 })[0]!,
  machine: "pc",
  returnPath: true,
  switchoverStart: true,
  devicePayload: new Uint8Array(200_000).fill(3),
};
/** Some 30 ms until the guest is stopped, 200 ms more for its device state. */
const link = { bytesPerSecond: 1e6, delayMs: 5, bufferBytes: 4096, chunkBytes: 1000 };
const base = { stream: buildGuestStream(PLAN), link, cacheBytes: 1 << 22 };

const move = (mode: "direct" | "tunnel", promises: MigrationSetup["promises"]) =>
  new Migration({ ...base, mode, ...(promises === undefined ? {} : { promises }) }).run();

describe.each(["direct", "tunnel"] as const)("%s mode", (mode) => {
  test.each([
    ["--max-time", { timeMsMax: 15 }, "MAX_TIME_REACHED"],
    ["--max-bytes", { wireBytesMax: 20_000 }, "MAX_BYTES_REACHED"],
  ])("at %s the guest goes on at the source, and the record says why", async (_name, promises, code) => {
    const migration = await move(mode, promises);
    expect(migration.sourceOutcome).toMatchObject({
      outcome: "failed",
      vm: "running on source",
      error: { code, vm: "running on source" },
    });
    expect(migration.world.history).toEqual(["source runs"]);
    expectTruth(migration);
    const { events } = migration.sourceRecord;
    expect(events).toContainEqual(
      expect.objectContaining({ type: "decision", subject: "convergence", choice: "give up" }),
    );
    expect(events.at(-1)).toMatchObject({ type: "summary", outcome: "failed", vm: "running on source" });
    for (const event of events) parsed(recordEventSchema, event);
  });

  test("however long it was to take, it has moved or it has not", async () => {
    const outcomes = new Set<string>();
    for (let timeMsMax = 5; timeMsMax < 400; timeMsMax += 10) {
      const migration = await move(mode, { timeMsMax });
      expectTruth(migration);
      const { outcome, error } = migration.sourceOutcome!;
      outcomes.add(outcome);
      if (outcome === "failed") {
        expect(error?.code).toBe("MAX_TIME_REACHED");
        // Who is stopped already is not called back.
        expect(migration.world.history).toEqual(["source runs"]);
      }
    }
    expect([...outcomes].sort()).toEqual(["completed", "failed"]);
  });

  test("promises that are kept change nothing", async () => {
    const migration = await move(mode, { timeMsMax: 60_000, wireBytesMax: 1e9, onStall: "abort" });
    expect(migration.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
    const summary = migration.sourceRecord.events.at(-1);
    expect(summary).toMatchObject({ type: "summary", outcome: "completed" });
  });
});
