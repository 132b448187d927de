// A QEMU as a process: started with two monitors (one for whoever starts it, one left for a program that moves the VM) and
// its serial line, and stopped. What machine it is and what runs in it is for others to say.

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DeltaveeError } from "../../base/errors.ts";
import { type QmpAddress, QmpClient } from "../../hypervisor/qemu/qmp.ts";
import { type Exit, type Subprocess, startProcess, type TempFolder } from "../host-process.ts";
import { LineLog } from "../line-log.ts";
import type { QemuBinary } from "../qemu-binaries.ts";

const MONITOR_TIMEOUT_MS = 20_000;

export type Accelerator = "kvm" | "tcg";

/** The most that the accelerator has to offer. */
export function processor(accelerator: Accelerator): string[] {
  return ["-accel", accelerator, "-cpu", accelerator === "kvm" ? "host" : "max"];
}

export interface QemuProcessOptions {
  readonly binary: QemuBinary;
  /** The machine: what is not monitors, serial line and display. */
  readonly machineArguments: readonly string[];
  /** For its sockets; removed with everything in it when the process is stopped. */
  readonly folder: TempFolder;
  readonly netns?: string;
}

export interface QemuProcess {
  readonly pid: number;
  readonly folder: string;
  /** The monitor for a program that moves the VM. */
  readonly toolQmp: QmpAddress & { kind: "unix" };
  /** That of whoever has started it. */
  readonly qmp: QmpClient;
  readonly serial: LineLog;
  readonly exited: Promise<Exit>;
  typeOnSerial(text: string): void;
  stderrTail(): string;
  /** Idempotent. */
  stop(): Promise<void>;
}

/** Resolves when both monitors can be connected to. */
export async function startQemuProcess(options: QemuProcessOptions): Promise<QemuProcess> {
  const { binary, folder, machineArguments, netns } = options;
  const toolQmp = { kind: "unix" as const, path: join(folder.path, "tool.qmp") };
  const ownQmp = { kind: "unix" as const, path: join(folder.path, "own.qmp") };
  const serial = new LineLog();
  const qemuArguments = [
    ...binary.leadingArguments,
    ...["-nodefaults", "-no-user-config", "-display", "none"],
    // The serial line is QEMU's own stdin and stdout: connected from the first byte on, on every side of a
    // migration, and never a reason for the guest to wait (a socket's reader could come late).
    ...["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"],
    ...[toolQmp, ownQmp].flatMap(({ path }) => ["-qmp", `unix:${path},server=on,wait=off`]),
    ...machineArguments,
  ];
  const child = await startProcess(binary.path, qemuArguments, {
    ...(netns === undefined ? {} : { netns }),
    onStdout: (chunk) => serial.push(chunk),
  });
  void child.exited.then(({ code, signal }) =>
    serial.end(new Error(`QEMU ended (code ${code}, signal ${signal}): ${child.stderrTail()}`)),
  );
  let qmp: QmpClient;
  try {
    qmp = await connectMonitor(child, ownQmp);
  } catch (thrown) {
    await child.stop();
    folder.remove();
    throw new Error(`QEMU ${binary.name} did not start: ${child.stderrTail()}`, { cause: thrown });
  }
  return {
    ...{ pid: child.pid, folder: folder.path, toolQmp, qmp, serial },
    exited: child.exited,
    typeOnSerial: (text) => {
      child.stdin.write(text);
    },
    stderrTail: () => child.stderrTail(),
    stop: async () => {
      qmp.close();
      await child.stop();
      folder.remove();
    },
  };
}

async function connectMonitor(child: Subprocess, address: QmpAddress): Promise<QmpClient> {
  let ended = false;
  void child.exited.then(() => {
    ended = true;
  });
  const deadlineMs = performance.now() + MONITOR_TIMEOUT_MS;
  for (;;) {
    try {
      return await QmpClient.connect(address);
    } catch (thrown) {
      const isNotYetThere = thrown instanceof DeltaveeError && thrown.code === "QMP_UNAVAILABLE";
      if (!isNotYetThere || ended || performance.now() > deadlineMs) throw thrown;
    }
    await sleep(20);
  }
}
