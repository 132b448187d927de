import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { metricInPhase, Samples, spansOf, thinned } from "./phases.ts";

describe("the phases of a migration", () => {
  it("follow each other without a gap, from when all was steady to the end", () => {
    const times = { steadyMs: 10, beganMs: 20, endedMs: 35, finishedMs: 50 };
    expect(spansOf(times)).toEqual([
      ["before", { beginMs: 10, endMs: 20 }],
      ["during", { beginMs: 20, endMs: 35 }],
      ["after", { beginMs: 35, endMs: 50 }],
    ]);
  });

  it("are only those that there were", () => {
    const never = spansOf({ steadyMs: 0, beganMs: undefined, endedMs: undefined, finishedMs: 9 });
    expect(never).toEqual([["before", { beginMs: 0, endMs: 9 }]]);
    const unended = spansOf({ steadyMs: 0, beganMs: 4, endedMs: undefined, finishedMs: 9 });
    expect(unended.map(([phase]) => phase)).toEqual(["before", "during"]);
  });

  it("name metrics", () => {
    expect(metricInPhase("throughput", "during")).toBe("throughputDuring");
  });
});

describe("samples of a counter", () => {
  const samples = new Samples();
  // 100 per second for a second, then a second of standstill in which nothing is heard, then 50 per second.
  for (let ms = 0; ms <= 1000; ms += 100) samples.push(ms, ms / 10);
  for (let ms = 2000; ms <= 3000; ms += 100) samples.push(ms, 100 + (ms - 2000) / 20);

  it("give its rate between any two times, also between samples", () => {
    expect(samples.ratePerSecond({ beginMs: 250, endMs: 750 })).toBeCloseTo(100);
    expect(samples.ratePerSecond({ beginMs: 2010, endMs: 2990 })).toBeCloseTo(50);
  });

  it("count a silence as time in which it did not grow", () => {
    expect(samples.ratePerSecond({ beginMs: 500, endMs: 2500 })).toBeCloseTo((50 + 25) / 2);
  });

  it("give no rate where nothing was seen", () => {
    expect(samples.ratePerSecond({ beginMs: 5000, endMs: 6000 })).toBeUndefined();
    expect(new Samples().ratePerSecond({ beginMs: 0, endMs: 1 })).toBeUndefined();
  });

  it("become a series of rates whose sum is the growth", () => {
    const rates = samples.rates(30);
    expect(rates).toHaveLength(30);
    expect(rates.reduce((sum, { value }) => sum + value, 0) * 0.1).toBeCloseTo(150);
    expect(rates[15]?.value).toBeCloseTo(0);
  });

  it("need no more memory when there are many, and still tell the rate", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 100, max: 2000 }),
        fc.integer({ min: 10, max: 64 }),
        (count, samplesMax) => {
          const bounded = new Samples(samplesMax);
          for (let i = 0; i < count; i++) bounded.push(i * 10, i);
          expect(bounded.points.length).toBeLessThanOrEqual(samplesMax);
          const span = { beginMs: 0, endMs: bounded.points.at(-1)!.epochMs };
          expect(bounded.ratePerSecond(span)).toBeCloseTo(100);
        },
      ),
    );
  });
});

describe("samples of a value", () => {
  it("have a mean in a span, its end not included", () => {
    const samples = new Samples();
    for (const [ms, value] of [
      [0, 1],
      [10, 3],
      [20, 100],
    ] as const)
      samples.push(ms, value);
    expect(samples.mean({ beginMs: 0, endMs: 20 })).toBe(2);
    expect(samples.mean({ beginMs: 30, endMs: 40 })).toBeUndefined();
  });
});

describe("thinning", () => {
  const highest = (values: readonly number[]) => Math.max(...values);

  it("keeps a short series as it is", () => {
    const points = [{ epochMs: 1, value: 2 }];
    expect(thinned(points, highest)).toEqual(points);
  });

  it("keeps the order, the peak and the bound", () => {
    const series = fc.array(fc.record({ epochMs: fc.nat(10_000), value: fc.nat() }), { minLength: 51 });
    fc.assert(
      fc.property(series, (points) => {
        points.sort((a, b) => a.epochMs - b.epochMs);
        fc.pre(points.at(-1)!.epochMs > points[0]!.epochMs);
        const thin = thinned(points, highest, 50);
        expect(thin.length).toBeLessThanOrEqual(50);
        expect(highest(thin.map(({ value }) => value))).toBe(highest(points.map(({ value }) => value)));
        for (let i = 1; i < thin.length; i++) expect(thin[i]!.epochMs).toBeGreaterThan(thin[i - 1]!.epochMs);
      }),
    );
  });
});
