// Where the VM's worker thread is started from. Node 20 runs no TypeScript, so even a process that runs from the
// sources (vitest) starts the compiled worker; the compiler does not rewrite paths in `new URL`, hence one place.

import { readdirSync, statSync } from "node:fs";
import { DeltaveeError } from "../../base/errors.ts";

/** @throws DeltaveeError HYPERVISOR_FAILED when run from sources that have not been compiled since they changed. */
export function workerLocation(): URL {
  if (!import.meta.url.endsWith(".ts")) return new URL("vm-worker.js", import.meta.url);
  const sources = new URL("./", import.meta.url);
  const compiled = new URL("../../../dist/hypervisor/v86/vm-worker.js", sources);
  const compiledMs = statSync(compiled, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  for (const name of readdirSync(sources)) {
    if (name.endsWith(".test.ts") || statSync(new URL(name, sources)).mtimeMs <= compiledMs) continue;
    throw new DeltaveeError(
      "HYPERVISOR_FAILED",
      `The compiled VM worker is missing or older than ${name}: run "npm run build" first`,
    );
  }
  return compiled;
}
