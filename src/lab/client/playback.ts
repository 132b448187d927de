// What a viewer sees of pictures that arrive when they arrive: a player waits until its buffer holds so many ms of
// video, then shows each picture when it is due. One that is not there when it is due freezes the picture until it is;
// from then on everything is due so much later. Knows no stream and no socket, and is the same for any of them.

import type { Picture } from "./transport-stream.ts";

export interface Frozen {
  /** The picture stood still, all in all. */
  readonly frozenMs: number;
  /** How often it did. */
  readonly stalls: number;
}

export interface Interval {
  readonly fromMs: number;
  readonly untilMs: number;
}

/** Less is what a viewer's screen does anyway: it shows a picture when it refreshes, 60 times a second. */
export const STALL_MS_MIN = 1000 / 60;

/**
 * What stood still within `interval` (of the arrivals' clock) for a player that began with the first of `pictures`.
 * They may come in the order in which they were sent: they are shown in that of their presentation times.
 */
export function playBack(pictures: readonly Picture[], bufferMs: number, interval: Interval): Frozen {
  const shown = inOrderOfPresentation(pictures);
  const first = shown[0];
  let [frozenMs, stalls] = [0, 0];
  if (first === undefined) return { frozenMs, stalls };
  // Arrival times are those of whole pictures in the order of sending, so that the earlier in presentation may be later.
  let offsetMs = first.arrivedMs + bufferMs - first.presentationMs;
  for (const { presentationMs, arrivedMs } of shown) {
    const dueMs = presentationMs + offsetMs;
    const lateMs = arrivedMs - dueMs;
    if (lateMs <= 0) continue;
    offsetMs += lateMs;
    const withinMs = Math.min(arrivedMs, interval.untilMs) - Math.max(dueMs, interval.fromMs);
    if (withinMs <= 0) continue;
    frozenMs += withinMs;
    if (withinMs >= STALL_MS_MIN) stalls++;
  }
  return { frozenMs, stalls };
}

/** Longest time between two arrivals that lies in `interval` at least in part; undefined when fewer than two arrived. */
export function longestGapMs(pictures: readonly Picture[], interval: Interval): number | undefined {
  let gapMs: number | undefined;
  for (const [index, { arrivedMs }] of pictures.entries()) {
    const before = pictures[index - 1];
    if (before === undefined || arrivedMs < interval.fromMs || before.arrivedMs > interval.untilMs) continue;
    gapMs = Math.max(gapMs ?? 0, arrivedMs - before.arrivedMs);
  }
  return gapMs;
}

/**
 * With the next picture as if it came just now, where one is overdue: what a player shows until then stands still, and
 * for how much longer nobody knows.
 */
export function untilNow(pictures: readonly Picture[], nowMs: number): readonly Picture[] {
  const shown = inOrderOfPresentation(pictures);
  const last = shown.at(-1);
  if (last === undefined) return pictures;
  const presentationMs = last.presentationMs + (usualDistanceMs(shown) ?? 0);
  return [...pictures, { presentationMs, arrivedMs: nowMs }];
}

/** Pictures that are missing between the first and the last, by the distance that two of them usually have. */
export function countLost(pictures: readonly Picture[]): number {
  const shown = inOrderOfPresentation(pictures);
  const usualMs = usualDistanceMs(shown);
  if (usualMs === undefined || usualMs <= 0) return 0;
  return distancesMs(shown).reduce(
    (lost, distanceMs) => lost + Math.max(0, Math.round(distanceMs / usualMs) - 1),
    0,
  );
}

/** Of pictures in the order of presentation; undefined when there are fewer than two. */
function usualDistanceMs(shown: readonly Picture[]): number | undefined {
  const distances = distancesMs(shown);
  return distances.sort((a, b) => a - b)[distances.length >> 1];
}

function distancesMs(shown: readonly Picture[]): number[] {
  return shown.slice(1).map((picture, index) => picture.presentationMs - shown[index]!.presentationMs);
}

function inOrderOfPresentation(pictures: readonly Picture[]): readonly Picture[] {
  return pictures.toSorted((a, b) => a.presentationMs - b.presentationMs);
}
