// What is known of a guest before it is moved: how much RAM, what is in it, how often pages are written and what changes
// in them. Made by sampling (planner/sampling.ts), read from a file, or written by hand; the planner's simulation asks
// nothing else. A run record holds it beside the forecast that was made from it: a later planner can be asked again.
// Pages are counted as numbers that need not be whole: they are estimates.

import * as v from "../base/schema.ts";

const count = v.pipe(v.number(), v.minValue(0));

/** What a changed page costs when the destination has it as it was so long before. */
const deltaSizeSchema = v.object({
  afterMs: count,
  /** Mean of an XBZRLE delta in bytes; a page whose delta would be larger counts whole. */
  xbzrleBytes: count,
  /** Mean bytes on the wire of what the tunnel makes of it: word mask, then the entropy coder. */
  tunnelBytes: count,
  /** Mean bytes on the wire when the whole page is sent again through an entropy coder. */
  wholeCodedBytes: count,
});
export type DeltaSize = v.InferOutput<typeof deltaSizeSchema>;

/** Pages that are written about equally often. What is written often is of another kind than what is not. */
const rateClassSchema = v.object({
  pages: count,
  /** Of each page: times a second that its content becomes another (a Poisson process). */
  changesPerSecond: count,
  /** By `afterMs`, ascending; between them is interpolated, beyond them nothing changes. Empty: was not seen to change. */
  deltaSizes: v.pipe(v.array(deltaSizeSchema), v.maxLength(64)),
});
export type RateClass = v.InferOutput<typeof rateClassSchema>;

export const guestModelSchema = v.object({
  pageBytes: v.pipe(v.integer(), v.gtValue(0)),
  /** All RAM. */
  pages: count,
  /** Of them, those in which all bytes are zero. */
  zeroPages: count,
  rateClasses: v.pipe(v.array(rateClassSchema), v.maxLength(64)),
  /** Of the pages that are not zero: what entropy coders leave of them, as a share. */
  codedShare: v.object({ fast: count, strong: count }),
  /** Written, but with what was there before: sent again by whoever does not compare. Pages per second. */
  rewrittenPagesPerSecond: count,
  /** False: nobody counts them there (QEMU under TCG, v86), and 0 is what is assumed. Absent in older models. */
  rewrittenIsKnown: v.optional(v.boolean()),
  /** What a page costs in CPU on the machine where the sample was taken. */
  cpuMsPerPage: v.object({ delta: count, fast: count, strong: count }),
  /** Of how many pages this was seen, for the uncertainty; 0: not from a sample. */
  sampledPages: count,
  sampledMs: count,
});
export type GuestModel = v.InferOutput<typeof guestModelSchema>;

/** Of figures that are estimates: more digits say nothing, and a record is to stay small. */
const DIGITS = 5;

/** As a record keeps it. Counts that are whole stay as they are. */
export function roundedModel(model: GuestModel): GuestModel {
  const rounded = (_key: string, value: unknown) =>
    typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(DIGITS)) : value;
  return JSON.parse(JSON.stringify(model, rounded));
}
