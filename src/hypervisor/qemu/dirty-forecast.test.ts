// What is left to send, when the one who counts looks only now and then.

import { expect, test } from "vitest";
import { VirtualClock } from "../../base/clock.ts";
import { DirtyForecast } from "./dirty-forecast.ts";

test("during the first pass it is what QEMU says", () => {
  const clock = new VirtualClock();
  const forecast = new DirtyForecast(clock);
  for (const knownBytes of [500e6, 300e6, 1e6]) {
    expect(forecast.remainingBytes(0, knownBytes)).toBe(knownBytes);
    clock.advance(1000);
  }
});

test("a guest that dirties all of its memory all the time is never taken for one that is nearly done", () => {
  const clock = new VirtualClock();
  const forecast = new DirtyForecast(clock);
  forecast.remainingBytes(0, 128e6);
  // Each iteration takes a second, at the end of which QEMU knows of nothing that is left.
  for (let tenths = 0; tenths < 50; tenths++) {
    clock.advance(100);
    if (tenths < 9) continue;
    const iteration = Math.floor((tenths + 1) / 10);
    const knownBytes = 128e6 * (1 - ((tenths + 1) % 10) / 10);
    const bytes = forecast.remainingBytes(iteration, knownBytes);
    expect(bytes).toBeCloseTo(128e6);
  }
});

test("of several iterations between two answers each is taken to have found as much", () => {
  const clock = new VirtualClock();
  const forecast = new DirtyForecast(clock);
  forecast.remainingBytes(0, 100e6);
  clock.advance(1000);
  forecast.remainingBytes(10, 4e6);
  clock.advance(25);
  // 4 MB in each 100 ms.
  expect(forecast.remainingBytes(10, 3e6)).toBeCloseTo(3e6 + 1e6);
});

test("iterations without any time between them say nothing of the rate", () => {
  const forecast = new DirtyForecast(new VirtualClock());
  forecast.remainingBytes(0, 1e6);
  expect(forecast.remainingBytes(1, 1e6)).toBe(1e6);
});

test("an idle guest has nothing left when QEMU says so", () => {
  const clock = new VirtualClock();
  const forecast = new DirtyForecast(clock);
  forecast.remainingBytes(0, 100e6);
  clock.advance(1000);
  forecast.remainingBytes(1, 0);
  clock.advance(1000);
  expect(forecast.remainingBytes(1, 0)).toBe(0);
});
