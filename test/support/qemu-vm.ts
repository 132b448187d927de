// One real QEMU with a guest in it: started, watched over its serial line and a QMP monitor of its own, stopped.
// A second monitor is left for the program under test. Knows nothing of migrations.

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DeltaveeError } from "../../src/base/errors.ts";
import { type QmpAddress, QmpClient } from "../../src/hypervisor/qemu/qmp.ts";
import { LineLog } from "./line-log.ts";
import { PACKAGE_ROOT } from "./package-root.ts";
import { cpuSeconds, type Exit, type Subprocess, startProcess, tempFolder } from "./processes.ts";
import type { QemuBinary } from "./qemu-binaries.ts";
import { parseHeartbeat, parseVerification, type Verification } from "./serial.ts";

const MONITOR_TIMEOUT_MS = 20_000;
const READY_TIMEOUT_MS = 60_000;
const HEARTBEAT_TIMEOUT_MS = 30_000;
/** An emulated CPU on a busy machine sums up some 100 MB/s. */
const VERIFY_TIMEOUT_MS = 120_000;

/** The bare-metal test guest: boots in an instant, dirties memory as told, checks itself (guest/README.md). */
export const GUEST_KERNEL = join(PACKAGE_ROOT, "guest/guest.elf");

export type Accelerator = "kvm" | "tcg";

export interface QemuOptions {
  binary: QemuBinary;
  memoryMiB: number;
  kernel?: string;
  initrd?: string;
  /** The guest's command line, e.g. "ws=16384 rate=2000". */
  append?: string;
  machine?: string;
  accelerator?: Accelerator;
  /** "defer" or a migration URI: the VM waits for a migration instead of booting. */
  incoming?: string;
  /** The guest does not run until told so. */
  paused?: boolean;
  extraArguments?: readonly string[];
  netns?: string;
}

export interface QemuVm {
  readonly pid: number;
  /** Removed with everything in it by `stop`. */
  readonly folder: string;
  /** The monitor for the program under test. */
  readonly toolQmp: QmpAddress & { kind: "unix" };
  /** The harness's own. */
  readonly qmp: QmpClient;
  readonly memoryBytes: number;
  readonly serial: LineLog;
  readonly exited: Promise<Exit>;
  /** The guest has filled its working set. */
  waitForReady(timeoutMs?: number): Promise<void>;
  /** `count` more heartbeats from now. */
  waitForHeartbeats(count: number, timeoutMs?: number): Promise<void>;
  /** Has the guest check each page of its working set. */
  verify(timeoutMs?: number): Promise<Verification>;
  /** One-letter commands of the guest: "p" stops its writing, "r" lets it go on. */
  typeOnSerial(text: string): void;
  cpuSeconds(): number;
  stderrTail(): string;
  /** Idempotent. */
  stop(): Promise<void>;
}

/** Resolves when both monitors can be connected to. */
export async function startQemu(options: QemuOptions): Promise<QemuVm> {
  const folder = tempFolder();
  const toolQmp = { kind: "unix" as const, path: join(folder.path, "tool.qmp") };
  const harnessQmp = { kind: "unix" as const, path: join(folder.path, "harness.qmp") };
  const serial = new LineLog();
  const child = await startProcess(
    options.binary.path,
    qemuArguments(options, [toolQmp.path, harnessQmp.path]),
    {
      ...(options.netns === undefined ? {} : { netns: options.netns }),
      onStdout: (chunk) => serial.push(chunk),
    },
  );
  void child.exited.then(({ code, signal }) =>
    serial.end(new Error(`QEMU ended (code ${code}, signal ${signal}): ${child.stderrTail()}`)),
  );
  let qmp: QmpClient;
  try {
    qmp = await connectMonitor(child, harnessQmp);
  } catch (thrown) {
    await child.stop();
    folder.remove();
    throw new Error(`QEMU ${options.binary.name} did not start: ${child.stderrTail()}`, { cause: thrown });
  }
  return {
    pid: child.pid,
    folder: folder.path,
    toolQmp,
    qmp,
    memoryBytes: options.memoryMiB * 1024 * 1024,
    serial,
    exited: child.exited,
    waitForReady: async (timeoutMs = READY_TIMEOUT_MS) => {
      const { text } = await serial.waitFor(({ text }) => /^(READY|ERROR) /.test(text), "READY", {
        timeoutMs,
      });
      if (text.startsWith("ERROR")) throw new Error(`The guest refused to start: ${text}`);
    },
    waitForHeartbeats: async (count, timeoutMs = HEARTBEAT_TIMEOUT_MS) => {
      let left = count;
      await serial.waitFor(
        (line) => parseHeartbeat(line) !== undefined && --left <= 0,
        `${count} heartbeats`,
        {
          timeoutMs,
          from: serial.lines.length,
        },
      );
    },
    verify: async (timeoutMs = VERIFY_TIMEOUT_MS) => {
      const from = serial.lines.length;
      child.stdin.write("v");
      const isVerification = ({ text }: { text: string }) => parseVerification(text) !== undefined;
      const { text } = await serial.waitFor(isVerification, "VERIFY", { timeoutMs, from });
      return parseVerification(text)!;
    },
    typeOnSerial: (text) => {
      child.stdin.write(text);
    },
    cpuSeconds: () => cpuSeconds(child.pid),
    stderrTail: () => child.stderrTail(),
    stop: async () => {
      qmp.close();
      await child.stop();
      folder.remove();
    },
  };
}

function qemuArguments(options: QemuOptions, monitorPaths: readonly string[]): string[] {
  const accelerator = options.accelerator ?? "tcg";
  const qemuArguments = [
    ...options.binary.leadingArguments,
    ...["-nodefaults", "-no-user-config", "-display", "none"],
    ...["-M", options.machine ?? "pc", "-accel", accelerator, "-cpu", accelerator === "kvm" ? "host" : "max"],
    ...["-m", `${options.memoryMiB}M`, "-kernel", options.kernel ?? GUEST_KERNEL],
    // The serial line is QEMU's own stdin and stdout: connected from the first byte on, on every side of a
    // migration, and never a reason for the guest to wait (a socket's reader could come late).
    ...["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"],
    ...monitorPaths.flatMap((path) => ["-qmp", `unix:${path},server=on,wait=off`]),
  ];
  if (options.initrd !== undefined) qemuArguments.push("-initrd", options.initrd);
  if (options.append !== undefined) qemuArguments.push("-append", options.append);
  if (options.incoming !== undefined) qemuArguments.push("-incoming", options.incoming);
  if (options.paused === true) qemuArguments.push("-S");
  return [...qemuArguments, ...(options.extraArguments ?? [])];
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
