// Which hypervisor the demo runs on, and whether it really runs here.

import { constants, existsSync } from "node:fs";
import { access } from "node:fs/promises";
import { DeltaveeError, toError, UsageError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";
import { lossWithoutKvm } from "../../hypervisor/qemu/soundness.ts";
import { Host } from "./host.ts";
import type { HypervisorSpec } from "./messages.ts";
import { qemuVersion } from "./qemu-vm.ts";

export type HypervisorChoice = "auto" | "v86" | "qemu";

export const QEMU_DEFAULT = "qemu-system-x86_64";
const PROBE_MEMORY_BYTES = 64 * 1024 * 1024;
const PROBE_OPTIONS = "ws=4 rate=0";
/**
 * What cannot run v86 says so at once, so that nothing but a busy machine takes long: it gets the time that the run
 * itself would give it.
 */
const V86_PROBE_TIMEOUT_MS = 60_000;
/** Where KVM does not work the guest hangs without a word, and this is waited for in vain. */
const KVM_PROBE_TIMEOUT_MS = 5000;

export interface ChosenHypervisor {
  readonly spec: HypervisorSpec;
  /** For people: which, and why. */
  readonly says: string;
  /** A sentence: what may go wrong that is nobody's fault here. */
  readonly warning?: string;
}

/** What is asked of the machine. */
export interface Probes {
  /** "7.2.22", or undefined when there is no QEMU that runs at the path. */
  qemuVersion(path: string): Promise<string | undefined>;
  kvmFailure(path: string): Promise<KvmFailure | undefined>;
  /** Why v86 does not boot a guest within so long, if it does not. */
  v86Failure(timeoutMs: number): Promise<Error | undefined>;
}

/**
 * @throws UsageError when a QEMU was asked for and there is none
 * @throws DeltaveeError HYPERVISOR_FAILED when none was asked for and none is to be trusted with a guest
 */
export async function chooseHypervisor(
  choice: HypervisorChoice,
  qemuPath: string,
  probes: Probes = { qemuVersion, kvmFailure, v86Failure },
): Promise<ChosenHypervisor> {
  if (choice === "v86") return { spec: { kind: "v86" }, says: "v86, embedded" };
  if (choice === "qemu") return qemu(qemuPath, probes);
  const version = await probes.qemuVersion(qemuPath);
  const failure = await probes.v86Failure(V86_PROBE_TIMEOUT_MS);
  if (failure === undefined) {
    const alternative = version === undefined ? "needs no QEMU" : `--hypervisor qemu takes QEMU ${version}`;
    return { spec: { kind: "v86" }, says: `v86, embedded (${alternative})` };
  }
  const why = `the embedded v86 does not run here: ${failure.message}`;
  if (version === undefined) throw new DeltaveeError("HYPERVISOR_FAILED", `No hypervisor: ${why}`);
  const chosen = await qemu(qemuPath, probes);
  // Who asks for it by name is warned; nobody is given it unasked.
  if (chosen.warning !== undefined) {
    throw new DeltaveeError(
      "HYPERVISOR_FAILED",
      `No hypervisor that keeps the guest whole: ${why}; there is ${chosen.says}. ${chosen.warning} ` +
        "--hypervisor qemu takes it all the same.",
    );
  }
  return { ...chosen, says: `${chosen.says}; ${why}` };
}

async function qemu(path: string, probes: Probes): Promise<ChosenHypervisor> {
  const version = await probes.qemuVersion(path);
  if (version === undefined) {
    throw new UsageError(
      `No QEMU that runs at "${path}": install it (Debian: qemu-system-x86), or give its path by --qemu`,
    );
  }
  const withoutKvm = await probes.kvmFailure(path);
  const accelerator = withoutKvm === undefined ? "kvm" : "tcg";
  // Why it does not is what deltavee doctor tells.
  const why = withoutKvm?.kind === "broken" ? "a test guest did not boot with it" : withoutKvm?.text;
  const warning = accelerator === "tcg" ? lossWithoutKvm(version) : undefined;
  const how = why === undefined ? "with KVM" : `without KVM (${why})`;
  return {
    spec: { kind: "qemu", path, accelerator },
    says: `QEMU ${version}, ${how}`,
    ...(warning === undefined ? {} : { warning }),
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
  const failure = await bootFailure({ kind: "qemu", path, accelerator: "kvm" }, KVM_PROBE_TIMEOUT_MS);
  if (failure === undefined) return undefined;
  return { kind: "broken", text: `a test guest did not boot with KVM: ${failure.message}` };
}

function v86Failure(timeoutMs: number): Promise<Error | undefined> {
  return bootFailure({ kind: "v86" }, timeoutMs);
}

/** Boots the guest once and ends it. Resolves to why that did not work, if it did not. */
async function bootFailure(hypervisor: HypervisorSpec, timeoutMs: number): Promise<Error | undefined> {
  let said = "";
  let look = (): void => {};
  const host = new Host("source", (report) => {
    if (report.type === "serial") said += report.text;
    look();
  });
  let timer: NodeJS.Timeout | undefined;
  const timedOut = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      const text = `A test guest did not boot within ${formatMs(timeoutMs)}`;
      reject(new DeltaveeError("HYPERVISOR_FAILED", text));
    }, timeoutMs);
  });
  const beats = new Promise<void>((resolve) => {
    look = () => {
      // Where KVM half works the first heartbeat comes, and then QEMU reports an internal error of KVM's.
      if (/^HB 10 /m.test(said)) resolve();
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
