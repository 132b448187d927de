// A way to move a VM, as the lab and the benchmarks compare them: what it is given, and what it says of its end. Hosts,
// guests and what is measured around the migration are not its business.
//
// All methods are ended alike: one that has not come to its own end after `forceAfterMs` is told that any downtime will
// do, so that "never" has a downtime too, and one that has not ended after `limitMs` is cancelled. Both count from the
// command that begins the migration.

import type { Clock } from "../../base/clock.ts";
import { DeltaveeError } from "../../base/errors.ts";
import type { QmpClient } from "../../hypervisor/qemu/qmp.ts";
import type { CliRun } from "../host-process.ts";

/** QEMU's default, and Deltavee's. */
export const DOWNTIME_MS_MAX_DEFAULT = 300;

export type Side = "source" | "destination";

/** One of the two QEMUs. That of the destination was started with `-incoming defer`. */
export interface MethodVm {
  readonly qmp: Pick<QmpClient, "execute" | "on" | "lost">;
  /** A monitor that nobody has connected to: for a program of the method's own. */
  readonly toolQmp: { readonly path: string };
}

export interface MethodLink {
  /** Network namespaces of the two hosts; undefined: this host's own network. */
  readonly sourceNetns: string | undefined;
  readonly destinationNetns: string | undefined;
  /** Address of the destination host, as the source sees it, and a port that is free there. */
  readonly destinationAddress: string;
  readonly destinationPort: number;
}

export interface MethodSetting {
  readonly source: MethodVm;
  readonly destination: MethodVm;
  readonly link: MethodLink;
  readonly memoryBytes: number;
  readonly downtimeMsMax: number;
  /** Undefined: it is not forced. */
  readonly forceAfterMs: number | undefined;
  readonly limitMs: number;
  /** Where Deltavee's run record goes, if anywhere. */
  readonly recordFile: string | undefined;
  /** Where Deltavee keeps its state; undefined: where it always does. */
  readonly stateFolder: string | undefined;
  readonly clock: Clock;
  /** Aborted: nobody waits for the migration any more, and it lets go of everything. Undefined: it comes to its end. */
  readonly signal?: AbortSignal;
  /** A process of the method's own has been started, and is the caller's to stop. */
  started(side: Side, run: CliRun): void;
}

export interface Method {
  readonly name: string;
  readonly title: string;
  /** Who moves it: QEMU alone, or Deltavee in one of its modes. */
  readonly mode: "stock" | "direct" | "tunnel";
  /** Whether a page that was sent before may leave as a delta. */
  readonly sends: "standard" | "delta";
  /**
   * Prepares both sides, which is not part of the migration, and returns the migration itself.
   * @throws DeltaveeError HYPERVISOR_INCOMPATIBLE when these QEMUs cannot do it
   */
  prepare(setting: MethodSetting): Promise<Migrate>;
}

/** Moves the VM. @throws Error when the migration fails, which is not the same as not ending in time */
export type Migrate = () => Promise<MigrationEnd>;

export interface MigrationEnd {
  /** If not, it was cancelled at the limit and the guest runs on at the source. */
  readonly arrived: boolean;
  /** When it was told that any downtime will do; undefined: it was not. */
  readonly forcedAtMs?: number;
}

export function netnsOption(netns: string | undefined): { netns?: string } {
  return netns === undefined ? {} : { netns };
}

export function cannot(method: string, qemu: string, reason: string, cause?: unknown): DeltaveeError {
  return new DeltaveeError("HYPERVISOR_INCOMPATIBLE", `QEMU ${qemu} cannot do ${method}: ${reason}`, {
    cause,
  });
}
