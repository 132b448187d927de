#!/usr/bin/env node
// Writes man/deltavee.1 anew from the command line itself. Needs a build: `npm run build && node scripts/man.mjs`.
// A test says when it has to be.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { manPage } from "../dist/cli/man.js";
import { programFor } from "../dist/cli/program.js";

const folder = join(dirname(dirname(fileURLToPath(import.meta.url))), "man");
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, "deltavee.1"), manPage(await programFor([])));
