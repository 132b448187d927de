// What a migration and a reception have in common: the record that they write, where the caller has it go, and the
// caller's wish to stop.

import { CancelledError, DeltaveeError, type VmWhere } from "../base/errors.ts";
import type { OpenRunRecord } from "../record/file.ts";
import type { RecordEvent } from "../record/schema.ts";
import type { RecordListener } from "../record/writer.ts";

export interface Run extends OpenRunRecord {
  /** At the end of a run that had an engine, however it ended: says what is to be said, and closes the record. */
  finish(): Promise<void>;
}

/** Opens the record of a run. `first`: those who hear of each event before anybody else. */
export type OpenRun = (first: RecordListener[]) => Promise<Run>;

export type Summary = Extract<RecordEvent, { type: "summary" }>;

/** Of a migration that has come to its good end; others throw. */
export interface RunResult {
  /** Where the guest is. */
  vm: VmWhere;
  /** The last event of the run record: time, downtime, bytes, page classes. Undefined: it could not be recorded. */
  summary: Summary | undefined;
}

/** How long a broken connection of a tunnel is tried to be resumed, or waited for. */
export const RECONNECT_MS_DEFAULT = 60_000;

/** The page cache never takes more than this share of the machine unless it is told to. */
export const CACHE_SHARE_MAX = 0.25;

/** Why the signal was aborted, where it was given an error that says so. Else it was the operator's wish. */
export function reasonOf(signal: AbortSignal | undefined): DeltaveeError | undefined {
  const reason: unknown = signal?.reason;
  return reason instanceof DeltaveeError ? reason : undefined;
}

/** @throws CancelledError, or the signal's own reason */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelledEarly(signal);
}

/**
 * `promise`, unless the signal comes first. What it resolves to after that is given to `drop`.
 * @throws CancelledError, or the signal's own reason, and whatever `promise` rejects with
 */
export function unlessCancelled<Value>(
  promise: Promise<Value>,
  signal: AbortSignal | undefined,
  drop: (late: Value) => void,
): Promise<Value> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    let isLate = false;
    const onAbort = () => {
      isLate = true;
      reject(cancelledEarly(signal));
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    promise
      .then((value) => (isLate ? drop(value) : resolve(value)), reject)
      .finally(() => signal.removeEventListener("abort", onAbort));
  });
}

function cancelledEarly(signal: AbortSignal): DeltaveeError {
  return reasonOf(signal) ?? new CancelledError("Cancelled before the migration began");
}

/** Undefined where it could not be recorded. */
export function summaryOf({ record }: OpenRunRecord): Summary | undefined {
  const last = record.events.at(-1);
  return last?.type === "summary" ? last : undefined;
}
