// The lab's own C programs: lab/tools for this host, lab/guest for inside the guest. Compiled by the host's compiler into
// the cache, again whenever source, options or compiler change.

import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { UsageError } from "../base/errors.ts";
import { PACKAGE_ROOT } from "../base/package-root.ts";
import { cachedFolder, cacheKey } from "./cache.ts";

const OPTIONS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none"] as const;

/** Path of a program of lab/tools, compiled. @throws UsageError where there is no compiler */
export async function hostTool(name: string): Promise<string> {
  const source = join(PACKAGE_ROOT, "lab/tools", `${name}.c`);
  return join(await compiled([source], []), name);
}

/** A folder with every program of lab/guest, compiled to need no library. @throws UsageError without a compiler */
export function guestPrograms(): Promise<string> {
  const folder = join(PACKAGE_ROOT, "lab/guest");
  const sources = readdirSync(folder).filter((name) => name.endsWith(".c"));
  return compiled(
    sources.sort().map((name) => join(folder, name)),
    ["-static", "-pthread", "-s"],
  );
}

async function compiled(sources: readonly string[], extraOptions: readonly string[]): Promise<string> {
  const options = [...OPTIONS, ...extraOptions];
  const texts = sources.flatMap((path) => [basename(path), readFileSync(path)]);
  const key = cacheKey([await gcc(["--version"]), ...options, ...texts]);
  return cachedFolder(`programs-${key}`, async (folder) => {
    for (const source of sources) {
      await gcc([...options, "-o", join(folder, basename(source, ".c")), source]);
    }
  });
}

async function gcc(gccArguments: readonly string[]): Promise<string> {
  try {
    return (await promisify(execFile)("gcc", gccArguments)).stdout;
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") {
      throw new UsageError("The lab compiles its own programs: apt-get install gcc libc6-dev", { cause });
    }
    throw cause;
  }
}
