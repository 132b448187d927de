// Whole migrations whose connection breaks, at every moment, in every way, again and again: neither hypervisor
// notices, the guest arrives as it was, and never do two run. What cannot be resumed in time ends as the commit rule
// of PROTOCOL.md says.

import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { arbitraryPlan, buildGuestStream, type StreamPlan } from "../../test/support/arbitrary-stream.ts";
import { expectTruth } from "../../test/support/expect-truth.ts";
import { Migration, type MigrationSetup } from "../../test/support/simulated-migration.ts";
import type { RecordEvent } from "../record/schema.ts";
import { encodeFrame, type Frame } from "../wire/frame.ts";
import { FrameReader } from "../wire/frame-reader.ts";
import { helloFrame } from "../wire/handshake.ts";

const PLAN: StreamPlan = {
  ...fc.sample(arbitraryPlan(), { numRuns: 1, seed: 12 })[0]!,
  machine: "pc",
  returnPath: true,
  switchoverStart: true,
  devicePayload: new Uint8Array(20_000).fill(3),
};
const stream = buildGuestStream(PLAN);
const SESSION = "00112233445566778899aabbccddeeff";
const TOKEN = "ffeeddccbbaa99887766554433221100";
/** Slow enough that every moment lasts, and what is under way is cut in the middle of frames. */
const link = { bytesPerSecond: 1e6, delayMs: 5, bufferBytes: 4096, chunkBytes: 1000 };
const base: MigrationSetup = { mode: "tunnel", stream, link, cacheBytes: 1 << 22, resumption: {} };

type When = (migration: Migration) => boolean;
const moments: Record<string, When> = {
  "when welcomed": (migration) => migration.phase === "iterating",
  "when the first DATA is under way": (migration) => migration.sourceFrames.includes("data"),
  "while it iterates": (migration) => migration.sourceEnd.writtenBytes > 5000 && !migration.outgoing.stopped,
  "in the last pass": (migration) => migration.outgoing.stopped,
  "when the destination has all of it": (migration) => migration.isLoaded,
  "when LOADED is under way": (migration) => migration.destinationFrames.includes("loaded"),
  "when the source hypervisor has completed": (migration) => migration.outgoing.end !== undefined,
  "when COMMIT is under way": (migration) => migration.sourceFrames.includes("commit"),
  "when the guest runs at the destination": (migration) => migration.world.running.has("destination"),
  "when DONE is under way": (migration) => migration.sourceFrames.includes("done"),
};
const ways = ["cut", "blackOut", "close"] as const;

function linkEvents(events: readonly RecordEvent[], state: "lost" | "resumed") {
  return events.filter((event) => event.type === "link" && event.state === state);
}

