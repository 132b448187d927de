// What is learned from the record of one migration, and from which nothing can be.

import { expect, test } from "vitest";
import type { RecordEvent } from "../record/schema.ts";
import { NO_PAGES } from "../record/schema.ts";
import { forecastAndTruth } from "./calibration.ts";

type Of<Type extends RecordEvent["type"]> = Extract<RecordEvent, { type: Type }>;

const about = (expected: number) => ({ low: expected / 2, expected, high: expected * 2 });
const FORECAST: Of<"forecast"> = {
  ...{ type: "forecast", atMs: 0, method: "tunnel", converges: "yes", reason: "calm" },
  ...{ totalMs: about(8000), downtimeMs: about(40), wireBytes: about(80e6) },
  ...{ linkBytesPerSecond: 12.5e6, roundTripMs: 20 },
};
const VERDICT: Of<"verdict"> = {
  ...{ type: "verdict", atMs: 10_000, converged: true, forced: false, succeeded: true, failures: [] },
  metrics: {},
};
const SUMMARY: Of<"summary"> = {
  ...{ type: "summary", atMs: 10_000, outcome: "completed", vm: "running on destination", totalMs: 10_000 },
  ...{ downtimeMs: 60, handedOverBytes: 1e9, wireBytes: 90e6, pages: NO_PAGES },
};

test("a migration that was forecast teaches what it came to", () => {
  expect(forecastAndTruth([FORECAST, VERDICT, SUMMARY])).toEqual({
    method: "tunnel",
    forecast: { totalMs: 8000, downtimeMs: 40, wireBytes: 80e6 },
    truth: { totalMs: 10_000, downtimeMs: 60, wireBytes: 90e6 },
  });
});

test.each<[string, RecordEvent[]]>([
  ["was not forecast", [VERDICT, SUMMARY]],
  ["did not end well", [FORECAST, { ...SUMMARY, outcome: "cancelled" }]],
  ["was not expected to end by itself", [{ ...FORECAST, converges: "no" }, VERDICT, SUMMARY]],
  ["had to be forced", [FORECAST, { ...VERDICT, converged: false, forced: true }, SUMMARY]],
])("one that %s teaches nothing", (_what, events) => {
  expect(forecastAndTruth(events)).toBeUndefined();
});
