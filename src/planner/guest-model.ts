// What follows from a guest's model (record/guest-model.ts): how many of its pages change in a time, and what that costs.

import type { DeltaSize, GuestModel, RateClass } from "../record/guest-model.ts";

export { type DeltaSize, type GuestModel, guestModelSchema, type RateClass } from "../record/guest-model.ts";

/** Pages whose content has become another at least once, `ms` after all of them were known. */
export function changedPages(model: GuestModel, ms: number): number {
  let pages = 0;
  for (const { pages: all, changesPerSecond } of model.rateClasses) {
    pages += all * -Math.expm1((-changesPerSecond * ms) / 1000);
  }
  return pages;
}

/** Content that changes, in pages per second, as whoever looks all the time would count them. */
export function dirtyPagesPerSecond(model: GuestModel): number {
  return changedPages(model, 1000);
}

/** Of a page of this class that was last sent `ms` ago. Linear in the logarithm of time between what was measured. */
export function classDeltaSize({ deltaSizes: sizes }: RateClass, whole: number, ms: number): DeltaSize {
  const above = sizes.findIndex(({ afterMs }) => afterMs >= ms);
  if (sizes.length === 0)
    return { afterMs: ms, xbzrleBytes: whole, tunnelBytes: whole, wholeCodedBytes: whole };
  if (above === 0 || ms <= 0) return sizes[0]!;
  if (above === -1) return sizes.at(-1)!;
  const [from, to] = [sizes[above - 1]!, sizes[above]!];
  const share = Math.log(ms / from.afterMs) / Math.log(to.afterMs / from.afterMs);
  const between = (a: number, b: number) => a + (b - a) * share;
  return {
    afterMs: ms,
    xbzrleBytes: between(from.xbzrleBytes, to.xbzrleBytes),
    tunnelBytes: between(from.tunnelBytes, to.tunnelBytes),
    wholeCodedBytes: between(from.wholeCodedBytes, to.wholeCodedBytes),
  };
}

/** Mean of the pages that change within `ms`. Undefined: nothing was seen to change. */
export function meanDeltaSize(model: GuestModel, ms: number): DeltaSize | undefined {
  const sum = { afterMs: ms, xbzrleBytes: 0, tunnelBytes: 0, wholeCodedBytes: 0 };
  let changed = 0;
  for (const rateClass of model.rateClasses) {
    if (rateClass.deltaSizes.length === 0) continue;
    const pages = rateClass.pages * -Math.expm1((-rateClass.changesPerSecond * ms) / 1000);
    const size = classDeltaSize(rateClass, model.pageBytes, ms);
    changed += pages;
    sum.xbzrleBytes += pages * size.xbzrleBytes;
    sum.tunnelBytes += pages * size.tunnelBytes;
    sum.wholeCodedBytes += pages * size.wholeCodedBytes;
  }
  if (changed === 0) return undefined;
  return {
    afterMs: ms,
    xbzrleBytes: sum.xbzrleBytes / changed,
    tunnelBytes: sum.tunnelBytes / changed,
    wholeCodedBytes: sum.wholeCodedBytes / changed,
  };
}

/** The same guest, busier or calmer. */
export function withRates(model: GuestModel, factor: number): GuestModel {
  return {
    ...model,
    rateClasses: model.rateClasses.map((each) => ({
      ...each,
      changesPerSecond: each.changesPerSecond * factor,
    })),
    rewrittenPagesPerSecond: model.rewrittenPagesPerSecond * factor,
  };
}