function expectMoved(migration: Migration): void {
  expectTruth(migration);
  expect(migration.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
  expect(migration.destinationOutcome).toMatchObject({ outcome: "completed", vm: "running on destination" });
  expect(migration.world.history).toEqual(["source runs", "source stops", "destination runs"]);
  expect(migration.loader!.images.every((image, i) => image.equals(stream.images[i]!))).toBe(true);
}

describe.each(ways)("a connection that breaks (%s) is resumed", (how) => {
  test.each(Object.entries(moments))("%s", async (moment, when) => {
    const action = (migration: Migration) => migration.breakFor(500, how);
    const migration = await new Migration({ ...base, disturb: { when, action } }).run();
    expectMoved(migration);
    // A source that has RUNNING does not look back. What is under way still arrives when a connection is closed.
    if (moment === "when DONE is under way") return;
    if (moment === "when the guest runs at the destination" && how === "close") return;
    expect(linkEvents(migration.sourceRecord.events, "lost")).toHaveLength(1);
    const [resumed] = linkEvents(migration.sourceRecord.events, "resumed");
    expect(resumed).toMatchObject({ type: "link", state: "resumed" });
    expect(linkEvents(migration.destinationRecord.events, "resumed")).toHaveLength(1);
    expect(migration.connections).toBeGreaterThan(1);
  });
});

test("30 s without a link cost 30 s and nothing else", async () => {
  const undisturbed = await new Migration(base).run();
  for (const how of ways) {
    const when = moments["while it iterates"]!;
    const action = (migration: Migration) => migration.breakFor(30_000, how);
    const migration = await new Migration({ ...base, disturb: { when, action } }).run();
    expectMoved(migration);
    const totalMs = (events: readonly RecordEvent[]) => {
      const last = events.at(-1)!;
      return last.type === "summary" ? last.totalMs : Number.NaN;
    };
    const extraMs = totalMs(migration.sourceRecord.events) - totalMs(undisturbed.sourceRecord.events);
    expect(extraMs).toBeGreaterThan(29_000);
    // Until the next attempt finds the link there again.
    expect(extraMs).toBeLessThan(36_000);
    expect(migration.outgoing.end).toEqual({ outcome: "completed" });
  }
});

test("connections that break again and again, anywhere in whatever frame, change nothing for the guest", async () => {
  const plan = arbitraryPlan().map((each) => ({ ...each, returnPath: true }));
  const breaks = fc.array(
    fc.record({
      how: fc.constantFrom(...ways),
      /** Of the connection, in either direction. */
      afterBytes: fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 20_000 })),
      outageMs: fc.integer({ min: 0, max: 2000 }),
    }),
    { minLength: 1, maxLength: 8 },
  );
  const conditions = fc.record({
    chunkBytes: fc.constantFrom(7, 300, 65_536),
    bufferBytes: fc.constantFrom(1, 20_000, 1 << 20),
    delayMs: fc.constantFrom(0, 1, 40),
    bytesPerSecond: fc.constantFrom(300_000, 1e7),
  });
  let resumptions = 0;
  await fc.assert(
    fc.asyncProperty(plan, breaks, conditions, async (each, planned, link) => {
      const guest = buildGuestStream(each);
      const left = [...planned];
      const isDue = (migration: Migration) =>
        left.length > 0 &&
        !migration.isUnreachable &&
        migration.phase !== "setup" &&
        migration.sourceEnd.writtenBytes + migration.destinationEnd.writtenBytes > left[0]!.afterBytes;
      const migration = await new Migration({
        ...base,
        stream: guest,
        link,
        resumption: { switchoverTimeoutMs: 60_000 },
        disturb: {
          when: isDue,
          action: (broken) => {
            const { how, outageMs } = left.shift()!;
            broken.breakFor(outageMs, how);
          },
          times: Number.POSITIVE_INFINITY,
        },
      }).run();
      expectTruth(migration);
      expect(migration.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
      expect(migration.destinationOutcome).toMatchObject({ outcome: "completed" });
      expect(migration.world.history).toEqual(["source runs", "source stops", "destination runs"]);
      expect(migration.loader!.images.every((image, i) => image.equals(guest.images[i]!))).toBe(true);
      resumptions += linkEvents(migration.sourceRecord.events, "resumed").length;
    }),
    { numRuns: 60 },
  );
  expect(resumptions).toBeGreaterThan(60);
});

describe.each(ways)("a link that never comes back (%s) ends as the commit rule says", (how) => {
  test.each(Object.entries(moments))("%s", async (moment, when) => {
    const action = (migration: Migration) => migration.breakFor(Number.POSITIVE_INFINITY, how);
    const migration = await new Migration({ ...base, disturb: { when, action } }).run();
    expectTruth(migration);
    const { sourceOutcome, destinationOutcome, incoming, world } = migration;
    if (sourceOutcome!.outcome === "completed") return;
    expect(sourceOutcome).toMatchObject({ outcome: "failed", error: { code: "LINK_LOST" } });
    if (sourceOutcome!.vm === "running on source") {
      expect([...world.running]).toEqual(["source"]);
      // What the source may have heard of keeps its copy, paused; anything less is thrown away.
      expect(incoming!.discarded).toBe(!migration.destinationFrames.includes("loaded"));
    } else {
      // Only of a COMMIT that has gone out nobody knows whether it was heard.
      expect([moment, sourceOutcome!.vm]).toEqual([moment, "unknown"]);
      expect(migration.sourceFrames).toContain("commit");
      expect(incoming!.discarded).toBe(false);
    }
    if (destinationOutcome!.outcome !== "completed") {
      expect(destinationOutcome).toMatchObject({ error: { code: "LINK_LOST" } });
    }
  });
});

