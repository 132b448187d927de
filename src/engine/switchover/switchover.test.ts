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
  shortQueueBytes: 50_000,
  linkBytesPerSecond: 1e6,
  roundTripMs: 20,
  roundTrips: 1.5,
  deviceStateBytes: 20_000,
  fixedMs: 10,
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
  // A link that has carried whatever was sent: as much as can be handed over.
  expect(remainingBytesFor(1010, { ...unknown, handoverBytesPerSecond: 4e6 })).toBe(4e6);
});

test("what has gone through in one go will again, and no more than that", () => {
  // 50 kB queued, 20 kB of device state, 100 kB of pages, which take 10 ms to be handed over.
  const proven = { ...FIGURES, proof: { bytes: 170_000, answeredMs: 50 } };
  expect(estimateDowntimeMs(proven)).toBeCloseTo(10 + 10 + (50 - 20) + 30);
  expect(remainingBytesFor(81, proven)).toBeCloseTo(1e6, -2);
  expect(remainingBytesFor(69, proven)).toBe(0);
  const more = { ...proven, remainingBytes: 1.1e6 };
  expect(estimateDowntimeMs(more)).toBeCloseTo(10 + 110 + 50 + 20 + 30);
  // Nor does it make anything slower.
  expect(estimateDowntimeMs({ ...proven, proof: { bytes: 170_000, answeredMs: 5000 } })).toBe(
    estimateDowntimeMs(FIGURES),
  );
  expect(remainingBytesFor(1000, proven)).toBe(remainingBytesFor(1000, FIGURES));
});

const positive = fc.double({ min: 1e-3, max: 1e9, noNaN: true });
const figures = fc.record({
  remainingBytes: fc.nat(),
  wireBytesPerGuestByte: fc.double({ min: 0, max: 2, noNaN: true }),
  handoverBytesPerSecond: positive,
  queuedBytes: fc.nat(1e6),
  shortQueueBytes: fc.nat(1e6),
  linkBytesPerSecond: positive,
  roundTripMs: fc.double({ min: 0, max: 500, noNaN: true }),
  roundTrips: fc.constantFrom(0.5, 1.5),
  deviceStateBytes: fc.nat(200_000),
  fixedMs: fc.double({ min: 0, max: 50, noNaN: true }),
  proof: fc.option(
    fc.record({ bytes: fc.nat(1e6), answeredMs: fc.double({ min: 0, max: 5000, noNaN: true }) }),
    {
      nil: undefined,
    },
  ),
});

test("as much as may be left is what makes the estimate meet the goal, or nothing when nothing does", () => {
  fc.assert(
    fc.property(figures, fc.double({ min: 1, max: 1e5, noNaN: true }), (figures, goalMs) => {
      const remainingBytes = remainingBytesFor(goalMs, figures);
      expect(remainingBytes).toBeGreaterThanOrEqual(0);
      const estimateMs = estimateDowntimeMs({ ...figures, remainingBytes });
      if (remainingBytes > 0) expect(estimateMs).toBeLessThanOrEqual(goalMs * (1 + 1e-9) + 1e-6);
      if (figures.proof !== undefined) return;
      // More than one byte above what the goal allows, which was rounded down to whole bytes: however floating-point
      // numbers round, that is no less than the goal.
      const more = estimateDowntimeMs({ ...figures, remainingBytes: remainingBytes + 2 });
      expect(more).toBeGreaterThanOrEqual(goalMs * (1 - 1e-9) - 1e-6);
    }),
  );
});

