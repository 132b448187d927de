// The lab's own stage as a run needs it: found by the version of its QEMU, closed when the run is interrupted.

import { UsageError } from "../../base/errors.ts";
import { findQemus, type QemuBinary } from "../qemu-binaries.ts";
import { openStage } from "../stage.ts";
import type { OpenedStage, StageOptions } from "./opened-stage.ts";

export async function openLabStage(options: StageOptions): Promise<OpenedStage> {
  const { scenario, parameters, guest, link, qemu, notice, signal } = options;
  const opened = await openStage({
    ...{ scenario, parameters, link, signal, shape: guest, binary: requireQemu(qemu), progress: notice },
  });
  const { hosts, source, destination, heartbeat } = opened;
  return {
    ...{ stage: opened, source, destination, link: hosts, heartbeat },
    wireBytes: () => hosts.sentBytes(),
    close: () => opened.close(),
  };
}

/** @throws UsageError */
export function requireQemu(version: string): QemuBinary {
  const { qemus, missing } = findQemus();
  const binary = qemus.get(version);
  if (binary !== undefined) return binary;
  const there = [...qemus.keys()].join(", ") || "none";
  throw new UsageError(`There is no QEMU ${version} here (there is: ${there}). ${missing.join("; ")}`);
}
