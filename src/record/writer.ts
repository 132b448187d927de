// The run record while it is written: stamps events with the time, hands each to the listeners (progress,
// dashboard) and as one line of NDJSON to the sink. It knows nothing of files.
//
// Recording is for seeing, never for safety: nothing that goes wrong here (a full disk, a broken display, a
// number that is not one) may end a migration. Each such failure is said once, as a notice, and the failing
// part is left out from then on.

import type { Clock } from "../base/clock.ts";
import { toError } from "../base/errors.ts";
import { checked } from "../base/schema.ts";
import { EventLog } from "./log.ts";
import { type RecordEntry, type RecordEvent, recordEventSchema } from "./schema.ts";

/** Longer text (a peer's error message, say) is cut, so that a line stays below LINE_CHARS_MAX of the reader. */
export const TEXT_CHARS_MAX = 4096;

export type RecordListener = (event: RecordEvent) => void;

export interface RunRecordOptions {
  clock: Clock;
  /** Takes one line, its newline included. May throw: it is then not called again. */
  sink?: ((line: string) => void) | undefined;
  listeners?: readonly RecordListener[] | undefined;
}

export class RunRecord {
  readonly #clock: Clock;
  readonly #openedMs: number;
  readonly #log = new EventLog();
  readonly #listeners: Set<RecordListener>;
  /** Event types of which one was invalid: said once each. */
  readonly #invalidTypes = new Set<string>();
  #sink: ((line: string) => void) | undefined;
  #ended = false;

  constructor(options: RunRecordOptions) {
    this.#clock = options.clock;
    this.#openedMs = options.clock.nowMs();
    this.#sink = options.sink;
    this.#listeners = new Set(options.listeners);
  }

  /** What was recorded so far, thinned when very long (log.ts). Valid until the next `add`. */
  get events(): readonly RecordEvent[] {
    return this.#log.events;
  }

  /** Records an event now. Never throws. The summary is the last one: whatever comes after it is ignored. */
  add(entry: RecordEntry): void {
    if (this.#ended) return;
    const atMs = Math.round((this.#clock.nowMs() - this.#openedMs) * 1000) / 1000;
    const { value: event, mistake } = checked(recordEventSchema, { ...withTextCut(entry), atMs });
    if (mistake !== undefined) {
      if (this.#invalidTypes.has(entry.type)) return;
      this.#invalidTypes.add(entry.type);
      this.#notice(`Events "${entry.type}" are missing from the record: ${mistake}`);
      return;
    }
    this.#ended = event.type === "summary";
    this.#log.add(event);
    this.#write(event);
    this.#notify(event);
  }

  #write(event: RecordEvent): void {
    const sink = this.#sink;
    if (sink === undefined) return;
    try {
      sink(`${JSON.stringify(event)}\n`);
    } catch (thrown) {
      this.#sink = undefined;
      this.#notice(`The run is no longer recorded to its file: ${toError(thrown).message}`);
    }
  }

  #notify(event: RecordEvent): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(event);
      } catch (thrown) {
        this.#listeners.delete(listener);
        this.#notice(`A display of the run has failed and is off: ${toError(thrown).message}`);
      }
    }
  }

  #notice(message: string): void {
    this.add({ type: "notice", message });
  }
}

function withTextCut(entry: RecordEntry): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(entry).map(([name, value]) =>
      typeof value === "string" && value.length > TEXT_CHARS_MAX
        ? [name, `${value.slice(0, TEXT_CHARS_MAX - 1)}…`]
        : [name, value],
    ),
  );
}
