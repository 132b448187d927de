// One real QEMU with a test guest in it: started as the lab starts them, watched over its serial line. Knows nothing of
// migrations.

import { GUEST_KERNEL } from "../../src/lab/guest/accelerator.ts";
import {
  type Accelerator,
  processor,
  type QemuProcess,
  startQemuProcess,
} from "../../src/lab/guest/qemu-process.ts";
import { cpuSeconds, tempFolder } from "./processes.ts";
import type { QemuBinary } from "./qemu-binaries.ts";
import { parseHeartbeat, parseVerification, type Verification } from "./serial.ts";

export { GUEST_KERNEL } from "../../src/lab/guest/accelerator.ts";

// What never comes is given up; a busy machine needs a tenth of it.
const READY_TIMEOUT_MS = 180_000;
const HEARTBEAT_TIMEOUT_MS = 120_000;
/** An emulated CPU on a busy machine sums up some 100 MB/s. */
const VERIFY_TIMEOUT_MS = 240_000;

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

export interface QemuVm extends QemuProcess {
  readonly memoryBytes: number;
  /** The guest has filled its working set. */
  waitForReady(timeoutMs?: number): Promise<void>;
  /** `count` more heartbeats from now. */
  waitForHeartbeats(count: number, timeoutMs?: number): Promise<void>;
  /** Has the guest check each page of its working set. */
  verify(timeoutMs?: number): Promise<Verification>;
  cpuSeconds(): number;
}

/** Resolves when both monitors can be connected to. */
export async function startQemu(options: QemuOptions): Promise<QemuVm> {
  const { binary, netns, memoryMiB } = options;
  const qemu = await startQemuProcess({
    ...{ binary, machineArguments: machineArguments(options), folder: tempFolder() },
    ...(netns === undefined ? {} : { netns }),
  });
  const { serial } = qemu;
  return {
    ...qemu,
    memoryBytes: memoryMiB * 1024 * 1024,
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
      qemu.typeOnSerial("v");
      const isVerification = ({ text }: { text: string }) => parseVerification(text) !== undefined;
      const { text } = await serial.waitFor(isVerification, "VERIFY", { timeoutMs, from });
      return parseVerification(text)!;
    },
    cpuSeconds: () => cpuSeconds(qemu.pid),
  };
}

function machineArguments(options: QemuOptions): string[] {
  const accelerator = options.accelerator ?? "tcg";
  const qemuArguments = [
    ...["-M", options.machine ?? "pc", ...processor(accelerator)],
    ...["-m", `${options.memoryMiB}M`, "-kernel", options.kernel ?? GUEST_KERNEL],
  ];
  if (options.initrd !== undefined) qemuArguments.push("-initrd", options.initrd);
  if (options.append !== undefined) qemuArguments.push("-append", options.append);
  if (options.incoming !== undefined) qemuArguments.push("-incoming", options.incoming);
  if (options.paused === true) qemuArguments.push("-S");
  return [...qemuArguments, ...(options.extraArguments ?? [])];
}
