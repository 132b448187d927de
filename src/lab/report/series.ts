// What clients and probes saw over time, from the events of a record, thinned out to what a plot can show.

import type { RecordEvent } from "../../record/schema.ts";
import { thinned } from "../../report/thinning.ts";

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
