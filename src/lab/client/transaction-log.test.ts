import { expect, it } from "vitest";
import type { Phase } from "./protocol.ts";
import { TransactionLog } from "./transaction-log.ts";

/** 100 per second, 4 ms each, but none from 12 to 15 s; a migration from 10 to 16 s of 20. */
function log(): TransactionLog {
  let phase: Phase = "before";
  const transactions = new TransactionLog(() => phase, 0);
  for (let endedMs = 10; endedMs <= 20_000; endedMs += 10) {
    phase = endedMs < 10_000 ? "before" : endedMs < 16_000 ? "during" : "after";
    if (endedMs > 12_000 && endedMs < 15_000) continue;
    transactions.committed(endedMs === 15_000 ? 12_000 : endedMs - 4, endedMs);
  }
  return transactions;
}

const TIMES = { steadyMs: 1000, beganMs: 10_000, endedMs: 16_000, finishedMs: 20_000 };

it("transactions have a rate before, during and after, and a longest time without one", () => {
  const metrics = log().metrics(TIMES);
  expect(metrics.throughputBefore).toBeCloseTo(100, 0);
  expect(metrics.throughputDuring).toBeCloseTo(50, 0);
  expect(metrics.throughputAfter).toBeCloseTo(100, 0);
  expect(metrics.serviceDownMs).toBe(3000);
  expect(metrics.latencyMs99Before).toBeCloseTo(4, 0);
});

it("what stood still before the migration is not put down to it, what stands still at the end is", () => {
  let phase: Phase = "before";
  const transactions = new TransactionLog(() => phase, 0);
  transactions.committed(7000, 8000);
  phase = "during";
  transactions.committed(8900, 9000);
  expect(
    transactions.metrics({ ...TIMES, beganMs: 8500, endedMs: 8950, finishedMs: 9100 }).serviceDownMs,
  ).toBe(1000);
  expect(
    transactions.metrics({ ...TIMES, beganMs: 8500, endedMs: 8950, finishedMs: 15_000 }).serviceDownMs,
  ).toBe(6000);
});

it("the series show the hole and the slowest transaction", () => {
  const [perSecond, slowest] = log().series();
  expect(perSecond!.points.length).toBeLessThanOrEqual(200);
  const hole = perSecond!.points.filter(({ epochMs }) => epochMs > 12_600 && epochMs < 14_400);
  expect(hole.length).toBeGreaterThan(2);
  for (const { value } of hole) expect(value).toBeLessThan(5);
  expect(Math.max(...slowest!.points.map(({ value }) => value))).toBe(3000);
});
