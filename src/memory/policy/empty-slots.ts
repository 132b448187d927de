// The empty slots of a policy that may put any page into any slot: those given back first, then those never used,
// in order, so that the cache's memory grows with its use.

import { assert } from "../../base/assert.ts";
import { NO_SLOT } from "./policy.ts";

export const EMPTY_SLOTS_BYTES_PER_SLOT = 4;

export class EmptySlots {
  /** A list threaded through the slots that were given back: the next one + 1, or 0. */
  readonly #next: Int32Array;
  #first = 0;
  #firstUnused = 0;

  constructor(slotCount: number) {
    this.#next = new Int32Array(slotCount);
  }

  take(): number {
    if (this.#first !== 0) {
      const slot = this.#first - 1;
      this.#first = this.#next[slot]!;
      return slot;
    }
    return this.#firstUnused < this.#next.length ? this.#firstUnused++ : NO_SLOT;
  }

  giveBack(slot: number): void {
    assert(slot >= 0 && slot < this.#firstUnused, "a slot given back was taken before");
    this.#next[slot] = this.#first;
    this.#first = slot + 1;
  }
}
