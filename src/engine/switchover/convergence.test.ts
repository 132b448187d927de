// Promises and policies, on figures as they come: what is said, how often, and what is done.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Convergence, type ConvergenceVerdict, type Promises, THROTTLE_STEPS } from "./convergence.ts";
import { type ConvergenceFigures, endText, forecastCost, forecastEnd } from "./forecast.ts";
import { STALL_POLICIES, type StallPolicy } from "./stall-policies.ts";

const GOAL_MS = 100;

/** 10 MB left, of which the goal affords 1 MB; sent at 20 MB/s, dirtied at 2 MB/s. */
const FIGURES: ConvergenceFigures = {
  isFirstPass: false,
  linkStandsStill: false,
  estimatedMs: 550,
  floorMs: 20,
  remainingBytes: 10e6,
  affordableBytes: 1e6,
  dirtyBytesPerSecond: 2e6,
  settledBytesPerSecond: 20e6,
  wireBytesPerGuestByte: 0.125,
  linkBytesPerSecond: 2.5e6,
  wireBytes: 50e6,
  tailBytes: 1e5,
};
/** Encoded to 4 MB/s. */
const NEVER: Partial<ConvergenceFigures> = { dirtyBytesPerSecond: 32e6 };

class Scene {
  nowMs = 0;
  readonly said: string[] = [];
  last!: ConvergenceVerdict;
  readonly #convergence: Convergence;

  constructor(promises: Partial<Promises> = {}, canThrottle = true) {
    this.#convergence = new Convergence({ downtimeMsMax: GOAL_MS, ...promises }, canThrottle, 0);
  }

  /** The same figures, looked at for so long. */
  see(figures: Partial<ConvergenceFigures>, ms: number, everyMs = 50): this {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs && !this.isOver; this.nowMs += everyMs) {
      this.last = this.#convergence.judge({ ...FIGURES, ...figures }, this.nowMs);
      this.said.push(...this.last.said.map(({ choice, reason }) => `${choice}: ${reason}`));
    }
    return this;
  }

  allowAnyDowntime(): void {
    this.#convergence.allowAnyDowntime();
  }

  get isOver(): boolean {
    return this.last?.giveUp !== undefined;
  }

  get choices(): string[] {
    return this.said.map((text) => text.slice(0, text.indexOf(":")));
  }
}

describe("the forecast", () => {
  const text = (figures: Partial<ConvergenceFigures>) => {
    const all = { ...FIGURES, ...figures };
    return endText(forecastEnd(all), all);
  };

  test("is the time that the excess takes at what sending gains on the guest", () => {
    expect(forecastEnd(FIGURES)).toEqual({ kind: "in", ms: 500 });
    expect(text({})).toBe("at this rate the goal is met in 500 ms");
    expect(forecastEnd({ ...FIGURES, remainingBytes: 1e6 })).toEqual({ kind: "in", ms: 0 });
  });

  test("says why never: the link, the hand-over, or what no iteration makes smaller", () => {
    expect(text(NEVER)).toBe(
      "at this rate never: the guest dirties 32.0 MB/s, encoded to 4.0 MB/s, and the link carries 2.5 MB/s",
    );
    expect(text({ ...NEVER, wireBytesPerGuestByte: 0.01 })).toBe(
      "at this rate never: the guest dirties 32.0 MB/s, encoded to 320 kB/s, and pages are handed over at 20.0 MB/s",
    );
    expect(text({ affordableBytes: 0 })).toBe(
      "at this rate never: what must follow the last page takes all of the goal",
    );
  });

  test("of time and bytes counts what is left of the first pass, or the way to the goal", () => {
    const firstPass = { ...FIGURES, isFirstPass: true, wireBytesPerGuestByte: 0.5 };
    expect(forecastEnd(firstPass)).toEqual({ kind: "unknown" });
    expect(forecastCost(firstPass, forecastEnd(firstPass))).toEqual({ ms: 500, wireBytes: 5.1e6 });
    expect(forecastCost(FIGURES, forecastEnd(FIGURES))).toEqual({ ms: 500, wireBytes: 1.35e6 });
    expect(forecastCost({ ...FIGURES, ...NEVER }, { kind: "never" })).toBeUndefined();
  });
});

