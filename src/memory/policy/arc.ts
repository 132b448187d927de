// ARC, the Adaptive Replacement Cache of Megiddo and Modha (FAST 2003, figure 4). T1 holds pages seen once lately,
// T2 those seen at least twice; B1 and B2 remember (ghosts) what has left them. A hit in a ghost list shifts the
// target size of T1 (`p` in the paper) towards the list that would have had it. Here pages can also be removed
// from outside, so there may be empty slots later on: then nothing is replaced.

import { assert } from "../../base/assert.ts";
import { EMPTY_SLOTS_BYTES_PER_SLOT, EmptySlots } from "./empty-slots.ts";
import { type CachePolicy, NO_SLOT, type PolicyKind } from "./policy.ts";

// Lists, numbered; NONE is a node in no list.
const NONE = 0;
const T1 = 1;
const T2 = 2;
const B1 = 3;
const B2 = 4;
const LIST_COUNT = 5;

class ArcPolicy implements CachePolicy {
  readonly #slotCount: number;
  readonly #emptySlots: EmptySlots;
  readonly #emptyGhosts: EmptySlots;
  /** Node -> list. Nodes are the slots, then as many ghosts, then the head of each list. */
  readonly #list: Uint8Array;
  readonly #page: Int32Array;
  /** Rings through the heads: next is towards the least recently used. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #counts = new Int32Array(LIST_COUNT);
  /** Page -> its ghost + 1, or 0. */
  readonly #ghosts: Int32Array;
  #targetOfT1 = 0;

  constructor(slotCount: number, pageCount: number) {
    const nodeCount = 2 * slotCount + LIST_COUNT;
    this.#slotCount = slotCount;
    this.#emptySlots = new EmptySlots(slotCount);
    this.#emptyGhosts = new EmptySlots(slotCount);
    this.#list = new Uint8Array(2 * slotCount);
    this.#page = new Int32Array(2 * slotCount);
    this.#next = new Int32Array(nodeCount);
    this.#previous = new Int32Array(nodeCount);
    this.#ghosts = new Int32Array(pageCount);
    for (let list = 0; list < LIST_COUNT; list++) {
      const head = this.#headOf(list);
      this.#next[head] = head;
      this.#previous[head] = head;
    }
  }

  admit(page: number, mayEvict: boolean): number {
    const counts = this.#counts;
    const isFull = counts[T1]! + counts[T2]! === this.#slotCount;
    if (isFull && !mayEvict) return NO_SLOT;
    const ghost = this.#ghosts[page]! - 1;
    if (ghost >= 0) {
      const list = this.#list[ghost]!;
      const [mine, other] = [counts[list]!, counts[list === B1 ? B2 : B1]!];
      const step = Math.max(1, other / mine);
      if (list === B1) this.#targetOfT1 = Math.min(this.#slotCount, this.#targetOfT1 + step);
      else this.#targetOfT1 = Math.max(0, this.#targetOfT1 - step);
      // The ghost goes first: its place may be needed by the page that leaves.
      this.#dropGhost(ghost);
      if (isFull) this.#replace(list === B2);
      return this.#insert(T2, page);
    }
    if (counts[T1]! + counts[B1]! === this.#slotCount) {
      if (counts[B1]! > 0) {
        this.#dropGhost(this.#oldest(B1));
        if (isFull) this.#replace(false);
      } else this.#empty(this.#oldest(T1));
    } else {
      if (counts[T1]! + counts[T2]! + counts[B1]! + counts[B2]! === 2 * this.#slotCount) {
        this.#dropGhost(this.#oldest(B2));
      }
      if (isFull) this.#replace(false);
    }
    return this.#insert(T1, page);
  }

  touched(slot: number): void {
    assert((this.#list[slot] ?? NONE) !== NONE, "touched an occupied slot");
    this.#unlink(slot);
    this.#link(T2, slot);
  }

  removed(slot: number): void {
    assert((this.#list[slot] ?? NONE) !== NONE, "removed from an occupied slot");
    this.#empty(slot);
  }

  iterationBegan(): void {}

  #headOf(list: number): number {
    return 2 * this.#slotCount + list;
  }

  #oldest(list: number): number {
    return this.#previous[this.#headOf(list)]!;
  }

  /** REPLACE of the paper: a page leaves its slot and becomes a ghost. */
  #replace(isForB2: boolean): void {
    const inT1 = this.#counts[T1]!;
    const fromT1 = inT1 > 0 && (inT1 > this.#targetOfT1 || (isForB2 && inT1 === this.#targetOfT1));
    // With pages removed from outside, T2 may be empty where the paper takes from it.
    const list = fromT1 || this.#counts[T2] === 0 ? T1 : T2;
    const slot = this.#oldest(list);
    const page = this.#page[slot]!;
    this.#empty(slot);
    const ghost = this.#slotCount + this.#emptyGhosts.take();
    assert(ghost >= this.#slotCount, "there are never more ghosts than slots");
    this.#page[ghost] = page;
    this.#ghosts[page] = ghost + 1;
    this.#link(list === T1 ? B1 : B2, ghost);
  }

  #insert(list: number, page: number): number {
    const slot = this.#emptySlots.take();
    this.#page[slot] = page;
    this.#link(list, slot);
    return slot;
  }

  #empty(slot: number): void {
    this.#unlink(slot);
    this.#emptySlots.giveBack(slot);
  }

  #dropGhost(ghost: number): void {
    this.#unlink(ghost);
    this.#ghosts[this.#page[ghost]!] = 0;
    this.#emptyGhosts.giveBack(ghost - this.#slotCount);
  }

  /** Into the most recently used end. */
  #link(list: number, node: number): void {
    const head = this.#headOf(list);
    const second = this.#next[head]!;
    this.#next[head] = node;
    this.#previous[node] = head;
    this.#next[node] = second;
    this.#previous[second] = node;
    this.#list[node] = list;
    this.#counts[list]!++;
  }

  #unlink(node: number): void {
    const [previous, next] = [this.#previous[node]!, this.#next[node]!];
    this.#next[previous] = next;
    this.#previous[next] = previous;
    this.#counts[this.#list[node]!]!--;
    this.#list[node] = NONE;
  }
}

export const ARC: PolicyKind = {
  name: "arc",
  // Slots and ghosts: list, page, next, previous; the heads are counted to the first slot.
  bytesPerSlot: 2 * (1 + 4 + 4 + 4) + 2 * EMPTY_SLOTS_BYTES_PER_SLOT,
  bytesPerPage: 4,
  make: (slotCount, pageCount) => new ArcPolicy(slotCount, pageCount),
};
