// Admission on second touch, around any policy: while there are empty slots every page gets one; when another page
// would have to leave, only one that has asked before does. What has asked is one bit for each page of the guest,
// forgotten as a whole when as many pages have asked in vain as there are slots: a sweep over more pages than fit
// is forgotten before it comes round again.

import { type CachePolicy, NO_SLOT, type PolicyKind } from "./policy.ts";

/** However few slots there are, the bits are not cleared more often than once for so many pages of the guest. */
const PAGES_PER_ASKED_MIN = 64;

class SecondTouchPolicy implements CachePolicy {
  readonly #inner: CachePolicy;
  readonly #asked: Uint8Array;
  readonly #askedMax: number;
  #askedPages = 0;

  constructor(inner: CachePolicy, slotCount: number, pageCount: number) {
    this.#inner = inner;
    this.#asked = new Uint8Array(Math.ceil(pageCount / 8));
    this.#askedMax = Math.max(slotCount, Math.ceil(pageCount / PAGES_PER_ASKED_MIN));
  }

  admit(page: number, mayEvict: boolean): number {
    const bit = 1 << (page & 7);
    const byte = this.#asked[page >>> 3]!;
    const isSecond = (byte & bit) !== 0;
    const slot = this.#inner.admit(page, mayEvict && isSecond);
    if (slot === NO_SLOT && !isSecond) {
      if (this.#askedPages === this.#askedMax) {
        this.#asked.fill(0);
        this.#askedPages = 0;
      }
      this.#asked[page >>> 3]! |= bit;
      this.#askedPages++;
    }
    return slot;
  }

  touched(slot: number): void {
    this.#inner.touched(slot);
  }

  removed(slot: number): void {
    this.#inner.removed(slot);
  }

  iterationBegan(): void {
    this.#inner.iterationBegan();
  }
}

export function secondTouch(inner: PolicyKind): PolicyKind {
  return {
    name: `${inner.name}+2nd`,
    bytesPerSlot: inner.bytesPerSlot,
    bytesPerPage: inner.bytesPerPage + 1 / 8,
    make: (slotCount, pageCount) =>
      new SecondTouchPolicy(inner.make(slotCount, pageCount), slotCount, pageCount),
  };
}
