// What each page did in the last eight sweeps decides, whether it is in the cache or not: a page gets a slot only
// from one that has been dirtied less, and less lately. Made for migrations, whose iterations are sweeps through
// memory in the order of addresses: LRU, CLOCK and ARC lose every page of a sweep that is longer than the cache
// before it comes again; this one holds on to as many as fit, and to those that are dirtied in every iteration
// rather than to those that are dirtied in some.
//
// A new sweep is told by a page number lower than the last one. Pages that the sweep has not reached yet get the
// benefit of the doubt: they are compared as if they were dirty in this one too. In the first sweep every page is
// as good as any other: the first ones stay, which have the longest time to become dirty again.

import { assert } from "../../base/assert.ts";
import { EMPTY_SLOTS_BYTES_PER_SLOT, EmptySlots } from "./empty-slots.ts";
import { type CachePolicy, NO_SLOT, type PolicyKind } from "./policy.ts";

/** Slots that are looked at for one that is worth less. */
const WINDOW_SLOTS = 32;

// State of a page: the low byte of the sweep in which it was dirty last, over its history as of that sweep: one
// bit for each of eight sweeps, the newest on top. As numbers histories compare by which sweeps were last.
const SWEEP_MASK = 0xff;
const HISTORY_BITS = 8;
const HISTORY_MASK = 0xff;
const DIRTY_NOW = 0x80;

const EMPTY = -1;

class HistoryPolicy implements CachePolicy {
  readonly #empty: EmptySlots;
  /** Of pages that are in no slot. */
  readonly #states: Uint16Array;
  /** By slot: its page, or EMPTY; the state of that page. */
  readonly #pages: Int32Array;
  readonly #slotStates: Uint16Array;
  #sweep = 0;
  #lastPage = 0;
  /** Where the search for a page that is worth less goes on. */
  #hand = 0;

  constructor(slotCount: number, pageCount: number) {
    this.#empty = new EmptySlots(slotCount);
    this.#states = new Uint16Array(pageCount);
    this.#pages = new Int32Array(slotCount).fill(EMPTY);
    this.#slotStates = new Uint16Array(slotCount);
  }

  admit(page: number, mayEvict: boolean): number {
    this.#reach(page);
    const state = this.#dirtyNow(this.#states[page]!);
    let slot = this.#empty.take();
    if (slot === NO_SLOT && mayEvict) {
      slot = this.#worthLess(page, state & HISTORY_MASK);
      if (slot !== NO_SLOT) this.#states[this.#pages[slot]!] = this.#slotStates[slot]!;
    }
    if (slot === NO_SLOT) {
      this.#states[page] = state;
    } else {
      this.#pages[slot] = page;
      this.#slotStates[slot] = state;
    }
    return slot;
  }

  touched(slot: number): void {
    const page = this.#pages[slot] ?? EMPTY;
    assert(page !== EMPTY, "touched an occupied slot");
    this.#reach(page);
    this.#slotStates[slot] = this.#dirtyNow(this.#slotStates[slot]!);
  }

  removed(slot: number): void {
    const page = this.#pages[slot] ?? EMPTY;
    assert(page !== EMPTY, "removed from an occupied slot");
    this.#states[page] = this.#slotStates[slot]!;
    this.#pages[slot] = EMPTY;
    this.#empty.giveBack(slot);
  }

  iterationBegan(): void {}

  #reach(page: number): void {
    if (page < this.#lastPage) this.#sweep++;
    this.#lastPage = page;
  }

  /** The history as of this sweep. After 256 sweeps without it a page may look younger than it is, once. */
  #historyOf(state: number): number {
    const elapsed = (this.#sweep - (state >>> HISTORY_BITS)) & SWEEP_MASK;
    return elapsed >= HISTORY_BITS ? 0 : (state & HISTORY_MASK) >>> elapsed;
  }

  #dirtyNow(state: number): number {
    return ((this.#sweep & SWEEP_MASK) << HISTORY_BITS) | this.#historyOf(state) | DIRTY_NOW;
  }

  /** Of the next slots the one with the least history, if that is less than `history`; all are occupied. */
  #worthLess(page: number, history: number): number {
    const slotCount = this.#pages.length;
    const window = Math.min(WINDOW_SLOTS, slotCount);
    let least = history;
    let best = NO_SLOT;
    let slot = this.#hand;
    for (let i = 0; i < window; i++) {
      const ahead = this.#pages[slot]! > page ? DIRTY_NOW : 0;
      const other = this.#historyOf(this.#slotStates[slot]!) | ahead;
      if (other < least) {
        least = other;
        best = slot;
      }
      slot = slot + 1 === slotCount ? 0 : slot + 1;
    }
    this.#hand = slot;
    return best;
  }
}

export const HISTORY: PolicyKind = {
  name: "history",
  bytesPerSlot: 4 + 2 + EMPTY_SLOTS_BYTES_PER_SLOT,
  bytesPerPage: 2,
  make: (slotCount, pageCount) => new HistoryPolicy(slotCount, pageCount),
};
