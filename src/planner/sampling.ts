// Looks at a running guest's memory and makes a model of it (guest-model.ts): a random sample of its pages is read
// several times, some hundred milliseconds apart, and what has changed in between is measured. The guest is neither
// stopped nor slowed down: its memory is only read. What it costs is a few reads of each sampled page and the memory
// for one copy of them (`samplePages` pages), and for some that have changed.
//
// Pages that change often are told apart from others after the second look, and are looked at more often; all of them
// are looked at once more at the end. A page that is written with what was there before does not change here.

import type { GuestMemory } from "../memory/guest-memory.ts";
import type { GuestModel } from "./guest-model.ts";
import type { ChangeSizes, PageMeter } from "./page-meter.ts";
import { fitRates, type Looks } from "./rate-mixture.ts";

export interface SamplingOptions {
  readonly samplePages: number;
  /** From the first look to the last; stretched where reading takes longer. */
  readonly spanMs: number;
  /** 0 to 1. */
  readonly random: () => number;
  readonly nowMs: () => number;
  readonly sleep: (ms: number) => Promise<void>;
}

/** Looks, as shares of the span. The busy pages alone are looked at between the second and the last. */
const LOOKS = [
  { at: 0, all: true },
  { at: 0.15, all: true },
  { at: 0.18, all: false },
  { at: 0.26, all: false },
  { at: 0.45, all: false },
  { at: 1, all: true },
] as const;
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

type Change = readonly [old: Uint8Array, now: Uint8Array];

export async function sampleGuest(
  memory: GuestMemory,
  meter: PageMeter,
  options: SamplingOptions,
): Promise<GuestModel> {
  const startMs = options.nowMs();
  const sample = choosePages(memory, options);
  const changes: { afterMs: number; pairs: readonly Change[] }[] = [];
  let [busy, calm]: [Watched[], Watched[]] = [sample, []];
  for (const [index, { at, all }] of LOOKS.entries()) {
    await options.sleep(Math.max(0, startMs + at * options.spanMs - options.nowMs()));
    const found = look(memory, all ? sample : busy, index === 0, options.nowMs);
    if (index > 0) changes.push(found);
    if (index !== 1) continue;
    busy = sample.filter(({ pattern }) => pattern !== 0);
    calm = sample.filter(({ pattern }) => pattern === 0);
  }
  const rates = fitRates([looksAt(busy), looksAt(calm)]);
  const scale = memory.pageCount / sample.length;
  const zeroPage = new Uint8Array(memory.pageBytes);
  const live = sample.filter(({ content }) => Buffer.compare(content, zeroPage) !== 0);
  const codedShare = meter.measureWhole(thinned(live, WHOLE_PAGES_MAX).map(({ content }) => content));
  const deltaSizes = changes
    .map(({ afterMs, pairs }) => ({
      afterMs,
      sizes: meter.measureChanges(thinned(pairs, CHANGED_PAGES_MAX)),
    }))
    .filter((each): each is { afterMs: number; sizes: ChangeSizes } => each.sizes !== undefined)
    .sort((a, b) => a.afterMs - b.afterMs)
    .map(({ afterMs, sizes: { pages: _, ...sizes } }) => ({ afterMs, ...sizes }));
  return {
    pageBytes: memory.pageBytes,
    pages: memory.pageCount,
    zeroPages: (sample.length - live.length) * scale,
    rateClasses: rates.map(({ changesPerSecond, share }) => ({
      pages: share * memory.pageCount,
      changesPerSecond,
    })),
    deltaSizes,
    codedShare,
    rewrittenPagesPerSecond: 0,
    cpuMsPerPage: meter.cpuMsPerPage,
    sampledPages: sample.length,
    sampledMs: options.nowMs() - startMs,
  };
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

/** Returns some of the pages that have changed since they were looked at before, and how long ago that was, on average of all. */
function look(
  memory: GuestMemory,
  pages: readonly Watched[],
  isFirst: boolean,
  nowMs: () => number,
): { afterMs: number; pairs: readonly Change[] } {
  const now = new Uint8Array(memory.pageBytes);
  const pairs = new Some<Change>();
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
        pairs.offer(() => [watched.content.slice(), now.slice()]);
        changed++;
        afterMs += intervalMs;
      }
    }
    watched.content.set(now);
    watched.lookedMs = atMs;
  }
  return { afterMs: changed === 0 ? 0 : afterMs / changed, pairs: pairs.items };
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
