// The page cache against a Map of whole pages, which remembers everything: what the cache knows must be that, and
// it may know less only because of its limit.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { KERNEL_MEMORY_BYTES_MAX, KernelMemory } from "../kernel/memory.ts";
import { NO_TAG, PAGE_ABSENT, PAGE_ZERO, PageCache, type PageCacheStats } from "./page-cache.ts";

import { ARC } from "./policy/arc.ts";
import { type CachePolicy, NO_SLOT, type PolicyKind } from "./policy/policy.ts";

const PAGE_BYTES = 4096;
/** It takes every page, and puts it anywhere; here the one stored first leaves first. */
const POLICY = ARC;
const GIB = 1024 ** 3;
/** Content, owner, tag and policy's state of one page. */
const SLOT_BYTES = PAGE_BYTES + 8 + POLICY.bytesPerSlot;
/** Of all caches here, where it does not matter: address space is not endless. */
const shared = new KernelMemory();

function cacheOf(
  slotCount: number,
  pagesOfBlocks: readonly number[],
  pageBytes = PAGE_BYTES,
  policy: PolicyKind = POLICY,
  memory = shared,
): PageCache {
  const pageCount = pagesOfBlocks.reduce((sum, pages) => sum + pages, 0);
  const indexBytes = Math.ceil(pageCount * (4 + policy.bytesPerPage));
  const slotBytes = pageBytes + 8 + policy.bytesPerSlot;
  const cache = new PageCache({
    pageBytes,
    limitBytes: indexBytes + Math.ceil(slotCount * slotBytes),
    memory,
    policy,
  });
  for (const [i, pages] of pagesOfBlocks.entries()) {
    expect(cache.addBlock({ idstr: `block${i}`, lengthBytes: pages * pageBytes })).toBe(i);
  }
  return cache;
}

function page(fill: number, pageBytes = PAGE_BYTES): Uint8Array {
  return new Uint8Array(pageBytes).fill(fill);
}

function contentAt(cache: PageCache, slot: number, pageBytes = PAGE_BYTES): Uint8Array {
  expect(slot).toBeGreaterThanOrEqual(0);
  const offset = cache.offsetOf(slot);
  const content = cache.memoryOf(cache.shardOf(slot)).bytes(cache.addressOf(slot), pageBytes);
  expect(content.byteOffset).toBe(cache.slabOf(slot).byteOffset + offset);
  return content;
}

function expectSameBytes(actual: Uint8Array, expected: Uint8Array): void {
  expect(Buffer.compare(actual, expected)).toBe(0);
}

test("a page is absent until it is stored, then found, then forgotten", () => {
  const cache = cacheOf(4, [8]);
  expect(cache.lookup(0, 3)).toBe(PAGE_ABSENT);
  cache.store(0, 3, page(7), 0);
  expectSameBytes(contentAt(cache, cache.lookup(0, 3)), page(7));
  cache.storeZero(0, 3);
  expect(cache.lookup(0, 3)).toBe(PAGE_ZERO);
  cache.store(0, 3, page(9), 0);
  expectSameBytes(contentAt(cache, cache.lookup(0, 3)), page(9));
  cache.forget(0, 3);
  expect(cache.lookup(0, 3)).toBe(PAGE_ABSENT);
});

test("a page is copied from where it lies in a larger buffer", () => {
  const cache = cacheOf(2, [2]);
  const buffer = new Uint8Array(PAGE_BYTES + 10).fill(1);
  buffer.fill(5, 3, 3 + PAGE_BYTES);
  cache.store(0, 1, buffer, 3);
  buffer.fill(8);
  expectSameBytes(contentAt(cache, cache.lookup(0, 1)), page(5));
});

test("storing a page again overwrites it in its place", () => {
  const cache = cacheOf(2, [2]);
  cache.store(0, 0, page(1), 0);
  const slot = cache.lookup(0, 0);
  cache.store(0, 0, page(2), 0);
  expect(cache.lookup(0, 0)).toBe(slot);
  expectSameBytes(contentAt(cache, slot), page(2));
});

