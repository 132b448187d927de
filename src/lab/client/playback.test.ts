import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { countLost, longestGapMs, playBack, untilNow } from "./playback.ts";
import type { Picture } from "./transport-stream.ts";

const PERIOD_MS = 40;
const ALWAYS = { fromMs: Number.NEGATIVE_INFINITY, untilMs: Number.POSITIVE_INFINITY };

/** 25 pictures per second that arrive as they are to be shown, but from `fromIndex` on so much later. */
function arrivals(count: number, fromIndex = count, lateMs = 0): Picture[] {
  return Array.from({ length: count }, (_, index) => ({
    presentationMs: 5000 + index * PERIOD_MS,
    arrivedMs: index * PERIOD_MS + (index < fromIndex ? 0 : lateMs),
  }));
}

describe("a player", () => {
  it("shows an even stream without freezing, whatever its buffer", () => {
    for (const bufferMs of [0, 100, 2000]) {
      expect(playBack(arrivals(100), bufferMs, ALWAYS)).toEqual({ frozenMs: 0, stalls: 0 });
    }
  });

  it("freezes once, for what an outage is longer than its buffer", () => {
    const pictures = arrivals(200, 100, 700);
    expect(playBack(pictures, 0, ALWAYS)).toEqual({ frozenMs: 700, stalls: 1 });
    expect(playBack(pictures, 100, ALWAYS)).toEqual({ frozenMs: 600, stalls: 1 });
    expect(playBack(pictures, 699, ALWAYS)).toEqual({ frozenMs: 1, stalls: 0 });
    expect(playBack(pictures, 1000, ALWAYS)).toEqual({ frozenMs: 0, stalls: 0 });
  });

  it("does not catch up: a second outage finds the buffer that the first one has left", () => {
    const once = arrivals(100, 30, 300);
    const twice = once.map(({ presentationMs, arrivedMs }, index) => ({
      presentationMs,
      arrivedMs: arrivedMs + (index < 60 ? 0 : 300),
    }));
    expect(playBack(twice, 500, ALWAYS)).toEqual({ frozenMs: 100, stalls: 1 });
    expect(playBack(twice, 0, ALWAYS)).toEqual({ frozenMs: 600, stalls: 2 });
  });

  it("is not blamed for what froze before or after the time that is asked for", () => {
    // The outage: the picture that was due at 4000 comes at 4700.
    const pictures = arrivals(200, 100, 700);
    expect(playBack(pictures, 0, { fromMs: 4700, untilMs: 9000 }).frozenMs).toBe(0);
    expect(playBack(pictures, 0, { fromMs: 0, untilMs: 4000 }).frozenMs).toBe(0);
    expect(playBack(pictures, 0, { fromMs: 4200, untilMs: 4300 }).frozenMs).toBe(100);
  });

  it("freezes until now when nothing comes any more, for what that is longer than its buffer", () => {
    const pictures = arrivals(100);
    const nextDueMs = 100 * PERIOD_MS;
    expect(playBack(untilNow(pictures, nextDueMs), 0, ALWAYS)).toEqual({ frozenMs: 0, stalls: 0 });
    const silent = untilNow(pictures, nextDueMs + 9000);
    expect(playBack(silent, 0, ALWAYS)).toEqual({ frozenMs: 9000, stalls: 1 });
    expect(playBack(silent, 1000, ALWAYS)).toEqual({ frozenMs: 8000, stalls: 1 });
    expect(longestGapMs(silent, ALWAYS)).toBe(9000 + PERIOD_MS);
    expect(untilNow([], 0)).toEqual([]);
  });

  it("shows pictures in the order of their presentation, and each when it could be decoded", () => {
    // Sent in the order of decoding: the third is referred to by the second.
    const sent: Picture[] = [0, 2, 1, 4, 3, 6, 5].map((position, index) => ({
      presentationMs: position * PERIOD_MS,
      arrivedMs: index * PERIOD_MS,
    }));
    // One period of buffer pays for the order.
    expect(playBack(sent, PERIOD_MS, ALWAYS).frozenMs).toBe(0);
    expect(playBack(sent, 0, ALWAYS).frozenMs).toBe(PERIOD_MS);
  });

  it("never freezes for longer with more buffer, nor for longer than the worst delay", () => {
    const delays = fc.array(fc.nat(3000), { minLength: 2, maxLength: 80 });
    fc.assert(
      fc.property(delays, fc.nat(2000), fc.nat(2000), (lateMs, bufferMs, moreMs) => {
        const pictures = lateMs.map((late, index) => ({
          presentationMs: index * 40,
          arrivedMs: index * 40 + late,
        }));
        const frozen = playBack(pictures, bufferMs, ALWAYS).frozenMs;
        expect(playBack(pictures, bufferMs + moreMs, ALWAYS).frozenMs).toBeLessThanOrEqual(frozen);
        expect(frozen).toBe(Math.max(0, Math.max(...lateMs) - lateMs[0]! - bufferMs));
      }),
    );
  });
});

describe("arrivals", () => {
  it("have a longest gap, within the time that is asked for", () => {
    const pictures = arrivals(100, 50, 500);
    expect(longestGapMs(pictures, ALWAYS)).toBe(540);
    expect(longestGapMs(pictures, { fromMs: 0, untilMs: 1900 })).toBe(40);
    // Of a gap, some may lie outside: it was seen all the same.
    expect(longestGapMs(pictures, { fromMs: 2200, untilMs: 2300 })).toBe(540);
    expect(longestGapMs(pictures.slice(0, 1), ALWAYS)).toBeUndefined();
  });

  it("tell how many pictures never came, in whatever order the others did", () => {
    const pictures = arrivals(100);
    expect(countLost(pictures)).toBe(0);
    expect(countLost(pictures.toSpliced(60, 1).toSpliced(10, 3).reverse())).toBe(4);
    expect(countLost([])).toBe(0);
  });
});
