// The state machine of docs/reliability.md: what may follow what, and that `committed` never goes back.

import fc from "fast-check";
import { expect, test } from "vitest";
import { VirtualClock } from "../base/clock.ts";
import type { Phase } from "../record/schema.ts";
import { RunRecord } from "../record/writer.ts";
import { Handover } from "./handover.ts";

const PHASES: Phase[] = ["setup", "iterating", "switchover", "committed", "completed", "failed", "cancelled"];

function handover(...phases: Phase[]): { handover: Handover; record: RunRecord } {
  const record = new RunRecord({ clock: new VirtualClock() });
  const handover = new Handover(record);
  for (const phase of phases) handover.enter(phase);
  return { handover, record };
}

test("a migration goes through its phases, each of them an event with its reason", () => {
  const { handover: machine, record } = handover("iterating");
  machine.enter("switchover", "the guest stands still");
  machine.enter("committed");
  machine.enter("completed");
  expect(record.events.map((event) => (event.type === "phase" ? [event.phase, event.reason] : []))).toEqual([
    ["setup", undefined],
    ["iterating", undefined],
    ["switchover", "the guest stands still"],
    ["committed", undefined],
    ["completed", undefined],
  ]);
  expect([machine.isOver, machine.committed]).toEqual([true, true]);
});

test("before committed it may fail or be cancelled at any time, after it only fail", () => {
  for (const before of [[], ["iterating"], ["iterating", "switchover"]] as Phase[][]) {
    for (const end of ["failed", "cancelled"] as const) {
      const { handover: machine } = handover(...before, end);
      expect([machine.isOver, machine.committed]).toEqual([true, false]);
    }
  }
  const committed: Phase[] = ["iterating", "switchover", "committed"];
  expect(() => handover(...committed, "cancelled")).toThrow(/cancelled after committed/);
  expect(handover(...committed, "failed").handover.committed).toBe(true);
});

test("committed is reached by no other way than through the switchover", () => {
  expect(() => handover("committed")).toThrow(/Assertion/);
  expect(() => handover("iterating", "committed")).toThrow(/Assertion/);
  expect(() => handover("iterating", "completed")).toThrow(/Assertion/);
});

test("whatever is tried, committed never goes back, and nothing follows an end", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...PHASES), { maxLength: 12 }), (attempts) => {
      const { handover: machine } = handover();
      let committed = false;
      for (const phase of attempts) {
        const { isOver } = machine;
        try {
          machine.enter(phase);
          expect(isOver).toBe(false);
        } catch (thrown) {
          expect(String(thrown)).toMatch(/Assertion/);
        }
        expect(committed && !machine.committed).toBe(false);
        committed = machine.committed;
      }
    }),
  );
});