test("a hit is a page found as content or as zero, a miss is an absent one", () => {
  const cache = cacheOf(4, [4]);
  cache.store(0, 0, page(1), 0);
  cache.storeZero(0, 1);
  for (const pageIndex of [0, 1, 2, 0]) cache.lookup(0, pageIndex);
  expect(cache.stats).toMatchObject({ hits: 3, misses: 1, evictions: 0 });
});

test("an evicted page is absent, and the others keep their bytes", () => {
  const cache = cacheOf(3, [10]);
  for (let i = 0; i < 4; i++) cache.store(0, i, page(i + 1), 0);
  expect(cache.lookup(0, 0)).toBe(PAGE_ABSENT);
  for (const i of [1, 2, 3]) expectSameBytes(contentAt(cache, cache.lookup(0, i)), page(i + 1));
  expect(cache.stats.evictions).toBe(1);
});

test("a page that became zero makes room for another without an eviction", () => {
  const cache = cacheOf(2, [4]);
  cache.store(0, 0, page(1), 0);
  cache.store(0, 1, page(2), 0);
  cache.storeZero(0, 0);
  cache.store(0, 2, page(3), 0);
  expect(cache.stats.evictions).toBe(0);
  expect(cache.lookup(0, 0)).toBe(PAGE_ZERO);
  expectSameBytes(contentAt(cache, cache.lookup(0, 1)), page(2));
  expectSameBytes(contentAt(cache, cache.lookup(0, 2)), page(3));
});

test("pages of the same number in two blocks are two pages", () => {
  const cache = cacheOf(4, [4, 4]);
  cache.store(0, 2, page(1), 0);
  cache.store(1, 2, page(2), 0);
  expectSameBytes(contentAt(cache, cache.lookup(0, 2)), page(1));
  expectSameBytes(contentAt(cache, cache.lookup(1, 2)), page(2));
  cache.forget(0, 2);
  expectSameBytes(contentAt(cache, cache.lookup(1, 2)), page(2));
});

