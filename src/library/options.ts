// What migrate() and receive() are told alike, and how that is checked.

import { systemClock } from "../base/clock.ts";
import { UsageError } from "../base/errors.ts";
import { openRunRecord } from "../record/file.ts";
import type { RecordEvent } from "../record/schema.ts";
import type { EmbeddedVm } from "./embedded-vm.ts";
import type { SecurityOptions } from "./identity.ts";
import type { Run } from "./run.ts";

/** What both sides of a migration are told. One of `qmp` and `vm` says which VM it is about. */
export interface RunOptions extends SecurityOptions {
  /** QMP monitor of the VM's QEMU: a socket's path, or `tcp:HOST:PORT`. */
  qmp?: string | undefined;
  /** A VM of the embedded hypervisor, instead. */
  vm?: EmbeddedVm | undefined;
  /** Where the migrations of this host are kept track of, for `deltavee status` and `recover`. */
  stateDir?: string | undefined;
  /** File to write the run record to (NDJSON). An existing one is not overwritten. */
  record?: string | undefined;
  /**
   * Called with every event of the run record as it happens: phases, iterations, samples, decisions, notices. Should not
   * take long; one that throws is not called again.
   */
  onEvent?: ((event: RecordEvent) => void) | undefined;
  /** Gives up: the guest stays at the source, unless it belongs to the destination already. */
  signal?: AbortSignal | undefined;
}

/** @throws UsageError unless exactly one is given */
export function qmpOrVm({ qmp, vm }: RunOptions): string | EmbeddedVm {
  if ((qmp === undefined) === (vm === undefined)) throw new UsageError("Which VM? Give either qmp or vm");
  return (qmp ?? vm)!;
}

/** The record of a run as a program has it: a callback, and perhaps a file. */
export async function openRun(
  { record: path, onEvent }: RunOptions,
  first: ((event: RecordEvent) => void)[],
): Promise<Run> {
  const listeners = onEvent === undefined ? first : [...first, onEvent];
  const run = await openRunRecord({ clock: systemClock, path, listeners });
  return {
    ...run,
    async finish() {
      await run.close();
    },
  };
}

/** @throws UsageError that names the option */
export function aboveZero(name: string, value: number | undefined): number | undefined {
  if (value === undefined || (Number.isFinite(value) && value > 0)) return value;
  throw new UsageError(`${name} must be above zero: ${value}`);
}

/** @throws UsageError that names the option */
export function notNegative(name: string, value: number | undefined): number | undefined {
  if (value === undefined || (Number.isFinite(value) && value >= 0)) return value;
  throw new UsageError(`${name} must not be negative: ${value}`);
}
