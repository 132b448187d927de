// One run at a time on a machine, whoever starts it: two would share the processors, and measure each other. The file
// names its owner from the moment in which it is there; the right to replace that of a dead owner is a lock, too.

import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { UsageError } from "../../base/errors.ts";

export interface Lock {
  /** Idempotent. */
  release(): void;
}

/** A lock whose owner has ended is taken over. @throws UsageError while its owner lives */
export function takeLock(path: string, pid: number = process.pid): Lock {
  mkdirSync(dirname(path), { recursive: true });
  for (;;) {
    if (create(path, pid)) return { release: () => releaseOwn(path, pid) };
    const owner = ownerOf(path);
    if (owner !== undefined && owner !== pid && isAlive(owner)) {
      throw new UsageError(`The lab is in use by process ${owner}: one run at a time (${path})`);
    }
    // Two that have both found it left behind: the second must not replace that of the first.
    const right = takeLock(`${path}.after-${owner ?? "nobody"}`, pid);
    try {
      if (ownerOf(path) === owner) replace(path, pid);
    } finally {
      right.release();
    }
    if (ownerOf(path) === pid) return { release: () => releaseOwn(path, pid) };
  }
}

/** False: there is one already. */
function create(path: string, pid: number): boolean {
  const own = ownFile(path, pid);
  try {
    linkSync(own, path);
    return true;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw thrown;
  } finally {
    rmSync(own, { force: true });
  }
}

function replace(path: string, pid: number): void {
  renameSync(ownFile(path, pid), path);
}

function ownFile(path: string, pid: number): string {
  const own = `${path}.of-${pid}`;
  writeFileSync(own, `${pid}\n`);
  return own;
}

function releaseOwn(path: string, pid: number): void {
  if (ownerOf(path) === pid) rmSync(path, { force: true });
}

/** Undefined where nothing sensible stands, or nothing. */
function ownerOf(path: string): number | undefined {
  try {
    const pid = Number(readFileSync(path, "utf8"));
    return Number.isInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    return (thrown as NodeJS.ErrnoException).code === "EPERM";
  }
}
