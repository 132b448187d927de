// What the lab makes once and keeps: under a key of everything that it is made from, so that it is made again when any
// of that changes; whole or not at all, whoever else makes the same at the same time, and whatever ends a maker.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isLeftover, ownedName } from "./ownership.ts";

const KEY_CHARACTERS = 16;
const LOOK_EVERY_MS = 250;

export function labCacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "deltavee/lab");
}

/** Of texts and bytes, in order and with their borders. */
export function cacheKey(parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) {
    const bytes = Buffer.from(part);
    hash.update(`${bytes.length}:`).update(bytes);
  }
  return hash.digest("hex").slice(0, KEY_CHARACTERS);
}

/**
 * The folder `name` of the cache. If it is not there, `make` fills a folder that becomes it when all is done; while
 * another process makes it, that one is waited for.
 */
export async function cachedFolder(
  name: string,
  make: (folder: string) => Promise<void>,
  cacheFolder: string = labCacheFolder(),
): Promise<string> {
  const folder = join(cacheFolder, name);
  const prefix = `${name}.making-`;
  mkdirSync(cacheFolder, { recursive: true });
  for (let others = true; others; ) {
    if (existsSync(folder)) return folder;
    const makers = readdirSync(cacheFolder).filter((entry) => entry.startsWith(prefix));
    for (const left of makers.filter((maker) => isLeftover(maker, prefix))) {
      rmSync(join(cacheFolder, left), { recursive: true, force: true });
    }
    others = makers.some((maker) => !isLeftover(maker, prefix));
    if (others) await sleep(LOOK_EVERY_MS);
  }
  const making = join(cacheFolder, ownedName(prefix, "folder"));
  mkdirSync(making, { recursive: true });
  try {
    await make(making);
    // Two may have begun at the same moment: the first to end has made it.
    if (!existsSync(folder)) renameSync(making, folder);
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
  return folder;
}
