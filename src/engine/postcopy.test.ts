// Whole migrations that end as post-copy, in both modes: the guest runs at the destination before it has all of its
// RAM, nothing of it is lost on the way, and whatever fails it never runs twice.

import { describe, expect, test } from "vitest";
import { expectTruth } from "../../test/support/expect-truth.ts";
import { requestForPages } from "../../test/support/fake-hypervisors.ts";
import { MISSING_PAGES, postcopyStream } from "../../test/support/postcopy-stream.ts";
import { Migration, type MigrationSetup } from "../../test/support/simulated-migration.ts";
import { encodeFrame, type Frame } from "../wire/frame.ts";

const stream = postcopyStream();
/** Slow enough that every moment lasts. */
const link = { bytesPerSecond: 1e6, delayMs: 5, bufferBytes: 4096, chunkBytes: 1000 };
const base = {
  stream,
  link,
  cacheBytes: 1 << 22,
  downtimeMsMax: 50,
  promises: { onStall: "postcopy" as const },
};
const resumption = {};

type When = (migration: Migration) => boolean;

/** In their order. Up to `COMMIT is under way` the source can take the guest back. */
const MOMENTS: Record<string, When> = {
  "the package is under way": ({ outgoing, loader }) => outgoing.isPostcopy && loader?.isPostcopy !== true,
  "the destination could run the guest": ({ loader }) => loader?.isPostcopy === true,
  "READY is under way": ({ destinationFrames }) => destinationFrames.includes("ready"),
  "COMMIT is under way": ({ sourceFrames }) => sourceFrames.includes("commit"),
  "RUNNING is under way": ({ destinationFrames }) => destinationFrames.includes("running"),
  "RAM is missing": ({ world, loader }) => {
    const pages = loader?.blocks[0]?.known.size ?? 0;
    return world.running.has("destination") && pages > 60 && pages < 180;
  },
  "LOADED is under way": ({ destinationFrames }) => destinationFrames.includes("loaded"),
};
const UP_TO_COMMIT = Object.entries(MOMENTS).slice(0, 3);
const FROM_COMMIT = Object.entries(MOMENTS).slice(3, 6);

/** RAM at the destination is that of the guest when it was stopped. */
function expectWhole({ loader, outgoing }: Migration): void {
  expect(loader!.complete).toBe(true);
  expect(loader!.images.every((image, i) => image.equals(stream.images[i]!))).toBe(true);
  expect(outgoing.requests).toBeGreaterThan(0);
}

/** A source hypervisor that has completed has nothing any more that the destination lacks, or has the guest itself. */
function expectNothingLost(migration: Migration): void {
  const { outgoing, world, isLoaded } = migration;
  expectTruth(migration);
  if (outgoing.end?.outcome === "completed") expect(isLoaded || world.running.has("source")).toBe(true);
}

async function run(mode: "direct" | "tunnel", more: Partial<MigrationSetup> = {}): Promise<Migration> {
  const migration = await new Migration({ ...base, mode, ...more }).run();
  expectNothingLost(migration);
  return migration;
}

function phasesOf({ sourceRecord }: Migration): string[] {
  return sourceRecord.events.flatMap((event) => (event.type === "phase" ? [event.phase] : []));
}

