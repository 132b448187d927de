// Whether KVM really works: /dev/kvm alone proves little, so the test guest is booted with it.

import { type KvmFailure, kvmFailure } from "../demo/hypervisor.ts";
import type { Finding } from "./finding.ts";

const SLOW =
  "Guests run under TCG, many times slower; before QEMU 10 that also loses writes of a guest that moves";

const ADVICE: Readonly<Record<KvmFailure["kind"], string>> = {
  absent:
    "On bare metal: load the kvm module, switch virtualization on in the firmware. In a VM: nested virtualization",
  forbidden: "Let this user have it: adduser USER kvm, then log in again",
  broken:
    "In containers and clouds the device may be there and not work. Start QEMU with -accel tcg, or move elsewhere",
};

/** `qemu`: the one to boot it with; undefined: there is none. */
export async function checkKvm(
  qemu: string | undefined,
  look: (qemu: string) => Promise<KvmFailure | undefined> = kvmFailure,
): Promise<Finding> {
  if (qemu === undefined) {
    const says = "not looked at: that takes a QEMU to boot a guest with";
    return { check: "kvm", level: "warning", says, advice: "Install QEMU, or name it (--qemu)" };
  }
  const failure = await look(qemu);
  if (failure === undefined)
    return { check: "kvm", level: "ok", says: `a small test guest boots with KVM (${qemu})` };
  const { kind, text } = failure;
  return {
    check: "kvm",
    // A host without it says so by itself. One whose guests hang does not.
    level: kind === "broken" ? "problem" : "warning",
    says: text,
    means: kind === "broken" ? "A guest that is started with -accel kvm here does not run" : SLOW,
    advice: ADVICE[kind],
    values: { kind },
  };
}
