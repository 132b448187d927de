// The page cache: what the DESTINATION holds of every page of every RAMBlock, kept at the source, so that a page
// dirtied again can leave as a delta. A page is absent (not known), zero (known, no bytes stored), or content in
// a slot. Knows nothing of streams, deltas or the link; replacement.ts decides which page leaves when it is full.
//
// Memory: content lies in slabs that are allocated when first needed and never moved or copied. For each page of
// guest RAM there is one 32-bit entry (the index), for each slot two (its owner).

import { assert } from "../base/assert.ts";
import type { RamBlock } from "./ram-block.ts";
import { ClockPolicy, POLICY_BYTES_PER_SLOT_MAX, type ReplacementPolicy } from "./replacement.ts";

/** lookup(): what the destination holds is not known. */
export const PAGE_ABSENT = -1;
/** lookup(): the destination holds a page of zeros. */
export const PAGE_ZERO = -2;

const SLAB_BYTES = 4 * 1024 * 1024;

/** Owner of the slot (two 32-bit numbers) and the policy's state. */
const BOOKKEEPING_BYTES_PER_SLOT = 8 + POLICY_BYTES_PER_SLOT_MAX;
const INDEX_BYTES_PER_PAGE = 4;

/** Pages of one RAMBlock and slots of a cache are 32-bit numbers: 8 TiB of 4 KiB pages. */
const COUNT_MAX = 2 ** 31 - 8;

// Entries of the index. A new index is all zero bytes, so "absent" is 0: RAM that never becomes known costs no
// physical memory in it.
const ENTRY_ABSENT = 0;
const ENTRY_ZERO = 1;
const ENTRY_FIRST_SLOT = 2;

const NO_SLOT = -1;

export interface PageCacheOptions {
  /** A power of two. */
  pageBytes: number;
  /**
   * Limit of everything that is allocated: slabs, index and bookkeeping of slots. The index is allocated even
   * when it alone is larger (4 bytes per page of guest RAM, 0.1 %): nothing else is then, no content is cached,
   * and which pages are zero is still known. 0 is such a limit.
   */
  limitBytes: number;
  /** CLOCK unless given. May allocate POLICY_BYTES_PER_SLOT_MAX for each slot. */
  policy?: (slotCount: number) => ReplacementPolicy;
}

export interface PageCacheStats {
  /** Lookups that found zero or content. */
  hits: number;
  /** Lookups that found nothing. */
  misses: number;
  /** Pages that became absent because another took their slot. */
  evictions: number;
  /** Allocated: slabs, index, and bookkeeping of slots. Never above `limitBytes` unless the index alone is. */
  usedBytes: number;
  limitBytes: number;
}

export class PageCache {
  readonly #pageBytes: number;
  readonly #limitBytes: number;
  readonly #makePolicy: (slotCount: number) => ReplacementPolicy;

  /** Per block, per page: an ENTRY_ value, or the slot + ENTRY_FIRST_SLOT. */
  readonly #indexes: Int32Array[] = [];
  #indexBytes = 0;

  /** Slots are numbered through the slabs; a power of two of them fills one. */
  readonly #slabs: Uint8Array[] = [];
  readonly #slotsPerSlabLog2: number;
  #slabBytes = 0;

  /** Set by the first page: from then on the number of slots is fixed. */
  #slots: Slots | undefined;

  #hits = 0;
  #misses = 0;
  #evictions = 0;

  constructor(options: PageCacheOptions) {
    const { pageBytes, limitBytes } = options;
    assert(pageBytes > 0 && pageBytes <= SLAB_BYTES, "page size within a slab");
    assert((pageBytes & (pageBytes - 1)) === 0, "page size is a power of two");
    assert(limitBytes >= 0, "limit of the page cache is not negative");
    this.#pageBytes = pageBytes;
    this.#limitBytes = limitBytes;
    this.#makePolicy = options.policy ?? ((slotCount) => new ClockPolicy(slotCount));
    this.#slotsPerSlabLog2 = Math.log2(SLAB_BYTES / pageBytes);
  }

