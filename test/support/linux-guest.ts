// The Linux test guest (guest/linux): a kernel of Debian's, fetched once into the cache folder, and an initramfs
// built from its source. Both come from scripts that say on stderr what they do.

import { execFileSync } from "node:child_process";
import { homedir } from "node:os";
import { join } from "node:path";
import { toError } from "../../src/base/errors.ts";
import { PACKAGE_ROOT } from "./package-root.ts";
import type { QemuOptions } from "./qemu-vm.ts";

const TIMEOUT_MS = 300_000;

/**
 * What QEMU needs to boot it with a workload; undefined, with the reason printed, where it cannot be had.
 * @throws Error if it cannot be had and DELTAVEE_REQUIRE_QEMU is 1
 */
export function linuxGuest(workload: string): Pick<QemuOptions, "kernel" | "initrd" | "append"> | undefined {
  try {
    return {
      kernel: linuxKernel(),
      initrd: lastLine("build.sh", cacheFolder()),
      append: `console=ttyS0 quiet panic=-1 ${workload}`,
    };
  } catch (thrown) {
    const message = `Tests with the Linux guest are left out: ${toError(thrown).message}`;
    if (process.env.DELTAVEE_REQUIRE_QEMU === "1") throw new Error(message, { cause: thrown });
    console.warn(message);
    return undefined;
  }
}

/** Debian's cloud kernel alone. @throws Error where it cannot be had */
export function linuxKernel(): string {
  return lastLine("fetch-kernel.sh", cacheFolder());
}

function cacheFolder(): string {
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
  return join(cache, "deltavee/guest-linux");
}

/** Both scripts print the path of what they have made, last. */
function lastLine(script: string, folder: string): string {
  const path = join(PACKAGE_ROOT, "guest/linux", script);
  const stdio = ["ignore", "pipe", "pipe"] as const;
  const text = execFileSync(path, [folder], { encoding: "utf8", stdio: [...stdio], timeout: TIMEOUT_MS });
  return text.trimEnd().split("\n").at(-1)!;
}
