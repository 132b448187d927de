// Set "node": heap of a running Node process (node-workload.ts) between snapshots half a second apart.

import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { startProcess } from "../../test/support/processes.ts";
import type { PageSet } from "./page-set.ts";
import { changedPagesOf } from "./process-memory.ts";

const GAPS_MS = [500, 500, 500];
/** The heap has its final size and the functions are compiled by then. */
const WARM_UP_MS = 3_000;

export async function nodeHeap(): Promise<PageSet> {
  const workload = fileURLToPath(new URL("./node-workload.js", import.meta.url));
  let ready = (): void => {};
  const isReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  const child = await startProcess(process.execPath, [workload], { onStdout: () => ready() });
  try {
    const ended = child.exited.then(() => {
      throw new Error(`The Node workload ended: ${child.stderrTail()}`);
    });
    await Promise.race([isReady, ended]);
    await sleep(WARM_UP_MS);
    const collector = await changedPagesOf(child.pid, GAPS_MS);
    return {
      name: "node",
      description: `heap of a Node ${process.versions.node} process: session store with LRU eviction, JSON, strings; 0.5 s apart`,
      kind: "heap",
      ...collector.pages,
    };
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}
