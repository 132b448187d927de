import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryEntries } from "../../../test/support/arbitrary-record.ts";
import { simulatedRecord } from "../../../test/support/simulated-record.ts";
import { writeRecord } from "../../../test/support/write-record.ts";
import type { RecordEvent } from "../../record/schema.ts";
import { initialView, type RunView, reduceView, SLOT_MS, viewLines } from "./screen.ts";

const beat = (counter: number, atMs: number, gapMs: number, side: "source" | "destination" = "source") =>
  ({ type: "heartbeat", counter, atMs, gapMs, side }) as const;
const view = (...events: RecordEvent[]): RunView => events.reduce(reduceView, initialView("standard"));

/** A heart that beats each 100 ms for so many slots. */
const beating = (slots: number) =>
  Array.from({ length: (slots * SLOT_MS) / 100 }, (_, index) => beat(index, index * 100, 100));

test("A run that has not begun waits", () => {
  expect(viewLines(view(), 0, 80)).toEqual(["standard  waits", "", ""]);
});

test("A guest that runs shows its counter, where it is, and the longest gap so far", () => {
  const lines = viewLines(view(beat(1233, 10, 0), beat(1234, 90, 80)), 95, 80);
  expect(lines[1]).toBe("    guest beat 1,234 at source; longest gap 80 ms");
});

test("A guest that stands still is shown so, with a flat line, until it beats again", () => {
  const still = view(...beating(4));
  const frozenMs = 4 * SLOT_MS + 3000;
  expect(viewLines(still, frozenMs, 80).slice(1)).toEqual([
    `    guest STANDS STILL for 3.1 s, since beat ${beating(4).length - 1}`,
    `          ^^^^${"_".repeat(3000 / SLOT_MS)}`,
  ]);
  const resumed = reduceView(still, beat(20, frozenMs, 3100, "destination"));
  expect(viewLines(resumed, frozenMs + SLOT_MS, 80).slice(1)).toEqual([
    "    guest STANDS STILL for 500 ms, since beat 20",
    `          ^^^^${"_".repeat(3000 / SLOT_MS)}^`,
  ]);
});

test("The flat line begins with the first heartbeat, not while the guest boots", () => {
  const late = beating(2).map((event) => ({ ...event, atMs: event.atMs + 10 * SLOT_MS }));
  expect(viewLines(view(...late), 12 * SLOT_MS, 80)[2]).toBe("          ^^");
});

test("When the strip is longer than the screen its end is shown", () => {
  const lines = viewLines(view(...beating(50)), 51 * SLOT_MS, 30);
  expect(lines[2]).toBe(`          ${"^".repeat(19)}_`);
});

test("A finished run says how long the guest stood still", () => {
  const [head, guest] = viewLines(view(...simulatedRecord("standard")), 1e6, 80);
  expect(head).toMatch(/^standard {2}completed in [\d.]+ s, [\d.]+ MB sent$/);
  expect(guest).toMatch(/^ {4}guest stood still for [\d.]+ m?s; now at destination, memory verified$/);
});

test("Whatever happens in a run, it takes three lines that fit", () => {
  fc.assert(
    fc.property(arbitraryEntries, fc.nat(200), fc.nat(1e5), (entries, columns, nowMs) => {
      let state = initialView("delta");
      for (const event of writeRecord(entries).events) {
        state = reduceView(state, event);
        const lines = viewLines(state, nowMs, columns);
        expect(lines).toHaveLength(3);
        for (const line of lines) expect(line.length).toBeLessThanOrEqual(Math.max(10, columns));
      }
    }),
    { numRuns: 30 },
  );
});
