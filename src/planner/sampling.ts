// Looks at a running guest's memory and makes a model of it (guest-model.ts): a random sample of its pages is read
// several times, some hundred milliseconds apart, and what has changed in between is measured. The guest is neither
// stopped nor slowed down: its memory is only read. What it costs is a few reads of each sampled page and the memory
// for one copy of them (`samplePages` pages), and for some that have changed.
//
// Pages that change often are told apart from others after the second look, and are looked at more often; half of the
// others are looked at once more at the end. So what changed between two looks is no fair sample of what changes in that time,
// and sizes of changes are kept apart by how often a page changes: buffers that are filled anew all the time say nothing
// about the many pages in which now and then a counter moves. A page that is written with what was there before does not
// change here.

import type { GuestMemory } from "../memory/guest-memory.ts";
import type { DeltaSize, GuestModel } from "./guest-model.ts";
import type { PageMeter } from "./page-meter.ts";
import {
  fitRates,
  HEATS,
  heatOf,
  type Looks,
  likeliestRate,
  nearestHeat,
  type RateShare,
} from "./rate-mixture.ts";

export interface SamplingOptions {
  readonly samplePages: number;
  /** From the first look to the last; stretched where reading takes longer. */
  readonly spanMs: number;
  /** 0 to 1. */
  readonly random: () => number;
  readonly nowMs: () => number;
  readonly sleep: (ms: number) => Promise<void>;
}

/** Looks, as shares of the span. */
const LOOKS = [
  { at: 0, who: "all" },
  { at: 0.15, who: "all" },
  { at: 0.18, who: "busy" },
  { at: 0.26, who: "busy" },
  { at: 0.45, who: "busy" },
  { at: 1, who: "busy and some calm" },
] as const;
/** One of so many calm pages is looked at in the end: rare changes are not to be had for less reading. */
const CALM_EVERY = 2;
/** Of pages that are coded whole, and of changed pages by how long that took: more says nothing new. */
const WHOLE_PAGES_MAX = 256;
const CHANGED_PAGES_MAX = 128;

/** One sampled page. */
interface Watched {
  readonly page: number;
  readonly content: Uint8Array;
  isPresent: boolean;
  lookedMs: number;
  /** Bit i: changed at its look i + 1. */
  pattern: number;
  readonly intervalsMs: number[];
}

interface Change {
  readonly watched: Watched;
  readonly old: Uint8Array;
  readonly now: Uint8Array;
}

/** What one look has found changed, or some of it. */
interface Found {
  /** Since these pages were looked at before, on average. */
  readonly afterMs: number;
  readonly changes: readonly Change[];
}

export async function sampleGuest(
  memory: GuestMemory,
  meter: PageMeter,
  options: SamplingOptions,
): Promise<GuestModel> {
  const startMs = options.nowMs();
  const sample = choosePages(memory, options);
  const founds: Found[] = [];
  let [busy, calm, left]: [Watched[], Watched[], Watched[]] = [sample, [], []];
  for (const [index, { at, who }] of LOOKS.entries()) {
    await options.sleep(Math.max(0, startMs + at * options.spanMs - options.nowMs()));
    const found = look(
      memory,
      who === "busy and some calm" ? [...busy, ...calm] : busy,
      index === 0,
      options.nowMs,
    );
    if (index > 0) founds.push(found);
    if (index !== 1) continue;
    busy = sample.filter(({ pattern }) => pattern !== 0);
    const quiet = sample.filter(({ pattern }) => pattern === 0);
    calm = quiet.filter((_, i) => i % CALM_EVERY === 0);
    left = quiet.filter((_, i) => i % CALM_EVERY !== 0);
  }
  const rates = fitRates([looksAt(busy), looksAt(calm), looksAt(left)]);
  const scale = memory.pageCount / sample.length;
  const zeroPage = new Uint8Array(memory.pageBytes);
  const live = sample.filter(({ content }) => Buffer.compare(content, zeroPage) !== 0);
  const codedShare = meter.measureWhole(thinned(live, WHOLE_PAGES_MAX).map(({ content }) => content));
  const sizesOf = sizesByHeat(founds, rates, meter);
  return {
    pageBytes: memory.pageBytes,
    pages: memory.pageCount,
    zeroPages: (sample.length - live.length) * scale,
    rateClasses: rates.map(({ changesPerSecond, share }) => ({
      pages: share * memory.pageCount,
      changesPerSecond,
      deltaSizes: changesPerSecond === 0 ? [] : sizesOf(changesPerSecond),
    })),
    codedShare,
    rewrittenPagesPerSecond: 0,
    cpuMsPerPage: meter.cpuMsPerPage,
    sampledPages: sample.length,
    sampledMs: options.nowMs() - startMs,
  };
}

