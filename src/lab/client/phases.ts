// What a client has seen over time, put into figures: how fast something went before, during and after a migration,
// how long it stood still, and a series short enough for a record. Knows nothing of where the numbers come from.

import { assert } from "../../base/assert.ts";
import type { ClientSeries } from "../model.ts";
import type { Phase } from "./protocol.ts";

export type Point = ClientSeries["points"][number];

/** Points of a series that is told: enough for a plot, few enough for a record. */
export const SERIES_POINTS_MAX = 200;

export interface Span {
  readonly beginMs: number;
  readonly endMs: number;
}

/** Times of a migration as a client was told of them; all of one clock. */
export interface Times {
  /** From when on what was seen counts. */
  readonly steadyMs: number;
  readonly beganMs: number | undefined;
  readonly endedMs: number | undefined;
  readonly finishedMs: number;
}

/** Those phases that there were, each with its span. */
export function spansOf({ steadyMs, beganMs, endedMs, finishedMs }: Times): [Phase, Span][] {
  const spans: [Phase, Span][] = [["before", { beginMs: steadyMs, endMs: beganMs ?? finishedMs }]];
  if (beganMs !== undefined) {
    spans.push(["during", { beginMs: beganMs, endMs: endedMs ?? finishedMs }]);
    if (endedMs !== undefined) spans.push(["after", { beginMs: endedMs, endMs: finishedMs }]);
  }
  return spans;
}

/** A name of a metric in a phase: "throughput" before is "throughputBefore". */
export function metricInPhase(name: string, phase: Phase): string {
  return name + phase[0]!.toUpperCase() + phase.slice(1);
}

/** Samples of a number that are kept; beyond, every second one goes, and they come half as often from then on. */
const SAMPLES_MAX = 8192;

/** A number as it was at times, in their order. A long run is kept more coarsely, so that it needs no more memory. */
export class Samples {
  readonly #samplesMax: number;
  #points: Point[] = [];
  #keepEvery = 1;
  #skipped = 0;

  constructor(samplesMax = SAMPLES_MAX) {
    assert(samplesMax >= 2, "two samples at least");
    this.#samplesMax = samplesMax;
  }

  get points(): readonly Point[] {
    return this.#points;
  }

  push(epochMs: number, value: number): void {
    if (++this.#skipped < this.#keepEvery) return;
    this.#skipped = 0;
    this.#points.push({ epochMs, value });
    if (this.#points.length <= this.#samplesMax) return;
    this.#points = this.#points.filter((_, index) => index % 2 === 0);
    this.#keepEvery *= 2;
  }

  /** Of a counter: by how much it grew per second. Undefined when it was not seen on both sides of the span's middle. */
  ratePerSecond(span: Span): number | undefined {
    const begin = this.#at(span.beginMs);
    const end = this.#at(span.endMs);
    if (begin === undefined || end === undefined || end.epochMs <= begin.epochMs) return undefined;
    return ((end.value - begin.value) / (end.epochMs - begin.epochMs)) * 1000;
  }

  /** Of a value: its mean over the samples in the span. Undefined when there are none. */
  mean(span: Span): number | undefined {
    return mean(this.#points.filter((point) => isIn(span, point.epochMs)));
  }

  /** Of a counter: its growth per second as a series, in `pointsMax` steps of equal length at most. */
  rates(pointsMax = SERIES_POINTS_MAX, stepMsMin = 0): Point[] {
    const [first] = this.#points;
    const last = this.#points.at(-1);
    if (first === undefined || last === undefined || last === first) return [];
    const stepMs = Math.max((last.epochMs - first.epochMs) / pointsMax, stepMsMin, Number.MIN_VALUE);
    const rates: Point[] = [];
    for (let beginMs = first.epochMs; beginMs < last.epochMs && rates.length < pointsMax; beginMs += stepMs) {
      const value = this.ratePerSecond({ beginMs, endMs: beginMs + stepMs });
      if (value !== undefined) rates.push({ epochMs: beginMs + stepMs / 2, value });
    }
    return rates;
  }

  /** On the line between the samples around it; of a time outside of them all, the nearest one. */
  #at(epochMs: number): Point | undefined {
    const points = this.#points;
    let [low, high] = [0, points.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle]!.epochMs < epochMs) low = middle + 1;
      else high = middle;
    }
    const after = points[low];
    const before = points[low - 1];
    if (after === undefined || before === undefined) return after ?? before;
    const share = (epochMs - before.epochMs) / (after.epochMs - before.epochMs);
    return { epochMs, value: before.value + share * (after.value - before.value) };
  }
}

function isIn({ beginMs, endMs }: Span, epochMs: number): boolean {
  return epochMs >= beginMs && epochMs < endMs;
}

function mean(points: readonly Point[]): number | undefined {
  if (points.length === 0) return undefined;
  return points.reduce((sum, { value }) => sum + value, 0) / points.length;
}

/**
 * At most `pointsMax` points: those of equal stretches of time become one, with the value that `pick` makes of theirs
 * (the highest of latencies, so that a peak stays one) and the time of their middle.
 */
export function thinned(
  points: readonly Point[],
  pick: (values: readonly number[]) => number,
  pointsMax = SERIES_POINTS_MAX,
): Point[] {
  if (points.length <= pointsMax) return [...points];
  const beginMs = points[0]!.epochMs;
  const stepMs = (points.at(-1)!.epochMs - beginMs) / pointsMax;
  const thin: Point[] = [];
  let inside: number[] = [];
  let index = 0;
  const close = () => {
    if (inside.length > 0) thin.push({ epochMs: beginMs + (index + 0.5) * stepMs, value: pick(inside) });
    inside = [];
  };
  for (const { epochMs, value } of points) {
    const stretch = Math.min(Math.floor((epochMs - beginMs) / stepMs), pointsMax - 1);
    if (stretch !== index) close();
    index = stretch;
    inside.push(value);
  }
  close();
  return thin;
}
