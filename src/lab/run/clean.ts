// Clears away what the lab has made outside of its results: what killed runs have left, and what it keeps in its cache.

import { existsSync, readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { labCacheFolder } from "../cache.ts";
import { removeLeftovers } from "../hosts/hosts.ts";

/** Which takes minutes to be made again, and depends on no scenario. */
const OF_IMAGE = /^(image|base|programs)-/;

/**
 * Leftovers, warm states and what clients have kept; with `isAll` the guest's image too. Whoever calls holds the lab's
 * lock. Returns the names of what was removed from the cache. When `signal` aborts, what is left is left whole.
 */
export async function clean(
  isAll: boolean,
  signal: AbortSignal | undefined = undefined,
  cacheFolder: string = labCacheFolder(),
): Promise<string[]> {
  await removeLeftovers();
  if (!existsSync(cacheFolder)) return [];
  const removed = readdirSync(cacheFolder).filter(
    (name) => name !== "lock" && (isAll || !OF_IMAGE.test(name)),
  );
  for (const name of removed) {
    signal?.throwIfAborted();
    await rm(join(cacheFolder, name), { recursive: true, force: true });
  }
  return removed;
}
