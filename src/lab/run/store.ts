// The records of runs on disk: one file each, under the name of its run, written whole or not at all. What is there is
// never overwritten: a run whose record exists has been made, well or not.

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { assert } from "../../base/assert.ts";
import type { Clock } from "../../base/clock.ts";
import { DeltaveeError, UsageError } from "../../base/errors.ts";
import { openRunRecord } from "../../record/file.ts";
import { parseRecord } from "../../record/reader.ts";
import type { RecordEvent } from "../../record/schema.ts";
import type { FinishedRun } from "./one-run.ts";
import { type RunPlan, recordName } from "./plan.ts";

export type RunState = "missing" | "succeeded" | "failed";

export class ResultStore {
  readonly #folder: string;

  /** Of all experiments. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  path(plan: RunPlan): string {
    return join(this.#folder, plan.experiment, recordName(plan));
  }

  /**
   * Whether the run has been made, and how it went. A record that is not whole counts as none.
   * @throws UsageError when what is there was made with other limits: the two would be taken for repetitions
   */
  state(plan: RunPlan): RunState {
    const path = this.path(plan);
    if (!existsSync(path)) return "missing";
    const events = wholeRecord(path);
    const verdict = events?.find((event) => event.type === "verdict");
    if (events === undefined || verdict === undefined) return "missing";
    refuseOtherSetting(plan, events, path);
    return verdict.succeeded ? "succeeded" : "failed";
  }

  async write(plan: RunPlan, { entries }: FinishedRun): Promise<void> {
    const path = this.path(plan);
    mkdirSync(dirname(path), { recursive: true });
    const unfinished = `${path}.writing-${process.pid}`;
    rmSync(unfinished, { force: true });
    const clock = new EntryClock(entries[0]?.epochMs ?? 0);
    const { record, close } = await openRunRecord({ clock, path: unfinished });
    for (const { epochMs, entry } of entries) {
      clock.advanceTo(epochMs);
      record.add(entry);
    }
    const problem = await close();
    if (problem !== undefined) throw new DeltaveeError("INTERNAL", problem);
    renameSync(unfinished, path);
  }
}

function wholeRecord(path: string): readonly RecordEvent[] | undefined {
  try {
    const { events, notices } = parseRecord(readFileSync(path, "utf8"), path);
    return notices.length === 0 ? events : undefined;
  } catch (thrown) {
    if (thrown instanceof DeltaveeError && thrown.code === "RECORD_INVALID") return undefined;
    throw thrown;
  }
}

function refuseOtherSetting(plan: RunPlan, events: readonly RecordEvent[], path: string): void {
  const lab = events.find((event) => event.type === "lab");
  const run = events.find((event) => event.type === "run");
  const { scenario, parameters, guest, method, link, qemu, forcedAfterMs, limitMs } = lab ?? {};
  const there = {
    ...{ scenario, parameters, guest, method, link, qemu, run: lab?.run },
    ...{ forcedAfterMs, limitMs, downtimeMsMax: run?.downtimeMsMax },
  };
  const { forceAfterMs, limitMs: limit, downtimeMsMax } = plan;
  const wanted = { ...plan.setting, forcedAfterMs: forceAfterMs, limitMs: limit, downtimeMsMax };
  if (isDeepStrictEqual(there, { ...wanted })) return;
  throw new UsageError(
    `${path} is of a run with other limits or parameters: give this one another --name, or remove that record`,
  );
}

/** Stands at the time of the entry that is being written. */
class EntryClock implements Clock {
  #nowMs: number;

  constructor(nowMs: number) {
    this.#nowMs = nowMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  advanceTo(epochMs: number): void {
    assert(epochMs >= this.#nowMs, "entries are in the order of time");
    this.#nowMs = epochMs;
  }

  after(): () => void {
    throw new Error("A record sets no timers");
  }
}
