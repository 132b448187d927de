import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryEntries } from "../../test/support/arbitrary-record.ts";
import { writeRecord } from "../../test/support/write-record.ts";
import { DeltaveeError } from "../base/errors.ts";
import { LINE_CHARS_MAX } from "./line-reader.ts";
import { parseRecord, RecordReader } from "./reader.ts";

const RUN =
  '{"type":"run","atMs":0,"version":1,"startedAt":"","deltavee":"","side":"source","mode":"direct","method":"delta","hypervisor":""}\n';
const NOTICE = '{"type":"notice","atMs":5,"message":"hello"}\n';

function refusal(text: string): DeltaveeError {
  try {
    parseRecord(text, "run.ndjson");
  } catch (thrown) {
    if (thrown instanceof DeltaveeError) return thrown;
    throw thrown;
  }
  throw new Error("was accepted");
}

test("What was written is read back, whatever it is", () => {
  fc.assert(
    fc.property(arbitraryEntries, (entries) => {
      const { events, text } = writeRecord(entries);
      expect(parseRecord(text, "any").events).toEqual(events);
    }),
  );
});

test("The result does not depend on how the text is cut into pieces", () => {
  fc.assert(
    fc.property(arbitraryEntries, fc.array(fc.nat(50)), (entries, sizes) => {
      const { text } = writeRecord(entries);
      const reader = new RecordReader("any");
      let start = 0;
      for (const size of sizes) {
        reader.push(text.slice(start, start + size));
        start += size;
      }
      for (const character of text.slice(start)) reader.push(character);
      expect(reader.end()).toEqual(parseRecord(text, "any"));
    }),
    { numRuns: 50 },
  );
});

test("A record that was cut off anywhere gives the events before the cut, and says so", () => {
  fc.assert(
    fc.property(arbitraryEntries, fc.double({ min: 0, max: 1, noNaN: true }), (entries, where) => {
      const { text } = writeRecord(entries);
      const cut = text.slice(0, Math.floor(where * text.length));
      const wholeLines = cut.split("\n").length - 1;
      fc.pre(wholeLines > 0);
      const { events, notices } = parseRecord(cut, "cut.ndjson");
      const isAtLineEnd = cut.endsWith("\n") || text[cut.length] === "\n";
      expect(events).toHaveLength(wholeLines + (isAtLineEnd && !cut.endsWith("\n") ? 1 : 0));
      expect(notices.some((notice) => notice.includes("was cut off"))).toBe(!isAtLineEnd);
      expect(notices.every((notice) => notice.includes("cut.ndjson"))).toBe(true);
    }),
  );
});

test("Any text gives events or a typed refusal that names the file", () => {
  const mangled = fc
    .tuple(arbitraryEntries, fc.nat(), fc.string({ unit: "binary", maxLength: 8 }))
    .map(([entries, at, insert]) => {
      const { text } = writeRecord(entries);
      const position = at % (text.length + 1);
      return text.slice(0, position) + insert + text.slice(position + insert.length);
    });
  fc.assert(
    fc.property(fc.oneof(mangled, fc.string({ unit: "binary" }), fc.json()), (text) => {
      try {
        expect(parseRecord(text, "any.ndjson").events.length).toBeGreaterThan(0);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(DeltaveeError);
        expect(thrown).toMatchObject({ code: "RECORD_INVALID" });
        expect((thrown as Error).message).toContain("any.ndjson");
        expect((thrown as Error).message.length).toBeLessThan(400);
      }
    }),
    { numRuns: 500 },
  );
});

test("What a refusal quotes of a file is short and steers no terminal", () => {
  const type = JSON.stringify("\u001b[2J".repeat(10_000));
  const { message } = refusal(`${RUN}{"type":${type},"atMs":1}\n`);
  expect(message.length).toBeLessThan(200);
  expect(message).not.toMatch(/\p{Cc}/u);
});

test("A record of another version is refused before anything else is looked at", () => {
  const error = refusal('{"type":"run","version":2,"everything":"differs"}\n');
  expect(error.code).toBe("RECORD_INVALID");
  expect(error.message).toContain("run.ndjson: line 1: record version 2 is unknown");
});

test.each([
  ["does not begin with a run", NOTICE, /line 1: .*begins with an event "run", not "notice"/],
  ["holds a second run", RUN + RUN, /line 2: a second run begins/],
  [
    "has an unknown type of event",
    `${RUN}{"type":"teleport","atMs":1}\n`,
    /line 2: unknown type of event: "teleport"/,
  ],
  [
    "has a negative counter",
    `${RUN}{"type":"heartbeat","atMs":1,"counter":-1,"gapMs":1,"side":"source"}\n`,
    /line 2: event "heartbeat": counter/,
  ],
  [
    "has a figure beyond all numbers",
    `${RUN}{"type":"heartbeat","atMs":1,"counter":1e999,"gapMs":1,"side":"source"}\n`,
    /line 2: event "heartbeat": counter/,
  ],
  ["runs backwards", `${RUN}${NOTICE}${NOTICE.replace("5", "4")}`, /line 3: time runs backwards/],
  ["holds something else than JSON", `${RUN}hello\n`, /line 2: not JSON/],
  ["holds an array", `${RUN}[]\n`, /line 2: not a JSON object/],
  ["holds an empty line", `${RUN}\n${NOTICE}`, /line 2: not JSON/],
  ["has a line too long", RUN + "x".repeat(LINE_CHARS_MAX + 1), /line 2: longer than/],
  ["is empty", "", /no whole line/],
  ["was cut off in its first line", RUN.slice(0, 40), /no whole line/],
])("A record is refused that %s", (_, text, reason) => {
  expect(refusal(text).message).toMatch(reason);
});

test("An unknown field is dropped: it only says more about an event that is understood", () => {
  const { events } = parseRecord(`${RUN}{"type":"notice","atMs":5,"message":"hello","mood":"good"}\n`, "x");
  expect(events[1]).toEqual({ type: "notice", atMs: 5, message: "hello" });
});

test("A record without a summary is read, with a notice", () => {
  expect(parseRecord(RUN + NOTICE, "x").notices).toEqual([expect.stringContaining("without a summary")]);
});

test("Nothing may follow the summary", () => {
  const { text } = writeRecord([]);
  expect(text).toBe("");
  const pages =
    '{"zeroPages":0,"unchangedPages":0,"deltaPages":0,"overflowPages":0,"rawPages":0,"deltaBytes":0}';
  const summary = `{"type":"summary","atMs":1,"outcome":"completed","vm":"unknown","totalMs":1,"handedOverBytes":0,"wireBytes":0,"pages":${pages}}\n`;
  expect(parseRecord(RUN + summary, "x").notices).toEqual([]);
  expect(refusal(RUN + summary + NOTICE).message).toMatch(/line 3: comes after the summary/);
});
