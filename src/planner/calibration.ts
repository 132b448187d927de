// What earlier migrations teach about forecasts: how far they were off, method by method. Learned from run records that
// hold a forecast and the truth, applied to the next forecast. Pure.

import type { RecordEvent } from "../record/schema.ts";
import { METHOD_NAMES, type MethodName } from "./methods.ts";

/** Truth divided by forecast. */
export interface Correction {
  /** Nine of ten were between these. */
  readonly low: number;
  readonly median: number;
  readonly high: number;
}

export interface Calibration {
  readonly methods: Readonly<
    Partial<Record<MethodName, { totalMs: Correction; downtimeMs: Correction; wireBytes: Correction }>>
  >;
}

export const NOT_CALIBRATED: Calibration = { methods: {} };

/** One migration that was forecast and has come to its end. */
export interface ForecastAndTruth {
  readonly method: MethodName;
  readonly forecast: { totalMs: number; downtimeMs: number; wireBytes: number };
  readonly truth: { totalMs: number; downtimeMs: number; wireBytes: number };
}

/** Fewer teach less about a spread than the forecast's own interval says. */
const RUNS_MIN = 3;

/**
 * Undefined: it holds no forecast, or the migration did not end well. Nor does one teach anything that was not expected
 * to end by itself, or did not: it ended when somebody lost patience.
 */
export function forecastAndTruth(events: readonly RecordEvent[]): ForecastAndTruth | undefined {
  const forecast = events.find((event) => event.type === "forecast");
  const summary = events.findLast((event) => event.type === "summary");
  if (forecast === undefined || summary?.outcome !== "completed") return undefined;
  const wasForced = events.some((event) => event.type === "verdict" && event.forced);
  if (forecast.converges === "no" || wasForced) return undefined;
  const method = METHOD_NAMES.find((name) => name === forecast.method);
  const downtimeMs = summary.heartbeatGapMs ?? summary.downtimeMs;
  if (method === undefined || downtimeMs === undefined) return undefined;
  return {
    method,
    forecast: {
      totalMs: forecast.totalMs.expected,
      downtimeMs: forecast.downtimeMs.expected,
      wireBytes: forecast.wireBytes.expected,
    },
    truth: { totalMs: summary.totalMs, downtimeMs, wireBytes: summary.wireBytes },
  };
}

export function calibrate(runs: readonly ForecastAndTruth[]): Calibration {
  const methods: Partial<
    Record<MethodName, { totalMs: Correction; downtimeMs: Correction; wireBytes: Correction }>
  > = {};
  for (const method of METHOD_NAMES) {
    const own = runs.filter((run) => run.method === method);
    if (own.length < RUNS_MIN) continue;
    const of = (key: keyof ForecastAndTruth["truth"]) =>
      correction(own.map(({ forecast, truth }) => truth[key] / Math.max(forecast[key], 1)));
    methods[method] = { totalMs: of("totalMs"), downtimeMs: of("downtimeMs"), wireBytes: of("wireBytes") };
  }
  return { methods };
}

function correction(ratios: readonly number[]): Correction {
  const sorted = [...ratios].sort((a, b) => a - b);
  const at = (share: number) => {
    const position = share * (sorted.length - 1);
    const [below, above] = [sorted[Math.floor(position)]!, sorted[Math.ceil(position)]!];
    return below + (above - below) * (position - Math.floor(position));
  };
  return { low: at(0.05), median: at(0.5), high: at(0.95) };
}
