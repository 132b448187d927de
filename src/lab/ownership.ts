// Who made what outside this process: the owner's pid is part of each name (namespaces, temporary folders), so that what
// a killed run has left can be told from what is in use, by anybody and with nothing else to keep.

import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TempFolder } from "./host-process.ts";

const FOLDER_PREFIX = "deltavee-lab-";

/** Names of this very process; others with its pid are of one that had the pid before. */
const own = new Set<string>();

/** "deltavee-lab-", "source" → "deltavee-lab-4711-source". */
export function ownedName(prefix: string, rest: string): string {
  const name = `${prefix}${process.pid}-${rest}`;
  own.add(name);
  return name;
}

/** Whether it is a name with this prefix whose owner is no more. */
export function isLeftover(name: string, prefix: string): boolean {
  if (!name.startsWith(prefix) || own.has(name)) return false;
  const pid = /^(\d+)-./.exec(name.slice(prefix.length))?.[1];
  return pid !== undefined && (Number(pid) === process.pid || !existsSync(`/proc/${pid}`));
}

/** Short enough a path for unix sockets in it, whose names end at 107 bytes. */
export function ownedTempFolder(): TempFolder {
  const path = mkdtempSync(join(tmpdir(), `${FOLDER_PREFIX}${process.pid}-`));
  own.add(path.slice(tmpdir().length + 1));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Those that killed runs have left. */
export function removeLeftoverFolders(): void {
  for (const name of readdirSync(tmpdir())) {
    if (isLeftover(name, FOLDER_PREFIX)) rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}
