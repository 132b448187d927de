// Every policy against a model of it that can be read (test/support/policy-models.ts): the same pages are held after
// the same calls, and as many have left. Then what each is meant to be good or bad at.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  ArcModel,
  DirectMappedModel,
  HistoryModel,
  type PolicyModel,
  SecondTouchModel,
  SetAssociativeModel,
} from "../../test/support/policy-models.ts";
import { PageDirectory } from "./page-directory.ts";
import { POLICIES } from "./policy/all.ts";
import { ARC } from "./policy/arc.ts";
import { DIRECT_MAPPED } from "./policy/direct-mapped.ts";
import { EmptySlots } from "./policy/empty-slots.ts";
import { HISTORY } from "./policy/history.ts";
import { NO_SLOT, type PolicyKind } from "./policy/policy.ts";
import { secondTouch } from "./policy/second-touch.ts";
import { setAssociative } from "./policy/set-associative.ts";

const PAGES = 24;

const models: Readonly<Record<string, (slotCount: number) => PolicyModel>> = {
  direct: (slots) => new DirectMappedModel(slots),
  "lru-2way": (slots) => new SetAssociativeModel(slots, 2),
  "lru-4way": (slots) => new SetAssociativeModel(slots, 4),
  "lru-8way": (slots) => new SetAssociativeModel(slots, 8),
  arc: (slots) => new ArcModel(slots),
  "lru-8way+2nd": (slots) => new SecondTouchModel(new SetAssociativeModel(slots, 8), slots),
  "arc+2nd": (slots) => new SecondTouchModel(new ArcModel(slots), slots),
  history: (slots) => new HistoryModel(slots),
};

const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ does: fc.constant("use"), page: fc.nat({ max: PAGES - 1 }) }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("zero"), page: fc.nat({ max: PAGES - 1 }) }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("iteration"), page: fc.constant(0) }) },
  // A migration's own way: many pages in the order of addresses.
  { weight: 2, arbitrary: fc.record({ does: fc.constant("sweep"), page: fc.nat({ max: PAGES - 1 }) }) },
);

describe.each(POLICIES)("the policy $name", (kind) => {
  test("holds the pages that its model holds, and lets as many go", () => {
    const seen = { hits: 0, evictions: 0, refusals: 0 };
    const property = fc.property(
      fc.integer({ min: 1, max: PAGES }),
      fc.array(step, { maxLength: 60, size: "max" }),
      (slotCount, steps) => {
        const directory = new PageDirectory(PAGES, slotCount, kind);
        const model = models[kind.name]!(slotCount);
        const use = (page: number) => {
          const found = directory.lookup(page);
          expect(found >= 0).toBe(model.holds(page));
          if (found >= 0) {
            seen.hits++;
            model.touch(page);
            return;
          }
          const slot = directory.reserve(page);
          model.admit(page, true);
          expect(slot !== NO_SLOT).toBe(model.holds(page));
          if (slot === NO_SLOT) seen.refusals++;
        };
        for (const { does, page } of steps) {
          if (does === "use") use(page);
          else if (does === "sweep")
            for (let each = page % 5; each < PAGES; each += 1 + (page % 3)) use(each);
          else if (does === "zero") {
            directory.setZero(page);
            if (model.holds(page)) model.remove(page);
          } else {
            directory.iterationBegan();
            model.iteration();
          }
          expect(directory.evictions).toBe(model.evictions);
        }
        for (let page = 0; page < PAGES; page++) expect(directory.lookup(page) >= 0).toBe(model.holds(page));
        seen.evictions += directory.evictions;
      },
    );
    fc.assert(property, { numRuns: 300 });
    expect(seen.hits).toBeGreaterThan(300);
    expect(seen.evictions).toBeGreaterThan(100);
  });

  test("uses the only slot of a cache of one page", () => {
    const directory = new PageDirectory(PAGES, 1, kind);
    directory.reserve(3);
    expect(directory.lookup(3)).toBe(0);
  });

  test("allocates no more than it says", () => {
    const [slotCount, pageCount] = [10_000, 40_000];
    const allocated = allocatedBy(() => kind.make(slotCount, pageCount));
    // Some more for heads of lists and the like.
    expect(allocated).toBeLessThanOrEqual(
      slotCount * kind.bytesPerSlot + pageCount * kind.bytesPerPage + 256,
    );
    expect(allocated).toBeGreaterThan(0.9 * (slotCount * kind.bytesPerSlot + pageCount * kind.bytesPerPage));
  });

  test("takes what is not in a slot for our own mistake", () => {
    const policy = kind.make(4, PAGES);
    expect(() => policy.touched(0)).toThrow(/Assertion/);
    expect(() => policy.removed(0)).toThrow(/Assertion/);
    expect(() => policy.removed(9)).toThrow(/Assertion/);
  });
});

/** Bytes of the typed arrays made meanwhile. */
function allocatedBy(action: () => void): number {
  let bytes = 0;
  const names = ["Int32Array", "Uint16Array", "Uint8Array"] as const;
  const originals = names.map((name) => globalThis[name]);
  for (const [i, name] of names.entries()) {
    const counting = new Proxy(originals[i]!, {
      construct(target, parameters, newTarget) {
        const array = Reflect.construct(target, parameters, newTarget) as { byteLength: number };
        bytes += array.byteLength;
        return array;
      },
    });
    Object.assign(globalThis, { [name]: counting });
  }
  try {
    action();
  } finally {
    for (const [i, name] of names.entries()) Object.assign(globalThis, { [name]: originals[i] });
  }
  return bytes;
}

