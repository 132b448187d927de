// What is known of a guest before it is moved: how much RAM, what is in it, how often pages are written and what changes
// in them. Made by sampling (sampling.ts), read from a file, or written by hand; the simulation asks nothing else.
// Pages are counted as numbers that need not be whole: they are estimates.

import { z } from "zod";

const count = z.number().nonnegative();

/** What a changed page costs when the destination has it as it was so long before. */
const deltaSizeSchema = z.object({
  afterMs: count,
  /** Mean of an XBZRLE delta in bytes; a page whose delta would be larger counts whole. */
  xbzrleBytes: count,
  /** Mean bytes on the wire of what the tunnel makes of it: word mask, then the entropy coder. */
  tunnelBytes: count,
  /** Mean bytes on the wire when the whole page is sent again through an entropy coder. */
  wholeCodedBytes: count,
});
export type DeltaSize = z.infer<typeof deltaSizeSchema>;

/** Pages that are written about equally often. What is written often is of another kind than what is not. */
const rateClassSchema = z.object({
  pages: count,
  /** Of each page: times a second that its content becomes another (a Poisson process). */
  changesPerSecond: count,
  /** By `afterMs`, ascending; between them is interpolated, beyond them nothing changes. Empty: was not seen to change. */
  deltaSizes: z.array(deltaSizeSchema).max(64),
});
export type RateClass = z.infer<typeof rateClassSchema>;

export const guestModelSchema = z.object({
  pageBytes: z.number().int().positive(),
  /** All RAM. */
  pages: count,
  /** Of them, those in which all bytes are zero. */
  zeroPages: count,
  rateClasses: z.array(rateClassSchema).max(64),
  /** Of the pages that are not zero: what entropy coders leave of them, as a share. */
  codedShare: z.object({ fast: count, strong: count }),
  /** Written, but with what was there before: sent again by whoever does not compare. Pages per second. */
  rewrittenPagesPerSecond: count,
  /** What a page costs in CPU on the machine where the sample was taken. */
  cpuMsPerPage: z.object({ delta: count, fast: count, strong: count }),
  /** Of how many pages this was seen, for the uncertainty; 0: not from a sample. */
  sampledPages: count,
  sampledMs: count,
});
export type GuestModel = z.infer<typeof guestModelSchema>;

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