describe.each(["direct", "tunnel"] as const)("%s: a guest that never converges", (mode) => {
  test.each([undefined, 1 << 22])(
    "runs at the destination, and all of it follows, with a cache of %s",
    async (cacheBytes) => {
      const migration = await run(mode, { cacheBytes });
      expect(migration.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
      expectWhole(migration);
      expect(phasesOf(migration)).toEqual(["setup", "iterating", "switchover", "committed", "completed"]);
    },
  );

  test("ran there before it was whole, and its standstill is what is counted", async () => {
    const seen: string[] = [];
    const migration = await run(mode, {
      disturb: { when: MOMENTS["RAM is missing"]!, action: ({ phase }) => void seen.push(phase) },
    });
    expect(seen).toEqual(["committed"]);
    const summary = migration.sourceRecord.events.at(-1);
    if (summary?.type !== "summary") throw new Error("a record without a summary");
    expect(summary.downtimeMs).toBeLessThan(summary.postcopyMs!);
    expect(summary.requestedBytes).toBe(4096);
    // What was forecast was the pre-copy that was left because it was too long.
    expect(summary.forecastDowntimeMs).toBeUndefined();
  });

  test("goes on at the source when the operator cancels before it was given away", async () => {
    const when: When = ({ outgoing, phase }) => outgoing.isPostcopy && phase !== "committed";
    const migration = await run(mode, { disturb: { when, action: ({ source }) => void source.cancel() } });
    expect(migration.sourceOutcome).toMatchObject({ outcome: "cancelled", vm: "running on source" });
  });

  test("is not taken back any more when it runs there", async () => {
    const taken: boolean[] = [];
    const migration = await run(mode, {
      disturb: { when: MOMENTS["RAM is missing"]!, action: ({ source }) => void taken.push(source.cancel()) },
    });
    expect(taken).toEqual([false]);
    expectWhole(migration);
  });

  test("stays there, in part, when the link is lost for good", async () => {
    const migration = await run(mode, {
      disturb: { when: MOMENTS["RAM is missing"]!, action: ({ sourceEnd }) => sourceEnd.cut() },
    });
    expect(migration.sourceOutcome).toMatchObject({ vm: "with the destination" });
    expect(migration.sourceOutcome!.error!.code).toBe("POSTCOPY_INTERRUPTED");
    expect(migration.outgoing.end?.outcome).toBe("failed");
    expect(migration.world.running).toEqual(new Set(["destination"]));
  });
});

test.each(["direct", "tunnel"] as const)(
  "%s: a page that the guest waits for stands behind little",
  async (mode) => {
    const { sourceRecord } = await run(mode, {
      link: { ...link, bufferBytes: 1 << 24, bytesPerSecond: 5e5 },
    });
    const since = sourceRecord.events.findIndex(
      (event) => event.type === "phase" && event.phase === "committed",
    );
    const inFlight = sourceRecord.events
      .slice(since)
      .flatMap((event) => (event.type === "sample" ? [event] : []));
    expect(inFlight.length).toBeGreaterThan(3);
    const most = Math.max(...inFlight.map(({ inFlightBytes }) => inFlightBytes));
    expect(most).toBeLessThan((MISSING_PAGES * stream.pageBytes) / 5);
  },
);

test("in a tunnel it is READY, COMMIT, RUNNING, and LOADED at last", async () => {
  const { sourceFrames, destinationFrames, incoming } = await run("tunnel", { resumption });
  expect(incoming!.mayPostcopy).toBe(true);
  const told = destinationFrames.filter((type) => type !== "ack" && type !== "return");
  expect(told).toEqual(["welcome", "ready", "running", "loaded"]);
  expect(sourceFrames.indexOf("commit")).toBeLessThan(sourceFrames.lastIndexOf("data"));
  expect(sourceFrames.at(-1)).toBe("done");
});

describe("in a tunnel whose link is gone for a while", () => {
  test.each(Object.entries(MOMENTS))("when %s: all goes on", async (_moment, when) => {
    const migration = await run("tunnel", {
      resumption,
      disturb: { when, action: (migration) => migration.breakFor(3000) },
    });
    expect(migration.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
    expect(migration.destinationOutcome).toMatchObject({
      outcome: "completed",
      vm: "running on destination",
    });
    expectWhole(migration);
    expect(migration.connections).toBe(2);
  });

  test("again and again, at every moment: all goes on", async () => {
    const migration = await run("tunnel", {
      resumption,
      disturb: {
        when: ({ clock, outgoing }) => outgoing.isPostcopy && Math.floor(clock.nowMs() / 200) % 2 === 1,
        action: (migration) => migration.breakFor(100),
        times: 30,
      },
    });
    expect(migration.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
    expectWhole(migration);
  });
});

describe.each([
  ["resumed", resumption],
  ["not resumed", undefined],
])("in a tunnel that is %s, for good", (_, tunnel) => {
  const forGood = (migration: Migration) => migration.breakFor(1e9);

  test.each(UP_TO_COMMIT)("when %s: the guest goes on at the source", async (_moment, when) => {
    const setup = { ...(tunnel && { resumption: tunnel }), disturb: { when, action: forGood } };
    const migration = await run("tunnel", setup);
    expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", vm: "running on source" });
    // The copy may be all that is left, for all that the destination knows.
    const isKept = migration.destinationFrames.includes("ready");
    expect(migration.destinationOutcome!.vm).toBe(isKept ? "paused on destination" : "running on source");
  });

  test.each(FROM_COMMIT)("when %s: neither side ends what it has", async (_moment, when) => {
    const setup = { ...(tunnel && { resumption: tunnel }), disturb: { when, action: forGood } };
    const migration = await run("tunnel", setup);
    expect(migration.sourceOutcome).toMatchObject({ outcome: "failed" });
    expect(migration.sourceOutcome!.error!.code).toBe("POSTCOPY_INTERRUPTED");
    expect(migration.outgoing.end?.outcome).toBe("failed");
    expect(migration.incoming!.discarded).toBe(false);
    expect(migration.world.running.has("source")).toBe(false);
  });
});

describe("in a tunnel", () => {
  test("a destination that cannot let the guest run gives nothing up, and neither does the source", async () => {
    const migration = await run("tunnel", { incoming: { failsToResume: true } });
    expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", vm: "unknown" });
    expect(migration.destinationOutcome!.error!.code).toBe("POSTCOPY_INTERRUPTED");
    expect(migration.incoming!.discarded).toBe(false);
    expect(migration.world.running.size).toBe(0);
  });

  test("a destination that fails to load what is missing says so, and the source keeps its part", async () => {
    const migration = await run("tunnel", { incoming: { failsToLoad: true } });
    expect(migration.sourceOutcome!.error!.message).toContain("device state is wrong");
    expect(migration.outgoing.end?.outcome).toBe("failed");
    expect(migration.sourceOutcome!.vm).toBe("with the destination");
  });

  test("a source hypervisor that gives up before COMMIT leaves nothing at the destination", async () => {
    const when = MOMENTS["the package is under way"]!;
    const action = ({ outgoing }: Migration) => outgoing.fail("out of memory");
    const migration = await new Migration({ ...base, mode: "tunnel", disturb: { when, action } }).run();
    // It is complete there, and QEMU lets nobody but its own recovery go on with it.
    expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", vm: "paused on source" });
    expect(migration.world.running.size).toBe(0);
    expect(migration.incoming!.discarded).toBe(true);
  });
});

test("a destination that is ready before there is anything to be ready with does not get the guest", async () => {
  const migration = new Migration({ ...base, mode: "tunnel" });
  Object.defineProperty(migration.incoming, "ready", { value: () => Promise.resolve() });
  await migration.run();
  expectTruth(migration);
  expect(migration.destinationFrames).toContain("ready");
  expect(migration.sourceFrames).not.toContain("commit");
  expect(migration.sourceOutcome).toMatchObject({
    outcome: "failed",
    vm: "running on source",
    error: { code: "PROTOCOL_INVALID_FRAME" },
  });
});

describe("in a tunnel, a destination that says what it may not say", () => {
  const says = (when: When, frame: Frame, more: Partial<MigrationSetup> = {}) =>
    run("tunnel", {
      ...more,
      disturb: { when, action: ({ destinationEnd }) => destinationEnd.write(encodeFrame(frame)) },
    });
  const asks = (idstr: string, offsetBytes: number, lengthBytes = 4096): Frame => ({
    type: "return",
    bytes: requestForPages(idstr, offsetBytes, lengthBytes),
  });
  const whileIterating: When = ({ outgoing, phase, destinationFrames }) =>
    phase === "iterating" && !outgoing.isPostcopy && destinationFrames.includes("ack");
  const packageIsOut: When = (migration) =>
    migration.sourceRecord.events.some((event) => event.type === "phase" && event.phase === "switchover") &&
    migration.phase !== "committed";

  test.each<[string, When, Frame, string]>([
    [
      "RUNNING before READY",
      whileIterating,
      { type: "running" },
      "running from the destination when streaming",
    ],
    ["READY while the guest runs", whileIterating, { type: "ready" }, "nothing that it could be ready with"],
    ["a request before there is a package", whileIterating, asks("pc.ram", 0), "given no device state"],
    ["LOADED before it has all", packageIsOut, { type: "loaded" }, "loaded after ack"],
  ])("%s: the guest goes on at the source", async (_what, when, frame, text) => {
    const { sourceOutcome, sourceFrames, incoming } = await says(when, frame);
    expect(sourceOutcome).toMatchObject({
      outcome: "failed",
      vm: "running on source",
      error: { code: "PROTOCOL_INVALID_FRAME", message: expect.stringContaining(text) },
    });
    expect(sourceFrames).not.toContain("commit");
    expect(incoming!.discarded).toBe(true);
  });

  test.each<[string, Frame, string]>([
    ["READY twice", { type: "ready" }, "ready from the destination when fetching"],
    ["RUNNING twice", { type: "running" }, "running from the destination when fetching"],
    ["a request for a RAMBlock that is none", asks("nothing", 0), 'none of the name "nothing"'],
    ["a request behind a RAMBlock's end", asks("vga.vram", 4 * 4096), "vga.vram has 16384 bytes"],
    ["a request across it", asks("vga.vram", 3 * 4096, 8192), "vga.vram has 16384 bytes"],
    ["a request for nothing", asks("pc.ram", 0, 0), "asked for 0 bytes at 0"],
  ])("%s, once it has the guest: neither side ends what it has", async (_what, frame, text) => {
    const { sourceOutcome, outgoing, incoming, world } = await says(MOMENTS["RAM is missing"]!, frame);
    expect(sourceOutcome).toMatchObject({
      outcome: "failed",
      vm: "with the destination",
      error: { code: "POSTCOPY_INTERRUPTED", cause: { code: "PROTOCOL_INVALID_FRAME" } },
    });
    expect(sourceOutcome!.error!.message).toContain(text);
    expect(outgoing.end?.outcome).toBe("failed");
    expect(incoming!.discarded).toBe(false);
    expect(world.running).toEqual(new Set(["destination"]));
  });

  test("a READY that is a lie, in a stream that is not understood: the hypervisor knows better", async () => {
    const stream = postcopyStream({ isOpaque: true });
    const migration = new Migration({
      ...{ ...base, stream, mode: "tunnel" },
      disturb: {
        when: ({ outgoing, sourceRecord }) =>
          outgoing.isPostcopy && sourceRecord.events.some((event) => event.type === "opaque"),
        action: ({ destinationEnd }) => destinationEnd.write(encodeFrame({ type: "ready" })),
      },
    });
    // The guest has not been stopped for post-copy, for all that its hypervisor says.
    const { outgoing } = migration;
    const status = outgoing.status.bind(outgoing);
    outgoing.status = async () => ({ ...(await status()), isPostcopy: false });
    await migration.run();
    expectTruth(migration);
    expect(migration.sourceFrames).not.toContain("commit");
    expect(migration.sourceOutcome).toMatchObject({ error: { code: "PROTOCOL_INVALID_FRAME" } });
    expect(migration.sourceOutcome!.vm).toBe("running on source");
  });

  test("nor does READY count when the hypervisor does not say anything", async () => {
    const stream = postcopyStream({ isOpaque: true });
    const migration = new Migration({
      ...{ ...base, stream, mode: "tunnel" },
      disturb: {
        when: ({ outgoing }) => outgoing.isPostcopy,
        action: ({ outgoing }) => {
          outgoing.status = () => Promise.reject(new Error("silence"));
        },
      },
    });
    await migration.run();
    expectTruth(migration);
    expect(migration.sourceFrames).not.toContain("commit");
    expect(migration.sourceOutcome).toMatchObject({ error: { code: "HYPERVISOR_FAILED" } });
  });
});

test("in a tunnel, a verdict of the destination's hypervisor in post-copy leaves the guest with the source", async () => {
  const migration = await run("tunnel", {
    disturb: {
      when: ({ outgoing, destinationFrames }) => outgoing.isPostcopy && !destinationFrames.includes("ready"),
      action: ({ incoming, clock }) => {
        incoming!.side!.loader.shut(1);
        clock.after(4, () => incoming!.failNow("a device that is not there"));
      },
    },
  });
  expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", vm: "running on source" });
  expect(migration.sourceOutcome!.error!.message).toContain("a device that is not there");
});

test("a stock destination that closes before the package has come leaves the guest with the source", async () => {
  const when: When = ({ outgoing, phase }) => outgoing.isPostcopy && phase === "iterating";
  const migration = await run("direct", {
    disturb: { when, action: ({ destinationEnd }) => destinationEnd.destroy() },
  });
  expect(migration.sourceOutcome).toMatchObject({ outcome: "failed", vm: "running on source" });
});

describe.each(["direct", "tunnel"] as const)(
  "%s: a stream that is not understood from before the switch",
  (mode) => {
    const opaque = { stream: postcopyStream({ isOpaque: true }) };

    test("is carried all the same", async () => {
      const migration = await run(mode, opaque);
      expect(migration.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
      expectWhole(migration);
    });

    test.each(["says that it is in post-copy", "does not answer"])(
      "is not ended by us with pages missing when the link is lost, and the hypervisor %s",
      async (what) => {
        const action = ({ sourceEnd, outgoing }: Migration) => {
          if (what === "does not answer") outgoing.status = () => Promise.reject(new Error("silence"));
          sourceEnd.cut();
        };
        const migration = await run(mode, {
          ...opaque,
          disturb: { when: MOMENTS["RAM is missing"]!, action },
        });
        expect(migration.sourceOutcome!.error!.code).toBe("POSTCOPY_INTERRUPTED");
        expect(migration.outgoing.end?.outcome).toBe("failed");
      },
    );
  },
);

test("a destination whose hypervisor has no post-copy refuses, and the guest never stops", async () => {
  const migration = new Migration({ ...base, mode: "tunnel" });
  Object.defineProperty(migration.incoming, "ready", { value: undefined });
  await migration.run();
  expectTruth(migration);
  expect(migration.sourceOutcome!.error!.message).toContain("fake 1.0 has no post-copy");
  expect(migration.world.history).toEqual(["source runs"]);
});
