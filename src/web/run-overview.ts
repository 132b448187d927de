// What a list of runs says of each: a fold of its events, as small as its answer.

import type { VmWhere } from "../base/errors.ts";
import type { Phase, RecordEvent } from "../record/schema.ts";
import { arrivedRatio, initialProgress, ratePerSecond, reduceProgress } from "../report/progress.ts";

export interface RunOverview {
  readonly id: string;
  readonly label: string;
  /** ISO 8601: when it was begun, as its record says, else when it came to the board. */
  readonly startedAt: string;
  readonly isRunning: boolean;
  readonly phase: Phase;
  readonly side?: "source" | "destination";
  /** So far, since the record was opened; when it is over, as its summary says. */
  readonly totalMs: number;
  readonly iteration?: number;
  readonly wireBytes: number;
  readonly wireBytesPerSecond?: number;
  /** Share of the guest's memory that is as it should be at the destination. */
  readonly arrivedRatio?: number;
  /** Once it is over. */
  readonly vm?: VmWhere;
  readonly downtimeMs?: number;
  readonly errorCode?: string;
}

export class RunState {
  #progress = initialProgress;
  #run: Extract<RecordEvent, { type: "run" }> | undefined;
  #summary: Extract<RecordEvent, { type: "summary" }> | undefined;
  #errorCode: string | undefined;

  add(event: RecordEvent): void {
    this.#progress = reduceProgress(this.#progress, event);
    if (event.type === "run") this.#run = event;
    else if (event.type === "summary") this.#summary = event;
    else if (event.type === "error") this.#errorCode ??= event.code;
  }

  overview(of: { id: string; label: string | undefined; openedAt: string; isRunning: boolean }): RunOverview {
    const run = this.#run;
    const summary = this.#summary;
    const { phase, atMs, iteration, wireBytes } = this.#progress;
    const wireBytesPerSecond = ratePerSecond(this.#progress, "wireBytes");
    const ratio = arrivedRatio(this.#progress);
    const downtimeMs = summary?.heartbeatGapMs ?? summary?.downtimeMs;
    return {
      id: of.id,
      label: of.label ?? run?.label ?? (run === undefined ? "not begun" : labelOf(run)),
      startedAt: run?.startedAt ?? of.openedAt,
      isRunning: of.isRunning,
      phase,
      totalMs: summary?.totalMs ?? atMs,
      wireBytes: summary?.wireBytes ?? wireBytes,
      ...(run === undefined ? {} : { side: run.side }),
      ...(iteration === undefined ? {} : { iteration }),
      ...(wireBytesPerSecond === undefined ? {} : { wireBytesPerSecond }),
      ...(ratio === undefined ? {} : { arrivedRatio: ratio }),
      ...(summary === undefined ? {} : { vm: summary.vm }),
      ...(downtimeMs === undefined ? {} : { downtimeMs }),
      ...(this.#errorCode === undefined ? {} : { errorCode: this.#errorCode }),
    };
  }
}

function labelOf({ hypervisor, destination, side }: Extract<RecordEvent, { type: "run" }>): string {
  if (side === "destination") return `${hypervisor}, coming in`;
  return destination === undefined ? hypervisor : `${hypervisor} to ${destination}`;
}
