// A set of dirtied pages: what a page held before and what it holds now, pair by pair. Made once and kept in a
// cache folder, since benchmarks that are compared with each other must see the same pages. Knows nothing of
// where the pages came from.

import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { assert } from "../../src/base/assert.ts";

export const PAGE_BYTES = 4096;
/** Of one set. Old and new together are about twice the third-level cache of a server, so this is not a cache's speed. */
export const SET_PAGES_MAX = 8192;
/** Sets of another version are made anew. */
const FORMAT_VERSION = 1;
/** A page counts as barely touched up to the first, as mostly rewritten above the second. */
const SMALL_CHANGE_BYTES_MAX = 128;
const LARGE_CHANGE_BYTES_MIN = 2048;
/** Shorter runs of hexadecimal digits are words and numbers. */
const DIGITS_MIN = 16;

/** What the two snapshots as a whole looked like, from which the pages were taken. */
export interface SnapshotCounts {
  /** All pages that were in both snapshots, summed over all pairs of snapshots. */
  pages: number;
  unchangedPages: number;
  /** Changed, and all zero now: sent without any codec, so not in the set. */
  nowZeroPages: number;
}

export interface PageSet {
  readonly name: string;
  /** Where the pages are from. */
  readonly description: string;
  /** "vm" and "heap" are real and have goals of their own; "synthetic" is generated. */
  readonly kind: "vm" | "heap" | "synthetic";
  readonly snapshots?: SnapshotCounts;
  /** Page i of both lies at i * PAGE_BYTES. */
  readonly oldPages: Uint8Array;
  readonly newPages: Uint8Array;
}

export const pageCountOf = (set: PageSet): number => set.oldPages.length / PAGE_BYTES;

export interface ChangeFigures {
  pages: number;
  /** Of all pages in both snapshots. */
  unchangedShare?: number;
  smallChangeShare: number;
  largeChangeShare: number;
  wasZeroShare: number;
  changedBytesMean: number;
  /** Of these, hexadecimal digits in long runs of them: where they are random, no format needs less than half of that. */
  changedDigitsMean: number;
}

/** How much of the pages has changed, counted in bytes. */
export function changeFigures(set: PageSet): ChangeFigures {
  const pages = pageCountOf(set);
  let [small, large, wasZero, total] = [0, 0, 0, 0];
  for (let page = 0; page < pages; page++) {
    const start = page * PAGE_BYTES;
    let changedBytes = 0;
    let oldBits = 0;
    for (let i = start; i < start + PAGE_BYTES; i++) {
      oldBits |= set.oldPages[i]!;
      if (set.oldPages[i] !== set.newPages[i]) changedBytes++;
    }
    if (changedBytes <= SMALL_CHANGE_BYTES_MAX) small++;
    if (changedBytes > LARGE_CHANGE_BYTES_MIN) large++;
    if (oldBits === 0) wasZero++;
    total += changedBytes;
  }
  return {
    pages,
    ...(set.snapshots === undefined
      ? {}
      : { unchangedShare: set.snapshots.unchangedPages / set.snapshots.pages }),
    smallChangeShare: small / pages,
    largeChangeShare: large / pages,
    wasZeroShare: wasZero / pages,
    changedBytesMean: total / pages,
    changedDigitsMean: changedDigits(set) / pages,
  };
}

/** Bytes that changed and stand, now, in a run of at least DIGITS_MIN hexadecimal digits. */
function changedDigits({ oldPages, newPages }: PageSet): number {
  let [digits, runBytes, runChanged] = [0, 0, 0];
  for (let i = 0; i <= newPages.length; i++) {
    if (i < newPages.length && i % PAGE_BYTES !== 0 && isDigit(newPages[i]!)) {
      runBytes++;
      if (oldPages[i] !== newPages[i]) runChanged++;
    } else {
      if (runBytes >= DIGITS_MIN) digits += runChanged;
      runBytes = runChanged = 0;
    }
  }
  return digits;
}

/** 0 to 9, a to f. */
const isDigit = (byte: number) => (byte >= 0x30 && byte <= 0x39) || (byte >= 0x61 && byte <= 0x66);

/** Gathers changed pages from pairs of snapshots. */
export class PairCollector {
  readonly #counts: SnapshotCounts = { pages: 0, unchangedPages: 0, nowZeroPages: 0 };
  readonly #pairs: [old: Uint8Array, now: Uint8Array][] = [];

  /** `pages` pages; `at` gives both contents of one, or undefined where it is in one snapshot only. */
  add(pages: number, at: (page: number) => [old: Uint8Array, now: Uint8Array] | undefined): void {
    const changed: number[] = [];
    for (let page = 0; page < pages; page++) {
      const pair = at(page);
      if (pair === undefined) continue;
      this.#counts.pages++;
      if (Buffer.compare(pair[0], pair[1]) === 0) this.#counts.unchangedPages++;
      else if (pair[1].every((byte) => byte === 0)) this.#counts.nowZeroPages++;
      else changed.push(page);
    }
    for (const page of changed) {
      const [old, now] = at(page)!;
      this.#pairs.push([new Uint8Array(old), new Uint8Array(now)]);
    }
  }

  /** At most SET_PAGES_MAX of them, evenly spread over snapshots and address space. */
  get pages(): Pick<PageSet, "oldPages" | "newPages" | "snapshots"> {
    const all = this.#pairs;
    const count = Math.min(all.length, SET_PAGES_MAX);
    const taken = Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count)]!);
    return {
      oldPages: Buffer.concat(taken.map(([old]) => old)),
      newPages: Buffer.concat(taken.map(([, now]) => now)),
      snapshots: this.#counts,
    };
  }
}

function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "deltavee/bench-pages");
}

export function saveSet(set: PageSet): void {
  mkdirSync(cacheFolder(), { recursive: true });
  const { oldPages, newPages, ...about } = set;
  assert(oldPages.length === newPages.length, "every page has an old and a new content");
  const head = Buffer.from(JSON.stringify({ version: FORMAT_VERSION, ...about }));
  const lengthBytes = Buffer.alloc(4);
  lengthBytes.writeUInt32LE(head.length);
  // A file of this name must be whole, also when this is interrupted.
  const path = pathOf(set.name);
  writeFileSync(`${path}.partial`, Buffer.concat([lengthBytes, head, oldPages, newPages]));
  renameSync(`${path}.partial`, path);
}

/** Undefined when it was never made, or by another version of this program. */
export function loadSet(name: string): PageSet | undefined {
  const path = pathOf(name);
  if (!existsSync(path)) return undefined;
  const file = readFileSync(path);
  const headEnd = 4 + file.readUInt32LE(0);
  const { version, ...about } = JSON.parse(file.toString("utf8", 4, headEnd)) as Omit<
    PageSet,
    "oldPages" | "newPages"
  > & { version: number };
  if (version !== FORMAT_VERSION) return undefined;
  const middle = headEnd + (file.length - headEnd) / 2;
  return { ...about, oldPages: file.subarray(headEnd, middle), newPages: file.subarray(middle) };
}

function pathOf(name: string): string {
  return join(cacheFolder(), `${name}.pages`);
}