test("neither side waits when it was told not to, and what is not resumed fails at once", async () => {
  const when = moments["while it iterates"]!;
  const action = (migration: Migration) => migration.breakFor(500);
  const { resumption: _, ...without } = base;
  const migration = await new Migration({ ...without, disturb: { when, action } }).run();
  expectTruth(migration);
  expect(migration.sourceOutcome).toMatchObject({ error: { code: "LINK_FAILED" }, vm: "running on source" });
  expect(migration.sourceFrames).not.toContain("resume");
});

test("the source does not try for longer than the destination waits", async () => {
  const when = moments["while it iterates"]!;
  const action = (migration: Migration) => migration.breakFor(Number.POSITIVE_INFINITY);
  const resumption = { sourceTimeoutMs: 3_600_000, destinationTimeoutMs: 5000 };
  const migration = await new Migration({ ...base, resumption, disturb: { when, action } }).run();
  expectTruth(migration);
  expect(migration.sourceOutcome?.error?.message).toContain("within 15 s");
});

test.each([
  [3000, 1000, "completed"],
  [3000, 30_000, "failed"],
  [60_000, 30_000, "completed"],
] as const)(
  "a guest that stands still waits at most %d ms for a link that is away for %d ms: %s",
  async (switchoverTimeoutMs, outageMs, outcome) => {
    for (const moment of ["in the last pass", "when the destination has all of it"]) {
      const action = (migration: Migration) => migration.breakFor(outageMs);
      const disturb = { when: moments[moment]!, action };
      const migration = await new Migration({
        ...base,
        resumption: { switchoverTimeoutMs },
        disturb,
      }).run();
      expectTruth(migration);
      expect([moment, migration.sourceOutcome!.outcome]).toEqual([moment, outcome]);
      if (outcome === "completed") continue;
      expect(migration.sourceOutcome).toMatchObject({
        vm: "running on source",
        error: { code: "LINK_LOST" },
      });
      const stoppedMs = standstillMs(migration.sourceRecord.events);
      expect(stoppedMs).toBeGreaterThanOrEqual(3000);
      expect(stoppedMs).toBeLessThan(4000);
    }
  },
);

/** From the stop of the vCPUs to the end. */
function standstillMs(events: readonly RecordEvent[]): number {
  const stopped = events.find((event) => event.type === "phase" && event.phase === "switchover");
  return events.at(-1)!.atMs - stopped!.atMs;
}

test("once COMMIT may have been heard the source waits for as long as it may, and never takes the guest back", async () => {
  for (const moment of ["when COMMIT is under way", "when the guest runs at the destination"]) {
    const action = (migration: Migration) => migration.breakFor(50_000);
    const disturb = { when: moments[moment]!, action };
    const migration = await new Migration({ ...base, disturb }).run();
    expectMoved(migration);
    expect(linkEvents(migration.sourceRecord.events, "resumed")[0]).toMatchObject({ state: "resumed" });
  }
});

