// The lab's guest in a QEMU: the machine, which is the same on both sides of a migration and in every QEMU of 7.2 or
// later, its disk, and its RAM kept in a file between runs.

import { execFile } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { CLIENT_ADDRESS, CLIENT_MAC, GUEST_ADDRESS, GUEST_MAC, GUEST_TAP } from "../hosts/hosts.ts";
import type { GuestImage } from "../image/image.ts";
import type { GuestShape } from "../model.ts";
import { ownedTempFolder } from "../ownership.ts";
import type { QemuBinary } from "../qemu-binaries.ts";
import { QEMU_ARGUMENTS } from "../usage.ts";
import type { ProbeGuest } from "./accelerator.ts";
import { type Accelerator, processor, type QemuProcess, startQemuProcess } from "./qemu-process.ts";
import { quote } from "./shell.ts";

/** The oldest QEMU that the lab uses has it, and newer ones still do: a state of one loads in the other. */
const MACHINE = "pc-i440fx-7.2";
/**
 * A guest that QEMU 7.2 (TCG) has loaded once and then migrates again stands still at its destination when its timer is
 * the TSC deadline, until some other interrupt wakes it; with the older timer of the local APIC it goes on.
 */
const TIMER = "lapic=notscdeadline";
const STATE_TIMEOUT_MS = 120_000;
const POLL_MS = 20;
/** With KVM it takes a second. */
const PROBE_TIMEOUT_MS = 10_000;
const UNLIMITED_BYTES_PER_SECOND = 10e9;

export interface GuestVmOptions {
  readonly binary: QemuBinary;
  readonly accelerator: Accelerator;
  readonly image: GuestImage;
  readonly shape: GuestShape;
  /** A qcow2 file: both sides of a migration have the same. */
  readonly disk: string;
  readonly netns: string;
  /** Waits for a migration instead of booting. */
  readonly incoming?: boolean;
}

export function startGuestVm(options: GuestVmOptions): Promise<QemuProcess> {
  const { binary, netns, incoming } = options;
  return startQemuProcess({
    ...{ binary, netns, folder: ownedTempFolder() },
    machineArguments: [
      ...machineArguments(options),
      ...["-drive", `file=${escaped(options.disk)},if=none,id=disk,format=qcow2`],
      ...(incoming === true ? ["-incoming", "defer"] : []),
    ],
  });
}

/** All but the disk's file: two guests with equal ones can be loaded from each other's states. */
export function machineArguments({
  accelerator,
  image,
  shape,
}: Pick<GuestVmOptions, "accelerator" | "image" | "shape">): string[] {
  const client = `lab.client=${CLIENT_ADDRESS} lab.client-mac=${CLIENT_MAC}`;
  return [
    ...QEMU_ARGUMENTS,
    ...["-M", MACHINE, ...processor(accelerator)],
    ...["-m", `${shape.memoryMiB}M`, "-smp", `${shape.vcpus}`],
    ...["-kernel", image.kernel, "-initrd", image.initramfs],
    ...["-append", `console=ttyS0 quiet panic=-1 ${TIMER} lab.address=${GUEST_ADDRESS}/24 ${client}`],
    ...["-device", "virtio-blk-pci,drive=disk"],
    // The host's kernel must not carry packets past QEMU: their writes to RAM would be another cost than QEMU's own.
    ...["-netdev", `tap,id=network,ifname=${GUEST_TAP},script=no,downscript=no,vhost=off`],
    // Without a boot ROM, which is another in each version of QEMU.
    ...["-device", `virtio-net-pci,netdev=network,mac=${GUEST_MAC},romfile=`],
  ];
}

/** Its kernel as far as the first program: enough to see whether an accelerator runs it. Needs neither disk nor network. */
export function probeGuest({ kernel, initramfs }: GuestImage): ProbeGuest {
  const sign = "lab guest runs";
  const commandLine = `console=ttyS0 quiet panic=-1 ${TIMER} rdinit=/bin/busybox -- echo ${sign}`;
  return {
    ...{ name: "the lab's guest", sign, timeoutMs: PROBE_TIMEOUT_MS },
    machineArguments: [
      ...["-M", MACHINE, "-m", "256M", "-no-reboot"],
      ...["-kernel", kernel, "-initrd", initramfs, "-append", commandLine],
    ],
  };
}

/** A disk that begins as `backing` is and grows with what is written. */
export async function makeOverlay(
  path: string,
  backing: string,
  backingFormat: "raw" | "qcow2",
): Promise<void> {
  const create = ["create", "-q", "-f", "qcow2", "-b", backing, "-F", backingFormat, path];
  await promisify(execFile)("qemu-img", create);
}

/** Stops the guest and writes its RAM and devices to a file. What is on its disk then belongs to that state. */
export async function saveState({ qmp }: QemuProcess, path: string): Promise<void> {
  await qmp.execute("stop");
  await qmp.execute("migrate-set-parameters", { "max-bandwidth": UNLIMITED_BYTES_PER_SECOND });
  await qmp.execute("migrate", { uri: `exec:cat >${quote(path)}` });
  await waitUntil("the guest's state to be written", async () => {
    const { status, "error-desc": reason } = await qmp.execute("query-migrate");
    if (status === "failed" || status === "cancelled") {
      throw new Error(`The guest's state could not be written: ${reason ?? status}`);
    }
    return status === "completed";
  });
}

/** Into a QEMU that was started to wait for it; the guest goes on where it was stopped. */
export async function loadState({ qmp, stderrTail }: QemuProcess, path: string): Promise<void> {
  await qmp.execute("migrate-incoming", { uri: `exec:cat ${quote(path)}` });
  await waitUntil("the guest's state to be loaded", async () => {
    const { status } = await qmp.execute("query-status");
    if (status === "internal-error") throw new Error(`The guest's state was not loaded: ${stderrTail()}`);
    return status === "paused";
  });
  await qmp.execute("cont");
}

async function waitUntil(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + STATE_TIMEOUT_MS;
  while (!(await isSo())) {
    if (performance.now() > deadlineMs) throw new Error(`Waited ${STATE_TIMEOUT_MS} ms for ${what}`);
    await sleep(POLL_MS);
  }
}

/** A comma is doubled in QEMU's options. */
function escaped(path: string): string {
  return path.replaceAll(",", ",,");
}
