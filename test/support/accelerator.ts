// Whether KVM really works here. /dev/kvm alone proves little: inside some clouds and containers it can be opened
// and the guest then hangs. So the test guest is booted once.

import { existsSync } from "node:fs";
import { toError } from "../../src/base/errors.ts";
import type { QemuBinary } from "./qemu-binaries.ts";
import { type Accelerator, startQemu } from "./qemu-vm.ts";

const PROBE_TIMEOUT_MS = 5_000;

const probed = new Map<string, Promise<Accelerator>>();

/** "kvm" if the test guest boots with it, else "tcg" with the reason printed. Asked once per binary and process. */
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
    const vm = await startQemu({ binary, memoryMiB: 64, accelerator: "kvm" });
    try {
      await vm.waitForReady(PROBE_TIMEOUT_MS);
      await vm.waitForHeartbeats(3, PROBE_TIMEOUT_MS);
    } finally {
      await vm.stop();
    }
    return "kvm";
  } catch (thrown) {
    return withoutKvm(toError(thrown).message);
  }
}
