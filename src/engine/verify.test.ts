// RAM compared at both ends before the guest is given away: what is found equal moves, and whatever else is found
// leaves the guest at the source.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream, type StreamPlan } from "../../test/support/arbitrary-stream.ts";
import { expectTruth } from "../../test/support/expect-truth.ts";
import { Migration, type MigrationSetup } from "../../test/support/simulated-migration.ts";
import { IntegrityError } from "../base/errors.ts";
import type { StoppedRam } from "./ports.ts";

const PLAN: StreamPlan = {
  ...fc.sample(arbitraryPlan(), { numRuns: 1, seed: 12 })[0]!,
  machine: "pc",
  blocks: [
    { idstr: "pc.ram", pages: 300 },
    { idstr: "vga.vram", pages: 7 },
  ],
  returnPath: true,
  switchoverStart: true,
};
const stream = buildGuestStream(PLAN);
const blocks = stream.blocks.map(({ idstr, pages }) => ({ idstr, lengthBytes: pages * stream.pageBytes }));
const base = {
  mode: "tunnel" as const,
  stream,
  link: { bytesPerSecond: 1e6, delayMs: 5 },
  cacheBytes: 1 << 22,
};

type Contents = Map<string, Buffer>;

/** RAMBlocks of the stream, each with content of its own; the first one is longer than one piece. */
function contents(): Contents {
  return new Map(
    blocks.map(({ idstr, lengthBytes }, i) => [idstr, Buffer.alloc(lengthBytes, `RAM of block ${i}.`)]),
  );
}

function ramOf(blocks: Contents, seen: { reads: number; open: number }): () => Promise<StoppedRam> {
  return async () => {
    seen.open++;
    return {
      lengthOf: (idstr) => blocks.get(idstr)?.length,
      read: async (idstr, offsetBytes, target) => {
        seen.reads++;
        target.set(blocks.get(idstr)!.subarray(offsetBytes, offsetBytes + target.length));
      },
      close: () => {
        seen.open--;
      },
    };
  };
}

interface Sides {
  source?: Contents | undefined;
  destination?: Contents | undefined;
}

function prepare(sides: Sides, setup: Partial<MigrationSetup> = {}) {
  const migration = new Migration({ ...base, verify: true, ...setup });
  const seen = { source: { reads: 0, open: 0 }, destination: { reads: 0, open: 0 } };
  if (sides.source) migration.outgoing.openRam = ramOf(sides.source, seen.source);
  if (sides.destination) migration.incoming!.openRam = ramOf(sides.destination, seen.destination);
  return { migration, seen };
}

function expectKept(migration: Migration, code: string): void {
  expectTruth(migration, true);
  expect(migration.sourceOutcome).toMatchObject({
    outcome: "failed",
    vm: "running on source",
    error: { code },
  });
  expect(migration.sourceFrames).not.toContain("commit");
  expect(migration.world.history).not.toContain("destination runs");
}

