// Looks at a running guest's memory and makes a model of it (guest-model.ts): a random sample of its pages is read
// several times, some hundred milliseconds apart, and what has changed in between is measured. The guest is neither
// stopped nor slowed down: its memory is only read. What it costs is a few reads of each sampled page and the memory
// for one copy of them (`samplePages` pages), and for some that have changed.
//
// Pages that change often are told apart from others after the second look, and are looked at more often; the others once
// more at the end. Of pages that the host holds nothing for it is only asked at the end whether they have come to be. So
// what changed between two looks is no fair sample of what changes in that time, and sizes of changes are kept apart by
// how often a page changes: buffers that are filled anew all the time say nothing about the many pages in which now and
// then a counter moves. A page that is written with what was there before does not change here.
//
// How exact it is: of n pages, a share p of which changes within the span, that share is known to sqrt((1 - p) / (p n)) of
// itself (one standard error). 3072 pages tell a share of 10 % to 5 % of itself, and one of 1 % to 18 %.

import type { GuestMemory } from "../memory/guest-memory.ts";
import { deltaSizesAt, type MeasuredSize } from "./delta-sizes.ts";
import type { DeltaSize, GuestModel } from "./guest-model.ts";
import { type PageMeter, thinned } from "./page-meter.ts";
import { fitRates, HEATS, type Looks, likeliestHeat, type RateShare } from "./rate-mixture.ts";

export interface SamplingOptions {
  readonly samplePages: number;
  /** From the first look to the last; stretched where reading takes longer. */
  readonly spanMs: number;
  /** 0 to 1. */
  readonly random: () => number;
  readonly nowMs: () => number;
  readonly sleep: (ms: number) => Promise<void>;
}

/**
 * Looks, as shares of the span. `present`: pages that the host held something for at the first look; `busy`: those of
 * them that were seen to have changed at the second.
 */
const LOOKS = [
  { at: 0, who: "all" },
  { at: 0.15, who: "present" },
  { at: 0.18, who: "busy" },
  { at: 0.26, who: "busy" },
  { at: 0.45, who: "busy" },
  { at: 1, who: "all" },
] as const;
/** Of pages that are coded whole, and of changed pages by how long that took: more says nothing new. */
const WHOLE_PAGES_MAX = 256;
const CHANGED_PAGES_MAX = 128;
/** So many pages of a look are taken to be looked at at one time: that is within a tenth of a millisecond or so. */
const PAGES_PER_TIME = 16;
/** Of pages that were looked at one after the other, those whose times stand for all of theirs. */
const TIMED_PAGES_MAX = 64;

/**
 * The sampled pages, by their places in the sample. In arrays rather than objects: some thousand objects more, and the
 * garbage collector takes longer than all the reading does.
 */
class Sample {
  readonly count: number;
  /** Ascending. */
  readonly pages: Float64Array;
  readonly contents: Buffer;
  readonly isPresent: Uint8Array;
  readonly lookedMs: Float64Array;
  /** Bit i: changed at its look i + 1. */
  readonly patterns: Uint8Array;
  /** Looks after the first, and the time between each and the one before. */
  readonly intervals: Uint8Array;
  readonly #intervalsMs: Float64Array;

  constructor(count: number, pageBytes: number) {
    this.count = count;
    this.pages = new Float64Array(count);
    this.contents = Buffer.alloc(count * pageBytes);
    this.isPresent = new Uint8Array(count);
    this.lookedMs = new Float64Array(count);
    this.patterns = new Uint8Array(count);
    this.intervals = new Uint8Array(count);
    this.#intervalsMs = new Float64Array(count * LOOKS.length);
  }

  noteLook(place: number, atMs: number): number {
    const intervalMs = atMs - this.lookedMs[place]!;
    this.lookedMs[place] = atMs;
    this.#intervalsMs[place * LOOKS.length + this.intervals[place]!++] = intervalMs;
    return intervalMs;
  }

  intervalsMsOf(place: number): Float64Array {
    const from = place * LOOKS.length;
    return this.#intervalsMs.subarray(from, from + this.intervals[place]!);
  }

  isAlike(place: number, page: Uint8Array): boolean {
    const at = place * page.length;
    return this.contents.compare(page, 0, page.length, at, at + page.length) === 0;
  }

  content(place: number): Buffer {
    const pageBytes = this.contents.length / this.count;
    return this.contents.subarray(place * pageBytes, (place + 1) * pageBytes);
  }
}

interface Change {
  /** In the sample. */
  readonly place: number;
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
  const all = [...sample.pages.keys()];
  let present = all;
  let busy = all;
  for (const [index, { at, who }] of LOOKS.entries()) {
    await options.sleep(Math.max(0, startMs + at * options.spanMs - options.nowMs()));
    if (index === 0) {
      await firstLook(memory, sample, options.nowMs);
      present = all.filter((place) => sample.isPresent[place] === 1);
      continue;
    }
    if (who === "all") notePresent(memory, sample);
    const places = { all, present, busy }[who];
    founds.push(await look(memory, sample, places, options.nowMs));
    if (index === 1) busy = present.filter((place) => sample.patterns[place] !== 0);
  }
  const rates = fitRates(looksAtEach(sample, all));
  const scale = memory.pageCount / sample.count;
  const zeroPage = new Uint8Array(memory.pageBytes);
  const live = all.filter((place) => sample.isPresent[place] === 1 && !sample.isAlike(place, zeroPage));
  const codedShare = meter.measureWhole(thinned(live, WHOLE_PAGES_MAX).map((place) => sample.content(place)));
  const sizesOf = sizesByHeat(sample, founds, rates, meter);
  return {
    pageBytes: memory.pageBytes,
    pages: memory.pageCount,
    zeroPages: (sample.count - live.length) * scale,
    rateClasses: rates.map(({ changesPerSecond, share }) => ({
      pages: share * memory.pageCount,
      changesPerSecond,
      deltaSizes: sizesOf(changesPerSecond),
    })),
    codedShare,
    rewrittenPagesPerSecond: 0,
    rewrittenIsKnown: false,
    cpuMsPerPage: meter.cpuMsPerPage,
    sampledPages: sample.count,
    sampledMs: options.nowMs() - startMs,
  };
}

