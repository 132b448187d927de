// A run as the page has it: the events of its record, bounded, and the figures of this moment as a fold of them. One
// that is still written gets further events; one from a file is whole from the beginning.

import { EventLog } from "../src/record/log.ts";
import type { RecordEvent } from "../src/record/schema.ts";
import type { RecordedRun } from "../src/report/figures.ts";
import { initialProgress, type ProgressState, reduceProgress } from "../src/report/progress.ts";

type EventOf<Type extends RecordEvent["type"]> = Extract<RecordEvent, { type: Type }>;

/** What the page draws does not show more. */
const EVENTS_MAX = 4000;

export class ShownRun {
  readonly #log = new EventLog(EVENTS_MAX);
  label: string;
  progress: ProgressState = initialProgress;
  run: EventOf<"run"> | undefined;
  sample: EventOf<"sample"> | undefined;
  decision: EventOf<"decision"> | undefined;
  forecast: EventOf<"forecast"> | undefined;
  summary: EventOf<"summary"> | undefined;
  heartbeat: EventOf<"heartbeat"> | undefined;
  heartbeatGapMsMax = 0;
  /** Of the link of a tunnel, while it is broken. */
  linkLost: EventOf<"link"> | undefined;
  /** Of the last event. */
  atMs = 0;

  constructor(label: string) {
    this.label = label;
  }

  get recorded(): RecordedRun {
    return { label: this.label, events: this.#log.events };
  }

  add(event: RecordEvent): void {
    this.#log.add(event);
    this.progress = reduceProgress(this.progress, event);
    this.atMs = event.atMs;
    if (event.type === "run") this.run = event;
    else if (event.type === "sample") this.sample = event;
    else if (event.type === "decision") this.decision = event;
    else if (event.type === "forecast") this.forecast = event;
    else if (event.type === "summary") this.summary = event;
    else if (event.type === "link") this.linkLost = event.state === "lost" ? event : undefined;
    else if (event.type === "heartbeat") {
      this.heartbeat = event;
      this.heartbeatGapMsMax = Math.max(this.heartbeatGapMsMax, event.gapMs);
    }
  }
}
