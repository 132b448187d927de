// One measured migration: two fresh VMs at the two ends of the link, one method, and what was seen of it from
// outside.

import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../src/base/clock.ts";
import { DOWNTIME_MS_MAX_DEFAULT, type Method, netnsOption } from "../src/lab/method/method.ts";
import {
  guestCpuSeconds,
  QEMU_ARGUMENTS,
  qemuCpuSeconds,
  residentBytesMax,
  Watch,
} from "../src/lab/usage.ts";
import { type CliRun, cpuSeconds } from "../test/support/processes.ts";
import type { QemuBinary } from "../test/support/qemu-binaries.ts";
import { type QemuOptions, type QemuVm, startQemu } from "../test/support/qemu-vm.ts";
import { heartbeatGap } from "../test/support/serial.ts";
import { limitBytesOf } from "./limit.ts";
import type { BenchLink } from "./network.ts";

/** Before it is moved the guest has been writing at its full rate for a while. */
const WARM_UP_HEARTBEATS = 200;
const ARRIVED_HEARTBEATS = 20;
/** Under TCG a guest fills some 50 MB/s. */
const READY_TIMEOUT_MS = 180_000;
/** Last acknowledgements and farewells, which are counted too. */
const LAST_PACKETS_MS = 200;

export interface Measurement {
  method: string;
  run: number;
  /** The VM has arrived. If not, it was cancelled after the time limit, and what follows is counted up to there. */
  converged: boolean;
  /** From the command to the guest's first heartbeat at the destination; the time limit if there was none. */
  totalMs: number;
  /** As the source's QEMU reports them: the migration from its own start to its end, and the time without guest. */
  migrationMsReported?: number;
  downtimeMsReported?: number;
  /** From the guest's last heartbeat at the source to its first at the destination, as received. */
  heartbeatGapMs?: number;
  /** No heartbeat is missing or came twice, and the guest's check of its memory is good. */
  verified?: boolean;
  /** On the link, with all headers: what the source has sent, and what came back. */
  wireBytes: number;
  wireBytesBack: number;
  /** CPU time of the QEMUs without their vCPU threads, and of Deltavee's processes. */
  cpuSeconds: Record<Side, { qemu: number; deltavee: number }>;
  /** CPU time of the guest itself, at the source, until the method's command was done. */
  guestCpuSeconds: number;
  /** The most that Deltavee's processes have held at once; 0 where there is none. */
  residentBytesMax: Record<Side, number>;
  /** What had to cross whatever the method (limit.ts), if it was asked for. */
  limitBytes?: number;
}

type Side = "source" | "destination";

export interface Scene {
  binary: QemuBinary;
  boot: Pick<QemuOptions, "kernel" | "initrd" | "append" | "memoryMiB">;
  link: BenchLink;
  limitMs: number;
  /** Method whose first VM to arrive tells the bytes that had to cross (limit.ts, some seconds); undefined: none. */
  limitOf: string | undefined;
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
  const watches: Watch[] = [];
  const watch = (read: () => number): Watch => {
    watches.push(new Watch(read));
    return watches.at(-1)!;
  };
  try {
    const source = await vm(netnsOption(link.sourceNetns));
    const destination = await vm({ ...netnsOption(link.destinationNetns), incoming: "defer" });
    await source.waitForReady(READY_TIMEOUT_MS);
    await source.waitForHeartbeats(WARM_UP_HEARTBEATS);

    const cpu: Record<Side, Watch | undefined> = { source: undefined, destination: undefined };
    const memory: Record<Side, Watch | undefined> = { source: undefined, destination: undefined };
    const started = (side: Side, { pid, stop }: CliRun) => {
      scene.started.push({ stop });
      cpu[side] = watch(() => cpuSeconds(pid));
      memory[side] = watch(() => residentBytesMax(pid));
    };
    const migrate = await method.prepare({
      ...{ source, destination, link, limitMs, recordFile, started, clock: systemClock },
      memoryBytes: source.memoryBytes,
      downtimeMsMax: DOWNTIME_MS_MAX_DEFAULT,
      forceAfterMs: undefined,
      stateFolder: undefined,
    });
    const qemu = {
      source: watch(() => qemuCpuSeconds(source.pid)),
      destination: watch(() => qemuCpuSeconds(destination.pid)),
    };
    const guest = watch(() => guestCpuSeconds(source.pid));
    const sentBefore = link.sentBytes();
    const startMs = performance.now();
    const { arrived: converged } = await migrate();
    const cpuOf = (side: Side) => ({ qemu: qemu[side].growth, deltavee: cpu[side]?.growth ?? 0 });
    const cpuSecondsUsed = { source: cpuOf("source"), destination: cpuOf("destination") };
    const guestCpuSecondsUsed = guest.growth;
    await sleep(LAST_PACKETS_MS);
    const sent = link.sentBytes();
    const measurement: Measurement = {
      method: method.name,
      run,
      converged,
      totalMs: limitMs,
      wireBytes: sent.bySource - sentBefore.bySource,
      wireBytesBack: sent.byDestination - sentBefore.byDestination,
      cpuSeconds: cpuSecondsUsed,
      guestCpuSeconds: guestCpuSecondsUsed,
      residentBytesMax: { source: memory.source?.last ?? 0, destination: memory.destination?.last ?? 0 },
    };
    if (converged) Object.assign(measurement, await arrival(source, destination, startMs));
    if (converged && scene.limitOf === method.name) {
      scene.limitOf = undefined;
      measurement.limitBytes = await limitBytesOf(destination);
    }
    return measurement;
  } finally {
    for (const each of watches) each.end();
    await Promise.all(scene.started.splice(0).map((each) => each.stop()));
  }
}

async function arrival(source: QemuVm, destination: QemuVm, startMs: number): Promise<Partial<Measurement>> {
  await destination.waitForHeartbeats(ARRIVED_HEARTBEATS);
  const gap = heartbeatGap(source.serial, destination.serial);
  const { downtime, "total-time": total } = await source.qmp.execute("query-migrate");
  const { ok } = await destination.verify();
  return {
    totalMs: gap.firstOfDestination.receivedMs - startMs,
    ...(downtime === undefined ? {} : { downtimeMsReported: downtime }),
    ...(total === undefined ? {} : { migrationMsReported: total }),
    heartbeatGapMs: gap.gapMs,
    verified: ok && gap.missing.length === 0 && gap.repeated.length === 0,
  };
}
