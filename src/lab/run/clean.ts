// Clears away what the lab has made outside of its results: what killed runs have left, and what it keeps in its cache.

import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { labCacheFolder } from "../cache.ts";
import { removeLeftovers } from "../hosts/hosts.ts";

/** Which takes minutes to be made again, and depends on no scenario. */
const OF_IMAGE = /^(image|base|programs)-/;

/**
 * Leftovers, warm states and what clients have kept; with `isAll` the guest's image too. Whoever calls holds the lab's
 * lock. Returns the names of what was removed from the cache.
 */
export async function clean(isAll: boolean, cacheFolder: string = labCacheFolder()): Promise<string[]> {
  await removeLeftovers();
  if (!existsSync(cacheFolder)) return [];
  const removed = readdirSync(cacheFolder).filter(
    (name) => name !== "lock" && (isAll || !OF_IMAGE.test(name)),
  );
  for (const name of removed) rmSync(join(cacheFolder, name), { recursive: true, force: true });
  return removed;
}