describe("a stall", () => {
  test("is no progress of a tenth within 10 s, however the estimate moves meanwhile", () => {
    const scene = new Scene();
    for (let i = 0; i < 14; i++) scene.see({ estimatedMs: 500 + 400 * (i % 2) }, 800);
    expect(scene.said).toEqual([]);
    scene.see({ estimatedMs: 460 }, 2000);
    expect(scene.choices).toEqual(["wait"]);
    expect(scene.said[0]).toMatch(
      /^wait: stalled: .* 10 % less than 500 ms for 10.0 s; 460 ms estimated now/,
    );
  });

  test("is not what falls slowly, but falls", () => {
    const scene = new Scene();
    for (let ms = 5000; ms > 300; ms *= 0.89) scene.see({ estimatedMs: ms }, 9000);
    expect(scene.said).toEqual([]);
  });

  test("is told once, and once that it is over, each time", () => {
    const scene = new Scene()
      .see({}, 60_000)
      .see({ estimatedMs: 300 }, 60_000)
      .see({ estimatedMs: 100 }, 5000);
    expect(scene.choices).toEqual(["wait", "go on", "wait", "go on"]);
  });

  test("is not looked for during the first pass", () => {
    expect(new Scene({ onStall: "abort" }).see({ isFirstPass: true }, 60_000).said).toEqual([]);
  });
});

test.each(["abort", "switchover", "throttle", "wait"] as const)(
  "a link that is gone for a while is no stall, policy %s",
  (onStall) => {
    const scene = new Scene({ onStall }).see({}, 8000);
    // It takes a moment to be seen.
    scene.see({ floorMs: 30_000, estimatedMs: 30_000 }, 500);
    scene.see({ linkStandsStill: true, floorMs: 30_000, estimatedMs: 30_000 }, 30_000);
    // What is seen first when it is there again may still be of before.
    scene.see({ floorMs: 30_000, estimatedMs: 30_000 }, 100);
    expect(scene.see({}, 2000).said).toEqual([]);
    expect(scene.see({}, 3000).choices[0]).toBe(onStall);
  },
);

describe("a downtime that is impossible even with nothing left", () => {
  const far = { floorMs: 104, isFirstPass: true };

  test("is told during the first pass, with what can be had, and again when that changes", () => {
    const scene = new Scene().see(far, 20_000).see({ isFirstPass: true }, 3000);
    expect(scene.said).toEqual([
      "forecast: --max-downtime 100 ms cannot be kept over this link: even with no page left it takes 104 ms",
      "forecast: --max-downtime 100 ms is within reach again",
    ]);
  });

  test("is not told of a link that stands still for a moment", () => {
    expect(new Scene().see(far, 1500).see({ isFirstPass: true }, 5000).said).toEqual([]);
  });

  test("is given up after the first pass with policy abort, and taken with policy switchover", () => {
    const after = { ...far, isFirstPass: false, estimatedMs: 130 };
    const aborted = new Scene({ onStall: "abort" }).see(far, 5000);
    expect(aborted.isOver).toBe(false);
    expect(aborted.see(after, 100).last.giveUp).toMatchObject({ code: "DOWNTIME_UNREACHABLE" });
    const stopped = new Scene({ onStall: "switchover" }).see(far, 5000).see(after, 100);
    expect(stopped.last.beyondGoalMs).toBeCloseTo(143);
    // It is no matter of how fast the guest is.
    const throttled = new Scene({ onStall: "throttle" }).see(far, 5000).see(after, 5000);
    expect([throttled.last.throttlePercentage, throttled.choices]).toEqual([0, ["forecast"]]);
  });
});

test("an operator who lets any downtime do gets what can be had, at once, but after the first pass", () => {
  const scene = new Scene().see({ isFirstPass: true, estimatedMs: 9000 }, 1000);
  scene.allowAnyDowntime();
  expect(scene.see({ isFirstPass: true, estimatedMs: 9000 }, 5000).last.beyondGoalMs).toBeUndefined();
  expect(scene.see({ estimatedMs: 800 }, 50).last.beyondGoalMs).toBeCloseTo(880);
  expect(scene.said).toEqual([
    "switchover: the operator lets any downtime do: the guest will stand still for about 880 ms",
  ]);
});

describe("throttling", () => {
  test("goes on step by step while nothing gets better, to its end, and says that", () => {
    const scene = new Scene({ onStall: "throttle" }).see({}, 300_000);
    expect(scene.choices).toEqual([
      "throttle",
      ...THROTTLE_STEPS.map((step) => `throttle ${step} %`),
      "wait",
    ]);
    expect(scene.last.throttlePercentage).toBe(99);
  });

  test("stays where it is while it gets better, and is not taken back", () => {
    const scene = new Scene({ onStall: "throttle" }).see({}, 14_000);
    for (let ms = 480; ms > 100; ms *= 0.85) scene.see({ estimatedMs: ms }, 4000);
    expect(scene.last.throttlePercentage).toBe(20);
  });
});

