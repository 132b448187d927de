// Finds the QEMUs to test with: the installed one, and 10.0 as scripts/fetch-qemu10.sh unpacks it.
// With DELTAVEE_REQUIRE_QEMU=1 in the environment a missing one is an error, so that where QEMU is expected no
// test is skipped unseen.

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { toError } from "../../src/base/errors.ts";

export interface QemuBinary {
  /** "7.2", "10.0". */
  readonly name: string;
  readonly version: { readonly major: number; readonly minor: number; readonly micro: number };
  readonly path: string;
  /** Must come first on its command line: where an unpacked QEMU finds its firmware. */
  readonly leadingArguments: readonly string[];
}

/**
 * By name, e.g. "7.2" and "10.0"; of two with the same name the installed one. Prints what is missing and how to
 * get it. @throws Error if one is missing and DELTAVEE_REQUIRE_QEMU is 1
 */
export function findQemus(): Map<string, QemuBinary> {
  const found = new Map<string, QemuBinary>();
  const missing: string[] = [];
  try {
    add(found, askVersion("qemu-system-x86_64", []));
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
      add(found, askVersion(path, firmware));
    } catch (thrown) {
      missing.push(`QEMU 10.0 in ${folder} does not run (${toError(thrown).message})`);
    }
  } else {
    missing.push(`no QEMU 10.0 in ${folder}: run scripts/fetch-qemu10.sh`);
  }
  if (missing.length > 0) {
    const message = `Tests with real QEMU are left out: ${missing.join("; ")}`;
    if (process.env.DELTAVEE_REQUIRE_QEMU === "1") throw new Error(message);
    console.warn(message);
  }
  return found;
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