describe("the limit", () => {
  test("of nothing caches no content but still knows which pages are zero", () => {
    const cache = new PageCache({ pageBytes: PAGE_BYTES, limitBytes: 0, policy: POLICY });
    cache.addBlock({ idstr: "pc.ram", lengthBytes: 10 * PAGE_BYTES });
    cache.storeZero(0, 1);
    cache.storeZero(0, 2);
    cache.store(0, 2, page(1), 0);
    cache.store(0, 3, page(1), 0);
    expect([0, 1, 2, 3].map((i) => cache.lookup(0, i))).toEqual([
      PAGE_ABSENT,
      PAGE_ZERO,
      PAGE_ABSENT,
      PAGE_ABSENT,
    ]);
    expect(cache.stats).toMatchObject({ usedBytes: 40, evictions: 0, limitBytes: 0 });
  });

  test("is rounded down to whole pages, also below the size of a slab", () => {
    const indexBytes = 100 * (4 + POLICY.bytesPerPage);
    for (const [spareBytes, pages] of [
      [0, 0],
      [SLOT_BYTES - 1, 0],
      [SLOT_BYTES, 1],
      [5 * SLOT_BYTES + 100, 5],
    ] as const) {
      const limitBytes = indexBytes + spareBytes;
      const cache = new PageCache({ pageBytes: PAGE_BYTES, limitBytes, memory: shared, policy: POLICY });
      cache.addBlock({ idstr: "pc.ram", lengthBytes: 100 * PAGE_BYTES });
      for (let i = 0; i < 100; i++) cache.store(0, i, page(i + 1), 0);
      let found = 0;
      for (let i = 0; i < 100; i++) if (cache.lookup(0, i) >= 0) found++;
      expect(found).toBe(pages);
      // Without slots there is no policy.
      expect(cache.stats.usedBytes).toBe(pages === 0 ? 100 * 4 : indexBytes + pages * SLOT_BYTES);
    }
  });

  test("is reached slab by slab: memory follows use", () => {
    const cache = cacheOf(3000, [5000]);
    const usedBytes: number[] = [cache.stats.usedBytes];
    for (let i = 0; i < 5000; i++) {
      cache.store(0, i, page(1), 0);
      expect(cache.stats.usedBytes).toBeLessThanOrEqual(cache.stats.limitBytes);
      if (i === 0 || i === 1023 || i === 1024 || i === 4999) usedBytes.push(cache.stats.usedBytes);
    }
    const bookkeepingBytes = 3000 * (SLOT_BYTES - PAGE_BYTES);
    const perPage = 5000 * (4 + POLICY.bytesPerPage);
    const slabBytes = 4 * 1024 * 1024;
    expect(usedBytes).toEqual([
      5000 * 4,
      perPage + bookkeepingBytes + slabBytes,
      perPage + bookkeepingBytes + slabBytes,
      perPage + bookkeepingBytes + 2 * slabBytes,
      perPage + bookkeepingBytes + 3000 * PAGE_BYTES,
    ]);
  });

  test("growing neither moves nor changes what is there", () => {
    const cache = cacheOf(3000, [3000]);
    cache.store(0, 0, page(9), 0);
    const slot = cache.lookup(0, 0);
    const slab = cache.slabOf(slot);
    for (let i = 1; i < 3000; i++) cache.store(0, i, page(1), 0);
    expect(cache.lookup(0, 0)).toBe(slot);
    expect(cache.slabOf(slot)).toBe(slab);
    expectSameBytes(contentAt(cache, slot), page(9));
  });
});

test("an 8 GiB RAMBlock costs its index, a little for the policy, and what is cached", () => {
  const cache = new PageCache({ pageBytes: PAGE_BYTES, limitBytes: 64 * 1024 ** 2 });
  cache.addBlock({ idstr: "pc.ram", lengthBytes: 8 * GIB });
  const lastPage = (8 * GIB) / PAGE_BYTES - 1;
  expect(cache.stats.usedBytes).toBe(8 * 1024 ** 2);
  expect(cache.lookup(0, lastPage)).toBe(PAGE_ABSENT);
  cache.store(0, lastPage, page(3), 0);
  expectSameBytes(contentAt(cache, cache.lookup(0, lastPage)), page(3));
  expect(cache.stats.usedBytes).toBeLessThan((8 + 4 + 4 + 1) * 1024 ** 2);
});

test("what no caller may do is our own mistake", () => {
  const cache = cacheOf(2, [2]);
  expect(() => cache.lookup(0, 2)).toThrow(/Assertion/);
  expect(() => cache.lookup(1, 0)).toThrow(/Assertion/);
  expect(() => cache.lookup(0, -1)).toThrow(/Assertion/);
  expect(() => cache.storeZero(0, 2)).toThrow(/Assertion/);
  expect(() => cache.store(0, 0, page(1), 1)).toThrow(/Assertion/);
  expect(cache.lookup(0, 0)).toBe(PAGE_ABSENT);
  cache.store(0, 0, page(1), 0);
  expect(() => cache.addBlock({ idstr: "late", lengthBytes: PAGE_BYTES })).toThrow(/Assertion/);
  expect(() => new PageCache({ pageBytes: 5000, limitBytes: 0 })).toThrow(/Assertion/);
  const odd = new PageCache({ pageBytes: PAGE_BYTES, limitBytes: 0 });
  expect(() => odd.addBlock({ idstr: "odd", lengthBytes: PAGE_BYTES + 1 })).toThrow(/Assertion/);
});

