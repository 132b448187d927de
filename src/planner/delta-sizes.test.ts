import { expect, test } from "vitest";
import { deltaSizesAt, type MeasuredSize } from "./delta-sizes.ts";

const measured = (afterMs: number, pages: number, bytes: number): MeasuredSize => ({
  ...{ afterMs, pages },
  ...{ xbzrleBytes: bytes, tunnelBytes: bytes * 2, wholeCodedBytes: bytes * 3 },
});
const bytesOf = (sizes: { afterMs: number; xbzrleBytes: number }[]) =>
  sizes.map(({ afterMs, xbzrleBytes }) => [afterMs, xbzrleBytes]);

const COLD = [measured(200, 4, 2000), measured(900, 96, 200), measured(4000, 50, 400)];
const HOT = [measured(200, 10, 50), measured(900, 10, 90)];

test("what was measured in times in which a page changes once at most is one measurement", () => {
  const sizes = deltaSizesAt([COLD, [], HOT], 0.8);
  expect(bytesOf(sizes)).toEqual([
    [900, (4 * 2000 + 96 * 200) / 100],
    [4000, 400],
  ]);
  expect(sizes[0]).toMatchObject({ tunnelBytes: 544, wholeCodedBytes: 816 });
});

test("of pages that change more often it depends on the time, and of those that never do there is nothing", () => {
  expect(bytesOf(deltaSizesAt([COLD, [], HOT], 20))).toEqual([
    [200, 50],
    [900, 90],
  ]);
  expect(deltaSizesAt([COLD, [], HOT], 0)).toEqual([]);
  expect(deltaSizesAt([[], [], []], 3)).toEqual([]);
});

test("a heat of which nothing was measured is taken for the one next to it", () => {
  expect(bytesOf(deltaSizesAt([[], [], HOT], 0.1))).toEqual([[900, 70]]);
});
