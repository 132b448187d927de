// All sets of dirtied pages that benchmarks run on: the real ones from the cache folder, made when they are not
// there yet, and the generated ones.

import { nodeHeap } from "./node-heap.ts";
import { loadSet, type PageSet, saveSet } from "./page-set.ts";
import { redisHeap } from "./redis-heap.ts";
import { syntheticSets } from "./synthetic.ts";
import { vmRam } from "./vm-ram.ts";

const REAL: Readonly<Record<string, () => Promise<PageSet | undefined>>> = {
  vm: vmRam,
  node: nodeHeap,
  redis: redisHeap,
};

/** Real sets first. Which of them cannot be made on this machine is said on stderr. */
export async function pageSets(rebuild: boolean): Promise<PageSet[]> {
  const sets: PageSet[] = [];
  for (const [name, make] of Object.entries(REAL)) {
    let set = rebuild ? undefined : loadSet(name);
    if (set === undefined) {
      console.error(`taking snapshots for set ${name}`);
      set = await make();
      if (set !== undefined) saveSet(set);
    }
    if (set !== undefined) sets.push(set);
  }
  return [...sets, ...syntheticSets()];
}