describe("others that connect while a migration is under way", () => {
  const resume: Frame = {
    type: "resume",
    version: 3,
    stage: "streaming",
    connection: 2,
    session: SESSION,
    token: TOKEN,
    returnBytes: 0,
  };
  const hello = helloFrame({
    deltavee: "0.1.0",
    session: "ffffffffffffffffffffffffffffffff",
    hypervisor: { kind: "qemu", version: "10.0.2" },
    entropyCodecs: [1],
  });

  test.each<[string, Uint8Array, string]>([
    ["another source", encodeFrame(hello), "BUSY"],
    ["a source with another token", encodeFrame({ ...resume, token: SESSION }), "SESSION"],
    ["a source of another migration", encodeFrame({ ...resume, session: TOKEN }), "SESSION"],
    ["a source that speaks another version", encodeFrame({ ...resume, version: 2 }), "SESSION"],
    ["something else", Buffer.from("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"), "INVALID"],
  ])("%s is refused and disturbs nothing", async (_who, bytes, code) => {
    const heard: Frame[] = [];
    let destroyedWhenHeard: boolean | undefined;
    const action = (migration: Migration) => {
      const reader = new FrameReader();
      const stranger = migration.stranger();
      let isDestroyed = false;
      const destroy = () => {
        isDestroyed = true;
      };
      vi.spyOn(stranger.peer, "destroy").mockImplementation(destroy);
      stranger.listen({
        data: (data) => {
          destroyedWhenHeard = isDestroyed;
          reader.push(data);
          for (let frame = reader.next(); frame !== undefined; frame = reader.next()) heard.push(frame);
        },
        drained: () => {},
        ended: () => {},
        failed: () => {},
      });
      stranger.write(bytes);
    };
    const when = moments["while it iterates"]!;
    const migration = await new Migration({ ...base, disturb: { when, action } }).run();
    expect(heard).toMatchObject([{ type: "refuse", reason: { code } }]);
    // A real connection would have lost what was under way.
    expect(destroyedWhenHeard).toBe(false);
    expectMoved(migration);
    expect(linkEvents(migration.destinationRecord.events, "lost")).toEqual([]);
    const notices = migration.destinationRecord.events.filter(({ type }) => type === "notice");
    expect(notices).toMatchObject([{ message: expect.stringContaining("a stranger") }]);
  });

  test("any number of silent ones take neither memory nor the source's place", async () => {
    const action = (migration: Migration) => {
      for (let i = 0; i < 100; i++) migration.stranger();
      migration.breakFor(100);
      migration.clock.after(50, () => {
        for (let i = 0; i < 100; i++) migration.stranger();
      });
    };
    const when = moments["while it iterates"]!;
    expectMoved(await new Migration({ ...base, disturb: { when, action } }).run());
  });

  test("any number of refused ones do not fill the record", async () => {
    const action = (migration: Migration) => {
      const knock = () => migration.stranger().write(encodeFrame({ ...resume, session: TOKEN }));
      for (let i = 0; i < 50; i++) migration.clock.after(i, knock);
    };
    const when = moments["while it iterates"]!;
    const migration = await new Migration({ ...base, disturb: { when, action } }).run();
    expectMoved(migration);
    const notices = migration.destinationRecord.events.filter(({ type }) => type === "notice");
    expect(notices).toHaveLength(20);
  });

  test("a source that comes again replaces a connection that looks alive", async () => {
    const action = ({ sourceEnd }: Migration) => sourceEnd.cutHere();
    const when = moments["while it iterates"]!;
    const migration = await new Migration({ ...base, disturb: { when, action } }).run();
    expectMoved(migration);
    const [lost] = linkEvents(migration.destinationRecord.events, "lost");
    expect(lost).toMatchObject({ reason: "Source has made another connection" });
  });

  test("an attempt that the source has given up, and that arrives late, does not replace its connection", async () => {
    const action = (migration: Migration) => {
      migration.breakFor(50);
      migration.clock.after(300, () => migration.stranger().write(encodeFrame(resume)));
    };
    const when = moments["while it iterates"]!;
    const migration = await new Migration({
      ...base,
      link: { ...link, bytesPerSecond: 20_000 },
      disturb: { when, action },
    }).run();
    expectMoved(migration);
    expect(migration.connections).toBe(2);
    expect(linkEvents(migration.destinationRecord.events, "lost")).toHaveLength(1);
  });
});

test("a destination that does not know the migration is not asked twice", async () => {
  const action = (migration: Migration) => {
    migration.isForgetful = true;
    migration.breakFor(100);
  };
  const when = moments["while it iterates"]!;
  const migration = await new Migration({ ...base, disturb: { when, action } }).run();
  expectTruth(migration);
  expect(migration.sourceOutcome).toMatchObject({
    vm: "running on source",
    error: { code: "PROTOCOL_REFUSED" },
  });
  expect(migration.connections).toBe(2);
});

