// What no policy can beat: the page that is dirtied again last leaves, or is not taken at all (Belady's MIN with
// bypass). It sees the future, so there is one only for a trace; tables show it as the limit.

import { EMPTY_SLOTS_BYTES_PER_SLOT, EmptySlots } from "../memory/policy/empty-slots.ts";
import { type CachePolicy, NO_SLOT, type PolicyKind } from "../memory/policy/policy.ts";
import { PageClass } from "./format.ts";
import type { PageTrace } from "./page-trace.ts";

const NEVER = 2 ** 31 - 1;

/** For each record: the next one that finds the page's content useful, or NEVER. */
function nextUses(trace: PageTrace): Int32Array {
  const { pages, classes } = trace;
  const next = new Int32Array(pages.length);
  const nextOfPage = new Int32Array(trace.pageCount).fill(NEVER);
  for (let record = pages.length - 1; record >= 0; record--) {
    const page = pages[record]!;
    next[record] = nextOfPage[page]!;
    // A page that becomes zero is sent as zero, whatever is known of it.
    nextOfPage[page] = classes[record] === PageClass.ZERO ? NEVER : record;
  }
  return next;
}

class OptimalPolicy implements CachePolicy {
  readonly #nextUses: Int32Array;
  readonly #record: () => number;
  readonly #empty: EmptySlots;
  /** By slot; the heap holds slots, the one that is used last on top. */
  readonly #nextUse: Int32Array;
  readonly #heap: Int32Array;
  readonly #placeInHeap: Int32Array;
  #heapLength = 0;

  constructor(slotCount: number, uses: Int32Array, record: () => number) {
    this.#nextUses = uses;
    this.#record = record;
    this.#empty = new EmptySlots(slotCount);
    this.#nextUse = new Int32Array(slotCount);
    this.#heap = new Int32Array(slotCount);
    this.#placeInHeap = new Int32Array(slotCount);
  }

  admit(_page: number, mayEvict: boolean): number {
    const nextUse = this.#nextUses[this.#record()]!;
    let slot = this.#empty.take();
    if (slot === NO_SLOT) {
      slot = this.#heap[0]!;
      if (!mayEvict || this.#nextUse[slot]! <= nextUse) return NO_SLOT;
    } else {
      this.#put(this.#heapLength++, slot);
    }
    this.#change(slot, nextUse);
    return slot;
  }

  touched(slot: number): void {
    this.#change(slot, this.#nextUses[this.#record()]!);
  }

  removed(slot: number): void {
    this.#change(slot, NEVER);
    const last = this.#heap[--this.#heapLength]!;
    if (last !== slot) {
      const place = this.#placeInHeap[slot]!;
      this.#put(place, last);
      this.#change(last, this.#nextUse[last]!);
    }
    this.#empty.giveBack(slot);
  }

  iterationBegan(): void {}

  #change(slot: number, nextUse: number): void {
    this.#nextUse[slot] = nextUse;
    this.#sink(this.#rise(this.#placeInHeap[slot]!));
  }

  #rise(from: number): number {
    let place = from;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (this.#useAt(parent) >= this.#useAt(place)) break;
      this.#swap(place, parent);
      place = parent;
    }
    return place;
  }

  #sink(from: number): void {
    let place = from;
    for (;;) {
      let later = 2 * place + 1;
      if (later >= this.#heapLength) return;
      if (later + 1 < this.#heapLength && this.#useAt(later + 1) > this.#useAt(later)) later++;
      if (this.#useAt(place) >= this.#useAt(later)) return;
      this.#swap(place, later);
      place = later;
    }
  }

  #useAt(place: number): number {
    return this.#nextUse[this.#heap[place]!]!;
  }

  #put(place: number, slot: number): void {
    this.#heap[place] = slot;
    this.#placeInHeap[slot] = place;
  }

  #swap(a: number, b: number): void {
    const slot = this.#heap[a]!;
    this.#put(a, this.#heap[b]!);
    this.#put(b, slot);
  }
}

/** `record` tells the record that is being replayed. */
export function optimal(trace: PageTrace, record: () => number): PolicyKind {
  const uses = nextUses(trace);
  return {
    name: "optimal",
    bytesPerSlot: 12 + EMPTY_SLOTS_BYTES_PER_SLOT,
    bytesPerPage: 0,
    make: (slotCount) => new OptimalPolicy(slotCount, uses, record),
  };
}
