// Migrations simulated from models: what must hold of them whatever the guest, and the cases the whole thing is about.

import fc from "fast-check";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { modelOf } from "../../test/support/guest-model.ts";
import { seeded } from "../base/seeded.ts";
import { SwitchoverJudge } from "../engine/switchover/switchover.ts";
import {
  DEVICE_STATE_BYTES,
  ROUND_TRIPS,
  STANDSTILL_MS_MIN,
} from "../engine/switchover/switchover-control.ts";
import { guestOfKind } from "./kinds.ts";
import { METHOD_NAMES, METHODS } from "./methods.ts";
import { dirtyUnchangedShare, type MigrationOptions, simulateMigration } from "./migration.ts";

const MBIT = 125_000;
const GIB = 2 ** 30;
/** methods.ts takes 3 µs for it. */
const QEMU_CPU_MS_PER_PAGE_MAX = 0.01;

const run = (options: Partial<MigrationOptions>, bytesPerSecond = 100 * MBIT) =>
  simulateMigration(
    { guest: modelOf(), method: "vanilla", roundTripMs: 1, downtimeMsMax: 300, ...options },
    bytesPerSecond,
  );

const busyGuest = modelOf({ hotPages: 16_384, changesPerSecond: 5 });

describe("a simulated migration", () => {
  test("of an idle guest sends every page that is not zero once, and takes as long as the link needs for that", () => {
    const { wireBytes, totalMs, converges, iterations } = run({});
    expect(converges).toBe(true);
    expect(iterations).toBe(1);
    expect(wireBytes / (0.75 * GIB)).toBeCloseTo(1, 1);
    expect(totalMs / ((wireBytes / (100 * MBIT)) * 1000)).toBeCloseTo(1, 1);
  });

  test("of a guest that dirties faster than the link carries ends with deltas and never without", () => {
    expect(run({ guest: busyGuest }).converges).toBe(false);
    expect(run({ guest: busyGuest, method: "multifd-zstd" }).converges).toBe(false);
    for (const method of ["direct", "tunnel"] as const) {
      const outcome = run({ guest: busyGuest, method });
      expect(outcome.converges).toBe(true);
      expect(outcome.downtimeMs).toBeLessThanOrEqual(300);
    }
  });

  test("gains nothing by deltas where whole pages change", () => {
    const guest = modelOf({ hotPages: 16_384, changesPerSecond: 5, deltaBytes: 4096 });
    expect(run({ guest, method: "direct" }).converges).toBe(false);
  });

  test("with a cache smaller than what changes is slower than with one that holds it", () => {
    const small = run({ guest: busyGuest, method: "tunnel", cacheBytes: 8 * 2 ** 20 });
    const large = run({ guest: busyGuest, method: "tunnel" });
    expect(small.wireBytes).toBeGreaterThan(large.wireBytes);
  });

  test("by QEMU's xbzrle sends a page whole twice before it can send a delta of it, ours once", () => {
    // Every page of the working set is dirty again after the first pass.
    const guest = { ...modelOf({ hotPages: 2 ** 17, changesPerSecond: 0.3 }), zeroPages: 2 ** 17 };
    const [theirs, ours] = [run({ guest, method: "xbzrle-full" }), run({ guest, method: "direct" })];
    expect(theirs.converges && ours.converges).toBe(true);
    expect(theirs.wireBytes / ours.wireBytes).toBeGreaterThan(1.8);
    expect(theirs.wireBytes / ours.wireBytes).toBeLessThan(2.2);
  });

  test("of pages that are rewritten with what was there costs deltas nothing and QEMU a page each", () => {
    const guest = modelOf({ rewrittenPagesPerSecond: 20_000 });
    expect(run({ guest }).converges).toBe(false);
    expect(run({ guest, method: "tunnel" }).converges).toBe(true);
  });

  test("stops a throttled guest that would not have ended otherwise", () => {
    const guest = modelOf({ hotPages: 8_192, changesPerSecond: 1 });
    expect(run({ guest }, 200 * MBIT).converges).toBe(false);
    expect(run({ guest, method: "auto-converge" }, 200 * MBIT).converges).toBe(true);
  });

  test("as post-copy has the shortest downtime and every page that was dirty on the wire once more", () => {
    const postcopy = run({ guest: busyGuest, method: "postcopy" });
    expect(postcopy.converges).toBe(true);
    expect(postcopy.downtimeMs).toBeLessThan(50);
    expect(postcopy.wireBytes).toBeGreaterThan(run({}).wireBytes);
  });

  const rates = fc.record({
    hotPages: fc.integer({ min: 0, max: 200_000 }),
    changesPerSecond: fc.double({ min: 0, max: 200, noNaN: true }),
    deltaBytes: fc.integer({ min: 0, max: 4096 }),
    rewrittenPagesPerSecond: fc.integer({ min: 0, max: 100_000 }),
  });

  test("ends for every guest, link and method, keeps its goal where it says so, and is the same every time", () => {
    fc.assert(
      fc.property(
        rates,
        fc.constantFrom(...METHOD_NAMES),
        fc.double({ min: 1, max: 400_000, noNaN: true }),
        fc.integer({ min: 20, max: 5000 }),
        (parts, method, mbit, downtimeMsMax) => {
          const options = { guest: modelOf(parts), method, downtimeMsMax };
          const outcome = run(options, mbit * MBIT);
          expect(run(options, mbit * MBIT)).toEqual(outcome);
          if (outcome.converges && !METHODS[method].postcopy) {
            // What QEMU does not count: one page and the handling of it, device state, and what takes its time whatever is left.
            const uncountedMs =
              METHODS[method].switchover === "judge"
                ? 0
                : STANDSTILL_MS_MIN +
                  ((DEVICE_STATE_BYTES + 4200) / (mbit * MBIT)) * 1000 +
                  QEMU_CPU_MS_PER_PAGE_MAX +
                  ROUND_TRIPS.direct;
            expect(outcome.downtimeMs).toBeLessThanOrEqual(downtimeMsMax * 1.02 + uncountedMs);
          }
          for (const value of Object.values(outcome)) expect(Number.isNaN(value)).toBe(false);
        },
      ),
      { numRuns: 100 },
    );
  });

  test("of a guest of 1 TiB takes hardly more steps than one of 1 GiB", () => {
    const guest = modelOf({ pages: 2 ** 28, hotPages: 2 ** 20, changesPerSecond: 0.1 });
    const outcome = run({ guest, method: "tunnel" }, 400_000 * MBIT);
    expect(outcome.converges).toBe(true);
    expect(outcome.iterations).toBeLessThan(200);
  });

  test("is held up by the work on pages where the link is not what limits", () => {
    const guest = modelOf({ hotPages: 2 ** 17, changesPerSecond: 20 });
    expect(run({ guest, method: "tunnel" }, 400_000 * MBIT).converges).toBe(false);
  });

  test("of QEMU's own kind uses up what downtime it is given, even by an idle guest", () => {
    // As real ones were seen to: 242 and 257 ms of 300, over 1 Gbit/s and 100 Mbit/s.
    for (const mbit of [100, 1000]) {
      const { downtimeMs } = run({ guest: modelOf({ hotPages: 200, changesPerSecond: 0.1 }) }, mbit * MBIT);
      expect(downtimeMs).toBeGreaterThan(200);
      expect(downtimeMs).toBeLessThan(300);
    }
  });

  test("takes no less time on a slower link", () => {
    fc.assert(
      fc.property(rates, fc.integer({ min: 10, max: 1000 }), (parts, mbit) => {
        const guest = modelOf({ ...parts, hotPages: Math.min(parts.hotPages, 1000) });
        const [slow, fast] = [run({ guest }, mbit * MBIT), run({ guest }, 4 * mbit * MBIT)];
        if (slow.converges) expect(fast.converges).toBe(true);
        if (slow.converges && fast.converges) expect(slow.totalMs).toBeGreaterThanOrEqual(fast.totalMs);
      }),
    );
  });
});