describe("a link that goes while the source hypervisor completes", () => {
  const when: When = (migration) => migration.outgoing.end !== undefined;
  const outgoing = { endToldMs: 200 };

  test("and comes back: COMMIT follows, and the guest has moved", async () => {
    const action = (migration: Migration) => migration.breakFor(500, "cut");
    const migration = await new Migration({ ...base, outgoing, disturb: { when, action } }).run();
    expectMoved(migration);
    expect(migration.committedTooEarly).toBe(false);
  });

  test("and stays away: the guest goes on at the source, since COMMIT never went out", async () => {
    const action = (migration: Migration) => migration.breakFor(60_000, "cut");
    const resumption = { sourceTimeoutMs: 2000, destinationTimeoutMs: 2000 };
    const migration = await new Migration({
      ...base,
      outgoing,
      resumption,
      disturb: { when, action },
    }).run();
    expect(migration.sourceFrames).not.toContain("commit");
    expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", vm: "running on source" });
    expect(migration.world.history).toEqual(["source runs", "source stops", "source runs"]);
  });
});

describe("a source that breaks the protocol", () => {
  const garbage = (migration: Migration) => {
    migration.sourceEnd.onWrite = () => {};
    migration.sourceEnd.write(new Uint8Array(64));
  };

  test("after COMMIT does not keep the destination, which has the guest, from ending", async () => {
    for (const moment of ["when COMMIT is under way", "when the guest runs at the destination"]) {
      const disturb = { when: moments[moment]!, action: garbage };
      const migration = await new Migration({ ...base, disturb }).run();
      expect(migration.destinationOutcome).toEqual({
        outcome: "completed",
        vm: "running on destination",
        welcomed: true,
      });
      expect(migration.world.history).toEqual(["source runs", "source stops", "destination runs"]);
    }
  });

  test("with a count that cannot be is told so", async () => {
    const action = (migration: Migration) =>
      void migration.sourceEnd.write(encodeFrame({ type: "returned", returnBytes: 1e9 }));
    const when = moments["while it iterates"]!;
    const migration = await new Migration({ ...base, disturb: { when, action } }).run();
    expectTruth(migration);
    expect(migration.sourceOutcome!.error!.message).toContain("(PROTOCOL_INVALID_FRAME)");
    expect(migration.sourceOutcome!.vm).toBe("running on source");
  });
});

test("what the destination hypervisor says when the guest runs there is for nobody", async () => {
  const when: When = (migration) =>
    migration.destinationFrames.includes("running") && !migration.sourceFrames.includes("done");
  const action = ({ incoming }: Migration) => incoming!.side!.loader.shut(0);
  expectMoved(await new Migration({ ...base, disturb: { when, action } }).run());
});

test("a verdict that the destination takes back does not give the guest back", async () => {
  let isTakenBack = false;
  const when: When = (migration) =>
    isTakenBack ? migration.world.running.has("destination") : migration.destinationFrames.includes("loaded");
  const action = (migration: Migration) => {
    if (isTakenBack) migration.breakFor(Number.POSITIVE_INFINITY);
    else migration.incoming!.side!.loader.shut(1);
    isTakenBack = true;
  };
  const migration = await new Migration({ ...base, disturb: { when, action, times: 2 } }).run();
  expectTruth(migration);
  expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", vm: "unknown" });
  expect(migration.world.history).toEqual(["source runs", "source stops", "destination runs"]);
});

test("a mistake of ours in handling a frame is called one", async () => {
  const action = (migration: Migration) => {
    migration.sourceEnd.onWrite = () => {
      throw new Error("a bug");
    };
  };
  const when = moments["when the guest runs at the destination"]!;
  const migration = await new Migration({ ...base, disturb: { when, action } }).run();
  expectTruth(migration);
  expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", error: { code: "INTERNAL" } });
});
