// Finds the QEMUs of this host: the installed one, and 10.0 as scripts/fetch-qemu10.sh unpacks it.

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { toError } from "../base/errors.ts";

export interface QemuBinary {
  /** "7.2", "10.0". */
  readonly name: string;
  readonly version: { readonly major: number; readonly minor: number; readonly micro: number };
  readonly path: string;
  /** Must come first on its command line: where an unpacked QEMU finds its firmware. */
  readonly leadingArguments: readonly string[];
}

export interface FoundQemus {
  /** By name, e.g. "7.2" and "10.0"; of two with the same name the installed one. */
  readonly qemus: Map<string, QemuBinary>;
  /** What is not there and how to get it, one sentence each. */
  readonly missing: readonly string[];
}

export function findQemus(): FoundQemus {
  const qemus = new Map<string, QemuBinary>();
  const missing: string[] = [];
  try {
    add(qemus, askVersion("qemu-system-x86_64", []));
  } catch (thrown) {
    missing.push(
      `no installed qemu-system-x86_64 (${toError(thrown).message}): apt-get install qemu-system-x86`,
    );
  }
  const folder = qemu10Folder();
  const path = join(folder, "usr/bin/qemu-system-x86_64");
  if (existsSync(path)) {
    const firmware = ["qemu", "seabios"].flatMap((name) => ["-L", join(folder, "usr/share", name)]);
    try {
      add(qemus, askVersion(path, firmware));
    } catch (thrown) {
      missing.push(`QEMU 10.0 in ${folder} does not run (${toError(thrown).message})`);
    }
  } else {
    missing.push(`no QEMU 10.0 in ${folder}: run scripts/fetch-qemu10.sh`);
  }
  return { qemus, missing };
}

function add(found: Map<string, QemuBinary>, binary: QemuBinary): void {
  if (!found.has(binary.name)) found.set(binary.name, binary);
}

function qemu10Folder(): string {
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
  return process.env.DELTAVEE_QEMU10 ?? join(cache, "deltavee/qemu-10.0");
}

function askVersion(path: string, leadingArguments: readonly string[]): QemuBinary {
  const text = execFileSync(path, ["--version"], { encoding: "utf8", timeout: 10_000 });
  const [major, minor, micro] = (/version (\d+)\.(\d+)\.(\d+)/.exec(text) ?? []).slice(1).map(Number);
  if (major === undefined || minor === undefined || micro === undefined) {
    throw new Error(`${path} --version says: ${text}`);
  }
  return { name: `${major}.${minor}`, version: { major, minor, micro }, path, leadingArguments };
}
