// What a few runs of one setting come to: median and range. No means and no intervals, which five runs do not
// carry. Two settings differ as far as is shown when their ranges do not overlap, and not otherwise.

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly count: number;
}

/** Undefined of no values. */
export function spreadOf(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle]!;
  const median = sorted.length % 2 === 1 ? upper : sorted[middle - 1]! + (upper - sorted[middle - 1]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)!, count: sorted.length };
}

/** Whether some value lies in both ranges: then no difference is shown. */
export function rangesOverlap(a: Spread, b: Spread): boolean {
  return a.min <= b.max && b.min <= a.max;
}

export interface Ratio {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/**
 * `b` ÷ `a`: of the medians, and the least and the greatest that two runs could have given. Undefined where something
 * is not above zero: a ratio to nothing says nothing.
 */
export function ratioOf(a: Spread, b: Spread): Ratio | undefined {
  if (a.min <= 0 || b.min <= 0) return undefined;
  const ratio = { median: b.median / a.median, min: b.min / a.max, max: b.max / a.min };
  const isUsable = Object.values(ratio).every((value) => Number.isFinite(value) && value > 0);
  return isUsable ? ratio : undefined;
}
