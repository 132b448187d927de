// Rates of the last second or so, out of counters that only grow.

import { expect, test } from "vitest";
import { VirtualClock } from "../../base/clock.ts";
import { TransferRates } from "./transfer-rates.ts";

test("before anything was handed over a byte costs a byte, and nothing is handed over", () => {
  const rates = new TransferRates(new VirtualClock());
  expect([rates.wireBytesPerGuestByte, rates.handoverBytesPerSecond]).toEqual([1, 0]);
});

test("a steady transfer is measured as what it is, and a change within a few seconds", () => {
  const clock = new VirtualClock();
  const rates = new TransferRates(clock);
  let [handedOver, wire] = [0, 0];
  const run = (seconds: number, handedOverPerSecond: number, wirePerSecond: number) => {
    for (let i = 0; i < seconds * 20; i++) {
      clock.advance(50);
      handedOver += handedOverPerSecond / 20;
      wire += wirePerSecond / 20;
      rates.sample(handedOver, wire);
    }
  };
  run(3, 10e6, 10e6);
  expect(rates.handoverBytesPerSecond).toBeCloseTo(10e6, -3);
  expect(rates.wireBytesPerGuestByte).toBeCloseTo(1, 6);
  run(6, 100e6, 5e6);
  expect(rates.handoverBytesPerSecond / 100e6).toBeCloseTo(1, 1);
  expect(rates.wireBytesPerGuestByte).toBeCloseTo(0.05, 1);
});

test("two samples at the same moment divide nothing by zero", () => {
  const rates = new TransferRates(new VirtualClock());
  rates.sample(100, 10);
  rates.sample(200, 20);
  expect(rates.wireBytesPerGuestByte).toBeCloseTo(0.1);
  expect(rates.handoverBytesPerSecond).toBe(0);
});

test("a hypervisor that has little to hand over is not taken for a slow one", () => {
  const clock = new VirtualClock();
  const rates = new TransferRates(clock);
  for (let i = 1; i <= 100; i++) {
    clock.advance(50);
    // 100 kB in a millisecond, and nothing in the other 49.
    rates.sample(i * 100_000, i * 1000, i);
  }
  expect(rates.handoverBytesPerSecond).toBeCloseTo(100e6, -3);
  expect(rates.wireBytesPerGuestByte).toBeCloseTo(0.01);
});
