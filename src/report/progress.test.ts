import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryEntries } from "../../test/support/arbitrary-record.ts";
import { simulatedRecord } from "../../test/support/simulated-record.ts";
import { writeRecord } from "../../test/support/write-record.ts";
import type { RecordEvent } from "../record/schema.ts";
import {
  initialProgress,
  ProgressDisplay,
  type ProgressOutput,
  progressLine,
  reduceProgress,
  remainingTime,
} from "./progress.ts";

const PAGE_BYTES = 4096;

function sample(
  atMs: number,
  settledPages: number,
  more: Partial<Extract<RecordEvent, { type: "sample" }>> = {},
): RecordEvent {
  return {
    type: "sample",
    atMs,
    handedOverBytes: settledPages * PAGE_BYTES,
    wireBytes: settledPages * 1000,
    inFlightBytes: 0,
    windowBytes: 0,
    linkBytesPerSecond: 0,
    pages: {
      zeroPages: 0,
      unchangedPages: 0,
      deltaPages: settledPages,
      overflowPages: 0,
      rawPages: 0,
      duplicatePages: 0,
      deltaBytes: 0,
    },
    ...more,
  };
}
const iterating: RecordEvent = { type: "phase", atMs: 0, phase: "iterating" };
const fold = (...events: RecordEvent[]) => events.reduce(reduceProgress, initialProgress);

test("The line names step, wire rate, bytes sent of those handed over, what is left, and the time for it", () => {
  const state = fold(
    iterating,
    sample(1000, 1000, { iteration: 2, remainingBytes: 8000 * PAGE_BYTES, dirtyPagesPerSecond: 200 }),
    sample(2000, 2000, { iteration: 2, remainingBytes: 8000 * PAGE_BYTES, dirtyPagesPerSecond: 200 }),
  );
  // 1000 pages of 1000 bytes in a second; 8000 pages left at 1000 - 200 pages a second.
  expect(progressLine(state, 120)).toBe(
    "iteration 2     8.0 Mbit/s  sent 2.0 MB of 8.2 MB (-76%)    32.8 MB left  ETA 10.0 s",
  );
});

test("There is no estimate while the guest dirties pages faster than they are settled", () => {
  const behind = { iteration: 2, remainingBytes: 1e6, dirtyPagesPerSecond: 1001 };
  const state = fold(iterating, sample(1000, 1000, behind), sample(2000, 2000, behind));
  expect(remainingTime(state)).toBeUndefined();
  expect(progressLine(state, 120)).toMatch(/ETA -$/);
});

test("During the full pass, before a dirty rate is known, the estimate is a lower bound", () => {
  const first = { iteration: 0, remainingBytes: 1000 * PAGE_BYTES, dirtyPagesPerSecond: 0 };
  const state = fold(iterating, sample(1000, 1000, first), sample(2000, 2000, first));
  expect(remainingTime(state)).toEqual({ ms: 1000, isLowerBound: true });
  expect(progressLine(state, 120)).toMatch(/ETA >1.0 s$/);
});

test("The downtime that is to be expected is told as soon as it is known, and only while the guest runs", () => {
  const known = { iteration: 1, forecastDowntimeMs: 84 };
  const state = fold(iterating, sample(1000, 1000), sample(2000, 2000, known));
  expect(progressLine(state, 120)).toMatch(/ETA - +downtime ~84 ms$/);
  expect(progressLine(state, 50)).toMatch(/^iteration 1 .*ETA -$/);
  const foretold = reduceProgress(state, sample(2001, 2000, { ...known, forecastEndMs: 5000 }));
  expect(progressLine(foretold, 120)).toMatch(/ETA 5\.0 s +downtime ~84 ms$/);
  const stopped = reduceProgress(state, { type: "phase", atMs: 2001, phase: "switchover" });
  expect(progressLine(stopped, 120)).not.toContain("downtime");
});

test("Rates are those of the last seconds, not of the whole run", () => {
  let state = fold(iterating);
  for (let atMs = 0; atMs <= 10_000; atMs += 100) state = reduceProgress(state, sample(atMs, atMs * 100));
  for (let atMs = 10_100; atMs <= 20_000; atMs += 100) {
    state = reduceProgress(state, sample(atMs, 1e6 + (atMs - 10_000) * 0.1, { remainingBytes: 1 }));
  }
  // 100 pages of 1000 bytes a second.
  expect(progressLine(state, 120)).toContain(" 800.0 kbit/s ");
});

test("However often samples come, few are kept", () => {
  let state = fold(iterating);
  for (let atMs = 0; atMs < 20_000; atMs++) state = reduceProgress(state, sample(atMs, atMs));
  expect(state.marks.length).toBeLessThan(64);
  expect(progressLine(state, 120)).toMatch(/ 8\.0 Mbit\/s /);
});

