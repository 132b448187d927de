import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryEntries } from "../../test/support/arbitrary-record.ts";
import { simulatedRecord } from "../../test/support/simulated-record.ts";
import { writeRecord } from "../../test/support/write-record.ts";
import type { RecordEvent } from "../record/schema.ts";
import { eventsOf, iterationFigures, PAGE_CLASSES, pagesOf, ratesOverTime, runFigures } from "./figures.ts";

const events = simulatedRecord("delta");

test("The figures of a finished run are those of its summary", () => {
  const figures = runFigures({ label: "a", events });
  const summary = eventsOf(events, "summary")[0];
  expect(figures).toMatchObject({
    label: "a",
    method: "delta",
    outcome: "completed",
    vm: "running on destination",
    wireBytes: summary?.wireBytes,
    heartbeatGapMs: summary?.heartbeatGapMs,
    memoryVerified: true,
  });
  expect(figures.savedRatio).toBeCloseTo(1 - (summary?.wireBytes ?? 0) / (summary?.handedOverBytes ?? 1));
});

test("A run that was cut off has the figures of its last sample, and does not say where the VM is", () => {
  const cut = events.slice(0, events.length / 2);
  const figures = runFigures({ label: "a", events: cut });
  expect(figures).toMatchObject({ outcome: "unfinished", vm: "unknown" });
  expect(figures.wireBytes).toBe(eventsOf(cut, "sample").at(-1)?.wireBytes);
});

test("Without a figure in the summary, the gap around the switchover is the destination's first heartbeat", () => {
  const without = events.map((event): RecordEvent => {
    if (event.type !== "summary") return event;
    const { heartbeatGapMs: _, ...others } = event;
    return others;
  });
  const gaps = eventsOf(events, "heartbeat").map(({ gapMs }) => gapMs);
  expect(runFigures({ label: "a", events: without }).heartbeatGapMs).toBe(Math.max(...gaps));
});

test("The average link rate leaves out the time after the last byte", () => {
  const { wireBytesPerSecond = 0, linkBytesPerSecondMax = 1 } = runFigures({ label: "a", events });
  expect(wireBytesPerSecond / linkBytesPerSecondMax).toBeGreaterThan(0.9);
  expect(wireBytesPerSecond / linkBytesPerSecondMax).toBeLessThan(1.1);
});

test("Iterations add up to the whole run", () => {
  const iterations = iterationFigures(events);
  const { pages, wireBytes } = runFigures({ label: "a", events });
  for (const pageClass of PAGE_CLASSES) {
    const sum = iterations.reduce((total, iteration) => total + pagesOf(iteration.pages, pageClass), 0);
    expect(sum).toBe(pagesOf(pages, pageClass));
  }
  expect(iterations.reduce((sum, iteration) => sum + iteration.wireBytes, 0)).toBe(wireBytes);
  expect(iterations[0]).toMatchObject({ iteration: 0 });
});

test("A delta settles guest pages faster than the link carries bytes; whole pages are no faster", () => {
  const fastest = (method: "standard" | "delta") =>
    Math.max(
      ...ratesOverTime(simulatedRecord(method), 200).map(
        ({ guestBytesPerSecond, wireBytesPerSecond }) =>
          guestBytesPerSecond / Math.max(1, wireBytesPerSecond),
      ),
    );
  expect(fastest("delta")).toBeGreaterThan(2);
  expect(fastest("standard")).toBeLessThan(1.01);
});

test("Rates of any record are finite or infinite, never negative, and in order of time", () => {
  fc.assert(
    fc.property(arbitraryEntries, (entries) => {
      const points = ratesOverTime(writeRecord(entries).events, 1);
      for (const [index, point] of points.entries()) {
        expect(point.wireBytesPerSecond).toBeGreaterThanOrEqual(0);
        expect(point.guestBytesPerSecond).toBeGreaterThanOrEqual(0);
        expect(point.atMs).toBeGreaterThanOrEqual(points[index - 1]?.atMs ?? 0);
      }
    }),
  );
});
