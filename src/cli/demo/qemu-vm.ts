// A VM of the demo under a stock QEMU. Here "standard" is QEMU's own migration, as it comes (qemu-standard.ts).

import { execFile, execFileSync, spawn } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { DeltaveeError, toError } from "../../base/errors.ts";
import { QemuIncoming } from "../../hypervisor/qemu/incoming.ts";
import { QemuOutgoing } from "../../hypervisor/qemu/outgoing.ts";
import { type QmpAddress, QmpClient } from "../../hypervisor/qemu/qmp.ts";
import type { DemoVm, VmContext } from "./demo-vm.ts";
import { guestKernelPath } from "./guest.ts";
import { type HypervisorSpec, hostNowMs, type VmSpec } from "./messages.ts";
import { migrateByQemu, receiveByQemu } from "./qemu-standard.ts";
import { receiveThroughTunnel, sendThroughTunnel } from "./tunnel.ts";

export type QemuSpec = Extract<HypervisorSpec, { kind: "qemu" }>;

const MONITOR_TIMEOUT_MS = 20_000;
const VERSION_TIMEOUT_MS = 10_000;
const STDERR_CHARACTERS_MAX = 4096;

/** "7.2.22", or undefined when it is none, or does not run. */
export async function qemuVersion(path: string): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)(path, ["--version"], { timeout: VERSION_TIMEOUT_MS });
    return /QEMU.* version (\d+\.\d+\.\d+)/.exec(stdout)?.[1];
  } catch {
    return undefined;
  }
}

export async function openQemuVm(spec: VmSpec, qemu: QemuSpec, context: VmContext): Promise<DemoVm> {
  // Short, since the name of a unix socket ends at 107 bytes.
  const folder = mkdtempSync(join(tmpdir(), "deltavee-demo-"));
  const monitor: QmpAddress = { kind: "unix", path: join(folder, "qmp") };
  const engineMonitor: QmpAddress = { kind: "unix", path: join(folder, "engine.qmp") };
  const serialPath = join(folder, "serial");
  const stdout = openPipe(serialPath);
  const child = spawn(qemu.path, qemuArguments(spec, qemu, [monitor.path, engineMonitor.path]), {
    stdio: ["pipe", stdout.writeFd, "pipe"],
    // Not of the terminal's group: Ctrl-C is for the demo to hear.
    detached: true,
  });
  const exited = new Promise<void>((resolve) => {
    for (const end of ["exit", "error"]) child.once(end, () => resolve());
  });
  const endVm = () => {
    child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  };
  process.once("exit", endVm);
  closeSync(stdout.writeFd);
  let said = "";
  child.stderr?.on("data", (text: Buffer) => {
    said = `${said}${text.toString()}`.slice(-STDERR_CHARACTERS_MAX);
  });
  child.stdin?.on("error", () => {});
  const ended = new Promise<DeltaveeError>((resolve) => {
    const failure = (how: string) =>
      resolve(new DeltaveeError("HYPERVISOR_FAILED", `${qemu.path} ${how}: ${said.trim()}`));
    child.once("error", (error) => failure(`could not be started (${error.message})`));
    child.once("exit", (code, signal) => failure(`ended (${signal ?? `code ${code}`})`));
  });
  new Socket({ fd: stdout.readFd, readable: true, writable: false }).on("data", (text: Buffer) =>
    context.onSerial(text.toString("latin1"), hostNowMs()),
  );
  const client = await connectMonitor(monitor, ended);
  void ended.then(context.onFailure);
  const { major, minor, micro } = client.version;
  const version = `${major}.${minor}.${micro}`;
  const identity = { kind: "qemu" as const, version };
  const notice = (message: string) => context.record.add({ type: "notice", message });

  return {
    hypervisor: `QEMU ${version} (${qemu.accelerator.toUpperCase()})`,
    async run() {
      await client.execute("cont");
    },
    async type(text) {
      child.stdin?.write(text);
    },
    async migrate(order) {
      if (order.method === "standard") return migrateByQemu(client, order, context.record);
      const vm = await QemuOutgoing.open(engineMonitor, { notice });
      const error = await sendThroughTunnel(
        { vm, identity, record: context.record },
        order,
        vm.guestRamBytes,
      );
      await vm.close();
      return error;
    },
    async receive(method) {
      if (method === "standard") return receiveByQemu(client, join(folder, "migration"));
      const vm = await QemuIncoming.open(engineMonitor, notice);
      return receiveThroughTunnel({ vm, identity, record: context.record });
    },
    async close() {
      process.off("exit", endVm);
      endVm();
      await exited;
    },
  };
}

function qemuArguments(spec: VmSpec, qemu: QemuSpec, monitorPaths: readonly string[]): string[] {
  return [
    ...["-nodefaults", "-no-user-config", "-display", "none"],
    ...["-M", "pc", "-accel", qemu.accelerator, "-cpu", qemu.accelerator === "kvm" ? "host" : "max"],
    ...["-m", `${spec.memoryBytes / 1024}K`, "-kernel", guestKernelPath],
    ...["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"],
    ...monitorPaths.flatMap((path) => ["-qmp", `unix:${path},server=on,wait=off`]),
    ...(spec.side === "source" ? ["-S", "-append", spec.guestOptions] : ["-incoming", "defer"]),
  ];
}

/**
 * For QEMU's stdout. Node itself would take a pair of sockets, in which each single byte of a serial line takes up
 * a packet: a reader that is late by 0.1 s would lose heartbeats.
 */
function openPipe(path: string): { readFd: number; writeFd: number } {
  execFileSync("mkfifo", [path]);
  const readFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return { readFd, writeFd: openSync(path, constants.O_WRONLY) };
}

async function connectMonitor(address: QmpAddress, ended: Promise<DeltaveeError>): Promise<QmpClient> {
  let failure: DeltaveeError | undefined;
  void ended.then((error) => {
    failure = error;
  });
  const deadlineMs = performance.now() + MONITOR_TIMEOUT_MS;
  for (;;) {
    try {
      return await QmpClient.connect(address);
    } catch (thrown) {
      if (failure !== undefined) throw failure;
      const isNotYetThere = thrown instanceof DeltaveeError && thrown.code === "QMP_UNAVAILABLE";
      if (!isNotYetThere || performance.now() > deadlineMs) throw toError(thrown);
    }
    await sleep(20);
  }
}
