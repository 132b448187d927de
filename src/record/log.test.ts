import { expect, test } from "vitest";
import { EventLog } from "./log.ts";
import type { RecordEvent } from "./schema.ts";

const heartbeat = (counter: number, gapMs = 10): RecordEvent => ({
  type: "heartbeat",
  atMs: counter,
  counter,
  gapMs,
  side: "source",
});

test("A log below its limit holds every event", () => {
  const log = new EventLog(100);
  for (let counter = 0; counter < 100; counter++) log.add(heartbeat(counter));
  expect(log.events).toHaveLength(100);
});

test("A log stays below its limit, in order, whatever the events are", () => {
  for (const make of [heartbeat, (atMs: number): RecordEvent => ({ type: "notice", atMs, message: "" })]) {
    const log = new EventLog(100);
    for (let index = 0; index < 10_000; index++) {
      log.add(make(index));
      expect(log.events.length).toBeLessThanOrEqual(100);
    }
    const times = log.events.map(({ atMs }) => atMs);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(times.length).toBeGreaterThan(40);
  }
});

test("Thinning never loses the longest gap, the decisions, or the newest event", () => {
  const log = new EventLog(100);
  for (let counter = 0; counter < 5000; counter++) {
    log.add(heartbeat(counter, counter === 1234 ? 5500 : 10));
    if (counter % 500 === 0) {
      log.add({ type: "decision", atMs: counter, subject: `${counter}`, choice: "", reason: "" });
    }
  }
  expect(log.events).toContainEqual(heartbeat(1234, 5500));
  expect(log.events.filter(({ type }) => type === "decision")).toHaveLength(10);
  expect(log.events.at(-1)).toEqual(heartbeat(4999));
});
