// Makes what a client noted small enough for a run record: a figure per step of time.

import type { ClientSeries } from "../model.ts";

export type Point = ClientSeries["points"][number];

const POINTS_MAX = 300;

/** The largest value of each step, at the time at which it was noted: peaks are what is looked for. */
export function thinToPeaks(points: readonly Point[]): readonly Point[] {
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined || points.length <= POINTS_MAX) return points;
  const stepMs = (last.epochMs - first.epochMs) / (POINTS_MAX - 1);
  const peaks: Point[] = [];
  let step = -1;
  for (const point of points) {
    const its = Math.floor((point.epochMs - first.epochMs) / stepMs);
    const peak = peaks.at(-1);
    if (its > step) {
      peaks.push(point);
      step = its;
    } else if (peak !== undefined && point.value > peak.value) {
      peaks[peaks.length - 1] = point;
    }
  }
  return peaks;
}

/** How many of `timesMs` fall into each second between `fromMs` and `untilMs`, at its middle; an odd end is left out. */
export function perSecond(timesMs: readonly number[], fromMs: number, untilMs: number): readonly Point[] {
  const spanMs = Math.max(0, untilMs - fromMs);
  // Whole seconds to a step, so that a figure is that of a second however long it all was.
  const stepMs = 1000 * Math.max(1, Math.ceil(spanMs / 1000 / POINTS_MAX));
  const counts = new Array<number>(Math.floor(spanMs / stepMs)).fill(0);
  for (const timeMs of timesMs) {
    const index = Math.floor((timeMs - fromMs) / stepMs);
    if (index >= 0 && index < counts.length) counts[index]!++;
  }
  return counts.map((count, index) => ({
    epochMs: fromMs + (index + 0.5) * stepMs,
    value: (count * 1000) / stepMs,
  }));
}
