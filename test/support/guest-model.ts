// Guest models for tests of the planner: 1 GiB unless told otherwise, a quarter of it zero.

import type { GuestModel } from "../../src/planner/guest-model.ts";

const PAGES = 2 ** 18;

export interface ModelParts {
  pages?: number;
  hotPages?: number;
  changesPerSecond?: number;
  deltaBytes?: number;
  rewrittenPagesPerSecond?: number;
}

export function modelOf(parts: ModelParts = {}): GuestModel {
  const { pages = PAGES, hotPages = 0, changesPerSecond = 0, deltaBytes = 100 } = parts;
  return {
    pageBytes: 4096,
    pages,
    zeroPages: pages / 4,
    rateClasses: [
      { pages: pages - hotPages, changesPerSecond: 0, deltaSizes: [] },
      {
        pages: hotPages,
        changesPerSecond,
        deltaSizes: [
          { afterMs: 1000, xbzrleBytes: deltaBytes * 1.2, tunnelBytes: deltaBytes, wholeCodedBytes: 2000 },
        ],
      },
    ],
    codedShare: { fast: 0.5, strong: 0.45 },
    rewrittenPagesPerSecond: parts.rewrittenPagesPerSecond ?? 0,
    cpuMsPerPage: { delta: 0.002, fast: 0.015, strong: 0.15 },
    sampledPages: 0,
    sampledMs: 0,
  };
}
