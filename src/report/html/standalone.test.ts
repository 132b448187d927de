// A plot as a file: whole, with its words, and nothing in it that a picture may not have.

import { expect, test } from "vitest";
import { standaloneSvg } from "./standalone.ts";
import { frame, linearAxis } from "./svg.ts";

const UNIT = { name: "s", size: 1 };
const made = standaloneSvg({
  id: "x",
  title: "A <title> & more",
  says: "What it shows",
  legend: Array.from({ length: 9 }, (_, i) => ({
    name: `a rather long name of series ${i}`,
    line: `s${i % 6}`,
  })),
  draw: (plot) =>
    frame(
      plot,
      { ...linearAxis(10, UNIT, plot.xSpan, 5), name: "x" },
      { ...linearAxis(10, UNIT, plot.ySpan, 5), name: "y" },
    ),
});

test("it is an SVG document with title, description, ground and both sets of colours", () => {
  expect(made).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" /);
  expect(made).toContain("A &lt;title&gt; &amp; more</title>");
  expect(made).toContain("What it shows</desc>");
  expect(made).toContain("prefers-color-scheme:dark");
  expect(made).toContain('<rect class="ground"');
  expect(made).not.toMatch(/<script|href=|url\(|NaN/);
});

test("names that do not fit beside each other stand below each other, above the plot", () => {
  const names = [...made.matchAll(/<text x="([\d.]+)" y="([\d.]+)">a rather long/g)];
  expect(names).toHaveLength(9);
  const ys = names.map((match) => Number(match[2]));
  expect(new Set(ys).size).toBeGreaterThan(2);
  expect(names.every((match) => Number(match[1]) < 700)).toBe(true);
  const [, plotTop] = /<path class="grid" d="M[\d.]+ ([\d.]+)H/.exec(made)!;
  expect(Math.max(...ys)).toBeLessThan(Number(plotTop));
});