/** What changes of pages with such a rate came to, by how long they took. */
function sizesByHeat(
  founds: readonly Found[],
  rates: readonly RateShare[],
  meter: PageMeter,
): (changesPerSecond: number) => DeltaSize[] {
  const byHeat: DeltaSize[][] = Array.from({ length: HEATS }, () => []);
  for (const { afterMs, changes } of [...founds].sort((a, b) => a.afterMs - b.afterMs)) {
    const some = thinned(changes, CHANGED_PAGES_MAX).map(
      ({ watched: { intervalsMs, pattern }, old, now }) => ({
        heat: heatOf(likeliestRate(rates, intervalsMs, pattern)),
        pair: [old, now] as const,
      }),
    );
    for (const [heat, sizes] of byHeat.entries()) {
      const pairs = some.filter((each) => each.heat === heat).map(({ pair }) => pair);
      const measured = meter.measureChanges(pairs);
      if (measured === undefined) continue;
      const { pages: _, ...size } = measured;
      sizes.push({ afterMs, ...size });
    }
  }
  return (changesPerSecond) => nearestHeat(byHeat, changesPerSecond);
}

/** Evenly spread, at a random place within each part. */
function choosePages(memory: GuestMemory, { samplePages, random }: SamplingOptions): Watched[] {
  const count = Math.min(samplePages, memory.pageCount);
  const contents = new Uint8Array(count * memory.pageBytes);
  return Array.from({ length: count }, (_, i) => {
    const from = Math.floor((i * memory.pageCount) / count);
    const to = Math.floor(((i + 1) * memory.pageCount) / count);
    return {
      page: from + Math.floor(random() * (to - from)),
      content: contents.subarray(i * memory.pageBytes, (i + 1) * memory.pageBytes),
      isPresent: false,
      lookedMs: 0,
      pattern: 0,
      intervalsMs: [],
    };
  });
}

/** Some of many, evenly spread, though nobody knows beforehand how many there will be: at most 2 * CHANGED_PAGES_MAX. */
class Some<Item> {
  #items: Item[] = [];
  #count = 0;
  #keepEvery = 1;

  get items(): readonly Item[] {
    return this.#items;
  }

  offer(make: () => Item): void {
    if (this.#count++ % this.#keepEvery !== 0) return;
    this.#items.push(make());
    if (this.#items.length <= 2 * CHANGED_PAGES_MAX) return;
    this.#items = this.#items.filter((_, i) => i % 2 === 0);
    this.#keepEvery *= 2;
  }
}

function look(memory: GuestMemory, pages: readonly Watched[], isFirst: boolean, nowMs: () => number): Found {
  const now = new Uint8Array(memory.pageBytes);
  const changes = new Some<Change>();
  let [changed, afterMs] = [0, 0];
  for (const watched of pages) {
    watched.isPresent ||= memory.isPresent(watched.page);
    if (watched.isPresent) memory.read(watched.page, now);
    else now.fill(0);
    const atMs = nowMs();
    if (!isFirst) {
      const intervalMs = atMs - watched.lookedMs;
      watched.intervalsMs.push(intervalMs);
      if (Buffer.compare(watched.content, now) !== 0) {
        watched.pattern |= 1 << (watched.intervalsMs.length - 1);
        changes.offer(() => ({ watched, old: watched.content.slice(), now: now.slice() }));
        changed++;
        afterMs += intervalMs;
      }
    }
    watched.content.set(now);
    watched.lookedMs = atMs;
  }
  return { afterMs: changed === 0 ? 0 : afterMs / changed, changes: changes.items };
}

/** Busy pages were looked at more often than the others, all of each kind at about the same times. */
function looksAt(pages: readonly Watched[]): Looks {
  const patterns = new Map<number, number>();
  for (const { pattern } of pages) patterns.set(pattern, (patterns.get(pattern) ?? 0) + 1);
  const intervalsMs = (pages[0]?.intervalsMs ?? []).map(
    (_, i) => pages.reduce((sum, each) => sum + each.intervalsMs[i]!, 0) / pages.length,
  );
  return { intervalsMs, patterns };
}

function thinned<T>(all: readonly T[], countMax: number): T[] {
  const count = Math.min(all.length, countMax);
  return Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count)]!);
}
