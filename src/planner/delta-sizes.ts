// What changes of a page cost, by how often the page changes and by how long it took: from what was measured of some
// pages, for a class of them. Pure.

import type { DeltaSize } from "./guest-model.ts";
import { nearestHeat } from "./rate-mixture.ts";

export interface MeasuredSize extends DeltaSize {
  /** Of how many pages it is the mean. */
  readonly pages: number;
}

/**
 * Of pages with such a rate; `byHeat`: ascending by time. In a time in which a page changes once at most, what changes
 * does not depend on how long that time is: all that was measured in such times is one measurement. The few pages that
 * happened to change within a short look would otherwise stand for all that seldom do.
 */
export function deltaSizesAt(
  byHeat: readonly (readonly MeasuredSize[])[],
  changesPerSecond: number,
): DeltaSize[] {
  if (changesPerSecond === 0) return [];
  const sizes = nearestHeat(byHeat, changesPerSecond);
  const once = sizes.filter(({ afterMs }) => afterMs * changesPerSecond <= 1000);
  const more = sizes.slice(once.length).map(withoutCount);
  return once.length === 0 ? more : [pooled(once), ...more];
}

/** As of the longest of their times. */
function pooled(sizes: readonly MeasuredSize[]): DeltaSize {
  const pages = sizes.reduce((sum, each) => sum + each.pages, 0);
  const mean = (key: "xbzrleBytes" | "tunnelBytes" | "wholeCodedBytes") =>
    sizes.reduce((sum, each) => sum + each.pages * each[key], 0) / pages;
  return {
    afterMs: sizes.at(-1)!.afterMs,
    xbzrleBytes: mean("xbzrleBytes"),
    tunnelBytes: mean("tunnelBytes"),
    wholeCodedBytes: mean("wholeCodedBytes"),
  };
}

function withoutCount({ pages: _, ...size }: MeasuredSize): DeltaSize {
  return size;
}
