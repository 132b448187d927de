// Which page leaves the page cache when it is full. Knows slots (small integers), not pages or bytes.
// The cache asks for a victim only when every slot is occupied.

import { assert } from "../base/assert.ts";

/** Upper bound of what a policy may allocate for each slot: the page cache budgets it within its limit. */
export const POLICY_BYTES_PER_SLOT_MAX = 8;

export interface ReplacementPolicy {
  /** `slot` was empty and now holds a page. */
  inserted(slot: number): void;
  /** The page in `slot` was looked up or overwritten. */
  touched(slot: number): void;
  /** `slot` was emptied, by the cache's user or because it was the victim. */
  removed(slot: number): void;
  /** An occupied slot, the one whose page is expected to be missed least. It stays occupied until removed(). */
  victim(): number;
}

const EMPTY = 0;
const OCCUPIED = 1;
const REFERENCED = 2;

/**
 * CLOCK (second chance): a hand goes round the slots; a page touched since the hand last came by is passed once.
 * A new page counts as not yet referenced, so pages that come by once do not push out those that come back before
 * the hand does. Its weakness is LRU's: when every iteration dirties more pages than there are slots, in the same
 * order, each page has left when it comes back.
 */
export class ClockPolicy implements ReplacementPolicy {
  readonly #states: Uint8Array;
  #hand = 0;

  constructor(slotCount: number) {
    this.#states = new Uint8Array(slotCount);
  }

  inserted(slot: number): void {
    assert(this.#states[slot] === EMPTY, "inserted into an empty slot");
    this.#states[slot] = OCCUPIED;
  }

  touched(slot: number): void {
    assert((this.#states[slot] ?? EMPTY) !== EMPTY, "touched an occupied slot");
    this.#states[slot] = REFERENCED;
  }

  removed(slot: number): void {
    assert((this.#states[slot] ?? EMPTY) !== EMPTY, "removed from an occupied slot");
    this.#states[slot] = EMPTY;
  }

  victim(): number {
    const slotCount = this.#states.length;
    // In the first turn every reference is taken away at the latest, in the second one is found.
    for (let steps = 0; steps < 2 * slotCount; steps++) {
      const slot = this.#hand;
      this.#hand = slot + 1 === slotCount ? 0 : slot + 1;
      if (this.#states[slot] === OCCUPIED) return slot;
      if (this.#states[slot] === REFERENCED) this.#states[slot] = OCCUPIED;
    }
    assert(false, "a victim is asked for only when a slot is occupied");
  }
}
