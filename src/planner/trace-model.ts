// A guest model from a page trace: what a migration did with each page says when the guest had written to it, and how
// much of it had changed. A page that is sent in an iteration was written during the one before; so iterations are looks
// at all pages, and rates are fitted to them as to those of a sample (sampling.ts).
//
// What a trace does not say is taken for the worse: without contents nothing is known of coders, and pages count as
// such that they make no smaller. The first page of a pass is sent before the last one is: pages that are dirty without
// having changed are expected, and only what is found beyond that was written with what was there.

import { DeltaveeError } from "../base/errors.ts";
import { PageClass, type TraceHeader } from "../trace/format.ts";
import type { TraceHandler } from "../trace/reader.ts";
import { deltaSizesAt, type MeasuredSize } from "./delta-sizes.ts";
import type { GuestModel, RateClass } from "./guest-model.ts";
import { dirtyUnchangedShare } from "./migration.ts";
import type { ChangeSizes, PageMeter } from "./page-meter.ts";
import { fitRates, HEATS, likeliestHeat, type RateShare } from "./rate-mixture.ts";

/** Iterations that are looked at; what comes later is short and says little. */
const LOOKS_MAX = 16;
/** Bit of a page's pattern: it was more than dirty, its content had changed. */
const CHANGED_BIT = 1 << LOOKS_MAX;
const PATTERN_MASK = CHANGED_BIT - 1;
/** Pages whose contents are kept, to compare them and to see what coders make of them. */
const KEPT_PAGES_MAX = 4096;
const WHOLE_PAGES_MAX = 256;
/** Pairs of a page before and after, of one iteration. */
const PAIRS_MAX = 128;
/** Where nothing was measured: of the order that is seen on most machines. */
const CPU_MS_PER_PAGE = { delta: 0.002, fast: 0.015, strong: 0.15 };

interface Kept {
  readonly page: number;
  readonly old: Uint8Array;
  readonly now: Uint8Array;
}

/** Of one iteration, by page: sizes of deltas, summed up later by how hot pages turned out to be. */
interface Deltas {
  readonly pages: number[];
  readonly bytes: number[];
}

export class TraceModelBuilder implements TraceHandler {
  readonly #name: string;
  readonly #makeMeter: (pageBytes: number) => PageMeter;
  #pageBytes = 0;
  #pageCount = 0;
  #hasContents = false;
  readonly #firstPageOf: number[] = [];
  #patterns = new Uint32Array(0);
  #isZero = new Uint8Array(0);
  #keepEvery = 1;
  readonly #contents = new Map<number, Uint8Array>();
  readonly #pairs: Kept[][] = [];
  readonly #deltas: Deltas[] = [];
  /** Per iteration, in the order in which they came. */
  readonly #startsMs: (number | undefined)[] = [];
  #index = -1;
  #unchangedPages = 0;

  /** `makeMeter`: asked for once, for a trace with contents. */
  constructor(name: string, makeMeter: (pageBytes: number) => PageMeter) {
    this.#name = name;
    this.#makeMeter = makeMeter;
  }

  header({ pageBytes, blocks, hasContents }: TraceHeader): void {
    this.#pageBytes = pageBytes;
    this.#hasContents = hasContents;
    for (const { pageCount } of blocks) {
      this.#firstPageOf.push(this.#pageCount);
      this.#pageCount += pageCount;
    }
    this.#patterns = new Uint32Array(this.#pageCount);
    this.#isZero = new Uint8Array(this.#pageCount);
    this.#keepEvery = Math.max(1, Math.ceil(this.#pageCount / KEPT_PAGES_MAX));
  }

  iteration(): void {
    this.#index++;
  }

