// CLOCK (second chance): a hand goes round the slots; a page touched since the hand last came by is passed once.
// A new page counts as not yet referenced, so pages that come by once do not push out those that come back before
// the hand does. Its weakness is LRU's: when every iteration dirties more pages than there are slots, in the same
// order, each page has left when it comes back.

import { assert } from "../../base/assert.ts";
import { EMPTY_SLOTS_BYTES_PER_SLOT, EmptySlots } from "./empty-slots.ts";
import { type CachePolicy, NO_SLOT, type PolicyKind } from "./policy.ts";

const EMPTY = 0;
const OCCUPIED = 1;
const REFERENCED = 2;

class ClockPolicy implements CachePolicy {
  readonly #states: Uint8Array;
  readonly #empty: EmptySlots;
  #hand = 0;

  constructor(slotCount: number) {
    this.#states = new Uint8Array(slotCount);
    this.#empty = new EmptySlots(slotCount);
  }

  admit(_page: number, mayEvict: boolean): number {
    let slot = this.#empty.take();
    if (slot === NO_SLOT && mayEvict) slot = this.#victim();
    if (slot !== NO_SLOT) this.#states[slot] = OCCUPIED;
    return slot;
  }

  touched(slot: number): void {
    assert((this.#states[slot] ?? EMPTY) !== EMPTY, "touched an occupied slot");
    this.#states[slot] = REFERENCED;
  }

  removed(slot: number): void {
    assert((this.#states[slot] ?? EMPTY) !== EMPTY, "removed from an occupied slot");
    this.#states[slot] = EMPTY;
    this.#empty.giveBack(slot);
  }

  iterationBegan(): void {}

  /** Called when every slot is occupied: in the first turn each reference is taken away, in the second one is found. */
  #victim(): number {
    for (;;) {
      const slot = this.#hand;
      this.#hand = slot + 1 === this.#states.length ? 0 : slot + 1;
      if (this.#states[slot] === OCCUPIED) return slot;
      this.#states[slot] = OCCUPIED;
    }
  }
}

export const CLOCK: PolicyKind = {
  name: "clock",
  bytesPerSlot: 1 + EMPTY_SLOTS_BYTES_PER_SLOT,
  bytesPerPage: 0,
  make: (slotCount) => new ClockPolicy(slotCount),
};