test("another policy decides which page leaves, and which is not taken", () => {
  /** Slots of even pages stay, that of an odd one is given to the next. */
  class EvenPagesStay implements CachePolicy {
    readonly #pages: number[];
    constructor(slotCount: number) {
      this.#pages = new Array<number>(slotCount).fill(-1);
    }
    admit(page: number): number {
      const empty = this.#pages.indexOf(-1);
      const slot = empty === -1 ? this.#pages.findIndex((held) => held % 2 === 1) : empty;
      if (slot !== -1) this.#pages[slot] = page;
      return slot;
    }
    touched(): void {}
    removed(slot: number): void {
      this.#pages[slot] = -1;
    }
    iterationBegan(): void {}
  }
  const kind: PolicyKind = {
    name: "even",
    bytesPerSlot: 8,
    bytesPerPage: 0.5,
    make: (slots) => new EvenPagesStay(slots),
  };
  const cache = cacheOf(2, [10], PAGE_BYTES, kind);
  for (const i of [0, 1, 3, 6]) cache.store(0, i, page(i + 1), 0);
  const known = () => Array.from({ length: 10 }, (_, i) => i).filter((i) => cache.lookup(0, i) >= 0);
  expect(known()).toEqual([0, 6]);
  cache.storeZero(0, 8);
  expect(cache.reserve(0, 8)).toBe(NO_SLOT);
  expect(cache.lookup(0, 8)).toBe(PAGE_ABSENT);
  expect(known()).toEqual([0, 6]);
  expect(cache.stats).toMatchObject({ evictions: 2 });
  expect(cache.stats.usedBytes).toBeLessThanOrEqual(cache.stats.limitBytes);
});

describe("a tag", () => {
  test("stays with its page until another takes the slot", () => {
    const cache = cacheOf(1, [4]);
    const slot = cache.reserve(0, 0);
    expect(cache.tagOf(slot)).toBe(NO_TAG);
    cache.setTag(slot, 77);
    expect(cache.reserve(0, 0)).toBe(slot);
    expect(cache.tagOf(slot)).toBe(77);
    expect(cache.reserve(0, 1)).toBe(slot);
    expect(cache.tagOf(slot)).toBe(NO_TAG);
  });

  test("does not outlive a page that was forgotten or became zero", () => {
    const cache = cacheOf(1, [4]);
    for (const leave of [() => cache.forget(0, 0), () => cache.storeZero(0, 0)]) {
      cache.setTag(cache.reserve(0, 0), -(2 ** 31));
      leave();
      expect(cache.tagOf(cache.reserve(0, 0))).toBe(NO_TAG);
    }
  });
});

describe("kernel memory", () => {
  test("holds the content where the caller has put it", () => {
    const cache = cacheOf(2, [2]);
    const slot = cache.reserve(0, 1);
    shared.bytes(cache.addressOf(slot), PAGE_BYTES).fill(6);
    expect(cache.shardOf(slot)).toBe(0);
    expect(cache.memoryOf(0)).toBe(shared);
    expectSameBytes(contentAt(cache, cache.lookup(0, 1)), page(6));
    expect(cache.addressOf(slot) % PAGE_BYTES).toBe(0);
  });

  test("of the home is left 64 MiB, and what does not fit goes on in further ones", () => {
    const home = new KernelMemory();
    const spareBytes = 64 * 1024 * 1024;
    const slabBytes = 4 * 1024 * 1024;
    // Room for one slab and not for two.
    home.allocate(KERNEL_MEMORY_BYTES_MAX - home.allocatedBytes - spareBytes - 2 * slabBytes);
    const cache = cacheOf(4096, [4096], PAGE_BYTES, POLICY, home);
    for (let i = 0; i < 4096; i++) cache.store(0, i, page((i % 255) + 1), 0);
    const shards = Array.from({ length: 4096 }, (_, i) => cache.shardOf(cache.lookup(0, i)));
    expect(shards.filter((shard) => shard === 0).length).toBe(1024);
    expect(shards.filter((shard) => shard === 1).length).toBe(3072);
    expect(cache.memoryOf(0)).toBe(home);
    expect(home.hasRoom(spareBytes)).toBe(true);
    for (let i = 0; i < 4096; i++) {
      expectSameBytes(contentAt(cache, cache.lookup(0, i)), page((i % 255) + 1));
    }
  });
});

