// StreamWriter: what it writes a strict destination loads, wherever PINGs are put, and it names a RAMBlock
// whenever the destination could not know it. OutputBuffer: bytes in, the same bytes out.

import fc from "fast-check";
import { expect, test } from "vitest";
import { Loader, load } from "../../test/support/loader.ts";
import { END, PART, START } from "../../test/support/stream-builder.ts";
import { Trace, tracingHandler } from "../../test/support/stream-trace.ts";
import { modelEncode } from "../../test/support/xbzrle-model.ts";
import { StreamReader } from "./reader.ts";
import { OutputBuffer, StreamWriter } from "./writer.ts";

const BLOCKS = [
  { idstr: "pc.ram", lengthBytes: 8 * 4096 },
  { idstr: "", lengthBytes: 2 * 4096 },
  { idstr: "b".repeat(255), lengthBytes: 4096 },
];
const TAIL = Buffer.from("000600000000", "hex");

/** A stream with its ram section started and closed again. */
function started(): StreamWriter {
  const writer = new StreamWriter(new OutputBuffer());
  writer.header("pc-i440fx-10.0");
  // OPEN_RETURN_PATH, so that PINGs may be answered.
  writer.verbatim(Buffer.from("0800010000", "hex"), 0, 5);
  writer.ramStart(7, BLOCKS);
  writer.ramSectionEnd();
  return writer;
}

function finished(writer: StreamWriter): Buffer {
  writer.ramSection(END, 7);
  writer.ramSectionEnd();
  writer.verbatim(TAIL, 0, TAIL.length);
  return writer.output.take();
}

test("any records, with PINGs anywhere, load to what they say", () => {
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ block: fc.nat(2), page: fc.nat(7), fill: fc.nat(255) }) },
    { weight: 2, arbitrary: fc.constant("ping" as const) },
    { weight: 1, arbitrary: fc.constant("section" as const) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const writer = started();
      const expected = BLOCKS.map(() => new Map<number, number>());
      let pings = 0;
      writer.ramSection(PART, 7);
      for (const step of steps) {
        if (step === "ping") expect(writer.ping(pings++)).toBe(true);
        else if (step === "section") {
          writer.ramSectionEnd();
          expect(writer.insideRamSection).toBe(false);
          if (pings % 2 === 0) expect(writer.ping(pings++)).toBe(true);
          writer.ramSection(PART, 7);
        } else {
          const { block, fill } = step;
          const page = step.page % (BLOCKS[block]!.lengthBytes / 4096);
          const before = expected[block]!.get(page);
          expected[block]!.set(page, fill);
          const content = new Uint8Array(4096).fill(fill);
          if (fill % 3 === 0) writer.zeroPage(block, page, fill);
          else if (fill % 3 === 1 || before === undefined) writer.page(block, page, content, 0);
          else {
            const last = content.with(4095, fill ^ 1);
            writer.page(block, page, last, 0);
            const delta = modelEncode(last, content)!;
            writer.xbzrlePage(block, page, delta, 0, delta.length);
          }
          expect(writer.destinationBlock).toBe(block);
        }
      }
      writer.ramSectionEnd();
      const loader = load(finished(writer));
      expect(loader.pings).toEqual(Array.from({ length: pings }, (_, i) => i));
      for (const [block, pages] of expected.entries()) {
        for (const [page, fill] of pages) {
          const content = loader.blocks[block]!.bytes.subarray(page * 4096, (page + 1) * 4096);
          expect(content.every((byte) => byte === fill)).toBe(true);
        }
      }
    }),
  );
});

test("what is written is what our own reader reads", () => {
  const writer = started();
  writer.ramSection(PART, 7);
  writer.zeroPage(0, 1);
  writer.zeroPage(0, 2, 5);
  writer.ping(99);
  writer.xbzrlePage(0, 2, Uint8Array.of(0xff, 0, 1, 6, 0xff), 1, 3);
  writer.ramSectionEnd();
  const trace = new Trace();
  new StreamReader(tracingHandler(trace)).push(finished(writer));
  const records = trace.calls.filter(({ call }) => call !== "verbatim");
  expect(records).toEqual([
    { call: "command", command: 1 },
    { call: "ramSection", type: START, id: 7 },
    { call: "ramBlocks", blocks: BLOCKS, pageBytes: 4096 },
    { call: "ramSectionEnd", id: 7 },
    { call: "ramSection", type: PART, id: 7 },
    { call: "zeroPage", block: 0, page: 1, fill: 0 },
    { call: "zeroPage", block: 0, page: 2, fill: 5 },
    { call: "ramSectionEnd", id: 7 },
    { call: "command", command: 2 },
    { call: "ramSection", type: PART, id: 7 },
    { call: "xbzrlePage", block: 0, page: 2, bytes: Buffer.of(0, 1, 6) },
    { call: "ramSectionEnd", id: 7 },
    { call: "stopped" },
    { call: "ramSection", type: END, id: 7 },
    { call: "ramSectionEnd", id: 7 },
    { call: "deviceState", offsetBytes: expect.any(Number) },
  ]);
});