describe("promises of time and bytes", () => {
  test("that will not be kept are told of before, and again if they will be", () => {
    const scene = new Scene({ timeMsMax: 60_000 }).see(NEVER, 8000).see({ estimatedMs: 400 }, 5000);
    expect(scene.said.filter((text) => text.includes("--max-time"))).toEqual([
      expect.stringMatching(
        /^forecast: --max-time 60.0 s will not be kept: at this rate never: the guest dirties/,
      ),
      "forecast: --max-time 60.0 s will be kept after all",
    ]);
  });

  test("are kept by giving up at the limit, also while figures say that the end is near", () => {
    const scene = new Scene({ timeMsMax: 5000 }).see({}, 60_000);
    expect(scene.last.giveUp).toMatchObject({ code: "MAX_TIME_REACHED" });
    expect(scene.nowMs).toBe(5050);
    const bytes = new Scene({ wireBytesMax: 50e6 })
      .see({ wireBytes: 49e6 }, 1000)
      .see({ wireBytes: 49.95e6 }, 100);
    expect(bytes.last.giveUp).toMatchObject({ code: "MAX_BYTES_REACHED" });
  });

  test("are kept by stopping the guest before, where the policy says so, but not during the first pass", () => {
    const scene = new Scene({ timeMsMax: 9000, onStall: "switchover" }).see({}, 8900);
    expect([scene.last.beyondGoalMs, scene.isOver]).toEqual([expect.closeTo(605), false]);
    expect(scene.choices).toEqual(["switchover"]);
    // It was allowed to, and has not been: the limit is one all the same.
    expect(scene.see({}, 600).last.giveUp).toMatchObject({ code: "MAX_TIME_REACHED" });
    const first = new Scene({ timeMsMax: 9000, onStall: "switchover" }).see({ isFirstPass: true }, 20_000);
    expect(first.last).toMatchObject({ beyondGoalMs: undefined, giveUp: { code: "MAX_TIME_REACHED" } });
  });
});

const positive = fc.double({ min: 1, max: 1e9, noNaN: true });
const arbitraryFigures: fc.Arbitrary<ConvergenceFigures> = fc.record({
  isFirstPass: fc.boolean(),
  linkStandsStill: fc.boolean(),
  estimatedMs: positive,
  floorMs: fc.double({ min: 1, max: 300, noNaN: true }),
  remainingBytes: positive,
  affordableBytes: fc.double({ min: 0, max: 1e8, noNaN: true }),
  dirtyBytesPerSecond: fc.double({ min: 0, max: 1e9, noNaN: true }),
  settledBytesPerSecond: fc.double({ min: 0, max: 1e9, noNaN: true }),
  wireBytesPerGuestByte: fc.double({ min: 0, max: 2, noNaN: true }),
  linkBytesPerSecond: fc.double({ min: 0, max: 1e9, noNaN: true }),
  wireBytes: fc.double({ min: 0, max: 1e10, noNaN: true }),
  tailBytes: fc.double({ min: 0, max: 1e6, noNaN: true }),
});

test.each(Object.keys(STALL_POLICIES) as StallPolicy[])(
  "policy %s does nothing but its own, once, whatever comes",
  (onStall) => {
    const looks = fc.array(fc.tuple(arbitraryFigures, fc.integer({ min: 20, max: 20_000 })), {
      maxLength: 200,
    });
    fc.assert(
      fc.property(looks, fc.boolean(), fc.option(positive), (looks, canThrottle, timeMsMax) => {
        const scene = new Scene({ onStall, ...(timeMsMax === null ? {} : { timeMsMax }) }, canThrottle);
        const percentages: number[] = [0];
        const beyond = new Set<number>();
        for (const [figures, ms] of looks) {
          if (scene.isOver) break;
          scene.see(figures, 1);
          scene.nowMs += ms;
          const { throttlePercentage, beyondGoalMs, giveUp } = scene.last;
          percentages.push(throttlePercentage);
          if (beyondGoalMs !== undefined) beyond.add(beyondGoalMs);
          if (onStall !== "abort" && giveUp !== undefined) expect(giveUp.code).toBe("MAX_TIME_REACHED");
        }
        expect(beyond.size).toBeLessThanOrEqual(onStall === "switchover" ? 1 : 0);
        if (onStall !== "throttle" || !canThrottle) expect(Math.max(...percentages)).toBe(0);
        expect(percentages).toEqual([...percentages].sort((a, b) => a - b));
        expect(percentages.at(-1)).toBeLessThanOrEqual(99);
        const steps = percentages.filter((percentage, i) => i > 0 && percentage !== percentages[i - 1]);
        expect(steps).toEqual(THROTTLE_STEPS.slice(0, steps.length));
      }),
    );
  },
);
