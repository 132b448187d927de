// The page trace there and back: what the writer was told is what the reader says, however the bytes are cut; and
// FORMAT.md's example is read as FORMAT.md says.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  arbitraryTracePlan,
  linesOfPlan,
  SaidOfTrace,
  TRACE_PAGE_BYTES,
  traceBytes,
} from "../../test/support/arbitrary-trace.ts";
import { DeltaveeError } from "../base/errors.ts";
import { PageClass } from "./format.ts";
import { TraceReader } from "./reader.ts";
import { TraceWriter } from "./writer.ts";

interface Reading {
  lines: string[];
  notice: string | undefined;
}

function read(bytes: Uint8Array, chunkBytes = bytes.length): Reading {
  const said = new SaidOfTrace();
  const reader = new TraceReader("x.trace", said);
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    const chunk = Buffer.from(bytes.subarray(at, at + chunkBytes));
    reader.push(chunk);
    // The reader may keep nothing of a chunk.
    chunk.fill(0xee);
  }
  return { lines: said.lines, notice: reader.end() };
}

test("what was written is read, whole or byte by byte", () => {
  fc.assert(
    fc.property(arbitraryTracePlan, fc.constantFrom(1, 3, 600, 1e6), (plan, chunkBytes) => {
      const { lines, notice } = read(traceBytes(plan), chunkBytes);
      expect(lines).toEqual(linesOfPlan(plan));
      expect(notice).toBeUndefined();
    }),
    { numRuns: 150 },
  );
});

test("a trace cut anywhere behind its header is read up to there, with a notice", () => {
  fc.assert(
    fc.property(arbitraryTracePlan, fc.nat(), (plan, number) => {
      const bytes = traceBytes(plan);
      const headerBytes = 20 + plan.blocks.reduce((sum, { idstr }) => sum + 5 + idstr.length, 0);
      const cut = headerBytes + (number % (bytes.length - headerBytes));
      const { lines, notice } = read(bytes.subarray(0, cut));
      expect(linesOfPlan(plan).slice(0, lines.length)).toEqual(lines);
      expect(notice).toMatch(/x\.trace has no end/);
    }),
  );
});

test("a run of pages costs two bytes a page", () => {
  const pages = Array.from({ length: 100_000 }, (_, page) => page);
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter((chunk) => chunks.push(chunk), { contents: false });
  writer.ramBlocks([{ idstr: "pc.ram", pageCount: pages.length }], 4096);
  for (const page of pages) writer.observe(0, page, 0, PageClass.RAW, 0, new Uint8Array(0), 0);
  writer.end();
  expect(Buffer.concat(chunks).length).toBeLessThan(2 * pages.length + 50);
});

test("a trace without RAMBlocks is an empty file", () => {
  const writer = new TraceWriter(() => expect.unreachable(), { contents: true });
  writer.end();
});

test("an iteration that is reported late does not lead back", () => {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter((chunk) => chunks.push(chunk), { contents: false });
  writer.ramBlocks([{ idstr: "", pageCount: 3 }], TRACE_PAGE_BYTES);
  for (const iteration of [1, 0, 2]) {
    writer.observe(0, iteration, iteration, PageClass.RAW, 0, new Uint8Array(0), 0);
  }
  writer.end();
  const { lines } = read(Buffer.concat(chunks));
  expect(lines.filter((line) => line.startsWith("iteration"))).toEqual(["iteration 1", "iteration 2"]);
});

test("iterations have their times, counted from the header, where there is a clock", () => {
  const chunks: Uint8Array[] = [];
  let nowMs = 5000;
  const writer = new TraceWriter((chunk) => chunks.push(chunk), { contents: false, nowMs: () => nowMs });
  writer.ramBlocks([{ idstr: "", pageCount: 3 }], TRACE_PAGE_BYTES);
  for (const iteration of [0, 0, 3]) {
    nowMs += 700.4;
    writer.observe(0, 0, iteration, PageClass.RAW, 0, new Uint8Array(0), 0);
  }
  nowMs += 100;
  writer.end();
  const { lines } = read(Buffer.concat(chunks));
  expect(lines.filter((line) => /^(iteration|time)/.test(line))).toEqual([
    ...["iteration 0", "time 700", "iteration 3", "time 2101", "time 2201"],
  ]);
});