describe("with --verify", () => {
  test("a guest whose RAM is equal at both ends moves, and the record says what was compared", async () => {
    const { migration, seen } = prepare({ source: contents(), destination: contents() });
    await migration.run();
    expectTruth(migration);
    expect(migration.sourceOutcome?.outcome).toBe("completed");
    const order = migration.sourceFrames.filter((type) => type === "verify" || type === "commit");
    expect(order).toEqual([...blocks.map(() => "verify"), "commit"]);
    const comparedBytes = blocks.reduce((bytes, { lengthBytes }) => bytes + lengthBytes, 0);
    const verified = migration.sourceRecord.events.filter(({ type }) => type === "verified");
    expect(verified).toMatchObject([{ comparedBytes, leftOut: [] }]);
    expect(seen).toMatchObject({ source: { open: 0 }, destination: { open: 0 } });
    expect(seen.destination.reads).toBe(seen.source.reads);
  });

  test("one bit in the last page is found, named, and leaves the guest at the source", async () => {
    const destination = contents();
    const { idstr, lengthBytes } = blocks.at(-1)!;
    const bytes = destination.get(idstr)!;
    bytes[lengthBytes - 1]! ^= 1;
    const { migration, seen } = prepare({ source: contents(), destination });
    await migration.run();
    expectKept(migration, "MEMORY_DIFFERS");
    const error = migration.sourceOutcome!.error as IntegrityError;
    expect(error).toBeInstanceOf(IntegrityError);
    expect([error.block, error.pageIndex]).toEqual([idstr, lengthBytes / 4096 - 1]);
    expect(error.message).toContain(`page ${error.pageIndex} of RAMBlock ${idstr}`);
    expect(migration.incoming!.discarded).toBe(true);
    // Its pages were asked about, and nothing after that.
    expect(migration.sourceFrames.filter((type) => type === "verify").length).toBe(blocks.length + 1);
    expect(seen).toMatchObject({ source: { open: 0 }, destination: { open: 0 } });
  });

  test("what does not stand still is not given away", async () => {
    const destination = contents();
    const { idstr } = blocks[0]!;
    destination.get(idstr)![5]! ^= 1;
    const { migration } = prepare({ source: contents(), destination });
    const openRam = migration.incoming!.openRam!;
    let opened = 0;
    migration.incoming!.openRam = async () => {
      // Once to see whether it can be, once for the answer that differs; then it is as it should be.
      if (++opened === 3) destination.get(idstr)![5]! ^= 1;
      return openRam();
    };
    await migration.run();
    expectKept(migration, "MEMORY_DIFFERS");
    expect(migration.sourceOutcome?.error?.message).toContain("it changes although the guest stands still");
  });

  test("a destination that cannot read its RAM refuses before anything is begun", async () => {
    const { migration } = prepare({ source: contents() });
    await migration.run();
    expectKept(migration, "VERIFY_UNAVAILABLE");
    expect(migration.sourceOutcome?.error?.message).toContain("fake 1.0 does not show its RAM");
    expect(migration.destinationOutcome).toMatchObject({ welcomed: false });
    expect(migration.incoming!.side).toBeUndefined();
  });

  test("a source that cannot read its own keeps its guest", async () => {
    const { migration } = prepare({ destination: contents() });
    await migration.run();
    expectKept(migration, "VERIFY_UNAVAILABLE");
  });

  test("a RAMBlock that cannot be read at the source is left out, and said to be", async () => {
    const source = contents();
    const left = blocks.at(-1)!.idstr;
    source.delete(left);
    const { migration } = prepare({ source, destination: contents() });
    await migration.run();
    expect(migration.sourceOutcome?.outcome).toBe("completed");
    const verified = migration.sourceRecord.events.filter(({ type }) => type === "verified");
    expect(verified).toMatchObject([{ leftOut: [left] }]);
  });

  test("where nothing can be read, nothing counts as compared", async () => {
    const { migration } = prepare({ source: new Map(), destination: contents() });
    await migration.run();
    expectKept(migration, "VERIFY_UNAVAILABLE");
  });

  test("a RAMBlock that the destination lacks ends it, and its copy", async () => {
    const destination = contents();
    destination.delete(blocks.at(-1)!.idstr);
    const { migration } = prepare({ source: contents(), destination });
    await migration.run();
    expectKept(migration, "MIGRATION_FAILED");
    expect(migration.sourceOutcome?.error?.message).toContain("VERIFY_UNAVAILABLE");
    // There was no COMMIT that could have been lost: the source keeps the guest for certain.
    expect(migration.incoming!.discarded).toBe(true);
  });

  test.each(["verify", "digests"])(
    "a connection that breaks after %s has the comparison begun anew",
    async (at) => {
      const { migration } = prepare(
        { source: contents(), destination: contents() },
        {
          resumption: {},
          disturb: {
            when: ({ sourceFrames, destinationFrames }) =>
              [...sourceFrames, ...destinationFrames].includes(at),
            action: (broken) => broken.breakFor(500),
          },
        },
      );
      await migration.run();
      expectTruth(migration);
      expect(migration.sourceOutcome?.outcome).toBe("completed");
      expect(migration.connections).toBe(2);
      expect(migration.sourceRecord.events.filter(({ type }) => type === "verified").length).toBe(1);
      const asked = migration.sourceFrames.filter((type) => type === "verify").length;
      expect(asked).toBeGreaterThan(blocks.length);
    },
  );

  test("a destination that never answers is not waited for without end", async () => {
    const { migration } = prepare({ source: contents(), destination: contents() });
    const open = migration.incoming!.openRam!;
    migration.incoming!.openRam = async () => ({ ...(await open()), read: () => new Promise(() => {}) });
    await migration.run();
    expectKept(migration, "LINK_TIMEOUT");
  });

  test("the operator can still give up in the middle of it", async () => {
    const { migration, seen } = prepare(
      { source: contents(), destination: contents() },
      {
        disturb: {
          when: ({ sourceFrames }) => sourceFrames.includes("verify"),
          action: ({ source }) => source.cancel(),
        },
      },
    );
    await migration.run();
    expectTruth(migration, true);
    expect(migration.sourceOutcome).toMatchObject({ outcome: "cancelled", vm: "running on source" });
    expect(seen).toMatchObject({ source: { open: 0 }, destination: { open: 0 } });
  });
});

test("a block of several questions is compared whole", async () => {
  const { RamComparison, digestsOf } = await import("./ram-digests.ts");
  const [pieceBytes, pages] = [4096, 2050];
  const lengthBytes = pages * pieceBytes;
  const ramWith = (last: number): StoppedRam => ({
    lengthOf: () => lengthBytes,
    read: async (_block, offsetBytes, target) => {
      target.fill(0);
      if (offsetBytes + target.length === lengthBytes) target[target.length - 1] = last;
    },
    close: () => {},
  });
  const compare = async (theirs: StoppedRam) => {
    const asked: number[] = [];
    const comparison = new RamComparison(
      ramWith(1),
      (pieces) => {
        asked.push(pieces.pieces);
        void digestsOf(theirs, pieces, () => true).then((digests) => comparison.answered(digests!));
      },
      pieceBytes,
    );
    const result = await comparison.run([{ idstr: "pc.ram", lengthBytes }]).catch((error: unknown) => error);
    return { asked, result };
  };
  expect(await compare(ramWith(1))).toEqual({
    asked: [2048, 2],
    result: { comparedBytes: lengthBytes, leftOut: [] },
  });
  const { asked, result } = await compare(ramWith(2));
  expect(asked).toEqual([2048, 2, 1]);
  expect(result).toMatchObject({ code: "MEMORY_DIFFERS", pageIndex: pages - 1 });
});