  time(atMs: number): void {
    if (this.#index >= 0) this.#startsMs[this.#index] ??= atMs;
  }

  codec(): void {}

  page(
    blockIndex: number,
    pageIndex: number,
    pageClass: PageClass,
    deltaBytes: number,
    content: Uint8Array,
    offset: number,
  ): void {
    const page = this.#firstPageOf[blockIndex]! + pageIndex;
    if (this.#index > 0) this.#seenAgain(page, pageClass, deltaBytes);
    if (pageClass !== PageClass.UNCHANGED) this.#isZero[page] = pageClass === PageClass.ZERO ? 1 : 0;
    if (this.#hasContents && pageClass >= PageClass.DELTA && page % this.#keepEvery === 0)
      this.#keep(page, content, offset);
  }

  #seenAgain(page: number, pageClass: PageClass, deltaBytes: number): void {
    if (pageClass === PageClass.UNCHANGED) this.#unchangedPages++;
    else this.#patterns[page]! |= CHANGED_BIT;
    if (this.#index > LOOKS_MAX) return;
    this.#patterns[page]! |= 1 << (this.#index - 1);
    const bytes = pageClass === PageClass.DELTA ? deltaBytes : this.#pageBytes;
    // A page that was not in the cache says nothing of how much of it has changed.
    if (pageClass !== PageClass.DELTA && pageClass !== PageClass.OVERFLOW) return;
    this.#deltas[this.#index - 1] ??= { pages: [], bytes: [] };
    const deltas = this.#deltas[this.#index - 1]!;
    if (deltas.pages.length >= 64 * PAIRS_MAX) return;
    deltas.pages.push(page);
    deltas.bytes.push(bytes);
  }

  #keep(page: number, content: Uint8Array, offset: number): void {
    const now = content.slice(offset, offset + this.#pageBytes);
    const old = this.#contents.get(page);
    this.#contents.set(page, now);
    if (old === undefined || this.#index < 1 || this.#index > LOOKS_MAX) return;
    this.#pairs[this.#index - 1] ??= [];
    const pairs = this.#pairs[this.#index - 1]!;
    if (pairs.length < PAIRS_MAX) pairs.push({ page, old, now });
  }

  /**
   * All of the trace has been read.
   * @throws DeltaveeError TRACE_INVALID when it does not say how long its iterations took, or ends in the first of them
   */
  model(): GuestModel {
    const refuse = (reason: string): never => {
      throw new DeltaveeError("TRACE_INVALID", `No guest model from trace ${this.#name}: ${reason}`);
    };
    if (this.#index < 1)
      refuse("it ends within the first pass, and says nothing of what the guest writes to");
    const intervalsMs = this.#intervalsMs();
    if (intervalsMs.some(Number.isNaN))
      refuse(
        "it does not say how long iterations took (traces of version 1, and those written without a clock)",
      );
    const all = this.#patternsOf(() => 1);
    const everything = fitRates([{ intervalsMs, patterns: all }]);
    const [rewrittenPages, share] = this.#rewritten(everything, intervalsMs);
    const rates =
      share === 0
        ? everything
        : fitRates([
            { intervalsMs, patterns: this.#patternsOf((pattern) => (isDirtyOnly(pattern) ? 1 - share : 1)) },
          ]);
    const totalMs = intervalsMs.reduce((sum, ms) => sum + ms, 0);
    const meter = this.#hasContents ? this.#makeMeter(this.#pageBytes) : undefined;
    const whole = thinned([...this.#contents.values()], WHOLE_PAGES_MAX);
    const codedShare = meter?.measureWhole(whole) ?? { fast: 1, strong: 1 };
    return {
      pageBytes: this.#pageBytes,
      pages: this.#pageCount,
      zeroPages: this.#isZero.reduce((sum, isZero) => sum + isZero, 0),
      rateClasses: this.#rateClasses(rates, intervalsMs, meter),
      codedShare,
      rewrittenPagesPerSecond: (rewrittenPages / totalMs) * 1000,
      cpuMsPerPage: meter?.cpuMsPerPage ?? CPU_MS_PER_PAGE,
      sampledPages: this.#pageCount,
      sampledMs: totalMs,
    };
  }

  /** How long the iterations took whose dirty pages are known: all but the last one. NaN: that is not said. */
  #intervalsMs(): number[] {
    const count = Math.min(this.#index, LOOKS_MAX);
    const startOf = (i: number) => this.#startsMs[i] ?? Number.NaN;
    return Array.from({ length: count }, (_, i) => Math.max(1, startOf(i + 1) - startOf(i)));
  }

  #patternsOf(weight: (pattern: number) => number): Map<number, number> {
    const patterns = new Map<number, number>();
    const add = (pattern: number, pages: number) =>
      patterns.set(pattern, (patterns.get(pattern) ?? 0) + pages);
    for (const pattern of this.#patterns) {
      const pages = weight(pattern);
      add(pattern & PATTERN_MASK, pages);
      if (pages < 1) add(0, 1 - pages);
    }
    return patterns;
  }

  /** Pages that were sent unchanged oftener than the order of sending explains; as a share, of those never seen to change. */
  #rewritten(rates: readonly RateShare[], intervalsMs: readonly number[]): [pages: number, share: number] {
    let expected = 0;
    for (const [i, sinceMs] of intervalsMs.entries()) {
      const nextMs = intervalsMs[i + 1] ?? 0;
      for (const { changesPerSecond, share } of rates) {
        const rate = changesPerSecond / 1000;
        // In the first pass every page is sent; later those that were dirty.
        const sent = i === 0 ? 1 : -Math.expm1(-rate * intervalsMs[i - 1]!);
        expected += share * this.#pageCount * sent * dirtyUnchangedShare(rate, sinceMs, nextMs);
      }
    }
    const excess = Math.max(0, this.#unchangedPages - expected);
    if (excess === 0) return [0, 0];
    return [excess, excess / this.#unchangedPages];
  }

  #rateClasses(
    rates: readonly RateShare[],
    intervalsMs: readonly number[],
    meter: PageMeter | undefined,
  ): RateClass[] {
    const heatOfPage = (page: number) =>
      likeliestHeat(rates, intervalsMs, this.#patterns[page]! & PATTERN_MASK);
    const byHeat: MeasuredSize[][] = Array.from({ length: HEATS }, () => []);
    for (const [i, sinceMs] of intervalsMs.entries()) {
      const afterMs = (sinceMs + (intervalsMs[i + 1] ?? 0)) / 2;
      const pairs = (this.#pairs[i] ?? []).map((pair) => ({ ...pair, heat: heatOfPage(pair.page) }));
      const { pages, bytes } = this.#deltas[i] ?? { pages: [], bytes: [] };
      const deltas = pages.map((page, at) => ({ heat: heatOfPage(page), bytes: bytes[at]! }));
      for (const [heat, sizes] of byHeat.entries()) {
        const own = pairs.filter((pair) => pair.heat === heat).map(({ old, now }) => [old, now] as const);
        const size =
          meter?.measureChanges(own) ?? this.#sizeOf(deltas.filter((delta) => delta.heat === heat));
        if (size === undefined) continue;
        sizes.push({ afterMs, ...size });
      }
    }
    for (const sizes of byHeat) sizes.sort((a, b) => a.afterMs - b.afterMs);
    return rates.map(({ changesPerSecond, share }) => ({
      pages: share * this.#pageCount,
      changesPerSecond,
      deltaSizes: deltaSizesAt(byHeat, changesPerSecond),
    }));
  }

  /** Without contents: deltas as they were, before any entropy coding. */
  #sizeOf(deltas: readonly { bytes: number }[]): ChangeSizes | undefined {
    if (deltas.length === 0) return undefined;
    const bytes = deltas.reduce((sum, delta) => sum + delta.bytes, 0) / deltas.length;
    return { pages: deltas.length, xbzrleBytes: bytes, tunnelBytes: bytes, wholeCodedBytes: this.#pageBytes };
  }
}

const isDirtyOnly = (pattern: number) => pattern !== 0 && (pattern & CHANGED_BIT) === 0;

function thinned<T>(all: readonly T[], countMax: number): T[] {
  const count = Math.min(all.length, countMax);
  return Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count)]!);
}
