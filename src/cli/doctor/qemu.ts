// The QEMUs of this host, and what each allows: asked of a QEMU itself, by QMP, with no machine in it. What its version
// should be able to do does not count.

import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DeltaveeError, toError } from "../../base/errors.ts";
import { type QmpAddress, QmpClient } from "../../hypervisor/qemu/qmp.ts";
import { listRamBlocks } from "../../hypervisor/qemu/ram-map.ts";
import { deathWithoutKvm, lossWithoutKvm, WAYS_ROUND_DEATH } from "../../hypervisor/qemu/soundness.ts";
import type { Finding } from "./finding.ts";

const START_TIMEOUT_MS = 10_000;
const RETRY_EVERY_MS = 50;
const STDERR_CHARACTERS_MAX = 1024;
/** Where distributions that rename it have put it. */
const ELSEWHERE = ["/usr/libexec/qemu-kvm", "/usr/lib/qemu/qemu-kvm"];
const NAMES: Readonly<Record<string, string>> = {
  x64: "qemu-system-x86_64",
  arm64: "qemu-system-aarch64",
  ppc64: "qemu-system-ppc64",
  s390x: "qemu-system-s390x",
  riscv64: "qemu-system-riscv64",
};

export interface Abilities {
  /** "7.2.22" */
  readonly version: string;
  readonly package: string;
  /** Withheld until it is time: the downtime is ours to choose. */
  readonly switchoverAck: boolean;
  /** avail-switchover-bandwidth: QEMU reckons with the rate that it is told. */
  readonly bandwidth: boolean;
  readonly multifd: boolean;
  readonly postcopy: boolean;
}

/** Those that are to be found, each once. */
export function findQemuPaths(
  { arch, path }: { arch: string; path: string },
  isExecutable: (file: string) => boolean = canExecute,
  real: (file: string) => string = realpathSync,
): string[] {
  const names = [...new Set([NAMES[arch] ?? "qemu-system-x86_64", "qemu-system-x86_64", "qemu-kvm"])];
  const folders = path.split(delimiter).filter((folder) => folder.startsWith("/"));
  const candidates = [...names.flatMap((name) => folders.map((folder) => join(folder, name))), ...ELSEWHERE];
  const found = new Map<string, string>();
  for (const candidate of candidates) {
    if (!isExecutable(candidate)) continue;
    const target = real(candidate);
    if (!found.has(target)) found.set(target, candidate);
  }
  return [...found.values()];
}

export async function abilitiesOf(qmp: QmpClient): Promise<Abilities> {
  const [{ qemu, package: builtBy }, capabilities, parameters] = await Promise.all([
    qmp.execute("query-version"),
    qmp.execute("query-migrate-capabilities"),
    qmp.execute("query-migrate-parameters"),
  ]);
  const knows = (wanted: string) => capabilities.some(({ capability }) => capability === wanted);
  return {
    version: `${qemu.major}.${qemu.minor}.${qemu.micro}`,
    package: builtBy,
    switchoverAck: knows("switchover-ack"),
    bandwidth: parameters["avail-switchover-bandwidth"] !== undefined,
    multifd: knows("multifd"),
    postcopy: knows("postcopy-ram"),
  };
}

