import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryEntries } from "../../test/support/arbitrary-record.ts";
import { simulatedRecord } from "../../test/support/simulated-record.ts";
import { writeRecord } from "../../test/support/write-record.ts";
import type { RecordEvent } from "../record/schema.ts";
import { sideBySideText, summaryText } from "./summary.ts";

const standard = simulatedRecord("standard");
const delta = simulatedRecord("delta");

/** The record with another end. */
function ending(changes: Partial<Extract<RecordEvent, { type: "summary" }>>): RecordEvent[] {
  return delta.map((event) => (event.type === "summary" ? { ...event, ...changes } : event));
}

test("The first line says how it ended and where the VM is", () => {
  expect(summaryText(delta)).toMatch(/^Migration completed: the VM is running on the destination\.\n/);
  expect(summaryText(ending({ outcome: "failed", vm: "running on source" }))).toMatch(
    /^Migration failed: the VM is running on the source\.\n/,
  );
  expect(summaryText(ending({ outcome: "failed", vm: "unknown" }))).toMatch(/look at both sides/);
});

test("Errors stand right below the outcome", () => {
  const error: RecordEvent = { type: "error", atMs: 1, code: "LINK_CLOSED", message: "Peer went away" };
  const events = [
    ...delta.slice(0, 20),
    error,
    ...ending({ outcome: "failed", vm: "running on source" }).slice(20),
  ];
  expect(summaryText(events).split("\n")[1]).toBe("Error LINK_CLOSED: Peer went away");
});

test("A record that was cut off says where the VM was when it was last known", () => {
  const error: RecordEvent = {
    type: "error",
    atMs: 1,
    code: "LINK_CLOSED",
    message: "x",
    vm: "running on source",
  };
  expect(summaryText([...delta.slice(0, 20), error])).toMatch(
    /^The record ends .*: when last known, the VM was running on the source\.\nError LINK_CLOSED: x\n/,
  );
});

test("Memory that differs is said loudly", () => {
  expect(summaryText(ending({ memoryVerified: false }))).toMatch(/^.*\nThe guest's memory.*DIFFERS/);
  expect(summaryText(delta)).toMatch(/memory +verified on arrival/);
});

test("Promises stand beside what they were about, and post-copy beside other runs", () => {
  const promised = delta.map((event) =>
    event.type === "run" ? { ...event, timeMsMax: 600_000, wireBytesMax: 5e9 } : event,
  );
  const text = summaryText(promised);
  expect(text).toMatch(/total time +[\d.]+ s, limit 10 min 0 s\n/);
  expect(text).toMatch(/on the wire +.* handed over, limit 5\.0 GB\n/);
  const runs = [
    { label: "one", events: delta },
    { label: "other", events: ending({ postcopyMs: 800, requestedBytes: 74_000 }) },
  ];
  expect(sideBySideText(runs)).toMatch(/post-copy +- +800 ms\n/);
});

test("Of many decisions those about promises are told, in their place", () => {
  const coding = Array.from({ length: 30 }, (_, index): RecordEvent => {
    return {
      type: "decision",
      atMs: index,
      subject: "entropy coder",
      choice: `level ${index}`,
      reason: "link",
    };
  });
  const stall: RecordEvent = {
    ...{ type: "decision", atMs: 20, subject: "convergence", choice: "abort", reason: "stalled" },
  };
  const text = summaryText([...delta, ...coding.slice(0, 20), stall, ...coding.slice(20)]);
  expect(text).toContain("convergence: abort (stalled)");
  expect(text).toMatch(/level 2 [\s\S]*convergence: abort/);
});

test("The summary tells downtime from every witness, bytes, pages, decisions and notices", () => {
  const text = summaryText(delta);
  for (const part of [
    /total time +4\.\d s/,
    /downtime +\d+ ms +gap in the guest's heartbeat\n +\d+ ms +from the vCPUs' stop.*\n +\d+ ms +by the hypervisor's own account\n +\d+ ms +was forecast when the guest was stopped\n +300 ms +was the limit/,
    /on the wire +[\d.]+ MB of [\d.]+ MB handed over/,
    /saved +\d+\.\d% \([\d.]+ MB\)/,
    /link +[\d.]+ Mbit\/s on average, limit 100\.0 Mbit\/s/,
    /cache +3,451 hits, 10,384 misses \(24\.9% hits\), 0 evictions, .* used/,
    /zero +6,000 +30\.2% +- /,
    /delta +2,933 +14\.8% +880 kB/,
    /Decisions\n +[\d.]+ s +switchover: now \(\d+ pages remain/,
    /Worth knowing\n +[\d.]+ s +The destination's clock is 2 s behind\./,
  ]) {
    expect(text).toMatch(part);
  }
});

test("A record that was cut off is summed up as far as it goes", () => {
  const text = summaryText(delta.slice(0, 300));
  expect(text).toMatch(/^The record ends before the migration did/);
  expect(text).toMatch(/on the wire +[1-9]/);
});

test("Side by side, downtime by the guest's heartbeat comes first and runs have a column each", () => {
  const text = sideBySideText([
    { label: "standard", events: standard },
    { label: "delta", events: delta },
  ]);
  const lines = text.split("\n");
  expect(lines[0]).toMatch(/^ +standard +delta$/);
  expect(lines.join("\n")).toMatch(/\ndowntime: forecast +\d+ ms +\d+ ms\n/);
  expect(lines[1]).toMatch(/^downtime: heartbeat gap +\d+ ms +\d+ ms$/);
  expect(text).toMatch(
    /delta against standard:\n {2}downtime \d+ ms instead of \d+ ms \(\d+ times shorter\)\n/,
  );
  const widths = new Set(lines.slice(0, 19).map(({ length }) => length));
  expect(widths.size).toBe(1);
});

test("A run that failed is not compared as if it had succeeded", () => {
  const text = sideBySideText([
    { label: "standard", events: ending({ outcome: "failed", vm: "running on source" }) },
    { label: "delta", events: delta },
  ]);
  expect(text).not.toContain("against");
  expect(text).toMatch(/outcome +failed +completed/);
});

test("Whatever a record holds, the texts print and steer no terminal", () => {
  fc.assert(
    fc.property(arbitraryEntries, (entries) => {
      const { events } = writeRecord(entries);
      const run = { label: "\u001b]0;evil\u0007", events };
      for (const text of [summaryText(events), sideBySideText([run, run])]) {
        expect(text.replaceAll("\n", "")).not.toMatch(/[\p{Cc}\u202e]/u);
        expect(text).not.toMatch(/NaN|undefined/);
      }
    }),
  );
});
