// When to stop the guest: the estimate, and the judgement that waits for its minimum.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  estimateDowntimeMs,
  remainingBytesFor,
  type SwitchoverFigures,
  SwitchoverJudge,
} from "./switchover.ts";

const FIGURES: SwitchoverFigures = {
  remainingBytes: 1e6,
  wireBytesPerGuestByte: 0.1,
  handoverBytesPerSecond: 100e6,
  queuedBytes: 50_000,
  linkBytesPerSecond: 1e6,
  roundTripMs: 20,
  roundTrips: 1.5,
  deviceStateBytes: 20_000,
};

test("the estimate adds what is left in encoded form, what is queued, the device state and the round trips", () => {
  expect(estimateDowntimeMs(FIGURES)).toBeCloseTo(10 + 100 + 50 + 20 + 30);
});

test("where the hypervisor hands pages over more slowly than the link takes them, that is what counts", () => {
  expect(estimateDowntimeMs({ ...FIGURES, handoverBytesPerSecond: 2e6 })).toBeCloseTo(
    10 + 500 + 50 + 20 + 30,
  );
});

test("what is not known yet takes no time", () => {
  const unknown = { ...FIGURES, linkBytesPerSecond: 0, handoverBytesPerSecond: 0, roundTripMs: 0 };
  expect(estimateDowntimeMs(unknown)).toBe(10);
  expect(remainingBytesFor(1000, unknown)).toBe(0);
});

const positive = fc.double({ min: 1e-3, max: 1e9, noNaN: true });
const figures = fc.record({
  remainingBytes: fc.nat(),
  wireBytesPerGuestByte: fc.double({ min: 0, max: 2, noNaN: true }),
  handoverBytesPerSecond: positive,
  queuedBytes: fc.nat(1e6),
  linkBytesPerSecond: positive,
  roundTripMs: fc.double({ min: 0, max: 500, noNaN: true }),
  roundTrips: fc.constantFrom(0.5, 1.5),
  deviceStateBytes: fc.nat(200_000),
});

test("as much as may be left is what makes the estimate meet the goal, or nothing when nothing does", () => {
  fc.assert(
    fc.property(figures, fc.double({ min: 1, max: 1e5, noNaN: true }), (figures, goalMs) => {
      const remainingBytes = remainingBytesFor(goalMs, figures);
      expect(remainingBytes).toBeGreaterThanOrEqual(0);
      const estimateMs = estimateDowntimeMs({ ...figures, remainingBytes });
      if (remainingBytes > 0) expect(estimateMs).toBeLessThanOrEqual(goalMs * (1 + 1e-9) + 1e-6);
      const more = estimateDowntimeMs({ ...figures, remainingBytes: remainingBytes + 2 });
      expect(more).toBeGreaterThanOrEqual(
        goalMs - 1e-6 - (3 / figures.handoverBytesPerSecond) * 1000 - goalMs * 1e-9,
      );
    }),
  );
});

describe("the judge", () => {
  /** Asks for one estimate after the other, says what was decided. */
  function judge(goalMs: number, estimatesMs: number[]): string[] {
    const judge = new SwitchoverJudge(goalMs);
    return estimatesMs.map((estimateMs) => {
      const nothing = {
        ...FIGURES,
        queuedBytes: 0,
        deviceStateBytes: 0,
        roundTripMs: 0,
        wireBytesPerGuestByte: 1,
      };
      const decision = judge.judge({ ...nothing, remainingBytes: (estimateMs - 10) * 1000 });
      expect(decision.estimatedMs).toBeCloseTo(estimateMs);
      return decision.switchOver ? "now" : decision.reason.slice(0, decision.reason.indexOf(":"));
    });
  }
  const above = "downtime above the goal";
  const falling = "downtime still falling";

  test("waits above the goal, and within it as long as the estimate falls", () => {
    expect(judge(100, [500, 200, 90, 50, 20, 19])).toEqual([above, above, falling, falling, falling, "now"]);
  });

  test("takes a goal that is met, as soon as the estimate rises again", () => {
    expect(judge(100, [300, 60, 80])).toEqual([above, falling, "now"]);
  });

  test("does not wait for ever for something that keeps falling", () => {
    const estimates = Array.from({ length: 8 }, (_, i) => 90 * 0.7 ** i + 10);
    expect(judge(100, [200, ...estimates])).toEqual([above, ...Array(7).fill(falling), "now"]);
  });

  test("begins to count anew when the goal is missed in between", () => {
    expect(judge(100, [99, 120, 95, 80, 60])).toEqual([falling, above, falling, falling, falling]);
  });

  test("does not wait for what no iteration makes smaller", () => {
    const judge = new SwitchoverJudge(30);
    // 128 kB of device state alone take 128 ms of this link.
    const floor = {
      ...FIGURES,
      remainingBytes: 4096,
      queuedBytes: 0,
      deviceStateBytes: 128_000,
      roundTripMs: 0,
    };
    const decisions = Array.from({ length: 8 }, () => judge.judge(floor));
    expect(decisions.map(({ switchOver }) => switchOver)).toEqual([...Array(7).fill(false), true]);
    expect(decisions[7]!.reason).toContain("above the goal even with nothing left");
    const busy = new SwitchoverJudge(30);
    for (let i = 0; i < 100; i++) {
      expect(busy.judge({ ...floor, remainingBytes: 1e7 }).switchOver).toBe(false);
    }
  });

  test("says estimate and goal in its reason", () => {
    expect(new SwitchoverJudge(100).judge(FIGURES).reason).toBe(
      "downtime above the goal: 210 ms estimated, goal 100 ms",
    );
  });
});
