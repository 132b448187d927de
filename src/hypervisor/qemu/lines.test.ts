import fc from "fast-check";
import { expect, test } from "vitest";
import { LineSplitter, LineTooLongError } from "./lines.ts";

test("lines are the same however the bytes were cut into pieces", () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: "grapheme" }).filter((text) => !/[\r\n]/.test(text))),
      fc.array(fc.nat(200)),
      fc.constantFrom("\n", "\r\n"),
      (lines, cuts, lineEnd) => {
        const bytes = Buffer.from(lines.map((line) => line + lineEnd).join(""));
        const splitter = new LineSplitter(1 << 20);
        const offsets = [...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length].sort(
          (a, b) => a - b,
        );
        const seen: string[] = [];
        let start = 0;
        for (const offset of offsets) {
          seen.push(...splitter.push(bytes.subarray(start, offset)));
          start = offset;
        }
        expect(seen).toEqual(lines);
      },
    ),
  );
});

test("a line of exactly the limit passes and one byte more is refused, ended or not", () => {
  expect(new LineSplitter(4).push(Buffer.from("abcd\n"))).toEqual(["abcd"]);
  expect(() => new LineSplitter(4).push(Buffer.from("abcde\n"))).toThrow(LineTooLongError);
  const splitter = new LineSplitter(4);
  splitter.push(Buffer.from("ab"));
  splitter.push(Buffer.from("cd"));
  expect(() => splitter.push(Buffer.from("e"))).toThrow(LineTooLongError);
});

test("bytes that are not UTF-8 become replacement characters, not an error", () => {
  expect(new LineSplitter(16).push(Buffer.from([0xff, 0x41, 0x0a]))).toEqual(["\ufffdA"]);
});