test("No line is longer than the terminal or holds what a terminal would obey", () => {
  fc.assert(
    fc.property(arbitraryEntries, fc.nat(150), (entries, columns) => {
      let state = initialProgress;
      for (const event of writeRecord(entries).events) {
        state = reduceProgress(state, event);
        const line = progressLine(state, columns);
        expect(line.length).toBeLessThanOrEqual(columns);
        expect(line).not.toMatch(/\p{Cc}/u);
      }
    }),
  );
});

test("On a narrow terminal the step and the estimate stay longest", () => {
  const during = simulatedRecord("delta").filter(({ atMs }) => atMs < 2000);
  const state = { ...fold(...during), label: "demo" };
  expect(progressLine(state, 120)).toMatch(/^demo {2}iteration 0.*sent .* of .*left.*ETA/);
  expect(progressLine(state, 79)).toMatch(/^iteration 0.*sent.*left.*ETA/);
  expect(progressLine(state, 60)).toMatch(/^iteration 0 .*left.*ETA/);
  expect(progressLine(state, 33)).toMatch(/^iteration 0 .*ETA/);
  expect(progressLine(state, 11)).toBe("iteration 0");
});

function shown(events: readonly RecordEvent[], terminal: Omit<ProgressOutput, "write">): string[] {
  const writes: string[] = [];
  const display = new ProgressDisplay({ write: (text) => writes.push(text), ...terminal });
  for (const event of events) display.listener(event);
  return writes;
}

test("On a terminal one line is rewritten, about five times a second, and gone at the end", () => {
  const events = simulatedRecord("standard");
  const writes = shown(events, { isTTY: true, columns: 80 });
  const seconds = (events.at(-1)?.atMs ?? 0) / 1000;
  expect(writes.length).toBeLessThan(seconds * 5 + 20);
  expect(writes.length).toBeGreaterThan(seconds * 2);
  for (const text of writes) {
    if (text.startsWith("Note: ")) continue;
    expect(text).toMatch(/^\r[^\r\n]*\r?$/);
    expect(text.replaceAll("\r", "").length).toBeLessThan(80);
  }
  expect(writes.at(-1)).toMatch(/^\r +\r$/);
});

test("A shorter line covers the longer one before it", () => {
  const writes = shown(simulatedRecord("delta"), { isTTY: true, columns: 100 });
  let standing = "";
  for (const text of writes) {
    if (!text.startsWith("\r")) continue;
    const line = text.replaceAll("\r", "");
    expect(line.length).toBeGreaterThanOrEqual(standing.trimEnd().length);
    standing = text.endsWith("\r") ? "" : line;
  }
});

test("Without a terminal there are whole lines: at news, and every ten seconds", () => {
  const events = simulatedRecord("standard");
  const writes = shown(events, {});
  expect(writes.every((text) => /^[^\r\n]+\n$/.test(text))).toBe(true);
  expect(writes.length).toBeLessThan(25);
  for (const phase of ["setup", "iterating", "switchover", "committed", "completed"]) {
    expect(writes.join("")).toContain(phase);
  }
  const quiet = [iterating, ...Array.from({ length: 300 }, (_, index) => sample(index * 200, index))];
  expect(shown(quiet, {})).toHaveLength(6);
});

test("What is decided about promises is told at once, other decisions are for the summary", () => {
  const decision = (subject: string): RecordEvent => ({
    ...{ type: "decision", atMs: 1001, subject, choice: "wait", reason: "stalled" },
  });
  const writes = shown([iterating, sample(1000, 1000), decision("convergence"), decision("switchover")], {});
  expect(writes.filter((text) => text.startsWith("Note"))).toEqual(["Note: wait: stalled\n"]);
});

test("That a stream is not understood is said as soon as it is known", () => {
  const reason = 'live section "spapr/htab" is not known';
  const writes = shown([iterating, { type: "opaque", atMs: 1001, offsetBytes: 101, reason }], {});
  expect(writes.at(-1)).toMatch(/^Note: .* carried as it is: live section "spapr\/htab" is not known\n$/);
});

test("Notices and errors stand on lines of their own, and the line comes back below them", () => {
  const events: RecordEvent[] = [
    iterating,
    sample(1000, 1000),
    { type: "error", atMs: 1001, code: "LINK_FAILED", message: "gone\u001b[2J" },
    sample(1002, 1000),
  ];
  const writes = shown(events, { isTTY: true, columns: 100 });
  const at = writes.indexOf("Error LINK_FAILED: gone?[2J\n");
  expect(writes[at - 1]).toMatch(/^\r +\r$/);
  expect(writes[at + 1]).toMatch(/^\riterating/);
});
