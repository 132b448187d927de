// A fixed number of equal regions of kernel memory, for output that must stay as it is until the operating system
// has taken it.

import { assert } from "../base/assert.ts";
import type { KernelMemory } from "./memory.ts";

export const NO_REGION = -1;

export class RegionPool {
  readonly regionBytes: number;
  readonly #free: number[] = [];

  constructor(memory: KernelMemory, regionCount: number, regionBytes: number) {
    this.regionBytes = regionBytes;
    for (let i = 0; i < regionCount; i++) this.#free.push(memory.allocate(regionBytes, 4096));
  }

  get isEmpty(): boolean {
    return this.#free.length === 0;
  }

  /** Address of a region that is the caller's until it gives it back, or NO_REGION. */
  take(): number {
    return this.#free.pop() ?? NO_REGION;
  }

  give(address: number): void {
    assert(!this.#free.includes(address), "a region is given back once");
    this.#free.push(address);
  }
}
