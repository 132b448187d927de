// Which hypervisor the demo runs on, and whether it really runs here.

import { constants, existsSync } from "node:fs";
import { access } from "node:fs/promises";
import { DeltaveeError, toError, UsageError } from "../../base/errors.ts";
import { Host } from "./host.ts";
import type { HypervisorSpec } from "./messages.ts";
import { qemuVersion } from "./qemu-vm.ts";

export type HypervisorChoice = "auto" | "v86" | "qemu";

export const QEMU_DEFAULT = "qemu-system-x86_64";
const PROBE_MEMORY_BYTES = 64 * 1024 * 1024;
const PROBE_OPTIONS = "ws=4 rate=0";
const PROBE_TIMEOUT_MS = 5000;

/** Measured: none of many runs of 10.0 lost a write, while half of those of 7.2 did; in between is not known. */
const QEMU_MAJOR_SOUND = 10;
const LOSES_WRITES =
  "Without KVM, QEMU before version 10 loses writes of the guest in migrations of its own making: " +
  "damaged memory below may be its doing.";

export interface ChosenHypervisor {
  readonly spec: HypervisorSpec;
  /** For people: which, and why. */
  readonly says: string;
  /** What may go wrong that is nobody's fault here. */
  readonly warning?: string;
}

/** @throws UsageError when a QEMU was asked for and there is none */
export async function chooseHypervisor(
  choice: HypervisorChoice,
  qemuPath: string,
): Promise<ChosenHypervisor> {
  if (choice === "v86") return { spec: { kind: "v86" }, says: "v86, embedded" };
  if (choice === "qemu") return qemu(qemuPath);
  const version = await qemuVersion(qemuPath);
  const failure = await bootFailure({ kind: "v86" });
  if (failure === undefined) {
    const alternative = version === undefined ? "needs no QEMU" : `--hypervisor qemu takes QEMU ${version}`;
    return { spec: { kind: "v86" }, says: `v86, embedded (${alternative})` };
  }
  if (version === undefined) throw failure;
  const chosen = await qemu(qemuPath);
  return { ...chosen, says: `${chosen.says}; the embedded v86 does not run here: ${failure.message}` };
}

async function qemu(path: string): Promise<ChosenHypervisor> {
  const version = await qemuVersion(path);
  if (version === undefined) {
    throw new UsageError(
      `No QEMU that runs at "${path}": install it (Debian: qemu-system-x86), or give its path by --qemu`,
    );
  }
  const withoutKvm = await kvmFailure(path);
  const accelerator = withoutKvm === undefined ? "kvm" : "tcg";
  // Why it does not is what deltavee doctor tells.
  const why = withoutKvm?.kind === "broken" ? "a test guest did not boot with it" : withoutKvm?.text;
  const how = why === undefined ? "with KVM" : `without KVM (${why})`;
  return {
    spec: { kind: "qemu", path, accelerator },
    says: `QEMU ${version}, ${how}`,
    ...(accelerator === "tcg" && Number.parseInt(version, 10) < QEMU_MAJOR_SOUND
      ? { warning: LOSES_WRITES }
      : {}),
  };
}

export interface KvmFailure {
  readonly kind: "absent" | "forbidden" | "broken";
  readonly text: string;
}

/** /dev/kvm alone proves little: in some clouds and containers it can be opened, and the guest then hangs. */
export async function kvmFailure(path: string): Promise<KvmFailure | undefined> {
  if (!existsSync("/dev/kvm")) return { kind: "absent", text: "there is no /dev/kvm" };
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return { kind: "forbidden", text: "/dev/kvm is not for this user" };
  }
  const failure = await bootFailure({ kind: "qemu", path, accelerator: "kvm" });
  if (failure === undefined) return undefined;
  return { kind: "broken", text: `a test guest did not boot with KVM: ${failure.message}` };
}

/** Boots the guest once and ends it. Resolves to why that did not work, if it did not. */
async function bootFailure(hypervisor: HypervisorSpec): Promise<Error | undefined> {
  let said = "";
  let look = (): void => {};
  const host = new Host("source", (report) => {
    if (report.type === "serial") said += report.text;
    look();
  });
  let timer: NodeJS.Timeout | undefined;
  const timedOut = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new DeltaveeError("HYPERVISOR_FAILED", "A test guest did not boot")),
      PROBE_TIMEOUT_MS,
    );
  });
  const beats = new Promise<void>((resolve) => {
    look = () => {
      if (/^HB /m.test(said)) resolve();
    };
  });
  try {
    const vm = {
      side: "source" as const,
      hypervisor,
      memoryBytes: PROBE_MEMORY_BYTES,
      guestOptions: PROBE_OPTIONS,
    };
    host.send({ type: "open", vm });
    host.send({ type: "run" });
    await Promise.race([beats, timedOut, host.failed]);
    return undefined;
  } catch (thrown) {
    return toError(thrown);
  } finally {
    clearTimeout(timer);
    await host.close();
  }
}