  /** All blocks are added before the first page is stored. @returns the block's index, counted from 0 */
  addBlock(block: RamBlock): number {
    assert(this.#slots === undefined, "blocks are added before the first page");
    const pageCount = block.lengthBytes / this.#pageBytes;
    assert(Number.isInteger(pageCount) && pageCount >= 0, "a RAMBlock is a whole number of pages");
    assert(pageCount <= COUNT_MAX, "pages of a RAMBlock are 32-bit numbers");
    this.#indexBytes += pageCount * INDEX_BYTES_PER_PAGE;
    return this.#indexes.push(new Int32Array(pageCount)) - 1;
  }

  /** @returns a slot (valid until the next change to the cache), PAGE_ABSENT or PAGE_ZERO */
  lookup(blockIndex: number, pageIndex: number): number {
    const entry = this.#entryOf(blockIndex, pageIndex);
    if (entry === ENTRY_ABSENT) {
      this.#misses++;
      return PAGE_ABSENT;
    }
    this.#hits++;
    if (entry === ENTRY_ZERO) return PAGE_ZERO;
    const slot = entry - ENTRY_FIRST_SLOT;
    this.#slots!.policy.touched(slot);
    return slot;
  }

  /** The slab that holds `slot`. Its bytes are the cache's: read only, and only until the next change to it. */
  slabOf(slot: number): Uint8Array {
    return this.#slabs[slot >>> this.#slotsPerSlabLog2]!;
  }

  /** Where in its slab `slot` begins; it is `pageBytes` long. */
  offsetOf(slot: number): number {
    return (slot & ((1 << this.#slotsPerSlabLog2) - 1)) * this.#pageBytes;
  }

  /**
   * The destination now holds this content: copies it. When the cache is full another page becomes absent; when
   * it has no slots at all, this one does. `source` may not lie in the cache's own slabs.
   */
  store(blockIndex: number, pageIndex: number, source: Uint8Array, sourceOffset: number): void {
    assert(sourceOffset >= 0 && sourceOffset + this.#pageBytes <= source.length, "page within its buffer");
    const entry = this.#entryOf(blockIndex, pageIndex);
    this.#slots ??= new Slots(this.#slotCount(), this.#makePolicy);
    let slot = entry - ENTRY_FIRST_SLOT;
    if (slot >= 0) {
      this.#slots.policy.touched(slot);
    } else {
      slot = this.#slotForNewPage(this.#slots);
      // The limit leaves no room for content: what the destination holds from now on is not known.
      this.#indexes[blockIndex]![pageIndex] = slot === NO_SLOT ? ENTRY_ABSENT : slot + ENTRY_FIRST_SLOT;
      if (slot === NO_SLOT) return;
      this.#slots.occupy(slot, blockIndex, pageIndex);
    }
    // One small view per page (no page-sized memory): a loop over bytes or words is two to eight times slower.
    const page = source.subarray(sourceOffset, sourceOffset + this.#pageBytes);
    this.slabOf(slot).set(page, this.offsetOf(slot));
  }

  /** The destination now holds zeros. */
  storeZero(blockIndex: number, pageIndex: number): void {
    this.#replaceEntry(blockIndex, pageIndex, ENTRY_ZERO);
  }

  /** What the destination holds of this page is no longer known. */
  forget(blockIndex: number, pageIndex: number): void {
    this.#replaceEntry(blockIndex, pageIndex, ENTRY_ABSENT);
  }

  /** A copy of the counters. */
  get stats(): PageCacheStats {
    return {
      hits: this.#hits,
      misses: this.#misses,
      evictions: this.#evictions,
      usedBytes: this.#indexBytes + this.#slabBytes + (this.#slots?.bookkeepingBytes ?? 0),
      limitBytes: this.#limitBytes,
    };
  }

  #entryOf(blockIndex: number, pageIndex: number): number {
    const entry = this.#indexes[blockIndex]?.[pageIndex];
    assert(entry !== undefined, "page within a known RAMBlock");
    return entry;
  }

  /** Slots that fit into the limit beside the index. */
  #slotCount(): number {
    const contentBytes = Math.max(0, this.#limitBytes - this.#indexBytes);
    return Math.min(COUNT_MAX, Math.floor(contentBytes / (this.#pageBytes + BOOKKEEPING_BYTES_PER_SLOT)));
  }

  /** Entry becomes zero or absent; a slot that it had is free again. */
  #replaceEntry(blockIndex: number, pageIndex: number, entry: number): void {
    const slot = this.#entryOf(blockIndex, pageIndex) - ENTRY_FIRST_SLOT;
    if (slot >= 0) this.#slots!.release(slot);
    this.#indexes[blockIndex]![pageIndex] = entry;
  }

  /** A free slot (its slab is there), made by eviction if need be; NO_SLOT when the cache has none at all. */
  #slotForNewPage(slots: Slots): number {
    if (slots.slotCount === 0) return NO_SLOT;
    let slot = slots.takeFree();
    if (slot === NO_SLOT) {
      const victim = slots.policy.victim();
      this.#indexes[slots.blockOf(victim)]![slots.pageOf(victim)] = ENTRY_ABSENT;
      slots.release(victim);
      this.#evictions++;
      slot = slots.takeFree();
      assert(slot === victim, "the victim's slot is the free one");
    }
    // Slots are first taken in order, so the missing slab is always the next one.
    if (slot >>> this.#slotsPerSlabLog2 === this.#slabs.length) this.#addSlab(slots.slotCount);
    return slot;
  }

  #addSlab(slotCount: number): void {
    const slotsBefore = this.#slabs.length << this.#slotsPerSlabLog2;
    const slotsHere = Math.min(1 << this.#slotsPerSlabLog2, slotCount - slotsBefore);
    this.#slabs.push(new Uint8Array(slotsHere * this.#pageBytes));
    this.#slabBytes += slotsHere * this.#pageBytes;
  }
}

/** Who owns each slot, and which are free. Free again: a list threaded through the owners' page numbers. */
class Slots {
  readonly slotCount: number;
  readonly policy: ReplacementPolicy;
  readonly #blockOf: Int32Array;
  /** Page of the owner; of a free slot, the next free one or NO_SLOT. */
  readonly #pageOf: Int32Array;
  #firstFree = NO_SLOT;
  /** Slots from here on have never been taken. */
  #firstUnused = 0;

  constructor(slotCount: number, makePolicy: (slotCount: number) => ReplacementPolicy) {
    this.slotCount = slotCount;
    this.policy = makePolicy(slotCount);
    this.#blockOf = new Int32Array(slotCount);
    this.#pageOf = new Int32Array(slotCount);
  }

  get bookkeepingBytes(): number {
    return this.slotCount * BOOKKEEPING_BYTES_PER_SLOT;
  }

  blockOf(slot: number): number {
    return this.#blockOf[slot]!;
  }

  pageOf(slot: number): number {
    return this.#pageOf[slot]!;
  }

  /** A slot given back, else one never taken, else NO_SLOT. occupy() follows. */
  takeFree(): number {
    const slot = this.#firstFree;
    if (slot !== NO_SLOT) {
      this.#firstFree = this.#pageOf[slot]!;
      return slot;
    }
    return this.#firstUnused < this.slotCount ? this.#firstUnused++ : NO_SLOT;
  }

  occupy(slot: number, blockIndex: number, pageIndex: number): void {
    this.#blockOf[slot] = blockIndex;
    this.#pageOf[slot] = pageIndex;
    this.policy.inserted(slot);
  }

  release(slot: number): void {
    this.policy.removed(slot);
    this.#pageOf[slot] = this.#firstFree;
    this.#firstFree = slot;
  }
}
