// What pages of a guest would cost: the sizes that our own codecs make of them, and the time that takes on this machine.
// Pages are coded in batches, as the tunnel does it, since a coder makes more of many than of one.

import {
  controlBytesMax,
  DELTA_OVERFLOW,
  DELTA_UNCHANGED,
  DELTA_WORD_MASK,
  type DeltaCodec,
  dataBytesMax,
} from "../codec/delta/delta-codec.ts";
import { makeDeltaCodec } from "../codec/delta/delta-codecs.ts";
import type { EntropyCoder } from "../codec/entropy/entropy-coder.ts";
import { makeZstd } from "../codec/entropy/zstd.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { KernelMemory } from "../kernel/memory.ts";

const BATCH_PAGES = 64;
/**
 * Of whole pages, those that are coded hard too: that takes ten times as long, and by how much it is better differs
 * less from page to page. Two halves, since the first to be coded pays for the compiler as well.
 */
const STRONG_PAGES_MAX = 16;
/** Of changed pages, those that are coded whole too: what is left of a page differs less than its delta does. */
const CHANGED_WHOLE_MAX = 32;
/** Times that are kept of each kind. */
const TIMES_MAX = 1024;
/** zstd levels: what a fast link leaves time for, and a slow one. */
export const LEVEL_FAST = 1;
export const LEVEL_STRONG = 9;

/** What pages of one kind cost: of the times of batches the median counts, which whatever interrupts us does not lengthen. */
class Cost {
  readonly #msPerPage: number[] = [];

  add(pages: number, ms: number): void {
    if (this.#msPerPage.length < TIMES_MAX) this.#msPerPage.push(ms / pages);
  }

  /** 0: what was not needed cannot have cost anything. Of two times the shorter one. */
  get msPerPage(): number {
    const sorted = this.#msPerPage.sort((a, b) => a - b);
    return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
  }
}

/** Of pages that changed, all after about the same time. */
export interface ChangeSizes {
  readonly pages: number;
  readonly xbzrleBytes: number;
  readonly tunnelBytes: number;
  readonly wholeCodedBytes: number;
}

export class PageMeter {
  readonly pageBytes: number;
  readonly #kernel: Kernel;
  readonly #nowMs: () => number;
  readonly #wordMask: DeltaCodec;
  readonly #zstd: EntropyCoder;
  /** A pair of pages; and an XBZRLE delta, of which only the length matters. */
  readonly #oldAddress: number;
  readonly #newAddress: number;
  readonly #xbzrleAddress: number;
  /** What is changed in the pages of a batch, before it is put behind the masks that say where. */
  readonly #wordsAddress: number;
  /** A batch: pages whole, or streams of deltas. */
  readonly #batchAddress: number;
  readonly #codedAddress: number;
  /** The same places, to be written to. */
  readonly #old: Uint8Array;
  readonly #new: Uint8Array;
  readonly #batch: Uint8Array;
  readonly #delta = new Cost();
  readonly #fast = new Cost();
  readonly #strong = new Cost();

  constructor(memory: KernelMemory, kernel: Kernel, pageBytes: number, nowMs: () => number) {
    this.pageBytes = pageBytes;
    this.#kernel = kernel;
    this.#nowMs = nowMs;
    this.#oldAddress = memory.allocate(pageBytes);
    this.#newAddress = memory.allocate(pageBytes);
    this.#xbzrleAddress = memory.allocate(dataBytesMax(pageBytes));
    this.#wordsAddress = memory.allocate(BATCH_PAGES * pageBytes + dataBytesMax(pageBytes));
    const batchBytesMax = BATCH_PAGES * (pageBytes + controlBytesMax(pageBytes));
    this.#batchAddress = memory.allocate(batchBytesMax);
    this.#codedAddress = memory.allocate(batchBytesMax);
    this.#old = memory.bytes(this.#oldAddress, pageBytes);
    this.#new = memory.bytes(this.#newAddress, pageBytes);
    this.#batch = memory.bytes(this.#batchAddress, batchBytesMax);
    const wordMask = makeDeltaCodec(DELTA_WORD_MASK, memory, kernel, pageBytes);
    if (wordMask === undefined) throw new RangeError(`No delta codec for pages of ${pageBytes} bytes`);
    this.#wordMask = wordMask;
    this.#zstd = makeZstd(memory, batchBytesMax);
  }

