// Rates found again in what was seen of pages whose rates are known.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { seeded } from "../base/seeded.ts";
import { fitRates, type Looks, likeliestHeat } from "./rate-mixture.ts";

const INTERVALS_MS = [200, 50, 100, 300, 900];

/** What looks at `pages` pages of each rate show. */
function seen(parts: readonly (readonly [changesPerSecond: number, pages: number])[], seed: number): Looks {
  const random = seeded(seed);
  const patterns = new Map<number, number>();
  for (const [rate, pages] of parts) {
    for (let page = 0; page < pages; page++) {
      let pattern = 0;
      for (const [i, ms] of INTERVALS_MS.entries()) {
        if (random() < 1 - Math.exp((-rate * ms) / 1000)) pattern |= 1 << i;
      }
      patterns.set(pattern, (patterns.get(pattern) ?? 0) + 1);
    }
  }
  return { intervalsMs: INTERVALS_MS, patterns };
}

const changedShare = (rates: readonly { changesPerSecond: number; share: number }[], ms: number) =>
  rates.reduce(
    (sum, { changesPerSecond, share }) => sum + share * -Math.expm1((-changesPerSecond * ms) / 1000),
    0,
  );

describe("a mixture of rates", () => {
  test("predicts how many pages change in times that were not looked at", () => {
    const parts = [
      [0, 6000],
      [0.5, 1000],
      [20, 500],
    ] as const;
    const rates = fitRates([seen(parts, 7)]);
    for (const ms of [20, 150, 500, 1500]) {
      const truth = parts.reduce(
        (sum, [rate, pages]) => sum + (pages / 7500) * -Math.expm1((-rate * ms) / 1000),
        0,
      );
      expect(changedShare(rates, ms)).toBeGreaterThan(truth * 0.85);
      expect(changedShare(rates, ms)).toBeLessThan(truth * 1.15);
    }
  });

  test("has shares that add up to one, whatever was seen", () => {
    const looks = fc.array(fc.tuple(fc.nat(31), fc.integer({ min: 1, max: 1000 })), { maxLength: 12 });
    fc.assert(
      fc.property(looks, (list) => {
        const rates = fitRates([{ intervalsMs: INTERVALS_MS, patterns: new Map(list) }]);
        expect(rates.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 6);
        expect(rates.every(({ share }) => share >= 0)).toBe(true);
      }),
    );
  });

  test("takes pages that never changed for pages that do not", () => {
    const [only] = fitRates([seen([[0, 1000]], 1)]);
    expect(changedShare([only!], 10_000)).toBeLessThan(0.01);
  });
});

test("the few pages that changed at every look are hot, though many rates share them and many pages are warm", () => {
  const found = [
    { changesPerSecond: 0, share: 0.9695 },
    { changesPerSecond: 0.8, share: 0.03 },
    ...[25.6, 51.2, 102.4, 204.8].map((changesPerSecond) => ({ changesPerSecond, share: 0.000125 })),
  ];
  const intervalsMs = [900, 180, 480, 1140, 3300];
  expect(likeliestHeat(found, intervalsMs, 0b11111)).toBe(2);
  expect(likeliestHeat(found, intervalsMs, 0b10000)).toBe(0);
});
