// Version of this program, from its package.json: there is one place where it is written.

import { createRequire } from "node:module";

// Both from src/base (tests) and from dist/base the package's root is two folders up.
const manifest: { version: string } = createRequire(import.meta.url)("../../package.json");

export const version: string = manifest.version;
