// Both engines, whole migrations on virtual time: the guest arrives byte for byte, in both modes, over any link.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream } from "../../test/support/arbitrary-stream.ts";
import type { Loader } from "../../test/support/loader.ts";
import { Migration } from "../../test/support/simulated-migration.ts";
import { DELTA_CODEC_NAMES } from "../codec/delta/delta-codecs.ts";

const modes = ["direct", "tunnel"] as const;
const conditions = fc.record({
  chunkBytes: fc.constantFrom(7, 1000, 65_536),
  bufferBytes: fc.constantFrom(1, 20_000, 1 << 20),
  delayMs: fc.constantFrom(0, 1, 40),
  bytesPerSecond: fc.constantFrom(50_000, 1e6, 1e9),
});
/** Small messages on the return path come whole. */
const local = fc.record({
  chunkBytes: fc.constantFrom(100, 65_536),
  bufferBytes: fc.constantFrom(1, 1 << 20),
});
const plan = arbitraryPlan(["none", "none", "none", "command", "device", "flag"]).map((plan) => ({
  ...plan,
  returnPath: true,
}));

describe.each(modes)("%s mode", (mode) => {
  test("brings the guest over as it was when it was stopped, and only once", async () => {
    const control = fc.constantFrom("ack" as const, "limit" as const);
    const cacheBytes = fc.constantFrom(undefined, 0, 20_000, 1 << 22);
    const deltaCodec = fc.constantFrom(...Object.values(DELTA_CODEC_NAMES));
    await fc.assert(
      fc.asyncProperty(
        plan,
        conditions,
        local,
        control,
        cacheBytes,
        deltaCodec,
        async (plan, link, hypervisorLink, control, cacheBytes, deltaCodec) => {
          const stream = buildGuestStream(plan);
          const migration = new Migration({
            mode,
            stream,
            link,
            hypervisorLink,
            control,
            cacheBytes,
            deltaCodec,
          });
          const { sourceOutcome, destinationOutcome, world, loader } = await migration.run();
          expect(sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
          if (mode === "tunnel") {
            expect(destinationOutcome).toMatchObject({ outcome: "completed", vm: "running on destination" });
            expect(migration.committedTooEarly).toBe(false);
          }
          expect(world.history).toEqual(["source runs", "source stops", "destination runs"]);
          expect(loader!.images.every((image, i) => image.equals(stream.images[i]!))).toBe(true);
        },
      ),
      { numRuns: 100 },
    );
  });

  test("says in its record what happened, in order", async () => {
    const stream = buildGuestStream(fc.sample(arbitraryPlan(), { numRuns: 1, seed: 1 })[0]!);
    const { sourceRecord } = await new Migration({ mode, stream, cacheBytes: 1 << 22 }).run();
    const phases = sourceRecord.events.flatMap((event) => (event.type === "phase" ? [event.phase] : []));
    expect(phases).toEqual(["setup", "iterating", "switchover", "committed", "completed"]);
    expect(sourceRecord.events.at(-1)).toMatchObject({
      type: "summary",
      outcome: "completed",
      vm: "with the destination",
      handedOverBytes: stream.bytes.length,
    });
  });
});

describe("RAM that the destination has never touched", () => {
  const PAGES = 64;
  const stream = buildGuestStream({
    ...fc.sample(arbitraryPlan(["none"]), { numRuns: 1, seed: 5 })[0]!,
    ...{ returnPath: true, pageBits: undefined, blocks: [{ idstr: "pc.ram", pages: PAGES }] },
  });
  const untouched = [{ idstr: "pc.ram", offsetBytes: 0, lengthBytes: PAGES * 4096 }];

  /** Of pages of which nothing came before. */
  const firstZeros = ({ records }: Loader) =>
    records.filter(
      ({ kind, page }, i) => kind === "zero" && records.findIndex((record) => record.page === page) === i,
    );

  const notSent = ({ sourceRecord }: Migration) =>
    sourceRecord.events.filter((event) => event.type === "decision" && event.choice === "leave out zeros")
      .length;

  test("is not sent zeros, and the guest arrives as it was", async () => {
    const migration = new Migration({ mode: "tunnel", stream, cacheBytes: 1 << 22, untouched });
    const { sourceOutcome, loader } = await migration.run();
    expect(sourceOutcome).toMatchObject({ outcome: "completed" });
    expect(notSent(migration)).toBe(1);
    expect(firstZeros(loader!)).toEqual([]);
    expect(loader!.images[0]!.equals(stream.images[0]!)).toBe(true);
  });

  test("is sent them where the migration may end as post-copy, which waits for each page", async () => {
    const postcopy = { ...stream, isPostcopy: true };
    const migration = new Migration({ mode: "tunnel", stream: postcopy, cacheBytes: 1 << 22, untouched });
    await migration.run();
    expect(notSent(migration)).toBe(0);
  });

  test("is sent them where nobody can tell, which is said", async () => {
    const migration = new Migration({ mode: "tunnel", stream, cacheBytes: 1 << 22, isBlind: true });
    const { sourceOutcome, loader, destinationRecord } = await migration.run();
    expect(sourceOutcome).toMatchObject({ outcome: "completed" });
    expect(notSent(migration)).toBe(0);
    expect(firstZeros(loader!).length).toBeGreaterThan(10);
    expect(loader!.images[0]!.equals(stream.images[0]!)).toBe(true);
    const notices = destinationRecord.events.filter(({ type }) => type === "notice");
    expect(JSON.stringify(notices)).toContain(
      "What is zero here already is not known, and is sent: not on this host",
    );
  });
});
