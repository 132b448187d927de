// Guests as they are often met, for plans about VMs that nobody has sampled yet: made up, and called so. Sizes of
// deltas and what coders leave are of the order that samples of real guests show; a plan that matters is made from a
// sample of the guest itself.

import type { GuestModel } from "./guest-model.ts";

const PAGE_BYTES = 4096;
/** Beyond 16 GiB most of what RAM is for is to be looked up, not to be changed. */
const LARGE_PAGES = 2 ** 34 / PAGE_BYTES;
const LARGE_LIVE_SHARE = 0.1;

interface Kind {
  /** Of RAM. */
  readonly zeroShare: number;
  /** Shares of RAM (up to 16 GiB, less beyond), and how often a page of them changes in a second. */
  readonly live: readonly (readonly [share: number, changesPerSecond: number])[];
  readonly deltaBytes: number;
  readonly codedShare: number;
}

export const GUEST_KINDS: Readonly<Record<string, Kind>> = {
  idle: { zeroShare: 0.6, live: [[0.0005, 1]], deltaBytes: 60, codedShare: 0.3 },
  web: {
    zeroShare: 0.3,
    live: [
      [0.004, 2],
      [0.02, 0.1],
    ],
    deltaBytes: 250,
    codedShare: 0.35,
  },
  desktop: {
    zeroShare: 0.3,
    live: [
      [0.006, 5],
      [0.03, 0.2],
    ],
    deltaBytes: 900,
    codedShare: 0.4,
  },
  database: {
    zeroShare: 0.1,
    live: [
      [0.005, 8],
      [0.05, 0.3],
    ],
    deltaBytes: 300,
    codedShare: 0.45,
  },
  "in-memory database": {
    zeroShare: 0.05,
    live: [
      [0.01, 4],
      [0.1, 0.2],
    ],
    deltaBytes: 350,
    codedShare: 0.5,
  },
  analytics: {
    zeroShare: 0.1,
    live: [
      [0.02, 3],
      [0.2, 0.1],
    ],
    deltaBytes: 2500,
    codedShare: 0.6,
  },
};

/** @throws RangeError for a kind that there is not */
export function guestOfKind(name: string, memoryBytes: number): GuestModel {
  const kind = GUEST_KINDS[name];
  if (kind === undefined) throw new RangeError(`There is no kind of guest "${name}"`);
  const pages = Math.floor(memoryBytes / PAGE_BYTES);
  const livePages = Math.min(pages, LARGE_PAGES) + Math.max(0, pages - LARGE_PAGES) * LARGE_LIVE_SHARE;
  const deltaSizes = [
    {
      afterMs: 1000,
      xbzrleBytes: kind.deltaBytes * 1.2,
      tunnelBytes: kind.deltaBytes,
      wholeCodedBytes: PAGE_BYTES * kind.codedShare,
    },
  ];
  const live = kind.live.map(([share, changesPerSecond]) => ({
    pages: livePages * share,
    changesPerSecond,
    deltaSizes,
  }));
  return {
    pageBytes: PAGE_BYTES,
    pages,
    zeroPages: pages * kind.zeroShare,
    rateClasses: [
      {
        pages: pages - live.reduce((sum, each) => sum + each.pages, 0),
        changesPerSecond: 0,
        deltaSizes: [],
      },
      ...live,
    ],
    codedShare: { fast: kind.codedShare, strong: kind.codedShare * 0.9 },
    rewrittenPagesPerSecond: 0,
    cpuMsPerPage: { delta: 0.002, fast: 0.015, strong: 0.15 },
    sampledPages: 0,
    sampledMs: 0,
  };
}

/** As an evacuation meets them: mostly small, some large, one in fifty with `memoryBytesMax`. `random`: 0 to 1. */
export function randomFleet(
  count: number,
  memoryBytesMax: number,
  random: () => number,
): { name: string; guest: GuestModel }[] {
  const kinds = Object.keys(GUEST_KINDS);
  const gib = 2 ** 30;
  return Array.from({ length: count }, (_, i) => {
    const kind = kinds[Math.floor(random() * kinds.length)]!;
    const isLarge = random() < 0.02;
    const memoryBytes = isLarge
      ? memoryBytesMax
      : Math.min(memoryBytesMax, gib * 2 ** Math.floor(1 + random() * 7));
    return { name: `${kind} ${i + 1}`, guest: guestOfKind(kind, memoryBytes) };
  });
}
