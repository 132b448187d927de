import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { VirtualClock } from "../base/clock.ts";
import { TokenBucket } from "./token-bucket.ts";

/** Rounding of the clock's fractions of a millisecond, in bytes. */
const ROUNDING_BYTES = 1;

interface Passage {
  atMs: number;
  bytes: number;
}

function expectWithin(passages: Passage[], bytesAllowed: (fromMs: number, toMs: number) => number): void {
  for (let from = 0; from < passages.length; from++) {
    let bytes = 0;
    for (let to = from; to < passages.length; to++) {
      bytes += passages[to]!.bytes;
      expect(bytes).toBeLessThanOrEqual(
        bytesAllowed(passages[from]!.atMs, passages[to]!.atMs) + ROUNDING_BYTES,
      );
    }
  }
}

/** Whatever the caller does: takes of many sizes, asking again too early, too late, or exactly when advised. */
const steps = fc.array(
  fc.record({
    sizeRatio: fc.double({ min: 0, max: 1, noNaN: true }),
    idleMs: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 200, noNaN: true })),
    patience: fc.constantFrom("early", "exact", "late"),
  }),
  { maxLength: 60 },
);
const rate = fc.integer({ min: 100, max: 200_000_000 });
const burst = fc.integer({ min: 1, max: 1_000_000 });

describe("TokenBucket", () => {
  it("lets through at most rate times window plus burst, over every window, however it is asked", () => {
    fc.assert(
      fc.property(rate, burst, steps, (bytesPerSecond, burstBytes, todo) => {
        const clock = new VirtualClock();
        const bucket = new TokenBucket(clock, bytesPerSecond, burstBytes);
        const passages: Passage[] = [];
        for (const { sizeRatio, idleMs, patience } of todo) {
          const bytes = Math.floor(sizeRatio * burstBytes);
          clock.advance(idleMs);
          const waitMs = bucket.take(bytes);
          if (waitMs > 0) {
            clock.advance(patience === "early" ? waitMs / 2 : patience === "late" ? waitMs * 3 : waitMs);
            if (bucket.take(bytes) > 0) continue;
          }
          passages.push({ atMs: clock.nowMs(), bytes });
        }
        expectWithin(passages, (fromMs, toMs) => ((toMs - fromMs) / 1000) * bytesPerSecond + burstBytes);
      }),
    );
  });

  it("keeps to the rate that held at each moment when the rate changes while running", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(rate, fc.double({ min: 0, max: 100, noNaN: true })), {
          minLength: 1,
          maxLength: 20,
        }),
        (rates) => {
          const burstBytes = 100_000;
          const clock = new VirtualClock();
          const bucket = new TokenBucket(clock, rates[0]![0], burstBytes);
          let passedBytes = 0;
          let allowedBytes = burstBytes;
          for (const [i, [bytesPerSecond, ms]] of rates.entries()) {
            bucket.setRate(bytesPerSecond);
            expect(bucket.bytesPerSecond).toBe(bytesPerSecond);
            allowedBytes += (ms / 1000) * bytesPerSecond;
            clock.advance(ms);
            // Not every time: what was gathered before a change must count at the rate of then.
            while (i % 2 === 1 && bucket.take(1000) === 0) passedBytes += 1000;
            expect(passedBytes).toBeLessThanOrEqual(allowedBytes + ROUNDING_BYTES);
          }
        },
      ),
    );
  });

  it("advises waits after which the bytes may go, and loses nothing of the rate over a long time", () => {
    fc.assert(
      fc.property(rate, fc.integer({ min: 1000, max: 1_000_000 }), (bytesPerSecond, burstBytes) => {
        const clock = new VirtualClock();
        // A clock that has run for weeks has fewer digits left for fractions of a millisecond.
        clock.advance(3e9);
        const bucket = new TokenBucket(clock, bytesPerSecond, burstBytes);
        const startMs = clock.nowMs();
        const bytes = Math.max(1, Math.floor(burstBytes / 2));
        let passedBytes = 0;
        let refusals = 0;
        for (let i = 0; i < 2000; i++) {
          const waitMs = bucket.take(bytes);
          if (waitMs > 0) {
            clock.advance(waitMs);
            refusals++;
          } else passedBytes += bytes;
        }
        const earnedBytes = ((clock.nowMs() - startMs) / 1000) * bytesPerSecond;
        // A wait is a microsecond too long at most, and what is gathered in it is not lost.
        const perWaitBytes = bytesPerSecond / 1e6 + ROUNDING_BYTES;
        expect(passedBytes).toBeGreaterThanOrEqual(earnedBytes - bytes - perWaitBytes);
        expect(refusals).toBeLessThanOrEqual(1002);
      }),
    );
  });

  it("makes good for a caller that asks late, if it says since when its bytes have waited", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 50, noNaN: true }), { minLength: 1, maxLength: 100 }),
        (latenessMs) => {
          const clock = new VirtualClock();
          const bucket = new TokenBucket(clock, 1_000_000, 1000);
          let passedBytes = 0;
          for (const lateMs of latenessMs) {
            clock.advance(lateMs);
            while (bucket.take(1000, 0) === 0) passedBytes += 1000;
            const earnedBytes = clock.nowMs() * 1000 + 1000;
            expect(passedBytes).toBeLessThanOrEqual(earnedBytes + ROUNDING_BYTES);
            expect(passedBytes).toBeGreaterThan(earnedBytes - 1000 - ROUNDING_BYTES);
          }
        },
      ),
    );
  });

  it("gives no more than the burst for a time in which nothing waited", () => {
    const clock = new VirtualClock();
    const bucket = new TokenBucket(clock, 1_000_000, 1000);
    clock.advance(500);
    expect(bucket.take(1000, 500)).toBe(0);
    expect(bucket.take(1000, 500)).toBe(1);
    clock.advance(10);
    // Of these 10 ms the bytes waited for 3.
    expect([1, 2, 3, 4, 5].map(() => bucket.take(1000, 507))).toEqual([0, 0, 0, 0, 1]);
  });

  it("forgets what no longer fits when the burst is made smaller", () => {
    const bucket = new TokenBucket(new VirtualClock(), 1000, 1000);
    bucket.setRate(1000, 10);
    expect(bucket.take(10)).toBe(0);
    expect(bucket.take(10)).toBe(10);
  });

  it("refuses, as mistakes of ours, more than the burst and rates that are none", () => {
    const clock = new VirtualClock();
    expect(() => new TokenBucket(clock, 1000, 10).take(11)).toThrow(/Assertion/);
    expect(() => new TokenBucket(clock, 0, 10)).toThrow(/Assertion/);
    expect(() => new TokenBucket(clock, Number.POSITIVE_INFINITY, 10)).toThrow(/Assertion/);
    expect(() => new TokenBucket(clock, 1000, 10).setRate(Number.NaN)).toThrow(/Assertion/);
  });
});