/** Hits of `sweeps` sweeps over `pages` pages in order, after a full pass over all of `pageCount`. */
function hitsOfSweeps(kind: PolicyKind, slotCount: number, pages: readonly number[], sweeps: number): number {
  const pageCount = 1000;
  const directory = new PageDirectory(pageCount, slotCount, kind);
  const use = (page: number) => {
    if (directory.lookup(page) < 0) directory.reserve(page);
  };
  for (let page = 0; page < pageCount; page++) use(page);
  directory.hits = 0;
  for (let sweep = 0; sweep < sweeps; sweep++) {
    directory.iterationBegan();
    for (const page of pages) use(page);
  }
  return directory.hits;
}

describe("in a migration", () => {
  const everyThird = Array.from({ length: 333 }, (_, i) => 3 * i);

  test("LRU and ARC lose every page of sweeps longer than the cache; history holds on to as many as fit", () => {
    for (const kind of [setAssociative(8), ARC]) {
      expect(hitsOfSweeps(kind, 100, everyThird, 10)).toBeLessThan(40);
    }
    expect(hitsOfSweeps(HISTORY, 100, everyThird, 10)).toBeGreaterThan(0.9 * 9 * 100);
  });

  test("history gives the slots to the pages that are dirty every time", () => {
    const directory = new PageDirectory(1000, 100, HISTORY);
    const use = (page: number) => {
      const found = directory.lookup(page);
      if (found < 0) directory.reserve(page);
      return found >= 0;
    };
    const isHot = (page: number) => page % 12 === 5;
    for (let page = 0; page < 1000; page++) use(page);
    let [hotHits, hotUses] = [0, 0];
    for (let sweep = 0; sweep < 30; sweep++) {
      for (let page = 0; page < 1000; page++) {
        if (isHot(page)) {
          const hit = use(page);
          if (sweep >= 3) {
            hotUses++;
            if (hit) hotHits++;
          }
        } else if ((page * 7919 + sweep * 104729) % 10 < 3) use(page);
      }
    }
    expect(hotHits / hotUses).toBeGreaterThan(0.98);
  });

  test("history forgets: other pages become hot, and have the slots a few sweeps later", () => {
    const hot = (phase: number) => Array.from({ length: 80 }, (_, i) => 11 * i + phase);
    const directory = new PageDirectory(1000, 100, HISTORY);
    const sweepHits = (pages: readonly number[]) => {
      const before = directory.hits;
      for (const page of pages) if (directory.lookup(page) < 0) directory.reserve(page);
      return directory.hits - before;
    };
    sweepHits(Array.from({ length: 1000 }, (_, i) => i));
    for (let i = 0; i < 20; i++) sweepHits(hot(0));
    expect(sweepHits(hot(0))).toBe(80);
    for (let i = 0; i < 4; i++) sweepHits(hot(1));
    expect(sweepHits(hot(1))).toBe(80);
  });

  test("history does not tire of being asked: after more sweeps than it can count it still tells pages apart", () => {
    const directory = new PageDirectory(100, 10, HISTORY);
    const hot = Array.from({ length: 10 }, (_, i) => 9 * i + 1);
    for (let sweep = 0; sweep < 600; sweep++) {
      for (const page of [...hot, 90 + (sweep % 10)]) if (directory.lookup(page) < 0) directory.reserve(page);
    }
    const before = directory.hits;
    for (const page of hot) directory.lookup(page);
    expect(directory.hits - before).toBeGreaterThanOrEqual(9);
  });

  test("a page is safe in the direct-mapped cache for the iteration after the one it was used in", () => {
    const directory = new PageDirectory(20, 10, DIRECT_MAPPED);
    directory.reserve(3);
    expect(directory.reserve(13)).toBe(NO_SLOT);
    directory.iterationBegan();
    expect(directory.reserve(13)).toBe(NO_SLOT);
    directory.iterationBegan();
    expect(directory.reserve(13)).toBe(3);
    expect(directory.lookup(3)).toBeLessThan(0);
  });

  test("admission on second touch fills an empty cache at once, and then keeps a sweep out", () => {
    const directory = new PageDirectory(1000, 8, secondTouch(setAssociative(8)));
    for (let page = 0; page < 1000; page++) directory.reserve(page);
    const held = Array.from({ length: 1000 }, (_, page) => page).filter(
      (page) => directory.lookup(page) >= 0,
    );
    expect(held).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    directory.reserve(500);
    directory.reserve(500);
    expect(directory.lookup(500)).toBeGreaterThanOrEqual(0);
    expect(directory.lookup(0)).toBeLessThan(0);
  });
});

test("empty slots are those given back first, then new ones in order, then none", () => {
  const empty = new EmptySlots(3);
  expect([empty.take(), empty.take()]).toEqual([0, 1]);
  empty.giveBack(0);
  empty.giveBack(1);
  expect([empty.take(), empty.take(), empty.take(), empty.take()]).toEqual([1, 0, 2, NO_SLOT]);
  expect(() => empty.giveBack(3)).toThrow(/Assertion/);
});
