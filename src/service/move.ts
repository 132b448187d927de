// A migration as the service knows it, out or in: what it is, how far it is, how it ended. Drawn from its run record.

import { DeltaveeError, type ErrorCode, toError, type VmWhere } from "../base/errors.ts";
import type { Phase, RecordEvent } from "../record/schema.ts";

export type MoveState = "queued" | "running" | "completed" | "failed" | "cancelled";

/** As it is told to whoever asks: plain data. */
export interface MoveView {
  readonly id: string;
  readonly side: "source" | "destination";
  /** What the guest is called: by its hypervisor, else by its monitor. */
  readonly vm: string;
  /** Where it goes to, or comes from. */
  readonly peer: string;
  /** Of a source: its share of the link. */
  readonly weight?: number;
  readonly state: MoveState;
  readonly queuedAt: string;
  readonly startedAt?: string;
  readonly endedAt?: string;
  readonly phase?: Phase;
  readonly iteration?: number;
  readonly wireBytes?: number;
  readonly remainingBytes?: number;
  readonly linkBytesPerSecond?: number;
  readonly forecastDowntimeMs?: number;
  readonly downtimeMs?: number;
  readonly totalMs?: number;
  /** Where the guest is, once it is over. */
  readonly where?: VmWhere;
  readonly error?: { readonly code: ErrorCode; readonly message: string };
}

type Progress = {
  -readonly [Key in keyof ProgressView]: ProgressView[Key];
};
type ProgressView = Partial<
  Pick<
    MoveView,
    | "phase"
    | "iteration"
    | "wireBytes"
    | "remainingBytes"
    | "linkBytesPerSecond"
    | "forecastDowntimeMs"
    | "downtimeMs"
    | "totalMs"
  >
>;

export interface MoveSubject {
  readonly id: string;
  readonly side: "source" | "destination";
  readonly vm: string;
  readonly peer: string;
  readonly weight?: number;
}

export class Move {
  readonly subject: MoveSubject;
  readonly #queuedAt = new Date();
  #startedAt: Date | undefined;
  #endedAt: Date | undefined;
  #state: MoveState = "queued";
  #progress: Progress = {};
  #where: VmWhere | undefined;
  #error: MoveView["error"];
  readonly #cancel = new AbortController();

  constructor(subject: MoveSubject) {
    this.subject = subject;
  }

  get state(): MoveState {
    return this.#state;
  }

  get isOver(): boolean {
    return this.#state !== "queued" && this.#state !== "running";
  }

  /** For whoever carries it out: to be given up where that can still be. */
  get signal(): AbortSignal {
    return this.#cancel.signal;
  }

  cancel(): void {
    this.#cancel.abort();
  }

  started(): void {
    this.#state = "running";
    this.#startedAt = new Date();
  }

  completed(where: VmWhere): void {
    this.#end("completed");
    this.#where = where;
  }

  /** Whether it was given up by the operator or could not be is in the error. */
  endedWith(thrown: unknown): void {
    const error = toError(thrown);
    const code = error instanceof DeltaveeError ? error.code : "INTERNAL";
    this.#end(code === "CANCELLED" || code === "SERVICE_STOPPING" ? "cancelled" : "failed");
    this.#error = { code, message: error.message };
    this.#where = error instanceof DeltaveeError ? error.vm : undefined;
  }

  /** Hears of each event of its record. */
  readonly listener = (event: RecordEvent): void => {
    switch (event.type) {
      case "phase":
        this.#progress.phase = event.phase;
        return;
      case "iteration":
        this.#progress.iteration = event.iteration;
        return;
      case "sample": {
        const { wireBytes, linkBytesPerSecond, remainingBytes, forecastDowntimeMs } = event;
        Object.assign(this.#progress, { wireBytes, linkBytesPerSecond });
        if (remainingBytes !== undefined) this.#progress.remainingBytes = remainingBytes;
        if (forecastDowntimeMs !== undefined) this.#progress.forecastDowntimeMs = forecastDowntimeMs;
        return;
      }
      case "summary": {
        const { wireBytes, totalMs, downtimeMs, vm } = event;
        Object.assign(this.#progress, {
          wireBytes,
          totalMs,
          ...(downtimeMs === undefined ? {} : { downtimeMs }),
        });
        this.#where = vm;
        return;
      }
      default:
        return;
    }
  };

  get view(): MoveView {
    const [startedAt, endedAt] = [this.#startedAt?.toISOString(), this.#endedAt?.toISOString()];
    return {
      ...this.subject,
      state: this.#state,
      queuedAt: this.#queuedAt.toISOString(),
      ...(startedAt === undefined ? {} : { startedAt }),
      ...(endedAt === undefined ? {} : { endedAt }),
      ...this.#progress,
      ...(this.#where === undefined || !this.isOver ? {} : { where: this.#where }),
      ...(this.#error === undefined ? {} : { error: this.#error }),
    };
  }

  #end(state: MoveState): void {
    this.#state = state;
    this.#endedAt = new Date();
  }
}
