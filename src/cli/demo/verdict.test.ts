import { expect, test } from "vitest";
import { simulatedRecord } from "../../../test/support/simulated-record.ts";
import { type RunFigures, runFigures } from "../../report/figures.ts";
import { downtimeFactor, failureText, verdictText } from "./verdict.ts";

const figures = runFigures({ label: "x", events: simulatedRecord("delta") });
const withGap = (heartbeatGapMs: number): RunFigures => ({ ...figures, heartbeatGapMs });

test("The verdict names both gaps, the factor, and the period of the heartbeat", () => {
  expect(verdictText(withGap(5958), withGap(84))).toBe(
    "The guest stood still for 6.0 s with standard pre-copy,\n" +
      "for 84 ms with delta compression: 71 times less.\n" +
      "(Its heartbeat comes each 10 ms: a gap of 10 ms is none.)",
  );
});

test("It does not make more of a difference than it is, nor less", () => {
  expect(verdictText(withGap(60), withGap(50))).toMatch(/: no difference to speak of\./);
  expect(verdictText(withGap(100), withGap(50))).toMatch(/: 2\.0 times less\./);
  expect(verdictText(withGap(50), withGap(100))).toMatch(/: 2\.0 times more\./);
});

test("Where a gap is not known there is no verdict", () => {
  const { heartbeatGapMs: _, ...unknown } = figures;
  expect(verdictText(withGap(60), unknown)).toBeUndefined();
  expect(downtimeFactor(unknown, withGap(60))).toBeUndefined();
});

test("A failure names what ran the guest, and what is known against that", () => {
  expect(failureText(["delta: damaged", "delta: broken"], "QEMU 7.2.22 (TCG)", "It loses writes.")).toBe(
    "delta: damaged\n  delta: broken\n  hypervisor: QEMU 7.2.22 (TCG)\n  It loses writes.",
  );
  expect(failureText(["delta: damaged"], undefined, undefined)).toBe("delta: damaged");
});
