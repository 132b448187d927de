// Plans: which method is recommended and why, how sure it is, and what records teach.

import { describe, expect, test } from "vitest";
import { modelOf } from "../../test/support/guest-model.ts";
import { calibrate, type ForecastAndTruth } from "./calibration.ts";
import { planMigration } from "./forecast.ts";
import { payloadBytesPerSecond } from "./link-model.ts";
import { METHOD_NAMES, type MethodName } from "./methods.ts";

const LINK = { bytesPerSecond: 12.5e6, roundTripMs: 20, lossShare: 0 };
const plan = (guest = modelOf(), more = {}) =>
  planMigration({ guest, link: LINK, downtimeMsMax: 300, methods: METHOD_NAMES, ...more });
const of = (made: ReturnType<typeof plan>, name: MethodName) =>
  made.forecasts.find(({ method }) => method === name)!;

describe("a plan", () => {
  test("leaves an idle guest of random content on a fast link to QEMU alone", () => {
    const guest = { ...modelOf(), codedShare: { fast: 1, strong: 1 } };
    expect(plan(guest).recommended).toBe("vanilla");
  });

  test("recommends deltas, with figures, where pages change faster than the link carries them", () => {
    const made = plan(modelOf({ hotPages: 16_384, changesPerSecond: 5 }));
    expect(made.recommended).toBe("tunnel");
    expect(of(made, "vanilla").converges).toBe("no");
    expect(made.reason).toMatch(
      /dirty rate 66\.\d MB\/s is 5\.\d+ times .* delta of 100 B .* converges in \d+ iteration/,
    );
  });

  test("says that no method will do where whole pages change too fast", () => {
    const guest = modelOf({ hotPages: 65_536, changesPerSecond: 20, deltaBytes: 4096 });
    const made = plan(
      { ...guest, codedShare: { fast: 1, strong: 1 } },
      { methods: ["vanilla", "direct", "tunnel"] },
    );
    expect(made.recommended).toBeUndefined();
    expect(made.reason).toContain("no method");
  });

  test("is unsure where a busier guest would not converge", () => {
    // Its own rate is just within what the link carries.
    const guest = modelOf({ hotPages: 5_200, changesPerSecond: 0.5 });
    expect(of(plan(guest), "vanilla").converges).toBe("unsure");
  });

  test("has intervals that hold the expected value, wider for smaller samples", () => {
    const guest = modelOf({ hotPages: 2000, changesPerSecond: 1 });
    const sampled = (sampledPages: number) =>
      of(plan({ ...guest, sampledPages, sampledMs: 1000 }), "tunnel").wireBytes;
    const [small, large] = [sampled(512), sampled(65_536)];
    for (const { low, expected, high } of [small, large]) {
      expect(low).toBeLessThanOrEqual(expected);
      expect(expected).toBeLessThanOrEqual(high);
    }
    expect(small.high - small.low).toBeGreaterThan(large.high - large.low);
  });

  test("learns from migrations whose truth is known, and from no fewer than three of a method", () => {
    const run = (factor: number): ForecastAndTruth => ({
      method: "tunnel",
      forecast: { totalMs: 1000, downtimeMs: 50, wireBytes: 1e6 },
      truth: { totalMs: 1000 * factor, downtimeMs: 50 * factor, wireBytes: 1e6 * factor },
    });
    const before = of(plan(), "tunnel").totalMs.expected;
    const learned = (runs: ForecastAndTruth[]) =>
      of(plan(modelOf(), { calibration: calibrate(runs) }), "tunnel").totalMs;
    expect(learned([run(2), run(2)]).expected).toBe(before);
    expect(learned([run(1.5), run(2), run(3)]).expected).toBeCloseTo(2 * before, 6);
    expect(learned([run(1.5), run(2), run(3)]).high).toBeGreaterThan(2.5 * before);
  });
});

describe("a link", () => {
  test("that loses packets carries less, the longer its round trip is the less", () => {
    const at = (roundTripMs: number, lossShare: number) =>
      payloadBytesPerSecond({ bytesPerSecond: 125e6, roundTripMs, lossShare });
    expect(at(20, 0)).toBeGreaterThan(0.94 * 125e6);
    expect(at(100, 0.001)).toBeLessThan(at(20, 0.001));
    expect(at(20, 0.001)).toBeLessThan(at(20, 0.0001));
    expect(at(0, 0.001)).toBe(at(0, 0));
  });
});
