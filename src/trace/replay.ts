// Runs a page cache's policy over a page trace: what it would have found, and what would have been sent. Estimates
// bytes as direct mode sends them, before any entropy coding; the order and the iterations are those of the trace,
// although sending less would also have made them shorter.

import { PAGE_ABSENT, PAGE_ZERO, PageDirectory } from "../memory/page-directory.ts";
import type { PolicyKind } from "../memory/policy/policy.ts";
import { PageClass } from "./format.ts";
import { optimal } from "./optimal.ts";
import type { PageTrace } from "./page-trace.ts";

// Records of QEMU's stream: address with flags; XBZRLE adds a byte and a length, a zero page its fill.
const WHOLE_PAGE_RECORD_BYTES = 8;
const DELTA_RECORD_BYTES = 8 + 3;
const ZERO_RECORD_BYTES = 8 + 1;

export interface ReplayResult {
  readonly slotCount: number;
  /** Pages dirtied again whose content had been sent before: those that the cache can be of use to. */
  readonly pagesAgain: number;
  /** Of those, found in the cache. */
  readonly hits: number;
  readonly evictions: number;
  /** Pages sent whole: first ones, misses and overflows. */
  readonly wholePages: number;
  readonly wireBytes: number;
  /** Hits whose delta the trace does not know, since its own cache had missed: taken for the average. */
  readonly estimatedDeltas: number;
}

/** Average of the deltas in the trace, and of the deltas and overflows that the migration could not make. */
function averageDeltaBytes(trace: PageTrace): number {
  let deltas = 0;
  let bytes = 0;
  for (let record = 0; record < trace.pages.length; record++) {
    const pageClass = trace.classes[record];
    if (pageClass === PageClass.DELTA) bytes += trace.deltaBytes[record]! + DELTA_RECORD_BYTES;
    else if (pageClass === PageClass.OVERFLOW) bytes += trace.pageBytes + WHOLE_PAGE_RECORD_BYTES;
    else continue;
    deltas++;
  }
  return deltas === 0 ? trace.pageBytes + WHOLE_PAGE_RECORD_BYTES : bytes / deltas;
}

/** `cachePages` is how many pages the cache has slots for. */
export function replay(trace: PageTrace, kind: PolicyKind | "optimal", cachePages: number): ReplayResult {
  const { pages, classes, pageBytes } = trace;
  let record = 0;
  const policy = kind === "optimal" ? optimal(trace, () => record) : kind;
  const directory = new PageDirectory(trace.pageCount, cachePages, policy);
  /** Pages whose content has been sent at some time. */
  const wasSent = new Uint8Array(trace.pageCount);
  const averageBytes = averageDeltaBytes(trace);
  let nextIteration = 0;
  let [pagesAgain, hits, wholePages, wireBytes, estimatedDeltas] = [0, 0, 0, 0, 0];

  for (; record < pages.length; record++) {
    while (trace.iterationStarts[nextIteration] === record) {
      nextIteration++;
      directory.iterationBegan();
    }
    const page = pages[record]!;
    const pageClass = classes[record];
    const found = directory.lookup(page);
    if (pageClass === PageClass.ZERO || (pageClass === PageClass.UNCHANGED && found === PAGE_ZERO)) {
      if (found !== PAGE_ZERO) wireBytes += ZERO_RECORD_BYTES;
      directory.setZero(page);
      continue;
    }
    if (found !== PAGE_ZERO && wasSent[page] !== 0) {
      pagesAgain++;
      if (found !== PAGE_ABSENT) hits++;
    }
    if (found === PAGE_ABSENT || pageClass === PageClass.OVERFLOW) {
      wholePages++;
      wireBytes += pageBytes + WHOLE_PAGE_RECORD_BYTES;
    } else if (pageClass === PageClass.DELTA) {
      wireBytes += trace.deltaBytes[record]! + DELTA_RECORD_BYTES;
    } else if (pageClass === PageClass.RAW) {
      estimatedDeltas++;
      wireBytes += averageBytes;
    }
    wasSent[page] = 1;
    if (found < 0) directory.reserve(page);
  }
  return {
    slotCount: directory.slotCount,
    pagesAgain,
    hits,
    evictions: directory.evictions,
    wholePages,
    wireBytes,
    estimatedDeltas,
  };
}
