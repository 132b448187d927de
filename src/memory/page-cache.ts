// The page cache: what the DESTINATION holds of every page of every RAMBlock, kept at the source, so that a page
// dirtied again can leave as a delta. A page is absent (not known), zero (known, no bytes stored), or content in
// a slot. Knows nothing of streams, deltas or the link; policy/ decides which pages have slots.
//
// Content lies in slabs of kernel memory, where kernels work on it in place: in the home memory, beside what else
// the migration has there, and, when that is full, in further memories (shards), so that a cache may be larger
// than the 4 GiB of one. Slabs are allocated when first needed and never moved.

import { assert } from "../base/assert.ts";
import { KernelMemory } from "../kernel/memory.ts";
import { bookkeepingBytes, PAGE_COUNT_MAX, PageDirectory, slotsWithin } from "./page-directory.ts";
import { HISTORY } from "./policy/history.ts";
import { NO_SLOT, type PolicyKind } from "./policy/policy.ts";
import type { RamBlock } from "./ram-block.ts";

export { NO_TAG, PAGE_ABSENT, PAGE_ZERO } from "./page-directory.ts";

const SLAB_BYTES = 4 * 1024 * 1024;
/** Of the home memory, left to whatever else the migration allocates there. */
const HOME_SPARE_BYTES = 64 * 1024 * 1024;

export interface PageCacheOptions {
  /** A power of two. */
  pageBytes: number;
  /**
   * Limit of everything that is allocated: slabs, index and bookkeeping of slots. The index is allocated even
   * when it alone is larger (4 bytes per page of guest RAM, 0.1 %): nothing else is then, no content is cached,
   * and which pages are zero is still known. 0 is such a limit.
   */
  limitBytes: number;
  /** The home memory (shard 0); what else is needed there has been allocated. One of its own unless given. */
  memory?: KernelMemory;
  /** Which pages are held when not all can be. HISTORY unless given. */
  policy?: PolicyKind;
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
  readonly #kind: PolicyKind;

  /** By block: its pages, and the number of its first one, counted through all blocks. */
  readonly #pagesOf: number[] = [];
  readonly #firstPageOf: number[] = [];
  #pageCount = 0;

  /** Made with the first use of a page: from then on the number of slots is fixed. */
  #directory: PageDirectory | undefined;

  /** By shard; 0 is the home memory. */
  readonly #memories: KernelMemory[] = [];
  /** By slab, each of a power of two of slots: its shard, its address there (0: not allocated), a view of it. */
  readonly #slotsPerSlabLog2: number;
  #slabShards = new Uint16Array(0);
  #slabAddresses = new Uint32Array(0);
  #slabViews: Uint8Array[] = [];
  #slabBytes = 0;

  constructor(options: PageCacheOptions) {
    const { pageBytes, limitBytes } = options;
    assert(pageBytes > 0 && pageBytes <= SLAB_BYTES, "page size within a slab");
    assert((pageBytes & (pageBytes - 1)) === 0, "page size is a power of two");
    assert(limitBytes >= 0, "limit of the page cache is not negative");
    this.#pageBytes = pageBytes;
    this.#limitBytes = limitBytes;
    this.#kind = options.policy ?? HISTORY;
    this.#slotsPerSlabLog2 = Math.log2(SLAB_BYTES / pageBytes);
    if (options.memory !== undefined) this.#memories.push(options.memory);
  }

