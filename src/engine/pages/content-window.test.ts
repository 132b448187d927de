// ContentWindow against a list of the last pages that were sent whole: what a destination keeps. A reference must mean
// an equal page there, whatever has become of the cache's slots since.

import fc from "fast-check";
import { expect, test } from "vitest";
import { makeHome } from "../../../test/support/engine-parts.ts";
import { NO_TAG, PageCache } from "../../memory/page-cache.ts";
import { ContentWindow } from "./content-window.ts";

const PAGE_BYTES = 512;
const PAGES = 24;
const NO_SLOT = -1;

/** As the rewriter and its sink use it: a page is stored, and found or sent whole. */
class Scene {
  readonly #home = makeHome();
  readonly #cache: PageCache;
  readonly #window: ContentWindow;
  readonly #windowPages: number;
  readonly #address = this.#home.memory.allocate(PAGE_BYTES);
  /** By number: what the destination keeps. */
  readonly #kept: number[] = [];
  #next = 0;
  references = 0;

  constructor(windowPages: number, slots: number) {
    const { memory, kernel } = this.#home;
    this.#windowPages = windowPages;
    this.#cache = new PageCache({
      pageBytes: PAGE_BYTES,
      memory,
      limitBytes: slots * (PAGE_BYTES + 16) + 400,
    });
    this.#cache.addBlock({ idstr: "ram", lengthBytes: PAGES * PAGE_BYTES });
    expect(this.#cache.slotCount).toBe(slots);
    this.#window = new ContentWindow(kernel, this.#cache, PAGE_BYTES, windowPages);
  }

  /** `content`: a small number, the same for equal pages. */
  sendWhole(page: number, content: number): void {
    const number = this.#window.find(this.#put(content), this.#store(page));
    if (number === -1) {
      this.#kept[this.#next] = content;
      this.#next = (this.#next + 1) % this.#windowPages;
      return;
    }
    this.references++;
    expect(this.#kept[number]).toBe(content);
  }

  sendDelta(page: number, content: number): void {
    this.#put(content);
    this.#store(page);
  }

  forget(page: number): void {
    this.#cache.forget(0, page);
  }

  sendZero(page: number): void {
    this.#cache.storeZero(0, page);
  }

  #put(content: number): number {
    const page = this.#home.memory.bytes(this.#address, PAGE_BYTES);
    // Different only in one byte, and equal in their hash only if they are equal or by chance.
    page.fill(7);
    page[content] = 8;
    return this.#address;
  }

  #store(page: number): number {
    const slot = this.#cache.reserve(0, page);
    if (slot === NO_SLOT) return slot;
    this.#cache.setTag(slot, NO_TAG);
    this.#home.kernel.copy(this.#cache.addressOf(slot), this.#address, PAGE_BYTES);
    return slot;
  }
}

const page = fc.nat(PAGES - 1);
const content = fc.nat(9);
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ what: fc.constant("sendWhole" as const), page, content }) },
  { weight: 2, arbitrary: fc.record({ what: fc.constant("sendDelta" as const), page, content }) },
  {
    weight: 1,
    arbitrary: fc.record({ what: fc.constantFrom("forget" as const, "sendZero" as const), page, content }),
  },
);

test("a reference always means an equal page, after wrap-around, evictions and changed slots too", () => {
  let references = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(1, 2, 4, 8, 64),
      fc.constantFrom(0, 1, 3, 8, PAGES),
      fc.array(step, { maxLength: 120, size: "max" }),
      (windowPages, slots, steps) => {
        const scene = new Scene(windowPages, slots);
        for (const { what, page, content } of steps) scene[what](page, content);
        references += scene.references;
      },
    ),
    { numRuns: 300 },
  );
  expect(references).toBeGreaterThan(1000);
});

test("equal pages are found as long as the first of them is in the window and in the cache", () => {
  const scene = new Scene(64, PAGES);
  for (let content = 0; content < 8; content++) scene.sendWhole(content, content);
  expect(scene.references).toBe(0);
  for (let content = 0; content < 8; content++) scene.sendWhole(8 + content, content);
  expect(scene.references).toBe(8);
  // The page that came first with this content has another one now.
  scene.sendDelta(3, 9);
  scene.sendWhole(16, 3);
  expect(scene.references).toBe(8);
  scene.sendWhole(17, 3);
  expect(scene.references).toBe(9);
});

test("a page that has left the window is not found any more", () => {
  const scene = new Scene(2, PAGES);
  for (let content = 0; content < 3; content++) scene.sendWhole(content, content);
  scene.sendWhole(3, 0);
  expect(scene.references).toBe(0);
  scene.sendWhole(4, 0);
  expect(scene.references).toBe(1);
});

test("without a slot nothing is found, and pages are numbered all the same", () => {
  const scene = new Scene(4, 0);
  for (let i = 0; i < 20; i++) scene.sendWhole(i, i % 3);
  expect(scene.references).toBe(0);
});
