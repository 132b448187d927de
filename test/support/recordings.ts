// What protocol versions before have said, as they have recorded it themselves (test/fixtures/protocol).

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "./package-root.ts";
import type { Recording } from "./record-protocol.ts";

const FOLDER = join(PACKAGE_ROOT, "test/fixtures/protocol");

/** Says what each of them is. */
export const RECORDINGS_PAGE: string = readFileSync(join(FOLDER, "README.md"), "utf8");

/** By file name. */
export function readRecordings(): [string, Recording][] {
  return readdirSync(FOLDER)
    .filter((name) => name.endsWith(".json"))
    .map((name) => [name, JSON.parse(readFileSync(join(FOLDER, name), "utf8"))]);
}
