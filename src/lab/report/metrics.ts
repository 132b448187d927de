// What was measured, and how it is written: one unit for a whole column, so that its figures can be compared at a
// glance. The metrics that every run has are listed here, those of a scenario are the scenario's own.

import type { Spread } from "../../report/statistics.ts";
import { formatFigure } from "../../report/text.ts";
import type { Metric, Scenario } from "../model.ts";

export type ScenarioInfo = Pick<Scenario, "name" | "title" | "description" | "metrics">;

/** `isJudged`: whether less or more of it is better at all; where it is not, nothing is best. */
export interface ReportMetric extends Omit<Metric, "isJudged"> {
  readonly isJudged: boolean;
}

function common(name: string, title: string, unit: string, isJudged = true): ReportMetric {
  return { name, title, unit, isLowerBetter: true, isJudged };
}

export const HEARTBEAT_GAP = common("heartbeatGapMs", "heartbeat gap", "ms");
export const WIRE_BYTES = common("wireBytes", "on the wire", "bytes");

/** How it went, for the guest. */
const COURSE: readonly ReportMetric[] = [
  HEARTBEAT_GAP,
  common("downtimeMsReported", "QEMU's downtime", "ms"),
  common("totalMs", "total time", "ms"),
];

/** What it took. */
export const COSTS: readonly ReportMetric[] = [
  WIRE_BYTES,
  common("wireBytesBack", "on the wire, back", "bytes"),
  common("slowdownShare", "slowdown of the guest", "share"),
  common("sourceCpuMs", "CPU, source", "ms"),
  common("destinationCpuMs", "CPU, destination", "ms"),
  common("sourceResidentBytesMax", "memory, source", "bytes"),
  common("destinationResidentBytesMax", "memory, destination", "bytes"),
  common("dirtyPagesPerSecond", "dirty pages", "1/s", false),
  common("iterations", "iterations", "", false),
  // Later than the guest's arrival where the method goes on after it (post-copy).
  common("migrationMs", "until the method ended", "ms", false),
  common("forcedAtMs", "forced at", "ms", false),
  common("heartbeatGapMsBefore", "heartbeat gap before", "ms", false),
  common("heartbeatsLost", "heartbeats lost", ""),
];

/** What the users of the guest noticed, by the first of the scenario's own metrics, and how it went for the guest. */
export function courseMetrics(info: ScenarioInfo | undefined): ReportMetric[] {
  return [...scenarioMetrics(info).slice(0, 1), ...COURSE];
}

/** The scenario's other metrics. */
export function userMetrics(info: ScenarioInfo | undefined): ReportMetric[] {
  return scenarioMetrics(info).slice(1);
}

/** What was measured before the migration says nothing about a method. */
function scenarioMetrics(info: ScenarioInfo | undefined): ReportMetric[] {
  return (info?.metrics ?? []).map((metric) => ({
    ...metric,
    isJudged: metric.isJudged !== false && !metric.name.endsWith("Before"),
  }));
}

/** Measured, but described nowhere: shown under its own name, and not judged. */
export function unknownMetrics(names: Iterable<string>, known: readonly ReportMetric[]): ReportMetric[] {
  const others = new Set(names);
  for (const { name } of known) others.delete(name);
  return [...others].sort().map((name) => common(name, name, "", false));
}

/** A metric in the unit in which a whole column of it is written. */
export interface Column {
  readonly metric: ReportMetric;
  /** "frozen picture, ms" */
  readonly heading: string;
  readonly unit: string;
  format(value: number): string;
}

interface Scale {
  readonly unit: string;
  readonly size: number;
}

/** In ascending order; the largest that leaves the smallest figure of the column at one or more is taken. */
const SCALES: Readonly<Record<string, readonly [Scale, ...Scale[]]>> = {
  ms: [
    { unit: "ms", size: 1 },
    { unit: "s", size: 1000 },
  ],
  bytes: [
    { unit: "B", size: 1 },
    { unit: "kB", size: 1e3 },
    { unit: "MB", size: 1e6 },
    { unit: "GB", size: 1e9 },
  ],
  share: [{ unit: "%", size: 0.01 }],
};

export function columnFor(metric: ReportMetric, values: readonly number[]): Column {
  const { title, unit } = metric;
  const scales = Object.hasOwn(SCALES, unit) ? SCALES[unit]! : ([{ unit, size: 1 }] as const);
  const smallest = values.reduce((min, value) => (value > 0 ? Math.min(min, value) : min), Infinity);
  const scale = scales.findLast(({ size }) => size <= smallest && smallest < Infinity) ?? scales[0];
  return {
    metric,
    heading: scale.unit === "" ? title : `${title}, ${scale.unit}`,
    unit: scale.unit,
    format: (value) => formatFigure(value / scale.size),
  };
}

/** "84.2 (80.1–91.0)"; of one run, or of runs that agree, "84.2". */
export function formatSpread(spread: Spread | undefined, format: (value: number) => string): string {
  if (spread === undefined) return "-";
  const [median, min, max] = [format(spread.median), format(spread.min), format(spread.max)];
  return min === max ? median : `${median} (${min}–${max})`;
}
