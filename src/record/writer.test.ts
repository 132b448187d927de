import { expect, test, vi } from "vitest";
import { VirtualClock } from "../base/clock.ts";
import { LINE_CHARS_MAX } from "./line-reader.ts";
import { parseRecord } from "./reader.ts";
import type { RecordEntry, RecordEvent } from "./schema.ts";
import { RunRecord, TEXT_CHARS_MAX } from "./writer.ts";

const run: RecordEntry = {
  type: "run",
  version: 1,
  startedAt: "2026-01-01T00:00:00Z",
  deltavee: "0.1.0",
  side: "source",
  mode: "direct",
  method: "delta",
  hypervisor: "test",
};
const heartbeat: RecordEntry = { type: "heartbeat", counter: 1, gapMs: 10, side: "source" };
const pages = {
  zeroPages: 0,
  unchangedPages: 0,
  deltaPages: 0,
  overflowPages: 0,
  rawPages: 0,
  duplicatePages: 0,
  deltaBytes: 0,
};
const summary: RecordEntry = {
  type: "summary",
  outcome: "completed",
  vm: "running on destination",
  totalMs: 1,
  handedOverBytes: 1,
  wireBytes: 1,
  pages,
};

test("Events carry the time since the record was opened and reach listeners and sink in order", () => {
  const clock = new VirtualClock();
  clock.advance(5000);
  const lines: string[] = [];
  const heard: RecordEvent[] = [];
  const record = new RunRecord({
    clock,
    sink: (line) => lines.push(line),
    listeners: [(event) => heard.push(event)],
  });
  record.add(run);
  clock.advance(12.34567);
  record.add(heartbeat);
  expect(heard.map(({ type, atMs }) => [type, atMs])).toEqual([
    ["run", 0],
    ["heartbeat", 12.346],
  ]);
  expect(record.events).toEqual(heard);
  expect(lines.map((line) => JSON.parse(line))).toEqual(heard);
  expect(lines.every((line) => line.endsWith("\n") && line.indexOf("\n") === line.length - 1)).toBe(true);
});

test("A sink that fails is said once, is not called again, and does not stop the run", () => {
  const sink = vi.fn(() => {
    throw new Error("no space left on device");
  });
  const heard: RecordEvent[] = [];
  const record = new RunRecord({
    clock: new VirtualClock(),
    sink,
    listeners: [(event) => heard.push(event)],
  });
  for (let index = 0; index < 5; index++) record.add(heartbeat);
  expect(sink).toHaveBeenCalledTimes(1);
  const notices = heard.filter(({ type }) => type === "notice");
  expect(notices).toHaveLength(1);
  expect(notices[0]).toMatchObject({ message: expect.stringContaining("no space left on device") });
  expect(heard.filter(({ type }) => type === "heartbeat")).toHaveLength(5);
});

test("A listener that fails is left out, and the others go on", () => {
  const heard: string[] = [];
  const broken = vi.fn(() => {
    throw new Error("terminal gone");
  });
  const record = new RunRecord({
    clock: new VirtualClock(),
    listeners: [broken, ({ type }) => heard.push(type)],
  });
  record.add(heartbeat);
  record.add(heartbeat);
  expect(broken).toHaveBeenCalledTimes(1);
  expect(heard.toSorted()).toEqual(["heartbeat", "heartbeat", "notice"]);
});

test("A figure that is no number becomes one notice, and the file stays readable", () => {
  const lines: string[] = [];
  const record = new RunRecord({ clock: new VirtualClock(), sink: (line) => lines.push(line) });
  record.add(run);
  record.add({ ...heartbeat, gapMs: Number.NaN } as RecordEntry);
  record.add({ ...heartbeat, gapMs: -1 } as RecordEntry);
  record.add(heartbeat);
  const { events } = parseRecord(lines.join(""), "test");
  expect(events.map(({ type }) => type)).toEqual(["run", "notice", "heartbeat"]);
  expect(events[1]).toMatchObject({ message: expect.stringMatching(/heartbeat.*gapMs/) });
});

test("Long texts are cut so that every line can be read back", () => {
  const lines: string[] = [];
  const record = new RunRecord({ clock: new VirtualClock(), sink: (line) => lines.push(line) });
  record.add({ ...run, label: "\u0000".repeat(1e6), hypervisor: "x".repeat(1e6) } as RecordEntry);
  expect(lines[0]?.length).toBeLessThan(LINE_CHARS_MAX);
  const [event] = parseRecord(lines.join(""), "test").events;
  expect(event).toMatchObject({ hypervisor: `${"x".repeat(TEXT_CHARS_MAX - 1)}…` });
});

test("Nothing follows the summary", () => {
  const record = new RunRecord({ clock: new VirtualClock() });
  record.add(run);
  record.add(summary);
  record.add(heartbeat);
  expect(record.events.map(({ type }) => type)).toEqual(["run", "summary"]);
});
