// Whether KVM really works here. /dev/kvm alone proves little: inside some clouds and containers it can be opened
// and the guest then hangs, or a small guest runs and an operating system hangs. So the very guest is booted once.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { toError } from "../../base/errors.ts";
import { PACKAGE_ROOT } from "../../base/package-root.ts";
import { tempFolder } from "../host-process.ts";
import type { QemuBinary } from "../qemu-binaries.ts";
import { type Accelerator, processor, startQemuProcess } from "./qemu-process.ts";

/** What is booted to find out. */
export interface ProbeGuest {
  /** Of each guest another: what KVM can do for one it may not be able to do for the next. */
  readonly name: string;
  /** All but the accelerator and the processor. */
  readonly machineArguments: readonly string[];
  /** Begins a line on its serial port once it runs. */
  readonly sign: string;
  readonly timeoutMs: number;
}

/** A bare-metal guest that boots in an instant, says READY, and has a heartbeat on its serial line (guest/README.md). */
export const GUEST_KERNEL = join(PACKAGE_ROOT, "guest/guest.elf");
const TEST_GUEST: ProbeGuest = {
  name: "the test guest",
  machineArguments: ["-M", "pc", "-m", "64M", "-kernel", GUEST_KERNEL],
  // Where KVM half works the first heartbeat comes, and then QEMU reports an internal error of KVM's.
  sign: "HB 10 ",
  timeoutMs: 5_000,
};

const probed = new Map<string, Promise<Accelerator>>();

/** "kvm" if the guest boots with it, else "tcg" with the reason printed. Asked once per binary, guest and process. */
export function usableAccelerator(binary: QemuBinary, guest = TEST_GUEST): Promise<Accelerator> {
  const key = `${binary.path} ${guest.name}`;
  const known = probed.get(key);
  if (known !== undefined) return known;
  const accelerator = probe(binary, guest);
  probed.set(key, accelerator);
  return accelerator;
}

async function probe(binary: QemuBinary, guest: ProbeGuest): Promise<Accelerator> {
  const withoutKvm = (reason: string): Accelerator => {
    console.warn(`QEMU ${binary.name} runs without KVM (slower): ${reason}`);
    return "tcg";
  };
  if (!existsSync("/dev/kvm")) return withoutKvm("there is no /dev/kvm");
  try {
    await bootOnce(binary, guest, "kvm");
    return "kvm";
  } catch (thrown) {
    return withoutKvm(toError(thrown).message);
  }
}

/** @throws Error when there is no sign of life in time, with what it said */
export async function bootOnce(
  binary: QemuBinary,
  guest: ProbeGuest,
  accelerator: Accelerator,
): Promise<void> {
  const machineArguments = [...guest.machineArguments, ...processor(accelerator)];
  const qemu = await startQemuProcess({ binary, machineArguments, folder: tempFolder() });
  try {
    const isSign = ({ text }: { text: string }) => text.startsWith(guest.sign);
    await qemu.serial.waitFor(isSign, `sign of life of ${guest.name}`, { timeoutMs: guest.timeoutMs });
  } finally {
    await qemu.stop();
  }
}
