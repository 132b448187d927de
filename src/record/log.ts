// Events of one run in memory, bounded: a migration of many hours must not fill it. When the limit is
// reached, every second sample and heartbeat is forgotten (of two heartbeats the longer gap stays, so the
// longest gap is never lost); totals stay right because counters are cumulative. Older events are therefore
// sparser than newer ones. The file of a record is not thinned, only what is held of it.

import type { RecordEvent } from "./schema.ts";

const EVENTS_KEPT_MAX = 100_000;

export class EventLog {
  readonly #keptMax: number;
  #events: RecordEvent[] = [];

  constructor(keptMax: number = EVENTS_KEPT_MAX) {
    this.#keptMax = keptMax;
  }

  /** In order of time. Valid until the next `add`. */
  get events(): readonly RecordEvent[] {
    return this.#events;
  }

  add(event: RecordEvent): void {
    this.#events.push(event);
    if (this.#events.length <= this.#keptMax) return;
    this.#events = thin(this.#events, isFrequent);
    // Few samples, yet too many events: nothing sane writes this, but the bound must hold.
    if (this.#events.length > this.#keptMax * 0.75) this.#events = thin(this.#events, isExpendable);
  }
}

function isFrequent(event: RecordEvent): boolean {
  return event.type === "sample" || event.type === "heartbeat";
}

function isExpendable(event: RecordEvent): boolean {
  return event.type !== "run" && event.type !== "summary";
}

/** Of every two successive events of one kind, among those that may go, one stays. */
function thin(events: readonly RecordEvent[], mayGo: (event: RecordEvent) => boolean): RecordEvent[] {
  const dropped = new Set<RecordEvent>();
  const waiting = new Map<string, RecordEvent>();
  for (const event of events) {
    if (!mayGo(event)) continue;
    const kind = event.type === "heartbeat" ? `heartbeat ${event.side}` : event.type;
    const earlier = waiting.get(kind);
    if (earlier === undefined) {
      waiting.set(kind, event);
      continue;
    }
    waiting.delete(kind);
    dropped.add(lessTelling(earlier, event));
  }
  return events.filter((event) => !dropped.has(event));
}

function lessTelling(earlier: RecordEvent, later: RecordEvent): RecordEvent {
  const earlierIsLonger =
    earlier.type === "heartbeat" && later.type === "heartbeat" && earlier.gapMs > later.gapMs;
  return earlierIsLonger ? later : earlier;
}
