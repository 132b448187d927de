// Where this package lies. Modules run from their sources, and compiled into dist/ or build/: what
// they need of the package is therefore found from the package's own folder, not from that of a module.

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const PACKAGE_ROOT = findPackageRoot(dirname(fileURLToPath(import.meta.url)));

function findPackageRoot(folder: string): string {
  if (existsSync(join(folder, "package.json"))) return folder;
  const parent = dirname(folder);
  if (parent === folder) throw new Error("This module lies in no package");
  return findPackageRoot(parent);
}