/** Starts it without a machine, asks, and ends it. @throws DeltaveeError when it does not run or does not answer */
export async function askBinary(path: string): Promise<Abilities> {
  // Short, since the name of a unix socket ends at 107 bytes.
  const folder = mkdtempSync(join(tmpdir(), "deltavee-doctor-"));
  const socket = join(folder, "qmp");
  const child = spawn(
    path,
    [
      "-machine",
      "none",
      "-nodefaults",
      "-display",
      "none",
      "-S",
      "-qmp",
      `unix:${socket},server=on,wait=off`,
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  try {
    const qmp = await connectWhenThere({ kind: "unix", path: socket }, child, path);
    try {
      return await abilitiesOf(qmp);
    } finally {
      qmp.close();
    }
  } finally {
    child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
}

async function connectWhenThere(address: QmpAddress, child: ChildProcess, path: string): Promise<QmpClient> {
  let said = "";
  child.stderr?.on("data", (text: Buffer) => {
    said = `${said}${text.toString()}`.slice(-STDERR_CHARACTERS_MAX);
  });
  let ended: string | undefined;
  child.once("error", (error) => {
    ended = `could not be started (${error.message})`;
  });
  // Not "exit": what it has said is to be there.
  child.once("close", (code, signal) => {
    ended ??= `ended with ${signal ?? `code ${code}`}`;
  });
  const deadlineMs = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    try {
      return await QmpClient.connect(address, { connectTimeoutMs: START_TIMEOUT_MS });
    } catch (thrown) {
      const why = said.trim() === "" ? "" : `: ${said.trim()}`;
      if (ended !== undefined) throw new DeltaveeError("HYPERVISOR_FAILED", `${path} ${ended}${why}`);
      if (performance.now() > deadlineMs) {
        const text = `${path} did not answer within ${START_TIMEOUT_MS / 1000} s`;
        throw new DeltaveeError("HYPERVISOR_FAILED", text, { cause: toError(thrown) });
      }
      await sleep(RETRY_EVERY_MS);
    }
  }
}

/** `what`: whose they are, a path or a monitor. */
export function judgeAbilities(what: string, abilities: Abilities): Finding {
  const { version, switchoverAck, bandwidth, multifd, postcopy } = abilities;
  const words: [boolean, string][] = [
    [switchoverAck, "switchover-ack"],
    [bandwidth, "avail-switchover-bandwidth"],
    [multifd, "multifd"],
    [postcopy, "postcopy-ram"],
  ];
  const [has, lacks] = [true, false].map((wanted) =>
    words.flatMap(([is, word]) => (is === wanted ? [word] : [])),
  ) as [string[], string[]];
  const can = has.length === 0 ? "none of what Deltavee asks for" : has.join(", ");
  const says = `QEMU ${version} (${what}): ${can}`;
  const values = { ...abilities, what };
  if (!switchoverAck) {
    return {
      check: "qemu",
      level: "warning",
      says: `${says}; not ${lacks.join(", ")}`,
      means:
        "It stops the guest by its own count, which Deltavee steers: --max-downtime is kept less exactly",
      advice:
        "Where that matters take a newer QEMU: since 8.1 they wait for Deltavee's word (switchover-ack)",
      values,
    };
  }
  return { check: "qemu", level: "ok", says, values };
}

export async function checkBinary(path: string, ask: typeof askBinary = askBinary): Promise<Finding> {
  try {
    return judgeAbilities(path, await ask(path));
  } catch (thrown) {
    return {
      check: "qemu",
      level: "problem",
      says: toError(thrown).message,
      means: "No VM can be moved from or to this host with it",
      advice: "Start it by hand to see what it lacks, or name another one (--qemu)",
    };
  }
}

export const NO_QEMU: Finding = {
  check: "qemu",
  level: "warning",
  says: "there is no QEMU where it is looked for",
  means: "VMs of the embedded hypervisor move (deltavee demo), others cannot be started here",
  advice: "Install it (Debian: qemu-system-x86), or name it (--qemu)",
};

/** The QEMU behind a monitor; also how much memory its guest has. */
export async function checkMonitor(
  address: QmpAddress,
  name: string,
): Promise<{ finding: Finding; guestRamBytes?: number }> {
  try {
    const qmp = await QmpClient.connect(address);
    try {
      const abilities = await abilitiesOf(qmp);
      const memory = await qmp.execute("query-memory-size-summary");
      const guestRamBytes = memory["base-memory"] + (memory["plugged-memory"] ?? 0);
      const finding = (await judgeSoundness(qmp, name, abilities)) ?? judgeAbilities(name, abilities);
      return {
        finding: { ...finding, check: "vm", values: { ...abilities, what: name, guestRamBytes } },
        guestRamBytes,
      };
    } finally {
      qmp.close();
    }
  } catch (thrown) {
    return {
      finding: {
        check: "vm",
        level: "problem",
        says: toError(thrown).message,
        means: "Deltavee moves a VM through its monitor",
        advice: "Start QEMU with -qmp unix:PATH,server=on,wait=off; a monitor serves one client at a time",
      },
    };
  }
}

/** Undefined: it does its guest no harm by itself, as far as is known. */
async function judgeSoundness(
  qmp: QmpClient,
  name: string,
  { version }: Abilities,
): Promise<Finding | undefined> {
  if ((await qmp.execute("query-kvm")).enabled) return undefined;
  const death = deathWithoutKvm(qmp.version, await listRamBlocks(qmp));
  if (death !== undefined) {
    return {
      check: "qemu",
      level: "problem",
      says: `${death} (${name})`,
      means: "Deltavee does not migrate it while it runs",
      advice: WAYS_ROUND_DEATH,
    };
  }
  const loss = lossWithoutKvm(version, (await qmp.execute("query-memdev")).length);
  if (loss === undefined) return undefined;
  return {
    check: "qemu",
    level: "warning",
    says: `${loss.replace(/\.$/, "")} (${name})`,
    means: "It does so whoever carries its migration",
    advice:
      "migrate --verify compares all RAM before the guest is given away; a guest that is paused loses nothing",
  };
}

function canExecute(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
