import fc from "fast-check";
import { expect, test } from "vitest";
import { bands, escapeHtml, linearAxis, logAxis, px, unitFor } from "./svg.ts";

const MS = { name: "ms", size: 1 };
const anyNumber = fc.oneof(
  fc.double(),
  fc.constantFrom(0, 1e300, 5e-324, Number.POSITIVE_INFINITY, Number.NaN),
);

test("Markup in a text is text", () => {
  expect(escapeHtml(`<b a="1" c='2'>&amp;</b>`)).toBe(
    "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;&lt;/b&gt;",
  );
});

test("Ticks are round and reach beyond the largest value", () => {
  const { ticks, at } = linearAxis(178, MS, [300, 0], 5);
  expect(ticks.map(({ label }) => label)).toEqual(["0", "50", "100", "150", "200"]);
  expect([at(0), at(100), at(200)]).toEqual([300, 150, 0]);
});

test("A logarithmic axis has a tick per decade", () => {
  const { ticks, at } = logAxis(9, 5500, MS, [0, 400]);
  expect(ticks.map(({ label }) => label)).toEqual(["1", "10", "100", "1,000", "10,000"]);
  expect(at(100)).toBeCloseTo(200);
});

test("Whatever the values, axes have few ticks, and everything lies on them", () => {
  fc.assert(
    fc.property(anyNumber, anyNumber, anyNumber, (min, max, value) => {
      for (const axis of [linearAxis(max, MS, [50, 500], 5), logAxis(min, max, MS, [50, 500])]) {
        expect(axis.ticks.length).toBeLessThan(14);
        expect(axis.ticks.length).toBeGreaterThan(1);
        for (const { label } of axis.ticks) expect(label).toMatch(/^[\d.,eKMB+-]{1,6}$/);
        for (const position of [
          ...axis.ticks.map((tick) => tick.px),
          Number.isNaN(value) ? 50 : axis.at(value),
        ]) {
          expect(position).toBeGreaterThanOrEqual(49.9);
          expect(position).toBeLessThanOrEqual(500.1);
        }
      }
    }),
  );
});

test("What is no number never reaches the page", () => {
  expect([px(Number.NaN), px(Number.NEGATIVE_INFINITY), px(1.26)]).toEqual(["0", "0", "1.3"]);
});

test("Bands drop labels before these overlap", () => {
  const { ticks } = bands(
    Array.from({ length: 30 }, (_, index) => `${index}`),
    [0, 300],
  );
  expect(ticks.map(({ label }) => label)).toEqual(["0", "4", "8", "12", "16", "20", "24", "28"]);
});

test("The unit is the largest that a value holds", () => {
  const units = [
    { name: "kB", size: 1e3 },
    { name: "MB", size: 1e6 },
  ] as const;
  expect([5, 5e3, 5e6, 5e9].map((max) => unitFor(max, units).name)).toEqual(["kB", "kB", "MB", "MB"]);
});
