// One run at a time on a machine, whoever starts it: two would share the processors, and measure each other.

import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
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
    rmSync(path, { force: true });
  }
}

/** False: there is one already. */
function create(path: string, pid: number): boolean {
  try {
    const file = openSync(path, "wx");
    writeSync(file, `${pid}\n`);
    closeSync(file);
    return true;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw thrown;
  }
}

function releaseOwn(path: string, pid: number): void {
  if (ownerOf(path) === pid) rmSync(path, { force: true });
}

/** Undefined where nothing sensible stands, as when its owner was killed while it wrote. */
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
