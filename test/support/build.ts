// Compiles the sources once before the tests (vitest's globalSetup): the VM's worker thread, the kernels and the
// command-line program run from dist/, whatever runs from the sources. Errors of type are for `npm run check` to
// report.

import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { PACKAGE_ROOT } from "./package-root.ts";

export default function setup(): void {
  spawnSync(process.execPath, [join(PACKAGE_ROOT, "scripts/build.mjs"), "--if-needed"], { stdio: "inherit" });
}