  /** All blocks are added before the first page is asked for. @returns the block's index, counted from 0 */
  addBlock(block: RamBlock): number {
    assert(this.#directory === undefined, "blocks are added before the first page");
    const pageCount = block.lengthBytes / this.#pageBytes;
    assert(Number.isInteger(pageCount) && pageCount >= 0, "a RAMBlock is a whole number of pages");
    this.#firstPageOf.push(this.#pageCount);
    this.#pageCount += pageCount;
    assert(this.#pageCount <= PAGE_COUNT_MAX, "pages of the guest are at most PAGE_COUNT_MAX");
    return this.#pagesOf.push(pageCount) - 1;
  }

  /** Slots that there are; fixed from the first time that it is asked for. */
  get slotCount(): number {
    return (this.#directory ?? this.#seal()).slotCount;
  }

  /** @returns a slot (valid until the next change to the cache), PAGE_ABSENT or PAGE_ZERO */
  lookup(blockIndex: number, pageIndex: number): number {
    const page = this.#pageNumber(blockIndex, pageIndex);
    return (this.#directory ?? this.#seal()).lookup(page);
  }

  /** The memory in which `slot` lies: 0 is the home memory. */
  shardOf(slot: number): number {
    return this.#slabShards[slot >>> this.#slotsPerSlabLog2]!;
  }

  memoryOf(shard: number): KernelMemory {
    const memory = this.#memories[shard];
    assert(memory !== undefined, "a shard that a slot lies in");
    return memory;
  }

  /** Where the page in `slot` begins, in the memory of its shard; it is `pageBytes` long. */
  addressOf(slot: number): number {
    return this.#slabAddresses[slot >>> this.#slotsPerSlabLog2]! + this.offsetOf(slot);
  }

  /** The slab that holds `slot`. Its bytes are the cache's: read only, and only until the next change to it. */
  slabOf(slot: number): Uint8Array {
    return this.#slabViews[slot >>> this.#slotsPerSlabLog2]!;
  }

  /** Where in its slab `slot` begins. */
  offsetOf(slot: number): number {
    return (slot & ((1 << this.#slotsPerSlabLog2) - 1)) * this.#pageBytes;
  }

  /** A number of the caller's about the page in `slot`: NO_TAG after the slot got another page. */
  tagOf(slot: number): number {
    return this.#directory!.tagOf(slot);
  }

  setTag(slot: number, tag: number): void {
    this.#directory!.setTag(slot, tag);
  }

  /**
   * The destination gets new content for this page: the slot that the caller copies it to, before the next call
   * that is not about this page. When the cache is full another page may become absent for it. NO_SLOT: this
   * one does, because the policy prefers what is there, or there are no slots at all.
   * @throws DeltaveeError OUT_OF_MEMORY when the machine has no memory for a slab
   */
  reserve(blockIndex: number, pageIndex: number): number {
    const page = this.#pageNumber(blockIndex, pageIndex);
    const directory = this.#directory ?? this.#seal();
    const slot = directory.reserve(page);
    if (slot !== NO_SLOT && directory.isNew) {
      const slab = slot >>> this.#slotsPerSlabLog2;
      if (this.#slabAddresses[slab] === 0) this.#addSlab(slab, directory.slotCount);
    }
    return slot;
  }

  /** reserve() with the copy, for callers outside kernel memory. `source` may not lie in the cache's own slabs. */
  store(blockIndex: number, pageIndex: number, source: Uint8Array, sourceOffset: number): void {
    assert(sourceOffset >= 0 && sourceOffset + this.#pageBytes <= source.length, "page within its buffer");
    const slot = this.reserve(blockIndex, pageIndex);
    if (slot === NO_SLOT) return;
    const page = source.subarray(sourceOffset, sourceOffset + this.#pageBytes);
    this.slabOf(slot).set(page, this.offsetOf(slot));
  }

  /** The destination now holds zeros. */
  storeZero(blockIndex: number, pageIndex: number): void {
    const page = this.#pageNumber(blockIndex, pageIndex);
    (this.#directory ?? this.#seal()).setZero(page);
  }

  /** What the destination holds of this page is no longer known. */
  forget(blockIndex: number, pageIndex: number): void {
    const page = this.#pageNumber(blockIndex, pageIndex);
    (this.#directory ?? this.#seal()).forget(page);
  }

  /** A new iteration of the migration has begun: policies let pages age by it. */
  iterationBegan(): void {
    this.#directory?.iterationBegan();
  }

  /** A copy of the counters. */
  get stats(): PageCacheStats {
    const directory = this.#directory;
    const bookkeeping = bookkeepingBytes(this.#pageCount, directory?.slotCount ?? 0, this.#kind);
    return {
      hits: directory?.hits ?? 0,
      misses: directory?.misses ?? 0,
      evictions: directory?.evictions ?? 0,
      usedBytes: bookkeeping + this.#slabBytes,
      limitBytes: this.#limitBytes,
    };
  }

  /** Number of the page, counted through all blocks. */
  #pageNumber(blockIndex: number, pageIndex: number): number {
    const pageCount = this.#pagesOf[blockIndex];
    assert(
      pageCount !== undefined && pageIndex >= 0 && pageIndex < pageCount,
      "page within a known RAMBlock",
    );
    return this.#firstPageOf[blockIndex]! + pageIndex;
  }

  /** The blocks are known: as many slots as fit into the limit beside what each page costs. */
  #seal(): PageDirectory {
    const slotCount = slotsWithin(this.#limitBytes, this.#pageCount, this.#pageBytes, this.#kind);
    const directory = new PageDirectory(this.#pageCount, slotCount, this.#kind);
    const slabCount = Math.ceil(directory.slotCount / (1 << this.#slotsPerSlabLog2));
    this.#slabShards = new Uint16Array(slabCount);
    this.#slabAddresses = new Uint32Array(slabCount);
    this.#slabViews = new Array<Uint8Array>(slabCount).fill(new Uint8Array(0));
    this.#directory = directory;
    return directory;
  }

  #addSlab(slab: number, slotCount: number): void {
    const slotsBefore = slab << this.#slotsPerSlabLog2;
    const slotsHere = Math.min(1 << this.#slotsPerSlabLog2, slotCount - slotsBefore);
    const slabBytes = slotsHere * this.#pageBytes;
    let shard = this.#memories.length - 1;
    const spareBytes = shard === 0 ? HOME_SPARE_BYTES : 0;
    // Alignment may take up to a page before the slab.
    const neededBytes = slabBytes + this.#pageBytes + spareBytes;
    if (shard < 0 || !this.memoryOf(shard).hasRoom(neededBytes)) {
      shard = this.#memories.push(new KernelMemory()) - 1;
    }
    const memory = this.memoryOf(shard);
    const address = memory.allocate(slabBytes, this.#pageBytes);
    this.#slabShards[slab] = shard;
    this.#slabAddresses[slab] = address;
    this.#slabViews[slab] = memory.bytes(address, slabBytes);
    this.#slabBytes += slabBytes;
  }
}