  /** Pairs of a page before and after, equal ones left out. Undefined when there are none. */
  measureChanges(pairs: readonly (readonly [old: Uint8Array, now: Uint8Array])[]): ChangeSizes | undefined {
    if (pairs.length === 0) return undefined;
    let [xbzrleBytes, tunnelBytes] = [0, 0];
    for (let from = 0; from < pairs.length; from += BATCH_PAGES) {
      const bytes = this.#deltaBytes(pairs.slice(from, from + BATCH_PAGES));
      xbzrleBytes += bytes.xbzrle;
      tunnelBytes += bytes.tunnel;
    }
    const some = thinned(pairs, CHANGED_WHOLE_MAX).map(([, now]) => now);
    return {
      pages: pairs.length,
      xbzrleBytes: xbzrleBytes / pairs.length,
      tunnelBytes: tunnelBytes / pairs.length,
      wholeCodedBytes: this.#batchesBytes(some, BATCH_PAGES, LEVEL_FAST, this.#fast) / some.length,
    };
  }

  /** Pages that are not zero. Returns the shares that coders leave of them; of no pages: all. */
  measureWhole(pages: readonly Uint8Array[]): { fast: number; strong: number } {
    if (pages.length === 0) return { fast: 1, strong: 1 };
    const fast = this.#batchesBytes(pages, BATCH_PAGES, LEVEL_FAST, this.#fast);
    // By how much the harder coder is better, of the same pages, in the same batches.
    const some = thinned(pages, STRONG_PAGES_MAX);
    const halfPages = Math.ceil(some.length / 2);
    const strong = this.#batchesBytes(some, halfPages, LEVEL_STRONG, this.#strong);
    const share = strong / this.#batchesBytes(some, halfPages, LEVEL_FAST);
    const fastShare = fast / (pages.length * this.pageBytes);
    return { fast: fastShare, strong: fastShare * share };
  }

  /** Of everything measured so far. */
  get cpuMsPerPage(): { delta: number; fast: number; strong: number } {
    return { delta: this.#delta.msPerPage, fast: this.#fast.msPerPage, strong: this.#strong.msPerPage };
  }

  /** In the tunnel the masks of all pages come first, then the changed words of all: like beside like. */
  #deltaBytes(batch: readonly (readonly [old: Uint8Array, now: Uint8Array])[]): {
    xbzrle: number;
    tunnel: number;
  } {
    const { pageBytes } = this;
    const [from, to] = [this.#oldAddress, this.#newAddress];
    let [xbzrle, maskBytes, wordBytes] = [0, 0, 0];
    for (const [old, now] of batch) {
      this.#old.set(old);
      this.#new.set(now);
      const bytes = this.#kernel.xbzrleEncode(from, to, pageBytes, this.#xbzrleAddress, pageBytes);
      xbzrle += bytes === -1 ? pageBytes : bytes;
      const [masks, words] = [this.#batchAddress + maskBytes, this.#wordsAddress + wordBytes];
      const startMs = this.#nowMs();
      const delta = this.#wordMask.encode(from, to, masks, words);
      this.#delta.add(1, this.#nowMs() - startMs);
      if (delta === DELTA_UNCHANGED) continue;
      if (delta === DELTA_OVERFLOW) {
        this.#kernel.copy(words, to, pageBytes);
        wordBytes += pageBytes;
      } else {
        maskBytes += delta & 0xffff;
        wordBytes += delta >>> 16;
      }
    }
    this.#kernel.copy(this.#batchAddress + maskBytes, this.#wordsAddress, wordBytes);
    return { xbzrle, tunnel: this.#codedBytes(maskBytes + wordBytes, LEVEL_FAST) };
  }

  #batchesBytes(pages: readonly Uint8Array[], batchPages: number, level: number, cost?: Cost): number {
    let bytes = 0;
    for (let from = 0; from < pages.length; from += batchPages) {
      const batch = pages.slice(from, from + batchPages);
      for (const [place, page] of batch.entries()) this.#batch.set(page, place * this.pageBytes);
      const startMs = this.#nowMs();
      bytes += this.#codedBytes(batch.length * this.pageBytes, level);
      cost?.add(batch.length, this.#nowMs() - startMs);
    }
    return bytes;
  }

  /** Of so many bytes of a batch; what does not get smaller goes as it is. */
  #codedBytes(rawBytes: number, level: number): number {
    if (rawBytes === 0) return 0;
    const [raw, coded] = [this.#batchAddress, this.#codedAddress];
    const codedBytes = this.#zstd.compress(raw, rawBytes, coded, rawBytes, level);
    return codedBytes === -1 ? rawBytes : codedBytes;
  }
}

/** Some of many, evenly spread. */
export function thinned<T>(all: readonly T[], countMax: number): T[] {
  const count = Math.min(all.length, countMax);
  return Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count)]!);
}