/** What changes of pages with such a rate came to, by how long they took. */
function sizesByHeat(
  sample: Sample,
  founds: readonly Found[],
  rates: readonly RateShare[],
  meter: PageMeter,
): (changesPerSecond: number) => DeltaSize[] {
  const byHeat: MeasuredSize[][] = Array.from({ length: HEATS }, () => []);
  for (const { afterMs, changes } of [...founds].sort((a, b) => a.afterMs - b.afterMs)) {
    const some = thinned(changes, CHANGED_PAGES_MAX).map(({ place, old, now }) => ({
      heat: likeliestHeat(rates, sample.intervalsMsOf(place), sample.patterns[place]!),
      pair: [old, now] as const,
    }));
    for (const [heat, sizes] of byHeat.entries()) {
      const pairs = some.filter((each) => each.heat === heat).map(({ pair }) => pair);
      const measured = meter.measureChanges(pairs);
      if (measured !== undefined) sizes.push({ afterMs, ...measured });
    }
  }
  return (changesPerSecond) => deltaSizesAt(byHeat, changesPerSecond);
}

/** Evenly spread, at a random place within each part. */
function choosePages(memory: GuestMemory, { samplePages, random }: SamplingOptions): Sample {
  const sample = new Sample(Math.min(samplePages, memory.pageCount), memory.pageBytes);
  for (let i = 0; i < sample.count; i++) {
    const from = Math.floor((i * memory.pageCount) / sample.count);
    const to = Math.floor(((i + 1) * memory.pageCount) / sample.count);
    sample.pages[i] = from + Math.floor(random() * (to - from));
  }
  return sample;
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

async function firstLook(memory: GuestMemory, sample: Sample, nowMs: () => number): Promise<void> {
  notePresent(memory, sample);
  await memory.load?.(presentPages(sample, [...sample.pages.keys()]));
  const now = Buffer.alloc(memory.pageBytes);
  let atMs = 0;
  for (let place = 0; place < sample.count; place++) {
    if (place % PAGES_PER_TIME === 0) atMs = nowMs();
    if (sample.isPresent[place] === 1) {
      memory.read(sample.pages[place]!, now);
      sample.contents.set(now, place * now.length);
    }
    sample.lookedMs[place] = atMs;
  }
}

async function look(
  memory: GuestMemory,
  sample: Sample,
  places: readonly number[],
  nowMs: () => number,
): Promise<Found> {
  await memory.load?.(presentPages(sample, places));
  const now = Buffer.alloc(memory.pageBytes);
  const changes = new Some<Change>();
  let [atMs, changed, afterMs] = [0, 0, 0];
  for (let i = 0; i < places.length; i++) {
    const place = places[i]!;
    if (i % PAGES_PER_TIME === 0) atMs = nowMs();
    // What is not there now was not there before: zeroes.
    const isPresent = sample.isPresent[place] === 1;
    if (isPresent) memory.read(sample.pages[place]!, now);
    const intervalMs = sample.noteLook(place, atMs);
    if (!isPresent || sample.isAlike(place, now)) continue;
    sample.patterns[place]! |= 1 << (sample.intervals[place]! - 1);
    changes.offer(() => ({
      place,
      old: Uint8Array.from(sample.content(place)),
      now: Uint8Array.from(now),
    }));
    changed++;
    afterMs += intervalMs;
    sample.contents.set(now, place * now.length);
  }
  return { afterMs: changed === 0 ? 0 : afterMs / changed, changes: changes.items };
}

/** Finds out which of the pages that were not there before there are now. */
function notePresent(memory: GuestMemory, sample: Sample): void {
  const absent: number[] = [];
  for (let place = 0; place < sample.count; place++) if (sample.isPresent[place] === 0) absent.push(place);
  const present = memory.present(absent.map((place) => sample.pages[place]!));
  let next = 0;
  // In the same order.
  for (const place of absent) {
    if (sample.pages[place] !== present[next]) continue;
    sample.isPresent[place] = 1;
    next++;
  }
}

const presentPages = (sample: Sample, places: readonly number[]): number[] =>
  places.filter((place) => sample.isPresent[place] === 1).map((place) => sample.pages[place]!);

/** Pages that were looked at equally often were so at about the same times: one group each. */
function looksAtEach(sample: Sample, places: readonly number[]): Looks[] {
  const groups: number[][] = LOOKS.map(() => []);
  for (const place of places) groups[sample.intervals[place]!]!.push(place);
  return groups.filter((group) => group.length > 0).map((group) => looksAt(sample, group));
}

function looksAt(sample: Sample, places: readonly number[]): Looks {
  const counts = new Uint32Array(2 ** LOOKS.length);
  for (const place of places) counts[sample.patterns[place]!]!++;
  const patterns = new Map<number, number>();
  for (const [pattern, count] of counts.entries()) if (count > 0) patterns.set(pattern, count);
  const some = thinned(places, TIMED_PAGES_MAX).map((place) => sample.intervalsMsOf(place));
  const intervalsMs = Array.from(
    some[0] ?? [],
    (_, i) => some.reduce((sum, each) => sum + each[i]!, 0) / some.length,
  );
  return { intervalsMs, patterns };
}