describe("the judge", () => {
  const GOAL_MS = 100;
  /** So that what is asked for is the estimate. */
  const PLAIN: SwitchoverFigures = {
    ...FIGURES,
    queuedBytes: 0,
    shortQueueBytes: 0,
    deviceStateBytes: 0,
    roundTripMs: 0,
    wireBytesPerGuestByte: 1,
  };
  const estimated = (ms: number) => ({ ...PLAIN, remainingBytes: (ms - 10) * 1000 });
  const kind = (reason: string) => reason.slice(0, reason.indexOf(":"));

  function judgement(goalMs = GOAL_MS) {
    const judge = new SwitchoverJudge(goalMs, 0);
    return Object.assign(
      (figures: SwitchoverFigures, nowMs: number) => {
        const { released, aimMs, reason } = judge.judge(figures, nowMs);
        return [released, Math.round(aimMs), kind(reason)];
      },
      { goBeyond: (aimMs: number, nowMs: number) => judge.goBeyond(aimMs, nowMs) },
    );
  }

  test("holds the guest above the goal, and releases it within", () => {
    const judge = judgement();
    expect(judge(estimated(500), 0)).toEqual([false, 11, "downtime above the goal"]);
    expect(judge(estimated(101), 50)).toEqual([false, 11, "downtime above the goal"]);
    expect(judge(estimated(99), 100)).toEqual([true, 11, "downtime within the goal"]);
  });

  test("never releases it above the goal, nor aims above it, whatever the figures", () => {
    const looks = fc.array(fc.tuple(figures, fc.integer({ min: 1, max: 20_000 })), { maxLength: 100 });
    fc.assert(
      fc.property(looks, fc.double({ min: 5, max: 5000, noNaN: true }), (looks, goalMs) => {
        const judge = new SwitchoverJudge(goalMs, 0);
        let nowMs = 0;
        let wasReleased = false;
        for (const [figures, elapsedMs] of looks) {
          nowMs += elapsedMs;
          const { released, aimMs, estimatedMs } = judge.judge(figures, nowMs);
          if (released && !wasReleased) expect(estimatedMs).toBeLessThanOrEqual(goalMs);
          if (wasReleased) expect(released).toBe(true);
          expect(aimMs).toBeLessThanOrEqual(goalMs);
          wasReleased = released;
        }
      }),
    );
  });

  test("allows next to nothing at first, then more step by step, up to a margin below the goal", () => {
    const judge = judgement();
    const seen = Array.from({ length: 80 }, (_, i) => judge(estimated(60), i * 10));
    const aims = seen.map(([, aimMs]) => aimMs);
    // A step each 120 ms: five of them take the 600 ms that waiting for less may cost at the least.
    expect([0, 11, 12, 23, 24, 36, 48, 60, 79].map((i) => aims[i])).toEqual([
      11, 11, 17, 17, 25, 37, 56, 80, 80,
    ]);
    expect(seen.every(([released]) => released)).toBe(true);
    expect(seen[12]![2]).toBe("more left than 11 ms allow");
  });

  test("takes a twentieth of the time so far for it, where that is more", () => {
    const judge = judgement();
    const aimAt = (ms: number) => judge(estimated(60), ms)[1];
    // A minute allows 3 s, in five steps.
    expect([60_000, 60_599, 60_600, 61_200, 62_400, 63_000].map(aimAt)).toEqual([11, 11, 17, 25, 37, 56]);
  });

  test("allows no more while the estimate falls by half of the time that passes", () => {
    const judge = judgement(1000);
    const aimsAt = (ms: number, estimateMs: number) => judge(estimated(estimateMs), ms)[1];
    const aims = [aimsAt(0, 900), aimsAt(100, 840), aimsAt(200, 780), aimsAt(300, 725), aimsAt(400, 680)];
    expect(aims).toEqual([11, 11, 11, 11, 17]);
  });

  test("stays released when the estimate rises again, and allows no more for it", () => {
    const judge = judgement();
    judge(estimated(50), 0);
    expect(judge(estimated(500), 10)).toEqual([true, 11, "downtime within the goal"]);
  });

  test("after a while allows all of the goal, and never more than that by itself", () => {
    const judge = judgement();
    const seen = Array.from({ length: 800 }, (_, i) => judge(estimated(90), i * 20));
    const aimAt = (ms: number) => seen[ms / 20]![1];
    expect([600, 5580, 5600, 15_280].map(aimAt)).toEqual([80, 80, 100, 100]);
    expect(seen[5600 / 20]![2]).toBe("more left than 80 ms allow, for 5.0 s");
  });

  test("stops the guest beyond the goal when it is told to, with ever more left", () => {
    const judge = judgement();
    expect(judge(estimated(900), 0)[0]).toBe(false);
    judge.goBeyond(400, 100);
    expect(judge(estimated(900), 100)).toEqual([true, 400, "the goal does not count any more"]);
    // What it is told once holds.
    judge.goBeyond(10_000, 200);
    const aims = [1099, 1100, 2100, 3100].map((ms) => judge(estimated(900), ms)[1]);
    expect(aims).toEqual([400, 600, 900, 1350]);
  });

  test("counts on a queue that becomes short when the guest may be stopped, and then on the one there is", () => {
    const judge = judgement();
    const queued = { ...PLAIN, queuedBytes: 80_000, shortQueueBytes: 20_000 };
    // 10 ms, 20 ms of queue, and 40 ms of pages: 130 ms with the queue as it still is.
    expect(judge({ ...queued, remainingBytes: 40_000 }, 0)).toEqual([true, 33, "downtime within the goal"]);
    const unready = new SwitchoverJudge(GOAL_MS, 0);
    expect(unready.judge({ ...queued, remainingBytes: 40_000 }, 0).estimatedMs).toBeCloseTo(70);
    expect(unready.judge({ ...queued, remainingBytes: 40_000 }, 10).estimatedMs).toBeCloseTo(130);
  });

  test("aims at what can be had at all where little of the goal is left for pages, at once", () => {
    const judge = judgement();
    // 10 ms, 60 ms of device state, and 15 ms that wait in front of the link as long as there is anything to send.
    const tight = { ...PLAIN, deviceStateBytes: 60_000, queuedBytes: 15_000, shortQueueBytes: 15_000 };
    expect(judge({ ...tight, remainingBytes: 30_000 }, 0)).toEqual([false, 94, "downtime above the goal"]);
    expect(judge({ ...tight, remainingBytes: 5000 }, 20)).toEqual([true, 94, "downtime within the goal"]);
  });

  describe("where even nothing left takes longer than the goal", () => {
    // 128 kB of device state alone take 128 ms of this link.
    const floor = { ...PLAIN, deviceStateBytes: 128_000 };
    const near = { ...floor, remainingBytes: 4096 };

    test("holds the guest, however long", () => {
      const judge = judgement();
      for (let ms = 0; ms < 60_000; ms += 50) {
        expect(judge(near, ms)).toEqual([false, 100, "downtime above the goal"]);
      }
    });

    test("allows nothing more while a link stands still after the release", () => {
      const judge = judgement();
      expect(judge(estimated(50), 0)[0]).toBe(true);
      for (let ms = 20; ms < 60_000; ms += 20) {
        const stalled = { ...PLAIN, remainingBytes: 4096, roundTripMs: 100 + ms };
        expect(judge(stalled, ms)[1]).toBe(11);
      }
      // The time that the link stood still says nothing of what the hypervisor finds left.
      expect(judge(estimated(60), 60_000)[1]).toBe(11);
      expect(judge(estimated(60), 60_120)[1]).toBe(17);
    });

    test("goes by it, up to the goal, when it has come to stay after the release", () => {
      const judge = judgement();
      judge(estimated(50), 0);
      expect(judge(near, 20)[1]).toBe(11);
      const reason = "what must follow the last page takes longer than was aimed at";
      expect(judge(near, 420)).toEqual([true, 100, reason]);
    });
  });

  test("says estimate, aim and goal in its reason", () => {
    expect(new SwitchoverJudge(400, 0).judge(FIGURES, 0).reason).toBe(
      "downtime within the goal: 210 ms estimated, 121 ms aimed at, goal 400 ms",
    );
  });
});
