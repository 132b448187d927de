import fc from "fast-check";
import { expect, test } from "vitest";
import { thinned } from "./thinning.ts";

test("Thinned points are few, in order, and hold the highest and the lowest", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(1000), { minLength: 1, maxLength: 3000, size: "max" }), (values) => {
      const points = values.map((value, ms) => ({ ms, value }));
      const kept = thinned(points);
      expect(kept.length).toBeLessThanOrEqual(600);
      expect(kept.map(({ ms }) => ms)).toEqual(kept.map(({ ms }) => ms).toSorted((a, b) => a - b));
      const of = (some: readonly { value: number }[]) => some.map(({ value }) => value);
      expect([Math.max(...of(kept)), Math.min(...of(kept))]).toEqual([
        Math.max(...values),
        Math.min(...values),
      ]);
      if (values.length <= 600) expect(kept).toEqual(points);
    }),
    { numRuns: 40 },
  );
});
