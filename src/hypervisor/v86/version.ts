// Which release of v86 this is, for people: what decides whether two sides understand each other is the compatibility
// text of the VM itself.

import { createRequire } from "node:module";

/** Without the name of the build, which is nothing to people. */
export function v86Version(): string {
  const manifest: { version: string } = createRequire(import.meta.url)("v86/package.json");
  return manifest.version.replace(/\+.*$/, "");
}
