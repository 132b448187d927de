import fc from "fast-check";
import { expect, test } from "vitest";
import { columns, formatRatio, plain } from "./text.ts";

test("Plain text is one line that no terminal obeys", () => {
  expect(plain("\u001b[2Ja\r\n\tb\u0007‮c\u009b1m")).toBe("?[2Ja b??c?1m");
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      expect(plain(text)).not.toMatch(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/u);
      expect(plain(plain(text))).toBe(plain(text));
    }),
  );
});

test("Columns are aligned, numbers to the right where asked for", () => {
  const rows = [
    ["name", "count"],
    ["a", "1,000"],
    ["long name", "1"],
  ];
  expect(columns(rows, true)).toEqual(["name       count", "a          1,000", "long name      1"]);
  expect(columns(rows, false)).toEqual(["name       count", "a          1,000", "long name  1"]);
});

test("A share is never rounded to all or nothing", () => {
  expect([0, 0.0004, 0.5, 0.9996, 1, -0.00001].map(formatRatio)).toEqual([
    "0.0%",
    "<0.1%",
    "50.0%",
    ">99.9%",
    "100.0%",
    "0.0%",
  ]);
});