test("CONTINUE is said within a section only, since a section may be opened by somebody else in between", () => {
  const writer = started();
  writer.output.take();
  writer.ramSection(PART, 7);
  writer.zeroPage(0, 0);
  writer.zeroPage(0, 1);
  writer.ramSectionEnd();
  writer.ramSection(PART, 7);
  writer.zeroPage(0, 2);
  const name = `06${Buffer.from("pc.ram").toString("hex")}`;
  const [section, end] = ["0200000007", "00000000000000107e00000007"];
  const records = [
    `0000000000000002${name}00`,
    "000000000000102200",
    end,
    section,
    `0000000000002002${name}00`,
  ];
  expect(writer.output.take().toString("hex")).toBe(section + records.join(""));
});

test("START and END are not split by a PING, since neither can be opened again", () => {
  const writer = new StreamWriter(new OutputBuffer());
  writer.header("pc");
  writer.ramStart(1, BLOCKS);
  const { length } = writer.output;
  expect(writer.ping(1)).toBe(false);
  writer.ramSectionEnd();
  writer.ramSection(END, 1);
  expect(writer.ping(1)).toBe(false);
  expect(writer.output.length).toBe(length + 13 + 5);
});

test("offsets and totals above 4 GiB are written whole", () => {
  const writer = new StreamWriter(new OutputBuffer());
  writer.header("pc");
  const lengthBytes = 3 * 2 ** 40;
  writer.ramStart(1, [{ idstr: "pc.ram", lengthBytes }]);
  writer.ramSectionEnd();
  writer.ramSection(PART, 1);
  writer.zeroPage(0, lengthBytes / 4096 - 1);
  const trace = new Trace();
  new StreamReader(tracingHandler(trace)).push(writer.output.take());
  expect(trace.calls).toContainEqual(expect.objectContaining({ blocks: [{ idstr: "pc.ram", lengthBytes }] }));
  expect(trace.calls.at(-1)).toMatchObject({ call: "zeroPage", page: lengthBytes / 4096 - 1 });
});

test("a record outside of a ram section, or of an unknown RAMBlock, is our own mistake", () => {
  const writer = started();
  expect(() => writer.zeroPage(0, 0)).toThrow(/Assertion/);
  expect(() => writer.ramSectionEnd()).toThrow(/Assertion/);
  writer.ramSection(PART, 7);
  expect(() => writer.zeroPage(3, 0)).toThrow(/Assertion/);
});

test("a PING before the return path was opened is loaded by nobody", () => {
  const writer = new StreamWriter(new OutputBuffer());
  writer.header("pc");
  writer.ping(1);
  expect(() => new Loader().push(writer.output.take())).toThrow(/return path/);
});

test("records arrive whole in an output that grows while they are written", () => {
  const writer = new StreamWriter(new OutputBuffer(new Uint8Array(16)));
  writer.header("pc");
  writer.ramStart(2, [{ idstr: "pc.ram", lengthBytes: 64 * 4096 }]);
  writer.ramSectionEnd();
  writer.ramSection(PART, 2);
  const page = (index: number) => new Uint8Array(4096).fill(index + 1);
  for (let index = 0; index < 64; index++) writer.page(0, index, page(index), 0);
  writer.ramSectionEnd();
  const loader = new Loader();
  loader.push(writer.output.take());
  const { bytes } = loader.blocks[0]!;
  for (let index = 0; index < 64; index++) {
    expect(Buffer.compare(bytes.subarray(index * 4096, (index + 1) * 4096), page(index))).toBe(0);
  }
});

test("an output buffer gives back what was put into it, however it grows and is emptied", () => {
  const piece = fc.uint8Array({ minLength: 1, maxLength: 300 });
  const steps = fc.array(fc.oneof(piece, fc.constant("take" as const), fc.nat(200)), { maxLength: 40 });
  fc.assert(
    fc.property(steps, (steps) => {
      const output = new OutputBuffer(new Uint8Array(16));
      let model: number[] = [];
      for (const step of steps) {
        if (step === "take") {
          expect([...output.take()]).toEqual(model);
          model = [];
        } else if (typeof step === "number") {
          const dropped = Math.min(step, output.length);
          output.drop(dropped);
          model = model.slice(dropped);
        } else {
          output.append(Buffer.concat([Buffer.of(1, 2), step, Buffer.of(3)]), 2, 2 + step.length);
          model.push(...step);
        }
        expect(output.length).toBe(model.length);
      }
      expect([...output.bytes.subarray(0, output.length)]).toEqual(model);
    }),
  );
});

test("bytes that were taken do not change when the buffer is used again", () => {
  const output = new OutputBuffer();
  output.append(Uint8Array.of(1, 2, 3), 0, 3);
  const taken = output.take();
  output.append(Uint8Array.of(9, 9, 9), 0, 3);
  expect([...taken]).toEqual([1, 2, 3]);
});
