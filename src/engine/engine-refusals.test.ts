// Whole migrations in which one of the parts does not do its part: refuses, fails, falls silent, or sends what
// cannot be understood.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream, type StreamPlan } from "../../test/support/arbitrary-stream.ts";
import { expectTruth } from "../../test/support/expect-truth.ts";
import { Migration, type MigrationSetup } from "../../test/support/simulated-migration.ts";

const PLAN: StreamPlan = {
  ...fc.sample(arbitraryPlan(), { numRuns: 1, seed: 12 })[0]!,
  machine: "pc",
  returnPath: true,
  switchoverStart: true,
  devicePayload: new Uint8Array(20_000).fill(3),
};
const stream = buildGuestStream(PLAN);
const base = { stream, link: { bytesPerSecond: 1e6, delayMs: 5 }, cacheBytes: 1 << 22 };
const modes = ["direct", "tunnel"] as const;

async function migrate(setup: Partial<MigrationSetup> & Pick<MigrationSetup, "mode">): Promise<Migration> {
  return new Migration({ ...base, ...setup }).run();
}

const onSource = (code: string) => ({ outcome: "failed", vm: "running on source", error: { code } });

describe.each(modes)("%s mode:", (mode) => {
  test("a source hypervisor that refuses to begin keeps its guest", async () => {
    const migration = await migrate({ mode, outgoing: { refuses: true } });
    expectTruth(migration);
    expect(migration.sourceOutcome).toMatchObject(onSource("INTERNAL"));
  });

  test.each([0, 0.01, 0.3, 0.8, 1])(
    "a source hypervisor that fails at %d of its stream keeps its guest",
    async (failsAt) => {
      const migration = await migrate({ mode, outgoing: { failsAt } });
      if (mode === "direct" && migration.phase === "committed") return;
      expectTruth(migration, true);
      expect(migration.sourceOutcome?.outcome).toBe("failed");
      expect(migration.outgoing.end?.outcome).toBe("failed");
    },
  );

  test("a stream that is none is refused before anything was sent", async () => {
    const migration = await migrate({ mode, outgoing: { corruptAt: 2 } });
    expectTruth(migration);
    expect(migration.sourceOutcome).toMatchObject(onSource("STREAM_CORRUPT"));
    expect(migration.loader?.blocks ?? []).toEqual([]);
  });

  test("a stream that breaks off its grammar in the middle leaves the guest where it was", async () => {
    // The section id in the header of the first section behind START.
    const corruptAt = stream.sectionEnds[0]! + 2;
    const migration = await migrate({ mode, outgoing: { corruptAt } });
    expectTruth(migration);
    expect(migration.sourceOutcome?.vm).toBe("running on source");
  });

  test.each([false, true])(
    "a destination that fails to load leaves the guest at the source (it says why: %s)",
    async (saysWhy) => {
      const migration = await migrate({ mode, incoming: { failsToLoad: true, saysWhy } });
      // A stock destination that only closes the connection may have been killed a moment after it began to run.
      const isUnknown = mode === "direct" && !saysWhy;
      expectTruth(migration, isUnknown);
      expect(migration.sourceOutcome).toMatchObject({
        outcome: "failed",
        vm: isUnknown ? "unknown" : "running on source",
      });
    },
  );

  test("a destination that never says that it has loaded does not hold the guest for ever", async () => {
    const migration = await migrate({ mode, incoming: { isMute: true } });
    expectTruth(migration);
    expect(migration.sourceOutcome?.outcome).toBe("failed");
  });

  test("a source hypervisor that does not answer to a cancel is reported as unknown", async () => {
    const action = (migration: Migration) => void migration.source.cancel();
    const when = (migration: Migration) => migration.sourceEnd.writtenBytes > 5000;
    const migration = await migrate({ mode, outgoing: { isStuck: true }, disturb: { when, action } });
    const error = { phase: "iterating", vm: "unknown" };
    expect(migration.sourceOutcome).toMatchObject({ outcome: "cancelled", vm: "unknown", error });
    expect(migration.world.violated).toBe(false);
  });
});

describe("tunnel mode:", () => {
  test("a destination that refuses leaves the guest at the source and its own hypervisor alone", async () => {
    const migration = await migrate({ mode: "tunnel", refused: true });
    expectTruth(migration);
    expect(migration.sourceOutcome).toMatchObject(onSource("HYPERVISOR_INCOMPATIBLE"));
    expect(migration.incoming?.side).toBeUndefined();
    expect(migration.sourceFrames).toEqual(["hello"]);
  });

  test("a destination hypervisor that cannot take the guest in is said to the source as a refusal", async () => {
    const migration = await migrate({ mode: "tunnel", incoming: { refuses: true } });
    expectTruth(migration);
    expect(migration.sourceOutcome).toMatchObject(onSource("PROTOCOL_REFUSED"));
    expect(migration.sourceOutcome?.error?.message).toContain("no memory");
  });

  test("a destination that cannot let the guest run after COMMIT has it paused, and the source does not run it", async () => {
    const migration = await migrate({ mode: "tunnel", incoming: { failsToResume: true } });
    expectTruth(migration);
    expect(migration.destinationOutcome).toMatchObject({ outcome: "failed", vm: "paused on destination" });
    expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", vm: "unknown" });
  });

  test("a frame that is damaged on the way ends the migration with the guest at the source", async () => {
    for (const at of [3, 40, 200, 5000]) {
      const migration = new Migration({ ...base, mode: "tunnel" });
      migration.sourceEnd.damageAt(at);
      await migration.run();
      expectTruth(migration);
      expect(migration.sourceOutcome?.vm).toBe("running on source");
    }
  });

  // The return path of such a stream cannot be read: the verdict that COMMIT otherwise waits for is never seen.
  test("a stream encrypted by the source hypervisor itself is carried over as it is", async () => {
    const encrypted = Buffer.concat([Buffer.of(0x16, 3, 1), new Uint8Array(30_000).fill(0x5c)]);
    const opaque = { ...stream, bytes: encrypted, stopsAt: 20_000 };
    const migration = await migrate({
      mode: "tunnel",
      stream: opaque,
      control: "limit",
      incoming: { loadsAnything: encrypted.length },
    });
    expectTruth(migration);
    expect(migration.sourceOutcome).toMatchObject({ outcome: "completed" });
  });
});

// Nothing in such a stream says when the guest is handed over: that it stands still has to do.
test("direct mode: a link that breaks when an uninterpreted stream may have been loaded never leaves two guests", async () => {
  const opaque = buildGuestStream({ ...PLAN, unknown: "command", unknownSection: 1 });
  const action = (migration: Migration) => migration.sourceEnd.cut();
  const when = (migration: Migration) => migration.isLoaded;
  const migration = await migrate({ mode: "direct", stream: opaque, disturb: { when, action } });
  expectTruth(migration);
});
