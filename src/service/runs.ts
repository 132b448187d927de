// The records of the service's migrations: each goes to the board (live page), the metrics, the log, and to a file where
// that is wanted. A record is for seeing: none of these may end a migration (record/writer.ts).

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../base/clock.ts";
import { toError, UsageError } from "../base/errors.ts";
import type { OpenRun } from "../library/run.ts";
import type { Metrics } from "../metrics/metrics.ts";
import { openRunRecord } from "../record/file.ts";
import type { RecordListener } from "../record/writer.ts";
import type { RunBoard } from "../web/run-board.ts";
import { type Log, runLog } from "./log.ts";

export interface RunsOptions {
  readonly board: RunBoard;
  readonly metrics: Metrics;
  readonly log: Log;
  /** Where files of records go. Undefined: nowhere. */
  readonly folder: string | undefined;
}

/** Of one run, for whoever tells of it. */
export interface RunSubject {
  /** Of the migration, in this service. */
  readonly id: string;
  readonly vm: string;
}

export class Runs {
  readonly #options: RunsOptions;

  /** @throws UsageError when there can be no files in the folder */
  constructor(options: RunsOptions) {
    this.#options = options;
    const { folder } = options;
    if (folder === undefined) return;
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw new UsageError(`Cannot create the folder ${folder} for run records`, { cause });
    }
  }

  /** `others` hear of each event as well. */
  opener({ id, vm }: RunSubject, ...others: RecordListener[]): OpenRun {
    return async (first) => {
      const { board, metrics, log, folder } = this.#options;
      const feed = board.open({ label: vm });
      const listeners = [
        ...first,
        ...others,
        feed.event,
        runLog(log, { migration: id, vm }),
        (event: Parameters<RecordListener>[0]) => metrics.observe(feed.id, event, vm),
      ];
      const path = folder === undefined ? undefined : join(folder, fileName(id, vm));
      const opened = await openRunRecord({ clock: systemClock, path, listeners }).catch((thrown: unknown) => {
        // A migration is worth more than its record.
        log.say("warning", "record", toError(thrown).message, { migration: id, vm });
        return openRunRecord({ clock: systemClock, listeners });
      });
      let isClosed = false;
      const close = async () => {
        if (isClosed) return undefined;
        isClosed = true;
        feed.end();
        metrics.forget(feed.id);
        const incomplete = await opened.close();
        if (incomplete !== undefined) log.say("warning", "record", incomplete, { migration: id, vm });
        return incomplete;
      };
      return { ...opened, close, finish: async () => void (await close()) };
    };
  }
}

/** Names of VMs may be anything. */
function fileName(id: string, vm: string): string {
  const time = new Date().toISOString().replace(/[:.]/g, "-");
  return `${time}-${vm.replace(/[^A-Za-z0-9_-]/g, "_").slice(0, 64)}-${id}.ndjson`;
}
