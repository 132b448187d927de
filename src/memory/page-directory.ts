// Where the page cache has each page of the guest: absent, zero, or in a slot. Pages are numbered through all
// RAMBlocks. Knows no content, so that policies can be run over a trace of a migration without any; which page
// gets a slot is the policy's to say (policy/).

import { assert } from "../base/assert.ts";
import { type CachePolicy, NO_SLOT, type PolicyKind } from "./policy/policy.ts";

/** Tag of a slot that nobody has set since its page came. */
export const NO_TAG = -1;

/** lookup(): what the destination holds is not known. */
export const PAGE_ABSENT = -1;
/** lookup(): the destination holds a page of zeros. */
export const PAGE_ZERO = -2;

const INDEX_BYTES_PER_PAGE = 4;
/** Who is in each slot, and its tag. */
const BYTES_PER_SLOT = 4 + 4;

/** The index is one array: 4 TiB of 4 KiB pages. */
export const PAGE_COUNT_MAX = 2 ** 30;

// Entries of the index. A new index is all zero bytes, so "absent" is 0: RAM that never becomes known costs no
// physical memory in it.
const ENTRY_ABSENT = 0;
const ENTRY_ZERO = 1;
const ENTRY_FIRST_SLOT = 2;

/** What all of it costs beside the content; without slots there is only the index. */
export function bookkeepingBytes(pageCount: number, slotCount: number, kind: PolicyKind): number {
  const perPage = INDEX_BYTES_PER_PAGE + (slotCount === 0 ? 0 : kind.bytesPerPage);
  const perSlot = BYTES_PER_SLOT + kind.bytesPerSlot;
  return Math.ceil(pageCount * perPage + slotCount * perSlot);
}

/** The slots, with their content, that fit into a limit beside what each page of the guest costs. */
export function slotsWithin(
  limitBytes: number,
  pageCount: number,
  pageBytes: number,
  kind: PolicyKind,
): number {
  const leftBytes = limitBytes - pageCount * (INDEX_BYTES_PER_PAGE + kind.bytesPerPage);
  const slotCount = Math.floor(leftBytes / (pageBytes + BYTES_PER_SLOT + kind.bytesPerSlot));
  // More slots than pages would never be used.
  return Math.max(0, Math.min(pageCount, slotCount));
}

export class PageDirectory {
  readonly slotCount: number;
  /** Per page: an ENTRY_ value, or its slot + ENTRY_FIRST_SLOT. */
  readonly #index: Int32Array;
  /** Per slot: its page + 1, or 0. */
  readonly #owner: Int32Array;
  readonly #tags: Int32Array;
  /** None when there are no slots. */
  readonly #policy: CachePolicy | undefined;

  /** Lookups that found zero or content, and those that found nothing. */
  hits = 0;
  misses = 0;
  /** Pages that became absent because another took their slot. */
  evictions = 0;
  /** Whether the page of the last reserve() was in no slot before. */
  isNew = false;

  constructor(pageCount: number, slotCount: number, kind: PolicyKind) {
    assert(pageCount <= PAGE_COUNT_MAX, "pages of the guest are at most PAGE_COUNT_MAX");
    this.slotCount = slotCount;
    this.#index = new Int32Array(pageCount);
    this.#owner = new Int32Array(this.slotCount);
    this.#tags = new Int32Array(this.slotCount);
    this.#policy = this.slotCount === 0 ? undefined : kind.make(this.slotCount, pageCount);
  }

  /** @returns a slot (valid until the next reserve, setZero or forget), PAGE_ABSENT or PAGE_ZERO */
  lookup(page: number): number {
    const entry = this.#index[page]!;
    if (entry === ENTRY_ABSENT) {
      this.misses++;
      return PAGE_ABSENT;
    }
    this.hits++;
    if (entry === ENTRY_ZERO) return PAGE_ZERO;
    const slot = entry - ENTRY_FIRST_SLOT;
    this.#policy!.touched(slot);
    return slot;
  }

  /** The slot that the page has or gets now; NO_SLOT, and the page is absent, when the policy gives it none. */
  reserve(page: number): number {
    const held = this.#index[page]! - ENTRY_FIRST_SLOT;
    this.isNew = held < 0;
    if (held >= 0) return held;
    const slot = this.#policy === undefined ? NO_SLOT : this.#policy.admit(page, true);
    if (slot === NO_SLOT) {
      this.#index[page] = ENTRY_ABSENT;
      return NO_SLOT;
    }
    const owner = this.#owner[slot];
    assert(owner !== undefined, "a policy names a slot of the cache");
    if (owner !== 0) {
      this.#index[owner - 1] = ENTRY_ABSENT;
      this.evictions++;
    }
    this.#owner[slot] = page + 1;
    this.#tags[slot] = NO_TAG;
    this.#index[page] = slot + ENTRY_FIRST_SLOT;
    return slot;
  }

  tagOf(slot: number): number {
    return this.#tags[slot]!;
  }

  setTag(slot: number, tag: number): void {
    this.#tags[slot] = tag;
  }

  setZero(page: number): void {
    this.#vacate(page, ENTRY_ZERO);
  }

  forget(page: number): void {
    this.#vacate(page, ENTRY_ABSENT);
  }

  iterationBegan(): void {
    this.#policy?.iterationBegan();
  }

  #vacate(page: number, entry: number): void {
    const slot = this.#index[page]! - ENTRY_FIRST_SLOT;
    if (slot >= 0) {
      this.#owner[slot] = 0;
      this.#policy!.removed(slot);
    }
    this.#index[page] = entry;
  }
}
