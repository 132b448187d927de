// Page traces of guests that do not exist: a full pass, then iterations of what a simple model of a guest dirties
// meanwhile. Seeded: the same options give the same trace. Contents are not made.

import { PageClass, type PageObserver } from "../../src/trace/format.ts";

export interface SyntheticGuest {
  readonly pageCount: number;
  readonly iterations: number;
  readonly seed: number;
  /** Pages from 0 on that are zero in the full pass, and never written. */
  readonly zeroPages: number;
  /** Writes during each iteration, spread uniformly over all pages that are not zero. */
  readonly uniformWrites: number;
  /** Pages, scattered, that are dirty in every iteration. They are others after `phaseIterations`. */
  readonly hotPages: number;
  readonly phaseIterations: number;
  /** Pages that a sweep through memory dirties in each iteration, going on where the last one ended. */
  readonly sweptPages: number;
}

export const QUIET_GUEST: SyntheticGuest = {
  pageCount: 32_768,
  iterations: 20,
  seed: 1,
  zeroPages: 8192,
  uniformWrites: 0,
  hotPages: 0,
  phaseIterations: Number.POSITIVE_INFINITY,
  sweptPages: 0,
};

const PAGE_BYTES = 4096;
/** Of changed pages of real guests about so many change little, and so many almost wholly. */
const SMALL_SHARE = 0.45;
const LARGE_SHARE = 0.35;
const SMALL_BYTES = 60;
const MEDIUM_BYTES = 700;
const LARGE_BYTES = 3200;
const NO_CONTENT = new Uint8Array(0);

/** mulberry32: small, fast and good enough to choose pages. Numbers from 0 up to 1. */
function randomOf(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function synthesize(guest: SyntheticGuest, observer: PageObserver): void {
  const random = randomOf(guest.seed);
  const usedPages = guest.pageCount - guest.zeroPages;
  const anyPage = () => guest.zeroPages + Math.floor(random() * usedPages);
  const see = (page: number, iteration: number, pageClass: PageClass, deltaBytes: number) =>
    observer.observe(0, page, iteration, pageClass, deltaBytes, NO_CONTENT, 0);

  observer.ramBlocks([{ idstr: "ram", pageCount: guest.pageCount }], PAGE_BYTES);
  observer.codec("synthetic");
  for (let page = 0; page < guest.pageCount; page++) {
    see(page, 0, page < guest.zeroPages ? PageClass.ZERO : PageClass.RAW, 0);
  }
  let hot: number[] = [];
  let swept = 0;
  const dirty = new Uint8Array(guest.pageCount);
  for (let iteration = 1; iteration <= guest.iterations; iteration++) {
    if (hot.length === 0 || (iteration - 1) % guest.phaseIterations === 0) {
      hot = Array.from({ length: guest.hotPages }, anyPage);
    }
    for (const page of hot) dirty[page] = 1;
    for (let i = 0; i < guest.uniformWrites; i++) dirty[anyPage()] = 1;
    for (let i = 0; i < guest.sweptPages; i++) {
      dirty[guest.zeroPages + swept] = 1;
      swept = (swept + 1) % usedPages;
    }
    for (let page = 0; page < guest.pageCount; page++) {
      if (dirty[page] === 0) continue;
      dirty[page] = 0;
      const kind = random();
      const bytes = kind < SMALL_SHARE ? SMALL_BYTES : kind < 1 - LARGE_SHARE ? MEDIUM_BYTES : LARGE_BYTES;
      see(page, iteration, PageClass.DELTA, Math.ceil(bytes * (0.5 + random() * 0.5)));
    }
  }
}
