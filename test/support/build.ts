// Compiles the sources once before the tests (vitest's globalSetup): the VM's worker thread and the command-line
// program run from dist/, whatever runs from the sources. Errors of type are for `npm run check` to report.

import { spawnSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "./package-root.ts";

export default function setup(): void {
  const builtMs = statSync(join(PACKAGE_ROOT, "dist/cli/main.js"), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (newestMs(join(PACKAGE_ROOT, "src")) <= builtMs) return;
  const tsc = join(PACKAGE_ROOT, "node_modules/typescript/bin/tsc");
  spawnSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], { cwd: PACKAGE_ROOT });
}

/** Of the sources in a folder and below; tests are not compiled. */
function newestMs(folder: string): number {
  let newest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) newest = Math.max(newest, newestMs(path));
    else if (!entry.name.endsWith(".test.ts")) newest = Math.max(newest, statSync(path).mtimeMs);
  }
  return newest;
}
