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
 * less from page to page. At most a batch.
 */
const STRONG_PAGES_MAX = 32;
/** Times that are kept of each kind. */
const TIMES_MAX = 1024;
/** zstd levels: what a fast link leaves time for, and a slow one. */
export const LEVEL_FAST = 1;
export const LEVEL_STRONG = 9;

/** Pages of one kind: bytes are summed up; of times the median counts, which whatever interrupts us does not lengthen. */
class Sum {
  pages = 0;
  bytes = 0;
  readonly #msPerPage: number[] = [];

  add(pages: number, bytes: number, ms: number): void {
    this.pages += pages;
    this.bytes += bytes;
    if (this.#msPerPage.length < TIMES_MAX) this.#msPerPage.push(ms / pages);
  }

  get bytesPerPage(): number | undefined {
    return this.pages === 0 ? undefined : this.bytes / this.pages;
  }

  get msPerPage(): number | undefined {
    return this.#msPerPage.sort((a, b) => a - b)[Math.floor(this.#msPerPage.length / 2)];
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
  readonly #memory: KernelMemory;
  readonly #kernel: Kernel;
  readonly #nowMs: () => number;
  readonly #wordMask: DeltaCodec;
  readonly #zstd: EntropyCoder;
  readonly #oldAddress: number;
  readonly #newAddress: number;
  readonly #controlAddress: number;
  readonly #dataAddress: number;
  /** A batch: pages whole, or streams of deltas. */
  readonly #batchAddress: number;
  readonly #batchBytesMax: number;
  readonly #codedAddress: number;
  readonly #deltaCost = new Sum();
  readonly #fast = new Sum();
  readonly #strong = new Sum();

  constructor(memory: KernelMemory, kernel: Kernel, pageBytes: number, nowMs: () => number) {
    this.pageBytes = pageBytes;
    this.#memory = memory;
    this.#kernel = kernel;
    this.#nowMs = nowMs;
    this.#oldAddress = memory.allocate(pageBytes);
    this.#newAddress = memory.allocate(pageBytes);
    this.#controlAddress = memory.allocate(controlBytesMax(pageBytes));
    this.#dataAddress = memory.allocate(dataBytesMax(pageBytes) + pageBytes);
    this.#batchBytesMax = BATCH_PAGES * (pageBytes + controlBytesMax(pageBytes));
    this.#batchAddress = memory.allocate(this.#batchBytesMax);
    this.#codedAddress = memory.allocate(this.#batchBytesMax);
    const wordMask = makeDeltaCodec(DELTA_WORD_MASK, memory, kernel, pageBytes);
    if (wordMask === undefined) throw new RangeError(`No delta codec for pages of ${pageBytes} bytes`);
    this.#wordMask = wordMask;
    this.#zstd = makeZstd(memory, this.#batchBytesMax);
  }

  /** Pairs of a page before and after, equal ones left out. Undefined when there are none. */
  measureChanges(pairs: readonly (readonly [old: Uint8Array, now: Uint8Array])[]): ChangeSizes | undefined {
    const [xbzrle, tunnel, whole] = [new Sum(), new Sum(), new Sum()];
    for (let from = 0; from < pairs.length; from += BATCH_PAGES) {
      const batch = pairs.slice(from, from + BATCH_PAGES);
      for (const [old, now] of batch) xbzrle.add(1, this.#xbzrleBytes(old, now), 0);
      tunnel.add(batch.length, this.#tunnelBytes(batch), 0);
      whole.add(
        batch.length,
        this.#codedBytes(
          batch.map(([, now]) => now),
          LEVEL_FAST,
          this.#fast,
        ),
        0,
      );
    }
    if (xbzrle.bytesPerPage === undefined) return undefined;
    return {
      pages: xbzrle.pages,
      xbzrleBytes: xbzrle.bytesPerPage,
      tunnelBytes: tunnel.bytesPerPage ?? 0,
      wholeCodedBytes: whole.bytesPerPage ?? 0,
    };
  }

  /** Pages that are not zero. Returns the shares that coders leave of them; of no pages: all. */
  measureWhole(pages: readonly Uint8Array[]): { fast: number; strong: number } {
    if (pages.length === 0) return { fast: 1, strong: 1 };
    const every = Math.ceil(pages.length / STRONG_PAGES_MAX);
    const some = pages.filter((_, i) => i % every === 0);
    const others = pages.filter((_, i) => i % every !== 0);
    const someBytes = this.#codedBytes(some, LEVEL_FAST, this.#fast);
    let bytes = someBytes;
    for (let from = 0; from < others.length; from += BATCH_PAGES)
      bytes += this.#codedBytes(others.slice(from, from + BATCH_PAGES), LEVEL_FAST, this.#fast);
    const fast = bytes / (pages.length * this.pageBytes);
    // By how much the harder coder is better, of the same pages.
    return { fast, strong: (fast * this.#codedBytes(some, LEVEL_STRONG, this.#strong)) / someBytes };
  }

  /** Of everything measured so far. What was not needed cannot have cost anything. */
  get cpuMsPerPage(): { delta: number; fast: number; strong: number } {
    return {
      delta: this.#deltaCost.msPerPage ?? 0,
      fast: this.#fast.msPerPage ?? 0,
      strong: this.#strong.msPerPage ?? 0,
    };
  }

  #put(old: Uint8Array, now: Uint8Array): void {
    this.#memory.bytes(this.#oldAddress, this.pageBytes).set(old);
    this.#memory.bytes(this.#newAddress, this.pageBytes).set(now);
  }

  #xbzrleBytes(old: Uint8Array, now: Uint8Array): number {
    this.#put(old, now);
    const [from, to] = [this.#oldAddress, this.#newAddress];
    const bytes = this.#kernel.xbzrleEncode(from, to, this.pageBytes, this.#dataAddress, this.pageBytes);
    return bytes === -1 ? this.pageBytes : bytes;
  }

  /** Controls of all pages first, then the changed words of all: like beside like. */
  #tunnelBytes(batch: readonly (readonly [old: Uint8Array, now: Uint8Array])[]): number {
    const controls: Uint8Array[] = [];
    const datas: Uint8Array[] = [];
    for (const [old, now] of batch) {
      this.#put(old, now);
      const startMs = this.#nowMs();
      const [from, to] = [this.#oldAddress, this.#newAddress];
      const delta = this.#wordMask.encode(from, to, this.#controlAddress, this.#dataAddress);
      this.#deltaCost.add(1, 0, this.#nowMs() - startMs);
      if (delta === DELTA_UNCHANGED) continue;
      if (delta === DELTA_OVERFLOW) {
        datas.push(now);
        continue;
      }
      controls.push(this.#memory.bytes(this.#controlAddress, delta & 0xffff).slice());
      datas.push(this.#memory.bytes(this.#dataAddress, delta >>> 16).slice());
    }
    return this.#codedBytes([...controls, ...datas], LEVEL_FAST, undefined);
  }

  /** Of all together; what does not get smaller goes as it is. */
  #codedBytes(parts: readonly Uint8Array[], level: number, cost: Sum | undefined): number {
    let rawBytes = 0;
    for (const part of parts) {
      this.#memory.bytes(this.#batchAddress + rawBytes, part.length).set(part);
      rawBytes += part.length;
    }
    if (rawBytes === 0) return 0;
    const startMs = this.#nowMs();
    const [raw, coded] = [this.#batchAddress, this.#codedAddress];
    const codedBytes = this.#zstd.compress(raw, rawBytes, coded, rawBytes, level);
    cost?.add(parts.length, codedBytes, this.#nowMs() - startMs);
    return codedBytes === -1 ? rawBytes : codedBytes;
  }
}
