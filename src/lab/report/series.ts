// What clients and probes saw over time, from the events of a record, thinned out to what a plot can show. The highest
// and the lowest of what is near each other stay: a gap or a dip is what is looked for.

import type { RecordEvent } from "../../record/schema.ts";

export interface Series {
  readonly name: string;
  readonly unit: string;
  readonly points: readonly SeriesPoint[];
}

export interface SeriesPoint {
  /** Since the migration began. */
  readonly ms: number;
  readonly value: number;
}

export const HEARTBEAT_SERIES = "gap in the heartbeat";

const SERIES_MAX = 12;
/** As many points as a plot has columns of pixels, two of each. */
const COLUMNS_MAX = 300;

export function seriesOf(events: readonly RecordEvent[], beganMs: number): Series[] {
  const all = new Map<string, { name: string; unit: string; points: SeriesPoint[] }>();
  const add = (name: string, unit: string, ms: number, value: number) => {
    const key = JSON.stringify([name, unit]);
    const series = all.get(key) ?? { name, unit, points: [] };
    if (!all.has(key)) {
      if (all.size >= SERIES_MAX) return;
      all.set(key, series);
    }
    series.points.push({ ms, value });
  };
  for (const event of events) {
    if (event.type === "heartbeat") add(HEARTBEAT_SERIES, "ms", event.atMs - beganMs, event.gapMs);
    if (event.type === "client") add(event.series, event.unit, event.atMs - beganMs, event.value);
  }
  return [...all.values()].map((series) => ({ ...series, points: thinned(series.points) }));
}

function thinned(points: readonly SeriesPoint[]): readonly SeriesPoint[] {
  if (points.length <= 2 * COLUMNS_MAX) return points;
  const perColumn = Math.ceil(points.length / COLUMNS_MAX);
  const kept: SeriesPoint[] = [];
  for (let start = 0; start < points.length; start += perColumn) {
    const column = points.slice(start, start + perColumn);
    const lowest = column.reduce((low, point) => (point.value < low.value ? point : low));
    const highest = column.reduce((high, point) => (point.value > high.value ? point : high));
    if (lowest === highest) kept.push(lowest);
    else kept.push(...(lowest.ms <= highest.ms ? [lowest, highest] : [highest, lowest]));
  }
  return kept;
}
