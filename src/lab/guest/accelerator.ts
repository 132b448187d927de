// Whether KVM really works here. /dev/kvm alone proves little: inside some clouds and containers it can be opened
// and the guest then hangs. So a guest is booted once.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { toError } from "../../base/errors.ts";
import { PACKAGE_ROOT } from "../../base/package-root.ts";
import { tempFolder } from "../host-process.ts";
import type { QemuBinary } from "../qemu-binaries.ts";
import { type Accelerator, startQemuProcess } from "./qemu-process.ts";

/** A bare-metal guest that boots in an instant, says READY, and has a heartbeat on its serial line (guest/README.md). */
export const GUEST_KERNEL = join(PACKAGE_ROOT, "guest/guest.elf");
const PROBE_TIMEOUT_MS = 5_000;
const MACHINE = ["-M", "pc", "-accel", "kvm", "-cpu", "host", "-m", "64M", "-kernel", GUEST_KERNEL] as const;

const probed = new Map<string, Promise<Accelerator>>();

/** "kvm" if a guest boots with it, else "tcg" with the reason printed. Asked once per binary and process. */
export function usableAccelerator(binary: QemuBinary): Promise<Accelerator> {
  const known = probed.get(binary.path);
  if (known !== undefined) return known;
  const accelerator = probe(binary);
  probed.set(binary.path, accelerator);
  return accelerator;
}

async function probe(binary: QemuBinary): Promise<Accelerator> {
  const withoutKvm = (reason: string): Accelerator => {
    console.warn(`QEMU ${binary.name} runs without KVM (slower): ${reason}`);
    return "tcg";
  };
  if (!existsSync("/dev/kvm")) return withoutKvm("there is no /dev/kvm");
  try {
    const qemu = await startQemuProcess({ binary, machineArguments: MACHINE, folder: tempFolder() });
    try {
      const heartbeat = ({ text }: { text: string }) => text.startsWith("HB ");
      await qemu.serial.waitFor(heartbeat, "heartbeat", { timeoutMs: PROBE_TIMEOUT_MS });
    } finally {
      await qemu.stop();
    }
    return "kvm";
  } catch (thrown) {
    return withoutKvm(toError(thrown).message);
  }
}
