import { expect, it } from "vitest";
import { perSecond, thinToPeaks } from "./series.ts";

it("few points stay as they are, many become few and keep every peak's height and time", () => {
  const flat = Array.from({ length: 5000 }, (_, index) => ({ epochMs: 1e12 + index * 40, value: index % 7 }));
  expect(thinToPeaks(flat.slice(0, 100))).toEqual(flat.slice(0, 100));
  const peak = { epochMs: flat[2345]!.epochMs, value: 900 };
  const thin = thinToPeaks(flat.with(2345, peak));
  expect(thin.length).toBeLessThanOrEqual(300);
  expect(thin.length).toBeGreaterThan(200);
  expect(thin).toContainEqual(peak);
  expect(thin.map(({ epochMs }) => epochMs)).toEqual(
    thin.map(({ epochMs }) => epochMs).sort((a, b) => a - b),
  );
});

it("what happened is counted per second, of which those without anything are zero", () => {
  const points = perSecond([-1, 10, 20, 999, 2500, 3999, 4000], 0, 4900);
  expect(points.map(({ value }) => value)).toEqual([3, 0, 1, 1]);
  expect(points[0]!.epochMs).toBe(500);
  expect(perSecond([], 10, 10)).toEqual([]);
});

it("over a long time more than a second makes a point, and a point is still the figure of a second", () => {
  const times = Array.from({ length: 3000 * 2 }, (_, index) => index * 500);
  const points = perSecond(times, 0, 3_000_000);
  expect(points.length).toBeLessThanOrEqual(300);
  expect(new Set(points.map(({ value }) => value))).toEqual(new Set([2]));
});
