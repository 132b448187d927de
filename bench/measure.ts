// One measured migration: two fresh VMs at the two ends of the link, one method, and what was seen of it from
// outside.

import { setTimeout as sleep } from "node:timers/promises";
import { type CliRun, cpuSeconds } from "../test/support/processes.ts";
import type { QemuBinary } from "../test/support/qemu-binaries.ts";
import { type QemuOptions, type QemuVm, startQemu } from "../test/support/qemu-vm.ts";
import { heartbeatGap } from "../test/support/serial.ts";
import { CpuWatch, QEMU_ARGUMENTS, qemuCpuSeconds } from "./cpu.ts";
import type { Method } from "./methods.ts";
import type { BenchLink } from "./network.ts";

/** Before it is moved the guest has been writing at its full rate for a while. */
const WARM_UP_HEARTBEATS = 200;
const ARRIVED_HEARTBEATS = 20;
/** Last acknowledgements and farewells, which are counted too. */
const LAST_PACKETS_MS = 200;

export interface Measurement {
  method: string;
  run: number;
  /** The VM has arrived. If not, it was cancelled after the time limit, and what follows is counted up to there. */
  converged: boolean;
  /** From the command to the guest's first heartbeat at the destination; the time limit if there was none. */
  totalMs: number;
  /** As the source's QEMU reports it. */
  downtimeMsReported?: number;
  /** From the guest's last heartbeat at the source to its first at the destination, as received. */
  heartbeatGapMs?: number;
  /** No heartbeat is missing or came twice, and the guest's check of its memory is good. */
  verified?: boolean;
  /** On the link, with all headers: what the source has sent, and what came back. */
  wireBytes: number;
  wireBytesBack: number;
  /** CPU time of the QEMUs without their vCPU threads, and of Deltavee's processes. */
  cpuSeconds: Record<"source" | "destination", { qemu: number; deltavee: number }>;
}

export interface Scene {
  binary: QemuBinary;
  boot: Pick<QemuOptions, "kernel" | "initrd" | "append" | "memoryMiB">;
  link: BenchLink;
  limitMs: number;
  /** Everything that is started, so that an interrupted benchmark can stop it. */
  started: { stop(): Promise<unknown> }[];
}

export async function measure(
  scene: Scene,
  method: Method,
  run: number,
  recordFile: string | undefined,
): Promise<Measurement> {
  const { binary, boot, link, limitMs } = scene;
  const vm = async (options: Partial<QemuOptions>): Promise<QemuVm> => {
    const started = await startQemu({ binary, ...boot, extraArguments: QEMU_ARGUMENTS, ...options });
    scene.started.push(started);
    return started;
  };
  try {
    const source = await vm({ netns: link.sourceNetns });
    const destination = await vm({ netns: link.destinationNetns, incoming: "defer" });
    await source.waitForReady();
    await source.waitForHeartbeats(WARM_UP_HEARTBEATS);

    const deltavee: Record<"source" | "destination", CpuWatch | undefined> = {
      source: undefined,
      destination: undefined,
    };
    const started = (side: "source" | "destination", { pid, stop }: CliRun) => {
      scene.started.push({ stop });
      deltavee[side] = new CpuWatch(() => cpuSeconds(pid));
    };
    const migrate = await method.prepare({ source, destination, link, limitMs, recordFile, started });
    const qemu = {
      source: new CpuWatch(() => qemuCpuSeconds(source.pid)),
      destination: new CpuWatch(() => qemuCpuSeconds(destination.pid)),
    };
    const sentBefore = link.sentBytes();
    const startMs = performance.now();
    const converged = await migrate();
    const cpu = (side: "source" | "destination") => ({
      qemu: qemu[side].seconds(),
      deltavee: deltavee[side]?.seconds() ?? 0,
    });
    const cpus = { source: cpu("source"), destination: cpu("destination") };
    await sleep(LAST_PACKETS_MS);
    const sent = link.sentBytes();
    const measurement: Measurement = {
      method: method.name,
      run,
      converged,
      totalMs: limitMs,
      wireBytes: sent.bySource - sentBefore.bySource,
      wireBytesBack: sent.byDestination - sentBefore.byDestination,
      cpuSeconds: cpus,
    };
    if (converged) Object.assign(measurement, await arrival(source, destination, startMs));
    return measurement;
  } finally {
    await Promise.all(scene.started.splice(0).map((each) => each.stop()));
  }
}

async function arrival(source: QemuVm, destination: QemuVm, startMs: number): Promise<Partial<Measurement>> {
  await destination.waitForHeartbeats(ARRIVED_HEARTBEATS);
  const gap = heartbeatGap(source.serial, destination.serial);
  const { downtime } = await source.qmp.execute("query-migrate");
  const { ok } = await destination.verify();
  return {
    totalMs: gap.firstOfDestination.receivedMs - startMs,
    ...(downtime === undefined ? {} : { downtimeMsReported: downtime }),
    heartbeatGapMs: gap.gapMs,
    verified: ok && gap.missing.length === 0 && gap.repeated.length === 0,
  };
}
