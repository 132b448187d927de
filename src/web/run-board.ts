// The migrations that a process has to show, running and past, each as the events of its run record: what the live
// page and the metrics are fed from. It knows nothing of HTTP and of whoever looks.
//
// Bounded: so many runs, so many events of each. Of a run that is very long every second sample is forgotten
// (record/log.ts), more once it is over; when there are too many runs, those that ended first go.

import { randomBytes } from "node:crypto";
import { EventLog } from "../record/log.ts";
import type { RecordEvent } from "../record/schema.ts";
import type { RecordListener } from "../record/writer.ts";
import { type RunOverview, RunState } from "./run-overview.ts";

const RUNS_MAX = 100;
/** Enough for every plot; the record in a file has all of them. */
const EVENTS_MAX_RUNNING = 4000;
const EVENTS_MAX_PAST = 1000;

export interface RunMeta {
  /** What people call it: a VM's name, say. Without one: what its record calls it, or where it goes. */
  readonly label?: string | undefined;
}

/** What a migration is told to the board by. */
export interface RunFeed {
  readonly id: string;
  /** The next event of its record: give it to RunRecord as a listener. */
  readonly event: RecordListener;
  /** Nothing more will come, also where there was no summary. Idempotent. */
  end(): void;
}

export interface NumberedEvent {
  /** Of the run, counted from 1, without gaps but for what was forgotten. */
  readonly sequence: number;
  readonly event: RecordEvent;
}

/** `event` is undefined when the run has ended, or is forgotten. */
export type BoardListener = (run: BoardRun, event: RecordEvent | undefined) => void;

/** A run on the board. */
export class BoardRun {
  /** Not to be guessed from another one's, and never used again. */
  readonly id = randomBytes(8).toString("hex");
  readonly openedAt = new Date();
  /** No longer on the board. */
  isForgotten = false;
  readonly #label: string | undefined;
  readonly #state = new RunState();
  #log = new EventLog(EVENTS_MAX_RUNNING);
  readonly #sequences = new WeakMap<RecordEvent, number>();
  #lastSequence = 0;
  #isRunning = true;

  constructor({ label }: RunMeta) {
    this.#label = label;
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** Of the newest event; 0 while there is none. */
  get lastSequence(): number {
    return this.#lastSequence;
  }

  /** What a list of runs says of it. */
  get overview(): RunOverview {
    return this.#state.overview({
      id: this.id,
      label: this.#label,
      openedAt: this.openedAt.toISOString(),
      isRunning: this.#isRunning,
    });
  }

  /** In order of time, thinned when very many. Valid until the next event. */
  get events(): readonly RecordEvent[] {
    return this.#log.events;
  }

  /** Those that are still known, after the one with this number. */
  eventsAfter(sequence: number): NumberedEvent[] {
    const events = this.#log.events;
    let [from, to] = [0, events.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.#sequenceOf(events[middle]!) > sequence) to = middle;
      else from = middle + 1;
    }
    return events.slice(from).map((event) => ({ sequence: this.#sequenceOf(event), event }));
  }

  add(event: RecordEvent): void {
    this.#sequences.set(event, ++this.#lastSequence);
    this.#log.add(event);
    this.#state.add(event);
  }

  end(): void {
    this.#isRunning = false;
    const past = new EventLog(EVENTS_MAX_PAST);
    for (const event of this.#log.events) past.add(event);
    this.#log = past;
  }

  #sequenceOf(event: RecordEvent): number {
    return this.#sequences.get(event) ?? 0;
  }
}

export class RunBoard {
  readonly #runs = new Map<string, BoardRun>();
  readonly #listeners = new Set<BoardListener>();

  /** Oldest first. */
  get runs(): readonly BoardRun[] {
    return [...this.#runs.values()];
  }

  find(id: string): BoardRun | undefined {
    return this.#runs.get(id);
  }

  open(meta: RunMeta = {}): RunFeed {
    const run = new BoardRun(meta);
    this.#runs.set(run.id, run);
    if (this.#runs.size > RUNS_MAX) this.#forgetOne();
    const end = () => {
      if (!run.isRunning) return;
      run.end();
      this.#tell(run, undefined);
    };
    return {
      id: run.id,
      event: (event) => {
        if (!run.isRunning || run.isForgotten) return;
        run.add(event);
        this.#tell(run, event);
        if (event.type === "summary") end();
      },
      end,
    };
  }

  /** Must not throw: that would end the feed which it is told of. The returned function ends it. */
  subscribe(listener: BoardListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #forgetOne(): void {
    const oldest = this.runs.find(({ isRunning }) => !isRunning) ?? this.runs[0];
    if (oldest === undefined) return;
    this.#runs.delete(oldest.id);
    oldest.isForgotten = true;
    this.#tell(oldest, undefined);
  }

  #tell(run: BoardRun, event: RecordEvent | undefined): void {
    for (const listener of [...this.#listeners]) listener(run, event);
  }
}
