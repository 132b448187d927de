// Where worker threads are started from. Node 20 runs no TypeScript, so even a process that runs from the sources
// (vitest) starts the compiled workers; the compiler does not rewrite paths in `new URL`, hence one place.

import { readdirSync, statSync } from "node:fs";
import { DeltaveeError } from "./errors.ts";

/**
 * `path`: of the worker's module in src/, without its extension.
 * @throws DeltaveeError INTERNAL when run from sources that have not been compiled since they changed
 */
export function workerLocation(path: string): URL {
  if (!import.meta.url.endsWith(".ts")) return new URL(`../${path}.js`, import.meta.url);
  const compiled = new URL(`../../dist/${path}.js`, import.meta.url);
  const compiledMs = statSync(compiled, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const newer = sourceNewerThan(compiledMs, new URL("../", import.meta.url));
  if (newer === undefined) return compiled;
  throw new DeltaveeError(
    "INTERNAL",
    `The compiled worker ${path} is missing or older than ${newer}: run "npm run build" first`,
  );
}

/** Any source: a worker imports from several folders. Tests are not compiled. */
function sourceNewerThan(timeMs: number, folder: URL): string | undefined {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) {
      const newer = sourceNewerThan(timeMs, new URL(`${entry.name}/`, folder));
      if (newer !== undefined) return newer;
    } else if (!entry.name.endsWith(".test.ts") && statSync(new URL(entry.name, folder)).mtimeMs > timeMs)
      return entry.name;
  }
  return undefined;
}
