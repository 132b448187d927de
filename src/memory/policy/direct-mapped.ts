// Direct-mapped, as QEMU's own xbzrle cache is (migration/page_cache.c of QEMU 10): each page has the one slot that
// its number modulo the slots says, and a page is safe there until it has not been dirtied for LIFETIME iterations.
// Otherwise than there, the number of slots need not be a power of two, and iteration 0 is cached too.

import { assert } from "../../base/assert.ts";
import { type CachePolicy, NO_SLOT, type PolicyKind } from "./policy.ts";

const LIFETIME_ITERATIONS = 2;
const EMPTY = 0;

class DirectMappedPolicy implements CachePolicy {
  /** Iteration of the last use; EMPTY before all of them. */
  readonly #usedIn: Int32Array;
  #iteration = 1;

  constructor(slotCount: number) {
    this.#usedIn = new Int32Array(slotCount);
  }

  admit(page: number, mayEvict: boolean): number {
    const slot = page % this.#usedIn.length;
    const usedIn = this.#usedIn[slot]!;
    if (usedIn !== EMPTY && (!mayEvict || usedIn + LIFETIME_ITERATIONS > this.#iteration)) return NO_SLOT;
    this.#usedIn[slot] = this.#iteration;
    return slot;
  }

  touched(slot: number): void {
    assert((this.#usedIn[slot] ?? EMPTY) !== EMPTY, "touched an occupied slot");
    this.#usedIn[slot] = this.#iteration;
  }

  removed(slot: number): void {
    assert((this.#usedIn[slot] ?? EMPTY) !== EMPTY, "removed from an occupied slot");
    this.#usedIn[slot] = EMPTY;
  }

  iterationBegan(): void {
    this.#iteration++;
  }
}

export const DIRECT_MAPPED: PolicyKind = {
  name: "direct",
  bytesPerSlot: 4,
  bytesPerPage: 0,
  make: (slotCount) => new DirectMappedPolicy(slotCount),
};
