import fc from "fast-check";
import { expect, it } from "vitest";
import { LatencyHistogram } from "./histogram.ts";

it("a percentile is never below the truth, and at most a step above it", () => {
  const latencies = fc.array(fc.double({ min: 0.02, max: 1e7, noNaN: true }), {
    minLength: 1,
    maxLength: 200,
  });
  fc.assert(
    fc.property(latencies, fc.constantFrom(0.5, 0.9, 0.99, 1), (values, share) => {
      const histogram = new LatencyHistogram();
      for (const value of values) histogram.add(value);
      const sorted = values.toSorted((a, b) => a - b);
      const truth = sorted[Math.ceil(share * sorted.length) - 1]!;
      expect(histogram.percentileMs(share)).toBeGreaterThanOrEqual(truth * 0.999_999);
      expect(histogram.percentileMs(share)).toBeLessThanOrEqual(truth * 1.045);
      expect(histogram.count).toBe(values.length);
      expect(histogram.maxMs).toBe(sorted.at(-1));
    }),
  );
});

it("nothing has no percentile, and what is faster or slower than all steps still counts", () => {
  expect(new LatencyHistogram().percentileMs(0.5)).toBeUndefined();
  const histogram = new LatencyHistogram();
  for (const latencyMs of [0, 1e12]) histogram.add(latencyMs);
  expect(histogram.count).toBe(2);
  expect(histogram.percentileMs(0.5)).toBeLessThan(0.02);
  expect(histogram.maxMs).toBe(1e12);
});
