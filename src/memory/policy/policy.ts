// Which pages the page cache holds when it cannot hold all of them: the one interface of all policies. A policy
// knows pages (numbers, counted through all RAMBlocks) and slots (small integers); never bytes or content.
//
// What it is asked in a migration: iteration 0 touches every page of the guest once, in the order of addresses;
// each later one the pages that were dirtied meanwhile, again in the order of addresses.

/** admit(): the page gets no slot. */
export const NO_SLOT = -1;

export interface CachePolicy {
  /**
   * A slot for `page`, which has none: an empty one or, when `mayEvict`, the one whose page is expected to be
   * missed least. That page has left then, without removed(). NO_SLOT: rather none than any that is occupied.
   */
  admit(page: number, mayEvict: boolean): number;
  /** The page in `slot` was dirtied again and looked up. */
  touched(slot: number): void;
  /** The user of the cache has emptied `slot`. */
  removed(slot: number): void;
  /** A new iteration of the migration begins: the clock of policies that let pages age. */
  iterationBegan(): void;
}

/** How a policy is made, and what it costs: the page cache budgets that within its limit. */
export interface PolicyKind {
  /** As it stands in options and tables. */
  readonly name: string;
  /** Upper bounds of what make() allocates, for each slot of the cache and for each page of guest RAM. */
  readonly bytesPerSlot: number;
  readonly bytesPerPage: number;
  /** `slotCount` is at least 1. */
  make(slotCount: number, pageCount: number): CachePolicy;
}
