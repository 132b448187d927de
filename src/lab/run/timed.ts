// What is noted during a run, by several observers at the same time: entries of the run record, each with the time at
// which it happened on the clock that all processes of this host share. They are put in order when the run is over.

import type { RecordEntry } from "../../record/schema.ts";

export interface TimedEntry {
  /** As `performance.timeOrigin` plus now. */
  readonly epochMs: number;
  readonly entry: RecordEntry;
}

export function epochNowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** At most `max` of them, evenly spread, the first and the last among them. */
export function thinned<Item>(items: readonly Item[], max: number): Item[] {
  if (items.length <= max) return [...items];
  return Array.from(
    { length: max },
    (_, index) => items[Math.round((index * (items.length - 1)) / (max - 1))]!,
  );
}
