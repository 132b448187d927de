import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryEntries } from "../../test/support/arbitrary-record.ts";
import { simulatedRecord } from "../../test/support/simulated-record.ts";
import { writeRecord } from "../../test/support/write-record.ts";
import type { RecordEvent } from "../record/schema.ts";
import { RunBoard } from "./run-board.ts";

const events = simulatedRecord("delta");

test("A run is on the board from its first event on, and over with its summary", () => {
  const board = new RunBoard();
  const feed = board.open({ label: "vm-7" });
  const run = board.find(feed.id)!;
  expect(run.overview).toMatchObject({ id: feed.id, label: "vm-7", isRunning: true, phase: "setup" });
  const half = events.length >> 1;
  for (const event of events.slice(0, half)) feed.event(event);
  expect(run.overview).toMatchObject({ isRunning: true, phase: "iterating", side: "source" });
  expect(run.overview.arrivedRatio).toBeGreaterThan(0);
  for (const event of events.slice(half)) feed.event(event);
  const summary = events.at(-1) as Extract<RecordEvent, { type: "summary" }>;
  expect(run.overview).toMatchObject({
    isRunning: false,
    phase: "completed",
    vm: "running on destination",
    downtimeMs: summary.heartbeatGapMs,
    totalMs: summary.totalMs,
    wireBytes: summary.wireBytes,
  });
  feed.event({ type: "notice", atMs: 1e6, message: "too late" });
  expect(run.events.at(-1)).toEqual(summary);
});

test("A run without a label is called by its record", () => {
  const board = new RunBoard();
  const feed = board.open();
  const run = board.find(feed.id)!;
  expect(run.overview.label).toBe("not begun");
  const head = {
    type: "run",
    atMs: 0,
    version: 1,
    startedAt: "2026-01-02T03:04:05Z",
    deltavee: "1",
  } as const;
  feed.event({
    ...head,
    ...{ side: "source", mode: "direct", method: "delta", hypervisor: "QEMU 7.2", destination: "host2:4444" },
  });
  expect(run.overview).toMatchObject({ label: "QEMU 7.2 to host2:4444", startedAt: "2026-01-02T03:04:05Z" });
});

test("Events after a number are those not told yet, whatever was forgotten in between", () => {
  const board = new RunBoard();
  const run = board.find(board.open().id)!;
  for (let count = 1; count <= 10_000; count++) {
    run.add({ type: "heartbeat", atMs: count, counter: count, gapMs: count % 7, side: "source" });
  }
  expect(run.events.length).toBeLessThanOrEqual(4000);
  expect(run.lastSequence).toBe(10_000);
  for (const after of [0, 17, 5000, 9_999, 10_000]) {
    const told = run.eventsAfter(after);
    expect(told.map(({ sequence }) => sequence)).toEqual(
      run.events.map(({ atMs }) => atMs).filter((atMs) => atMs > after),
    );
  }
  run.end();
  expect(run.events.length).toBeLessThanOrEqual(1000);
  expect(run.eventsAfter(9_990).at(-1)?.sequence).toBe(10_000);
});

test("There is a limit to runs: those that ended first are forgotten first, and listeners told", () => {
  const board = new RunBoard();
  const gone: string[] = [];
  board.subscribe((run) => {
    if (run.isForgotten) gone.push(run.id);
  });
  const first = board.open();
  const second = board.open();
  second.end();
  const others = Array.from({ length: 98 }, () => board.open());
  expect(gone).toEqual([]);
  board.open();
  expect(gone).toEqual([second.id]);
  board.open();
  expect(gone).toEqual([second.id, first.id]);
  expect(board.runs).toHaveLength(100);
  const forgotten = events[0]!;
  first.event(forgotten);
  expect(board.find(first.id)).toBeUndefined();
  expect(board.runs.map(({ id }) => id)).toContain(others[97]!.id);
});

test("Any record makes an overview that is JSON", () => {
  fc.assert(
    fc.property(arbitraryEntries, (entries) => {
      const board = new RunBoard();
      const feed = board.open();
      for (const event of writeRecord(entries).events) feed.event(event);
      const { overview } = board.find(feed.id)!;
      expect(JSON.parse(JSON.stringify(overview))).toEqual(overview);
    }),
  );
});
