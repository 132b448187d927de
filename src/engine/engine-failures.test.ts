// Whole migrations in which something goes wrong, at every moment at which it may: never do two guests run, the
// outcome says the truth about where the VM is, and before the point of no return the guest goes on at the source.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream, type StreamPlan } from "../../test/support/arbitrary-stream.ts";
import { expectTruth } from "../../test/support/expect-truth.ts";
import { Migration } from "../../test/support/simulated-migration.ts";

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

/** A stock destination starts by itself: there is nothing that could keep a source from taking its guest back too. */
const isBeyondUs = (mode: string, what: string, moment: string): boolean =>
  mode === "direct" &&
  what === "the source hypervisor gives up" &&
  ["while the device state is under way", "when the destination has all of it"].includes(moment);

for (const mode of ["direct", "tunnel"] as const) {
  describe.each(Object.entries(disturbances))(`${mode} mode: %s`, (what, action) => {
    const ours = Object.entries(moments[mode]).filter(([moment]) => !isBeyondUs(mode, what, moment));
    test.each(ours)("%s", async (_moment, when) => {
      const migration = await new Migration({ ...base, mode, disturb: { when, action } }).run();
      expectTruth(migration);
    });
  });
}

test.each([
  ["direct", "while the device state is under way", "the operator cancels"],
  ["direct", "when the destination has all of it", "the operator cancels"],
  ["tunnel", "when COMMIT is under way", "the operator cancels"],
  ["tunnel", "when LOADED is under way", "the operator cancels at the destination"],
  ["tunnel", "when COMMIT is under way", "the operator cancels at the destination"],
] as const)("%s mode, %s: too late, %s in vain", async (mode, moment, what) => {
  const when = (moments[mode] as Record<string, When>)[moment]!;
  const action = disturbances[what]!;
  const migration = await new Migration({ ...base, mode, disturb: { when, action } }).run();
  expect(migration.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
  expect(migration.source.cancel()).toBe(false);
});

test("a guest that the source hypervisor has let go of, with COMMIT not sent yet, is resumed at the source", async () => {
  const migration = await new Migration({
    ...base,
    mode: "tunnel",
    outgoing: { endToldMs: 100 },
    disturb: {
      when: (migration) => migration.outgoing.end !== undefined,
      action: (migration) => migration.sourceEnd.cut(),
    },
  }).run();
  expect(migration.sourceFrames).not.toContain("commit");
  expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", vm: "running on source" });
  expect(migration.world.history).toEqual(["source runs", "source stops", "source runs"]);
});

test("a source hypervisor that dies when the destination has said LOADED leaves the copy to whoever looks at it", async () => {
  const migration = await new Migration({
    ...base,
    mode: "tunnel",
    disturb: {
      when: moments.tunnel["when LOADED is under way"]!,
      action: ({ outgoing }) => outgoing.die(),
    },
  }).run();
  expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", vm: "unknown" });
  expect(migration.sourceFrames).not.toContain("commit");
  // "I keep it" would be a lie, and the copy is all that is left.
  expect(migration.sourceFrames).not.toContain("abort");
  expect(migration.incoming!.discarded).toBe(false);
  expect(migration.destinationOutcome).toMatchObject({ vm: "paused on destination" });
});

test("a stopped guest in a stream that is not understood does not wait for its destination without end", async () => {
  const opaque = buildGuestStream({ ...PLAN, unknown: "command", unknownSection: 0 });
  const migration = await new Migration({
    ...base,
    mode: "tunnel",
    stream: opaque,
    incoming: { isMute: true, loadsAnything: opaque.bytes.length },
  }).run();
  expectTruth(migration);
  expect(migration.sourceOutcome).toMatchObject({ vm: "running on source", error: { code: "LINK_TIMEOUT" } });
});

test("a source hypervisor that takes the guest back when a stock destination may run it is reported as unknown", async () => {
  const when = moments.direct["when the destination has all of it"]!;
  const action = disturbances["the source hypervisor gives up"]!;
  const { sourceOutcome } = await new Migration({ ...base, mode: "direct", disturb: { when, action } }).run();
  expect(sourceOutcome).toMatchObject({ outcome: "failed", vm: "unknown" });
});

test("a mistake of ours while the switchover is judged ends the migration, not the process", async () => {
  const migration = new Migration({ ...base, mode: "tunnel" });
  migration.outgoing.limitSwitchover = () => {
    throw new Error("broken");
  };
  await migration.run();
  expect(migration.sourceOutcome).toMatchObject({
    outcome: "failed",
    vm: "running on source",
    error: { code: "INTERNAL", message: "broken" },
  });
});