describe("FORMAT.md", () => {
  const text = readFileSync(new URL("./FORMAT.md", import.meta.url), "utf8");
  const example = /## Example[\s\S]*?```\n([\s\S]*?)```/.exec(text)![1]!;
  const bytes = Buffer.from(
    [...example.matchAll(/^((?:[0-9a-f]{2} ?)+(?: +(?:[0-9a-f]{2} ?)+)*)(?: {2,}|$)/gm)]
      .map((match) => match[1]!.replaceAll(" ", ""))
      .join(""),
    "hex",
  );

  test("has an example that is read as it says", () => {
    expect(read(bytes)).toEqual({
      lines: [
        'header 4096 false [{"idstr":"ram","pageCount":3}]',
        "iteration 0",
        "time 0",
        "page 0/0 5 0",
        "page 0/1 1 0",
        "page 0/2 5 0",
        "iteration 1",
        "time 900",
        "codec xbzrle",
        "page 0/0 3 200",
        "page 0/2 2 0",
        "time 950",
      ],
      notice: undefined,
    });
  });

  const HEADER_BYTES = 28;
  const refused: [what: string, bytes: Buffer, offset: number][] = [
    ["another magic", changed(0, 0x45), 0],
    ["a later version", changed(8, 3), 8],
    ["version 0", changed(8, 0), 8],
    ["an unknown flag", changed(10, 2), 10],
    ["a page size that is no power of two", changed(13, 0x11), 12],
    ["too many RAMBlocks", changed(18, 1), 16],
    ["a page before the first iteration", Buffer.concat([head(), hex("15 00 00")]), HEADER_BYTES],
    ["a page of no RAMBlock", Buffer.concat([head(), hex("06 00 05 00")]), HEADER_BYTES + 2],
    ["an unknown RAMBlock", Buffer.concat([head(), hex("06 00 15 01 00")]), HEADER_BYTES + 2],
    ["a page behind its RAMBlock", Buffer.concat([head(), hex("06 00 15 00 06")]), HEADER_BYTES + 2],
    ["a page before its RAMBlock", Buffer.concat([head(), hex("06 00 15 00 01")]), HEADER_BYTES + 2],
    [
      "the same RAMBlock named again",
      Buffer.concat([head(), hex("06 00 15 00 00 15 00 00")]),
      HEADER_BYTES + 5,
    ],
    ["a delta of no codec", Buffer.concat([head(), hex("06 00 13 00 00 05")]), HEADER_BYTES + 2],
    ["a delta of nothing", Buffer.concat([head(), hex("06 00 07 01 61 13 00 00 00")]), HEADER_BYTES + 5],
    ["an iteration again", Buffer.concat([head(), hex("06 01 06 01")]), HEADER_BYTES + 2],
    ["a number longer than need be", Buffer.concat([head(), hex("06 81 00")]), HEADER_BYTES + 1],
    ["a number above 32 bits", Buffer.concat([head(), hex("06 ff ff ff ff 7f")]), HEADER_BYTES + 1],
    ["a time before the last one", Buffer.concat([head(), hex("09 05 09 04")]), HEADER_BYTES + 2],
    ["an unknown record", Buffer.concat([head(), hex("06 00 0a")]), HEADER_BYTES + 2],
    ["a codec without a name", Buffer.concat([head(), hex("07 00")]), HEADER_BYTES + 1],
    ["a wrong count at the end", Buffer.concat([head(), hex("06 00 08 01")]), HEADER_BYTES + 2],
    ["bytes behind the end", Buffer.concat([head(), hex("08 00 08")]), HEADER_BYTES + 2],
  ];

  test.each(refused)("%s is refused with its offset", (_, bad, offset) => {
    for (const chunkBytes of [bad.length, 1]) {
      let thrown: unknown;
      try {
        read(bad, chunkBytes);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(DeltaveeError);
      expect(thrown).toMatchObject({ code: "TRACE_INVALID" });
      expect((thrown as Error).message).toContain(`x.trace: offset ${offset}: `);
    }
  });

  test("a file that ends inside its header is refused", () => {
    for (let cut = 0; cut < HEADER_BYTES; cut++) {
      expect(() => read(bytes.subarray(0, cut))).toThrow(/ends inside its header/);
    }
  });

  function hex(digits: string): Buffer {
    return Buffer.from(digits.replaceAll(" ", ""), "hex");
  }
  function head(): Buffer {
    return bytes.subarray(0, HEADER_BYTES);
  }
  function changed(at: number, value: number): Buffer {
    const copy = Buffer.from(bytes);
    copy[at] = value;
    return copy;
  }
});
