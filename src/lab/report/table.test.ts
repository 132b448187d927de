import fc from "fast-check";
import { expect, test } from "vitest";
import { rangesOverlap, ratioOf, spreadOf } from "../../report/statistics.ts";
import { formatFigure } from "../../report/text.ts";
import { columnFor, formatSpread } from "./metrics.ts";
import { escapeMarkdown, type Table, tableHtml, tableMarkdown, tableText } from "./table.ts";

const figure = fc.double({ min: 1e-6, max: 1e12, noNaN: true });
const figures = fc.array(figure, { minLength: 1, maxLength: 9 });

test("A median lies in its range, half of the values on either side", () => {
  fc.assert(
    fc.property(figures, (values) => {
      const { median, min, max, count } = spreadOf(values)!;
      expect([min, max, count]).toEqual([Math.min(...values), Math.max(...values), values.length]);
      const [below, above] = [values.filter((v) => v < median), values.filter((v) => v > median)];
      expect(Math.max(below.length, above.length) * 2).toBeLessThanOrEqual(values.length);
      expect(median >= min && median <= max).toBe(true);
    }),
  );
  expect(spreadOf([])).toBeUndefined();
  expect(spreadOf([4, 1, 3, 2])?.median).toBe(2.5);
});

test("A ratio's range holds what any two runs could have given, and one is in it exactly when ranges overlap", () => {
  fc.assert(
    fc.property(figures, figures, (first, second) => {
      const [a, b] = [spreadOf(first)!, spreadOf(second)!];
      const ratio = ratioOf(a, b)!;
      for (const x of first) {
        for (const y of second) expect(y / x >= ratio.min && y / x <= ratio.max).toBe(true);
      }
      expect(ratio.min <= ratio.median && ratio.median <= ratio.max).toBe(true);
      expect(ratio.min <= 1 && ratio.max >= 1).toBe(rangesOverlap(a, b));
    }),
  );
});

test("There is no ratio to nothing, and none that numbers cannot hold", () => {
  const [none, one] = [spreadOf([0, 1])!, spreadOf([1])!];
  expect([ratioOf(none, one), ratioOf(one, none), ratioOf(spreadOf([-1])!, one)]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
  expect(ratioOf(spreadOf([5e-324])!, spreadOf([1e300])!)).toBeUndefined();
});

test("Figures are written with three digits that count", () => {
  const written = [0, 0.0421, 0.5, 1, 8.1, 84.23, 99.96, 512, 6700.4, 1.25e9, 3e15, -12.34, 4e-5];
  expect(written.map(formatFigure)).toEqual([
    ...["0", "0.042", "0.500", "1", "8.10", "84.2", "100", "512", "6,700", "1,250,000,000", "3.00e+15"],
    ...["-12.3", "4.00e-5"],
  ]);
});

test("A column is in one unit: the largest that leaves its smallest figure at one or more", () => {
  const column = (unit: string, ...values: number[]) => {
    const metric = { name: "x", title: "x", unit, isLowerBetter: true, isJudged: true };
    const { heading, format } = columnFor(metric, values);
    return [heading, ...values.map(format)];
  };
  expect(column("ms", 84, 6700)).toEqual(["x, ms", "84", "6,700"]);
  expect(column("ms", 1500, 90_000)).toEqual(["x, s", "1.50", "90"]);
  expect(column("bytes", 3.2e6, 2.5e9)).toEqual(["x, MB", "3.20", "2,500"]);
  expect(column("share", 0.123)).toEqual(["x, %", "12.3"]);
  expect(column("bytes", 0)).toEqual(["x, B", "0"]);
  expect(column("constructor", 2)).toEqual(["x, constructor", "2"]);
  expect(formatSpread(spreadOf([1, 2, 4]), formatFigure)).toBe("2 (1–4)");
});

const hostile = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc
    .array(fc.constantFrom(..."|\\`*_[](){}<>!#~$&-+=.:/@w1\n\t".split("")), { maxLength: 20 })
    .map((c) => c.join("")),
  fc.constantFrom(
    "<!-- end evaluation paper -->",
    "<script>alert(1)</script>",
    "[x](javascript:1)",
    "a | b",
    "\\|",
  ),
);
const tables: fc.Arbitrary<Table> = fc.integer({ min: 1, max: 4 }).chain((width) => {
  const cells = fc.array(hostile, { minLength: width, maxLength: width });
  return fc.record({
    caption: hostile,
    head: cells,
    rows: fc.array(fc.record({ cells, isFoot: fc.boolean() }), { maxLength: 4 }),
    notes: fc.array(hostile, { maxLength: 3 }),
  });
});

/** Cells of a row as GFM finds them: a bar that is not escaped divides. */
function cellCount(line: string): number {
  return (line.replace(/\\[\\|]/g, "").match(/\|/g)?.length ?? 0) - 1;
}

test("Whatever stands in its cells, a table has its rows and columns and nothing else, in Markdown and in HTML", () => {
  fc.assert(
    fc.property(tables, (table) => {
      const lines = tableMarkdown(table).split("\n");
      expect(lines).toHaveLength(
        4 + table.rows.length + (table.notes.length === 0 ? 0 : 1 + table.notes.length),
      );
      for (const line of lines.slice(2, 4 + table.rows.length))
        expect(cellCount(line)).toBe(table.head.length);
      expect(lines.join("")).not.toMatch(/<|(?<!\\)`|(?<!\\)\[/);

      const html = tableHtml(table);
      const opened = [...html.matchAll(/<([a-z]+)/g)].map(([, name]) => name);
      const closed = [...html.matchAll(/<\/([a-z]+)/g)].map(([, name]) => name);
      expect(opened.toSorted()).toEqual(closed.toSorted());
      expect(opened.filter((name) => name === "td" || name === "th")).toHaveLength(
        table.head.length * (1 + table.rows.length),
      );
      expect(new Set(opened)).not.toContain("script");
      // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is what is tested
      expect(tableText(table)).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
    }),
  );
});

test("Text that needs no escaping stays as it is", () => {
  const words = "heartbeat gap, 84.2 (80.1–91.0) ms; xbzrle-64m";
  expect(escapeMarkdown(words)).toBe(words);
  expect(escapeMarkdown("-")).toBe("-");
  expect(escapeMarkdown("1. x")).toBe("1\\. x");
});
