import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Phase } from "../record/schema.ts";
import { judge, type QemuView } from "./whereabouts.ts";

const answers = (status: string, migration?: string): QemuView => ({
  kind: "answers",
  running: status === "running",
  status,
  migration,
});
const source = (phase: Phase, mode: "direct" | "tunnel" = "direct", guestWasRunning = true) =>
  ({ side: "source", mode, phase, guestWasRunning }) as const;
const destination = (phase: Phase) => ({ side: "destination", mode: "tunnel", phase }) as const;
const GONE: QemuView = { kind: "gone", reason: "ENOENT" };

describe("where the guest is, and what is done about it", () => {
  test.each([
    // A source that died before it had committed: the guest is there, and goes on.
    [source("iterating"), answers("running", "failed"), "running on source", "tidy"],
    [source("iterating"), answers("running", "active"), "running on source", "cancel"],
    [source("switchover"), answers("finish-migrate", "device"), "paused on source", "cancel"],
    [source("switchover"), answers("paused", "failed"), "paused on source", "resume"],
    [source("iterating", "direct", false), answers("paused", "failed"), "paused on source", "tidy"],
    [source("iterating"), GONE, "unknown", "tidy"],
    // It had given it away, whether or not it came to say so: a person decides.
    [source("switchover", "tunnel"), answers("postmigrate", "completed"), "unknown", "decide"],
    [source("committed", "tunnel"), answers("postmigrate", "completed"), "unknown", "decide"],
    [source("switchover"), answers("postmigrate", "completed"), "unknown", "decide"],
    [source("committed"), answers("postmigrate", "completed"), "unknown", "decide"],
    [source("committed"), answers("paused", "failed"), "unknown", "decide"],
    [source("committed"), answers("finish-migrate", "device"), "unknown", "wait"],
    [source("committed"), GONE, "unknown", "tidy"],
    // The destination refused it.
    [source("committed"), answers("running", "failed"), "running on source", "tidy"],
    // In post-copy each QEMU has a part of the guest: nothing is cancelled, ended or let run.
    [source("committed"), answers("finish-migrate", "postcopy-paused"), "unknown", "decide"],
    [source("committed"), answers("finish-migrate", "postcopy-active"), "unknown", "decide"],
    [source("committed"), answers("finish-migrate", "postcopy-recover-setup"), "unknown", "decide"],
    // Before it was given away all of it is at the source, and nobody else will be told to run it.
    [source("switchover"), answers("finish-migrate", "postcopy-paused"), "paused on source", "take-back"],
    [source("switchover", "tunnel"), answers("paused", "postcopy-paused"), "paused on source", "take-back"],
    [
      source("switchover", "tunnel"),
      answers("finish-migrate", "postcopy-active"),
      "paused on source",
      "wait",
    ],
    [destination("switchover"), answers("paused", "postcopy-paused"), "unknown", "decide"],
    [destination("committed"), answers("paused", "postcopy-paused"), "unknown", "decide"],
    [undefined, answers("finish-migrate", "postcopy-paused"), "unknown", "decide"],
    [undefined, answers("inmigrate", "postcopy-active"), "unknown", "decide"],
    [undefined, answers("running", "postcopy-paused"), "running on destination", "decide"],
    [undefined, answers("paused", "postcopy-paused"), "unknown", "decide"],
    // A destination that died.
    [destination("iterating"), answers("inmigrate", "active"), "running on source", "discard"],
    [destination("iterating"), GONE, "running on source", "tidy"],
    [destination("iterating"), answers("paused", "completed"), "paused on destination", "decide"],
    [destination("switchover"), answers("paused", "completed"), "paused on destination", "decide"],
    [destination("switchover"), answers("inmigrate", "active"), "paused on destination", "decide"],
    [destination("committed"), answers("paused", "completed"), "paused on destination", "decide"],
    [destination("committed"), answers("running", "completed"), "running on destination", "tidy"],
    [destination("committed"), GONE, "unknown", "tidy"],
    // Nothing but a QEMU.
    [undefined, answers("running", "failed"), "unknown", "tidy"],
    [undefined, answers("postmigrate", "completed"), "unknown", "decide"],
    [undefined, answers("inmigrate", "active"), "unknown", "decide"],
    [undefined, answers("running", "active"), "unknown", "decide"],
    [undefined, GONE, "unknown", "unreachable"],
  ] as const)("%j, %j: %s, %s", (known, view, vm, action) => {
    expect(judge(known, view)).toMatchObject({ vm, action });
  });
});

test("a source whose QEMU has ended sends nobody back to the disks while a copy may wait at the destination", () => {
  for (const mode of ["direct", "tunnel"] as const) {
    expect(judge(source("iterating", mode), GONE).advice).toBe("Start the VM again, from its disks");
    const { advice } = judge(source("switchover", mode), GONE);
    expect(advice.startsWith("Look at the destination")).toBe(mode === "tunnel");
  }
});

test("whatever QEMU says: what may run elsewhere is not let run, and what may be all there is is not ended", () => {
  const known = fc.option(
    fc.record({
      side: fc.constantFrom("source", "destination"),
      mode: fc.constantFrom("direct", "tunnel"),
      phase: fc.constantFrom("setup", "iterating", "switchover", "committed"),
      guestWasRunning: fc.boolean(),
    }),
    { nil: undefined },
  );
  const status = fc.constantFrom(
    ...[
      "running",
      "paused",
      "prelaunch",
      "inmigrate",
      "postmigrate",
      "finish-migrate",
      "shutdown",
      "new-word",
    ],
  );
  const migration = fc.constantFrom(
    ...[
      undefined,
      "none",
      "setup",
      "active",
      "device",
      "completed",
      "failed",
      "cancelling",
      "cancelled",
      "postcopy-active",
      "postcopy-paused",
      "postcopy-recover",
      "new-word",
    ],
  );
  fc.assert(
    fc.property(known, status, migration, (entry, inStatus, inMigration) => {
      const { action, vm, explanation, advice } = judge(entry, answers(inStatus, inMigration));
      const neverLeft = entry?.side === "source" && entry.phase !== "committed" && inStatus !== "postmigrate";
      if (action === "resume" || action === "cancel") expect(neverLeft).toBe(true);
      if (inMigration?.startsWith("postcopy-")) {
        const isGivenAway = entry === undefined || entry.phase === "committed" || inStatus === "running";
        expect(["decide", ...(isGivenAway ? [] : ["wait", "take-back"])]).toContain(action);
        if (entry?.side !== "source") expect(action).toBe("decide");
        if (action === "take-back") expect(inMigration).toBe("postcopy-paused");
        expect(advice).not.toContain("--resume-here");
        if (isGivenAway || entry.side === "source") expect(advice).not.toContain("--give-up-here");
      }
      if (action === "discard") {
        expect(entry?.side).toBe("destination");
        expect(inStatus).toBe("inmigrate");
        expect(["setup", "iterating"]).toContain(entry?.phase);
      }
      // A guest that stands still is left alone only where that is as it should be.
      if (action === "tidy" && inStatus !== "running") expect(entry?.guestWasRunning).toBe(false);
      if (vm.startsWith("running on") && inStatus !== "running") expect(action).toBe("discard");
      expect(explanation).not.toBe("");
      expect(advice).not.toBe("");
    }),
    { numRuns: 2000 },
  );
});
