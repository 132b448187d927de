// What the service says: as text and as JSON, of a migration and of itself.

import { expect, test } from "vitest";
import { VirtualClock } from "../base/clock.ts";
import { NO_PAGES } from "../record/schema.ts";
import { RunRecord } from "../record/writer.ts";
import { Log, type LogLevel, runLog } from "./log.ts";

function logged(format: "text" | "json", level: LogLevel, say: (log: Log) => void): string[] {
  const lines: string[] = [];
  const now = () => new Date("2026-01-02T03:04:05.678Z");
  say(new Log({ format, level, write: (line) => lines.push(line), now }));
  return lines;
}

function aRun(log: Log): void {
  const clock = new VirtualClock();
  const record = new RunRecord({ clock, listeners: [runLog(log, { migration: "3f9a01c2", vm: "web-1" })] });
  record.add({ type: "phase", phase: "iterating" });
  clock.advance(1500);
  record.add({
    type: "sample",
    handedOverBytes: 1,
    wireBytes: 1,
    inFlightBytes: 0,
    windowBytes: 0,
    linkBytesPerSecond: 0,
    pages: NO_PAGES,
  });
  record.add({ type: "notice", message: "two\nlines" });
  record.add({ type: "error", code: "LINK_LOST", message: "gone", vm: "running on source" });
  record.add({
    type: "summary",
    outcome: "failed",
    vm: "running on source",
    totalMs: 1500,
    handedOverBytes: 1,
    wireBytes: 2_000_000,
    pages: NO_PAGES,
  });
}

test("of a migration each line says which one, of which VM, and where that is", () => {
  const lines = logged("json", "info", aRun).map((line) => JSON.parse(line) as Record<string, unknown>);
  const of = { time: "2026-01-02T03:04:05.678Z", migration: "3f9a01c2", vm: "web-1" };
  expect(lines).toEqual([
    { ...of, level: "info", event: "phase", message: "iterating", atMs: 0, phase: "iterating" },
    { ...of, level: "warning", event: "notice", message: "two\nlines", atMs: 1500 },
    {
      ...of,
      ...{ level: "error", event: "error", message: "LINK_LOST: gone", atMs: 1500 },
      ...{ code: "LINK_LOST", where: "running on source" },
    },
    expect.objectContaining({ ...of, level: "warning", event: "summary", where: "running on source" }),
  ]);
  expect(lines[3]?.message).toBe("failed after 1.5 s, 2.0 MB sent; the VM is: running on source");
});

test("text is one line for each, for people", () => {
  expect(logged("text", "warning", aRun)).toEqual([
    "2026-01-02T03:04:05.678Z warning [3f9a01c2 web-1] two; lines\n",
    "2026-01-02T03:04:05.678Z error   [3f9a01c2 web-1] LINK_LOST: gone\n",
    "2026-01-02T03:04:05.678Z warning [3f9a01c2 web-1] failed after 1.5 s, 2.0 MB sent; the VM is: running on source\n",
  ]);
});

test("samples are for those who ask for all there is", () => {
  expect(logged("json", "debug", aRun)).toHaveLength(5);
  expect(logged("json", "error", aRun)).toHaveLength(1);
});