describe("under any operations", () => {
  /** 512-byte pages and few of them, so that pages meet often. */
  const SMALL_PAGE_BYTES = 512;
  const BLOCK_PAGES = [7, 1, 12];

  const operation = fc.record({
    kind: fc.constantFrom("store", "store", "store", "zero", "forget", "lookup", "lookup"),
    block: fc.nat({ max: BLOCK_PAGES.length - 1 }),
    page: fc.nat({ max: 11 }),
    fill: fc.integer({ min: 1, max: 255 }),
  });

  /** What the destination holds, with no limit: a page of this fill, 0 for zeros. Not in it: not known. */
  type Model = Map<string, number>;

  function expectAgrees(cache: PageCache, model: Model, blockIndex: number, pageIndex: number): boolean {
    const known = model.get(`${blockIndex}/${pageIndex}`);
    const slot = cache.lookup(blockIndex, pageIndex);
    if (slot === PAGE_ABSENT) return known !== undefined && known !== 0;
    expect(known).toBeDefined();
    if (slot === PAGE_ZERO) expect(known).toBe(0);
    else expectSameBytes(contentAt(cache, slot, SMALL_PAGE_BYTES), page(known!, SMALL_PAGE_BYTES));
    return false;
  }

  test("it never returns another page's bytes, keeps zeros, stays in its limit and loses only what it evicted", () => {
    const seen = { evictions: 0, runs: 0 };
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 21 }),
        fc.array(operation, { maxLength: 200, size: "max" }),
        (slotCount, operations) => {
          const cache = cacheOf(slotCount, BLOCK_PAGES, SMALL_PAGE_BYTES);
          const model: Model = new Map();
          let lookups = 0;
          let stats: PageCacheStats = cache.stats;
          for (const { kind, block, page: number, fill } of operations) {
            const pageIndex = number % BLOCK_PAGES[block]!;
            const key = `${block}/${pageIndex}`;
            if (kind === "store") {
              cache.store(block, pageIndex, page(fill, SMALL_PAGE_BYTES), 0);
              model.set(key, fill);
              const slot = cache.lookup(block, pageIndex);
              lookups++;
              expect(slot >= 0).toBe(slotCount > 0);
            } else if (kind === "zero") {
              cache.storeZero(block, pageIndex);
              model.set(key, 0);
            } else if (kind === "forget") {
              cache.forget(block, pageIndex);
              model.delete(key);
            } else {
              expectAgrees(cache, model, block, pageIndex);
              lookups++;
            }
            stats = cache.stats;
            expect(stats.usedBytes).toBeLessThanOrEqual(stats.limitBytes);
            expect(stats.hits + stats.misses).toBe(lookups);
          }
          let lost = 0;
          let held = 0;
          for (const [blockIndex, pages] of BLOCK_PAGES.entries()) {
            for (let i = 0; i < pages; i++) {
              if (expectAgrees(cache, model, blockIndex, i)) lost++;
              if (cache.lookup(blockIndex, i) >= 0) held++;
            }
          }
          expect(held).toBeLessThanOrEqual(slotCount);
          if (slotCount > 0) expect(lost).toBeLessThanOrEqual(stats.evictions);
          // With a slot for every page nothing is ever lost.
          if (slotCount >= 20) expect([lost, stats.evictions]).toEqual([0, 0]);
          seen.evictions += stats.evictions;
          seen.runs++;
        },
      ),
      { numRuns: 500 },
    );
    expect(seen.evictions).toBeGreaterThan(seen.runs);
  });
});
