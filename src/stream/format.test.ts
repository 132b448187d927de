// FORMAT.md against the code: its tables are the constants, its worked example is a stream.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { Loader } from "../../test/support/loader.ts";
import { Trace, tracingHandler } from "../../test/support/stream-trace.ts";
import * as format from "./format.ts";
import { StreamReader } from "./reader.ts";

const TEXT = readFileSync(new URL("FORMAT.md", import.meta.url), "utf8");

/** Rows of the first table below a heading, cells without their backticks. */
function table(heading: string): string[][] {
  const lines = TEXT.slice(TEXT.indexOf(`${heading}\n`)).split("\n");
  const first = lines.findIndex((line) => line.startsWith("|"));
  const end = lines.findIndex((line, i) => i > first && !line.startsWith("|"));
  const rows = lines.slice(first, end);
  return rows.slice(2).map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll("`", "")),
  );
}

function columns(heading: string, value: (cell: string) => number): Record<string, number> {
  return Object.fromEntries(table(heading).map(([number = "", name = ""]) => [name, value(number)]));
}

const hex = (cell: string) => Number.parseInt(cell.replace(/^0x/, ""), 16);

test("the tables are the constants", () => {
  expect(columns("### Sections ✓", hex)).toEqual(format.SectionType);
  expect(columns("### Commands ✓", Number)).toEqual(format.Command);
  expect(columns("### RAM records ✓", hex)).toEqual(format.RamFlag);
  expect(columns("### Messages ✓", Number)).toEqual(format.ReturnPathType);
  for (const [name = "", value] of table("### Limits ✓")) expect(format).toHaveProperty(name, Number(value));
});

const EXAMPLE = table("## Worked example").map(([offset = "", bytes = "", meaning = ""]) => ({
  offset: Number(offset),
  bytes: Buffer.concat(
    bytes.split(" ").map((item) => {
      const [byte = "", count = "1"] = item.split("*");
      return Buffer.alloc(Number(count), Number.parseInt(byte, 16));
    }),
  ),
  meaning,
}));

test("the worked example has the offsets that it says", () => {
  let offset = 0;
  for (const row of EXAMPLE) {
    expect(row.offset).toBe(offset);
    offset += row.bytes.length;
  }
  expect(EXAMPLE.length).toBeGreaterThan(15);
});

test("the reader says of the worked example what its right column says", () => {
  const trace = new Trace();
  const reader = new StreamReader(tracingHandler(trace));
  for (const { bytes } of EXAMPLE) reader.push(bytes);
  reader.end();
  const page = Buffer.alloc(4096);
  page.set([0xaa, 0xbb]);
  const bytesOf = (...offsets: number[]) =>
    Buffer.concat(EXAMPLE.filter(({ offset }) => offsets.includes(offset)).map(({ bytes }) => bytes));
  expect(trace.calls).toEqual([
    { call: "verbatim", bytes: bytesOf(0, 8, 15) },
    { call: "command", command: 1 },
    { call: "verbatim", bytes: bytesOf(20) },
    { call: "ramSection", type: 1, id: 2 },
    { call: "verbatim", bytes: bytesOf(37, 45) },
    { call: "ramBlocks", blocks: [{ idstr: "pc.ram", lengthBytes: 8192 }], pageBytes: 4096 },
    { call: "ramSectionEnd", id: 2 },
    { call: "ramSection", type: 2, id: 2 },
    { call: "page", block: 0, page: 0, bytes: page },
    { call: "zeroPage", block: 0, page: 1, fill: 0 },
    { call: "ramSectionEnd", id: 2 },
    { call: "verbatim", bytes: bytesOf(4211) },
    { call: "command", command: 2 },
    { call: "stopped" },
    { call: "verbatim", bytes: bytesOf(4220) },
    { call: "command", command: 11 },
    { call: "ramSection", type: 3, id: 2 },
    { call: "xbzrlePage", block: 0, page: 0, bytes: Buffer.of(1, 1, 0xcc) },
    { call: "ramSectionEnd", id: 2 },
    { call: "deviceState", offsetBytes: 4257 },
    { call: "verbatim", bytes: bytesOf(4257, 4258) },
  ]);
});

test("a destination that loads the worked example holds the RAM and gives the answers that it says", () => {
  const answers: string[] = [];
  const loader = new Loader((message) => answers.push(message.toString("hex")));
  for (const { bytes } of EXAMPLE) loader.push(bytes);
  loader.shut(0);
  expect(loader.complete).toBe(true);
  expect(loader.images[0]?.subarray(0, 3).toString("hex")).toBe("aacc00");
  expect(loader.images[0]?.subarray(2).every((byte) => byte === 0)).toBe(true);
  expect(answers).toEqual(["0002000444560000", "0001000400000000"]);
});

test("what the return path carries is in the text as bytes", () => {
  for (const bytes of ["00 02 00 04 44 56 00 00", "00 01 00 04 00 00 00 00"])
    expect(TEXT).toContain(`\`${bytes}\``);
});

test("the subsections that the table names are the ones that the reader knows", () => {
  const bodies: Record<string, string> = {
    "configuration/target-page-bits": "0000000c",
    "configuration/capabilities": "00000000",
    "configuration/uuid": "00".repeat(16),
  };
  for (const [name = ""] of table("### Subsections ✓")) {
    const trace = new Trace();
    const reader = new StreamReader(tracingHandler(trace));
    const text = Buffer.concat([Buffer.of(name.length), Buffer.from(name)]).toString("hex");
    reader.push(
      Buffer.from(`5145564d000000030700000000${`05${text}00000001`}${bodies[name]}08000100`, "hex"),
    );
    reader.push(Buffer.of(0));
    expect(trace.calls.at(-1)).toEqual({ call: "command", command: 1 });
  }
});
