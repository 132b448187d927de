// How often pages change, from looks at a sample of them: each look says whether a page is another than at the look
// before. A page that changes as a Poisson process of rate r is another after t with probability 1 - exp(-r t). The
// guest is taken for a mixture of such pages on a fixed grid of rates; the shares are those under which what was seen is
// most likely (expectation maximisation: Dempster, Laird and Rubin 1977). Pure.

/** Per second, beside 0. Rates between them are mixtures; a page that changes less often is hardly ever sent twice. */
const RATES: readonly number[] = Array.from({ length: 13 }, (_, i) => 0.05 * 2 ** i);
const ROUNDS = 200;
/** Shares below this are noise of the fit. */
const SHARE_MIN = 1e-7;

/** Looks at pages that were all looked at the same way: how many of them showed each pattern. */
export interface Looks {
  /** Time between a look and the one before. */
  readonly intervalsMs: readonly number[];
  /** By pattern: bit i is set when the page was found changed at the end of interval i. */
  readonly patterns: ReadonlyMap<number, number>;
}

export interface RateShare {
  readonly changesPerSecond: number;
  readonly share: number;
}

/** Shares of all pages looked at; they add up to 1. Rates that do not occur are left out. */
export function fitRates(groups: readonly Looks[]): RateShare[] {
  const rates = [0, ...RATES];
  const cases = groups.flatMap(({ intervalsMs, patterns }) =>
    [...patterns].map(([pattern, pages]) => ({
      pages,
      likelihoods: Float64Array.from(rates, (rate) => likelihood(rate, intervalsMs, pattern)),
    })),
  );
  const allPages = cases.reduce((sum, { pages }) => sum + pages, 0);
  if (allPages === 0) return [{ changesPerSecond: 0, share: 1 }];
  const shares = new Float64Array(rates.length).fill(1 / rates.length);
  const next = new Float64Array(rates.length);
  // A rate that has come to nothing stays there.
  let alive = [...rates.keys()];
  for (let round = 0; round < ROUNDS; round++) {
    next.fill(0);
    // Loops that count, not iterators: this is most of the fit, and too short for a compiler to see to it.
    for (let c = 0; c < cases.length; c++) {
      const { pages, likelihoods } = cases[c]!;
      let total = 0;
      for (let a = 0; a < alive.length; a++) total += likelihoods[alive[a]!]! * shares[alive[a]!]!;
      if (total === 0) continue;
      const weight = pages / total;
      for (let a = 0; a < alive.length; a++) {
        const i = alive[a]!;
        next[i]! += weight * likelihoods[i]! * shares[i]!;
      }
    }
    let moved = 0;
    for (const i of alive) {
      moved += Math.abs(next[i]! / allPages - shares[i]!);
      shares[i] = next[i]! / allPages;
    }
    if (moved < SHARE_MIN) break;
    alive = alive.filter((i) => shares[i]! >= SHARE_MIN / 10);
  }
  const kept = rates
    .map((changesPerSecond, i) => ({ changesPerSecond, share: shares[i]! }))
    .filter(({ share }) => share >= SHARE_MIN);
  const sum = kept.reduce((total, { share }) => total + share, 0);
  return kept.map(({ changesPerSecond, share }) => ({ changesPerSecond, share: share / sum }));
}

/** Changes per second at which a page counts as warm, and as hot: what changes in them is measured apart. */
const HEATS_FROM = [0, 1, 8] as const;
export const HEATS = HEATS_FROM.length;
const heatOf = (changesPerSecond: number): number =>
  HEATS_FROM.findLastIndex((from) => from <= changesPerSecond);

/**
 * Of a page that showed this pattern: the heat that it most likely has, among the rates found. Not the rate: the few hot
 * pages are spread over many rates that cannot be told apart, each of which is less likely than one that many pages have.
 */
export function likeliestHeat(
  found: readonly RateShare[],
  intervalsMs: ArrayLike<number>,
  pattern: number,
): number {
  const weights = new Float64Array(HEATS);
  for (const { changesPerSecond, share } of found)
    weights[heatOf(changesPerSecond)]! += share * likelihood(changesPerSecond, intervalsMs, pattern);
  return weights.indexOf(Math.max(...weights));
}

/** What was measured of pages with such a rate; where that is nothing, of the heat next to it. */
export function nearestHeat<T>(byHeat: readonly (readonly T[])[], changesPerSecond: number): readonly T[] {
  const heat = heatOf(changesPerSecond);
  const nearest = [...byHeat.keys()].sort((a, b) => Math.abs(a - heat) - Math.abs(b - heat));
  return byHeat[nearest.find((each) => byHeat[each]!.length > 0) ?? heat]!;
}

function likelihood(rate: number, intervalsMs: ArrayLike<number>, pattern: number): number {
  let product = 1;
  for (let i = 0; i < intervalsMs.length; i++) {
    const unchanged = Math.exp((-rate * intervalsMs[i]!) / 1000);
    product *= (pattern >> i) & 1 ? 1 - unchanged : unchanged;
  }
  return product;
}
