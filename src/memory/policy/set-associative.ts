// Set-associative LRU: each page has a few slots (ways) that its number modulo the sets says; among them the page
// that was used longest ago leaves. Svärd et al. 2011 used two ways.

import { assert } from "../../base/assert.ts";
import { type CachePolicy, NO_SLOT, type PolicyKind } from "./policy.ts";

/** Ranks within a set: EMPTY, or 1 for the page used last and so on. */
const EMPTY = 0;
const NEWEST = 1;

class SetAssociativePolicy implements CachePolicy {
  readonly #ways: number;
  readonly #sets: number;
  /** Set by set. Slots that fill no whole set stay unused. */
  readonly #ranks: Uint8Array;

  constructor(slotCount: number, ways: number) {
    this.#ways = Math.min(ways, slotCount);
    this.#sets = Math.floor(slotCount / this.#ways);
    this.#ranks = new Uint8Array(this.#sets * this.#ways);
  }

  admit(page: number, mayEvict: boolean): number {
    const first = (page % this.#sets) * this.#ways;
    let slot = NO_SLOT;
    for (let way = 0; way < this.#ways && slot === NO_SLOT; way++) {
      if (this.#ranks[first + way] === EMPTY) slot = first + way;
    }
    if (slot === NO_SLOT) {
      if (!mayEvict) return NO_SLOT;
      slot = first;
      while (this.#ranks[slot] !== this.#ways) slot++;
    }
    this.#renew(slot, this.#ranks[slot] === EMPTY ? this.#ways : this.#ranks[slot]!);
    return slot;
  }

  touched(slot: number): void {
    const rank = this.#ranks[slot] ?? EMPTY;
    assert(rank !== EMPTY, "touched an occupied slot");
    if (rank !== NEWEST) this.#renew(slot, rank);
  }

  removed(slot: number): void {
    const rank = this.#ranks[slot] ?? EMPTY;
    assert(rank !== EMPTY, "removed from an occupied slot");
    this.#ranks[slot] = EMPTY;
    const first = slot - (slot % this.#ways);
    for (let other = first; other < first + this.#ways; other++) {
      if (this.#ranks[other]! > rank) this.#ranks[other]!--;
    }
  }

  iterationBegan(): void {}

  /** `slot` becomes the newest of its set; those that were newer than `rank` are one older. */
  #renew(slot: number, rank: number): void {
    const first = slot - (slot % this.#ways);
    for (let other = first; other < first + this.#ways; other++) {
      const otherRank = this.#ranks[other]!;
      if (otherRank !== EMPTY && otherRank < rank) this.#ranks[other] = otherRank + 1;
    }
    this.#ranks[slot] = NEWEST;
  }
}

export function setAssociative(ways: number): PolicyKind {
  return {
    name: `lru-${ways}way`,
    bytesPerSlot: 1,
    bytesPerPage: 0,
    make: (slotCount) => new SetAssociativePolicy(slotCount, ways),
  };
}
