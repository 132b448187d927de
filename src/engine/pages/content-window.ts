// Content dedup at the source: of the last whole pages that were sent, which one is equal to this page? The
// destination keeps those pages (its "window", in the order in which they came); the source keeps only where in
// its cache each of them still stands unchanged, so an equal page is found by hash and then compared byte by byte.

import type { Kernel } from "../../kernel/kernel.ts";
import type { PageCache } from "../../memory/page-cache.ts";

/** Candidates by hash: twice the window, so that few are lost to another of the same place. */
const CANDIDATES_PER_PAGE = 2;
const NONE = -1;

export class ContentWindow {
  readonly #kernel: Kernel;
  readonly #cache: PageCache;
  readonly #pageBytes: number;
  readonly #windowPages: number;
  /** By place of the hash: number in the window. */
  readonly #candidates: Int32Array;
  /** By number in the window: the cache's slot that held the same content when it was sent. */
  readonly #slots: Int32Array;
  #next = 0;

  /** `windowPages`: a power of two. */
  constructor(kernel: Kernel, cache: PageCache, pageBytes: number, windowPages: number) {
    this.#kernel = kernel;
    this.#cache = cache;
    this.#pageBytes = pageBytes;
    this.#windowPages = windowPages;
    this.#candidates = new Int32Array(windowPages * CANDIDATES_PER_PAGE).fill(NONE);
    this.#slots = new Int32Array(windowPages).fill(NONE);
  }

  /**
   * Number in the window of a page equal to the one at `address`, or -1. If there is none the page is sent whole
   * and takes the next number; `slot`: where the cache holds it now, or NO_SLOT.
   */
  find(address: number, slot: number): number {
    const place = this.#kernel.hash32(address, this.#pageBytes) & (this.#candidates.length - 1);
    const candidate = this.#candidates[place]!;
    if (candidate !== NONE && this.#isEqual(candidate, address)) return candidate;
    const number = this.#next;
    this.#next = (number + 1) & (this.#windowPages - 1);
    this.#candidates[place] = number;
    this.#slots[number] = slot;
    if (slot !== NONE) this.#cache.setTag(slot, number);
    return NONE;
  }

  #isEqual(number: number, address: number): boolean {
    const cache = this.#cache;
    const slot = this.#slots[number]!;
    // The slot has another page or another content by now, or lies in a memory of which this kernel is not.
    if (slot === NONE || cache.tagOf(slot) !== number || cache.shardOf(slot) !== 0) return false;
    return this.#kernel.isEqual(cache.addressOf(slot), address, this.#pageBytes) === 1;
  }
}