test("a page is dirty and unchanged as often as random moments of writing and sending make it", () => {
  const random = seeded(11);
  for (const [rate, sinceMs, nextMs] of [
    [0.001, 1000, 1000],
    [0.0001, 5000, 100],
    [0.01, 300, 30],
    [0.002, 20, 2000],
  ] as const) {
    let unchanged = 0;
    const pages = 50_000;
    for (let page = 0; page < pages; page++) {
      const share = random();
      const writes: number[] = [];
      for (let at = 0; at < sinceMs + nextMs; ) {
        at += -Math.log(1 - random()) / rate;
        writes.push(at);
      }
      const isDirty = writes.some((at) => at < sinceMs);
      const isChanged = writes.some((at) => at > share * sinceMs && at < sinceMs + share * nextMs);
      if (isDirty && !isChanged) unchanged++;
    }
    expect(dirtyUnchangedShare(rate, sinceMs, nextMs)).toBeCloseTo(unchanged / pages, 2);
  }
});

test("a migration that takes hours is not looked at every 50 ms of them", () => {
  const judge = vi.spyOn(SwitchoverJudge.prototype, "judge");
  onTestFinished(() => judge.mockRestore());
  const { totalMs } = run({ guest: guestOfKind("analytics", 4 * GIB), method: "tunnel" }, MBIT);
  expect(totalMs / 50).toBeGreaterThan(150_000);
  expect(judge.mock.calls.length).toBeLessThan(50_000);
});
