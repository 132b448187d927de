// Rewrites a migration stream page by page: what the destination already holds is not sent again. Every page
// is classified against the page cache (zero, unchanged, delta, overflow, raw), and put into a sink with
// everything else, which is carried on as it is. Knows nothing of links, nor of how a sink writes.
//
// Pages are looked at where they lie in the home memory: `bytes` of every call must be a view of it.

import { assert } from "../../base/assert.ts";
import { DELTA_OVERFLOW, DELTA_UNCHANGED } from "../../codec/delta/delta-codec.ts";
import { xbzrleDecode } from "../../codec/xbzrle.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { NO_TAG, PAGE_ABSENT, PAGE_ZERO, type PageCache } from "../../memory/page-cache.ts";
import { NO_SLOT } from "../../memory/policy/policy.ts";
import type { PageClasses } from "../../record/schema.ts";
import { SectionType } from "../../stream/format.ts";
import type { StreamBlock, StreamHandler } from "../../stream/reader.ts";
import { PageClass, type PageObserver } from "../../trace/format.ts";
import type { UntouchedRam } from "../ports.ts";
import type { PageSink } from "./page-sink.ts";
import { UntouchedPages } from "./untouched-pages.ts";

/** What the rewriter sees pass by and others need to know. */
export interface RewriterListener {
  command(command: number): void;
  ramBlocks?(blocks: readonly StreamBlock[]): void;
  /** vCPUs have stopped; the last pass over RAM follows. */
  stopped(): void;
  /** Post-copy: the device state follows, and the destination runs the guest when it has loaded it. */
  package?(): void;
  packageEnd?(): void;
  /** RAM is complete; the device state follows, in post-copy the end. */
  deviceState(): void;
  opaque(reason: string, offsetBytes: number): void;
}

/** Makes the cache in the home memory, once the page size is known. Undefined = method `standard`. */
export type CacheFactory = (pageBytes: number, memory: KernelMemory) => PageCache;

export interface RewriterOptions {
  sink: PageSink;
  memory: KernelMemory;
  kernel: Kernel;
  listener: RewriterListener;
  /** Undefined: whole pages, always. */
  cacheFactory: CacheFactory | undefined;
  /** Is told what became of each page. */
  observer?: PageObserver | undefined;
}

export class StreamRewriter implements StreamHandler {
  readonly pages: PageClasses = {
    zeroPages: 0,
    unchangedPages: 0,
    deltaPages: 0,
    overflowPages: 0,
    rawPages: 0,
    duplicatePages: 0,
    deltaBytes: 0,
  };
  readonly #sink: PageSink;
  readonly #memory: KernelMemory;
  readonly #kernel: Kernel;
  readonly #listener: RewriterListener;
  readonly #cacheFactory: CacheFactory | undefined;
  readonly #observer: PageObserver | undefined;
  #cache: PageCache | undefined;
  #blocks: readonly StreamBlock[] = [];
  #pageBytes = 0;
  /** Pages of the home memory: one of zeros, a copy of one from another shard, one to decode a delta in. */
  #zeroAddress = 0;
  #baselineAddress = 0;
  #decodedAddress = 0;
  #iteration = 0;
  /** The home memory as bytes, for the observer. */
  #home: Uint8Array = new Uint8Array(0);
  #bypasses = false;
  #bypassWanted = false;
  /** Post-copy: the destination takes pages whole, and each only once. */
  #isPostcopy = false;
  #decoded: Uint8Array = new Uint8Array(0);
  #untouchedRam: readonly UntouchedRam[] = [];
  /** Undefined: the destination has touched all, as far as is known. */
  #untouched: UntouchedPages | undefined;
  #sectionId: number | undefined;
  /** Last page record of the source: what a CONTINUE record of its own would refer to. */
  #lastBlock = -1;
  #lastPage = -1;

  constructor({ sink, memory, kernel, listener, cacheFactory, observer }: RewriterOptions) {
    this.#sink = sink;
    this.#memory = memory;
    this.#kernel = kernel;
    this.#listener = listener;
    this.#cacheFactory = cacheFactory;
    this.#observer = observer;
  }

  /** Iterations are counted by the hypervisor: the cache's policy and the observer go by it. */
  iterationBegan(iteration: number): void {
    this.#iteration = iteration;
    this.#cache?.iterationBegan();
  }

  get isFull(): boolean {
    return this.#sink.isFull;
  }

  /**
   * Whether pages are carried on as they are, without a look at them, from the next section on; with a look, from the
   * next record on. The cache forgets what comes by meanwhile.
   */
  bypass(wanted: boolean): void {
    this.#bypassWanted = wanted;
  }

  /**
   * The destination holds zeros there, as nobody has put anything else there yet: pages of zeros that come for the first time
   * are left out. Before the RAMBlocks have been read; not for post-copy, where each page must have come.
   */
  leaveOutZerosOf(untouched: readonly UntouchedRam[]): void {
    this.#untouchedRam = untouched;
  }

  get cache(): PageCache | undefined {
    return this.#cache;
  }

  /** As the hypervisor has named them; none before that. */
  get blocks(): readonly StreamBlock[] {
    return this.#blocks;
  }

  verbatim(bytes: Uint8Array, start: number, end: number): void {
    this.#sink.verbatim(bytes, start, end);
  }

  ramBlocks(blocks: readonly StreamBlock[], pageBytes: number): void {
    this.#blocks = blocks;
    this.#pageBytes = pageBytes;
    this.#zeroAddress = this.#memory.allocate(pageBytes);
    this.#baselineAddress = this.#memory.allocate(pageBytes);
    this.#decodedAddress = this.#memory.allocate(pageBytes);
    this.#decoded = this.#memory.bytes(this.#decodedAddress, pageBytes);
    this.#cache = this.#cacheFactory?.(pageBytes, this.#memory);
    for (const block of blocks) this.#cache?.addBlock(block);
    // What was left out must be known to be zeros, which is the cache's to remember.
    if (this.#untouchedRam.length > 0 && this.#cache !== undefined)
      this.#untouched = new UntouchedPages(blocks, pageBytes, this.#untouchedRam);
    this.#home = new Uint8Array(this.#memory.wasm.buffer);
    const pageCounts = blocks.map(({ idstr, lengthBytes }) => ({
      idstr,
      pageCount: lengthBytes / pageBytes,
    }));
    this.#observer?.ramBlocks(pageCounts, pageBytes);
    this.#sink.setBlocks(blocks, pageBytes, this.#sectionId!);
    this.#observer?.codec(this.#sink.codecName);
    this.#listener.ramBlocks?.(blocks);
  }

  ramSection(sectionType: number, sectionId: number): void {
    this.#sectionId = sectionId;
    this.#bypasses = this.#bypassWanted;
    if (sectionType === SectionType.START) this.#sink.ramStarted(sectionId);
    else this.#sink.ramSection(sectionType, sectionId);
    if (this.#bypasses && sectionType === SectionType.PART) this.#sink.asStream();
  }

  ramSectionEnd(): void {
    this.#sink.ramSectionEnd();
  }

  zeroPage(blockIndex: number, pageIndex: number, fill: number): void {
    const isHeld = this.#untouched?.has(blockIndex, pageIndex) === true;
    this.#remember(blockIndex, pageIndex);
    this.#considerLook();
    if (fill !== 0) {
      this.#cache?.forget(blockIndex, pageIndex);
      this.pages.rawPages++;
      this.#sink.fillPage(blockIndex, pageIndex, fill);
      return;
    }
    if (isHeld && !this.#isPostcopy) {
      this.pages.zeroPages++;
      this.#observe(blockIndex, pageIndex, PageClass.ZERO, 0, 0);
      this.#cache?.storeZero(blockIndex, pageIndex);
      return;
    }
    // Where that is not known, the first zero page must be sent all the same: the destination may hold firmware there.
    if (!this.#isPostcopy && this.#cache?.lookup(blockIndex, pageIndex) === PAGE_ZERO) {
      this.pages.unchangedPages++;
      this.#observe(blockIndex, pageIndex, PageClass.UNCHANGED, 0, 0);
      return;
    }
    this.#sendZero(blockIndex, pageIndex);
  }

  page(blockIndex: number, pageIndex: number, bytes: Uint8Array, offset: number): void {
    this.#page(blockIndex, pageIndex, bytes.byteOffset + offset);
  }

  carriesOn(blockIndex: number): boolean {
    if (!this.#bypasses || !this.#bypassWanted || this.#isPostcopy || this.#observer !== undefined)
      return false;
    return this.#sink.carriesOn(blockIndex);
  }

  carriedPage(blockIndex: number, pageIndex: number, isZero: boolean): boolean {
    const isHeld = isZero && this.#untouched?.has(blockIndex, pageIndex) === true;
    this.#remember(blockIndex, pageIndex);
    if (isZero) {
      this.pages.zeroPages++;
      this.#cache?.storeZero(blockIndex, pageIndex);
    } else {
      this.pages.rawPages++;
      this.#cache?.forget(blockIndex, pageIndex);
    }
    return !isHeld;
  }

  xbzrlePage(
    blockIndex: number,
    pageIndex: number,
    bytes: Uint8Array,
    offset: number,
    lengthBytes: number,
  ): void {
    const slot = this.#cache?.lookup(blockIndex, pageIndex) ?? PAGE_ABSENT;
    if (this.#cache === undefined || slot === PAGE_ABSENT) {
      // The destination has the page that this delta was made against, we do not.
      this.#remember(blockIndex, pageIndex);
      this.pages.deltaPages++;
      this.pages.deltaBytes += lengthBytes;
      this.#sink.xbzrlePage(blockIndex, pageIndex, bytes, offset, lengthBytes);
      return;
    }
    this.#kernel.copy(this.#decodedAddress, this.#baselineOf(slot), this.#pageBytes);
    xbzrleDecode(bytes, offset, lengthBytes, this.#decoded, 0, this.#pageBytes);
    this.#page(blockIndex, pageIndex, this.#decodedAddress);
  }

  command(command: number): void {
    this.#listener.command(command);
  }

  stopped(): void {
    this.#listener.stopped();
  }

  /** What the destination forgets is no baseline any more, and will be sent whole whatever it is. */
  discarded(blockIndex: number, pageIndex: number, pageCount: number): void {
    for (let i = 0; i < pageCount; i++) this.#cache?.forget(blockIndex, pageIndex + i);
  }

  package(): void {
    this.#isPostcopy = true;
    this.#listener.package?.();
  }

  packageEnd(): void {
    this.#listener.packageEnd?.();
  }

  deviceState(): void {
    this.#listener.deviceState();
  }

  opaque(reason: string, offsetBytes: number, insideRam: boolean): void {
    if (insideRam) {
      this.#sink.asStream();
    }
    this.#realign(insideRam);
    this.#listener.opaque(reason, offsetBytes);
  }

  #page(blockIndex: number, pageIndex: number, address: number): void {
    this.#remember(blockIndex, pageIndex);
    this.#considerLook();
    const cache = this.#cache;
    if (this.#bypasses || this.#isPostcopy) {
      cache?.forget(blockIndex, pageIndex);
      this.#observe(blockIndex, pageIndex, PageClass.RAW, 0, address);
      this.#countWhole("rawPages", this.#sink.wholePage(blockIndex, pageIndex, address, NO_SLOT));
      return;
    }
    if (cache === undefined) {
      this.#observe(blockIndex, pageIndex, PageClass.RAW, 0, address);
      this.#countWhole("rawPages", this.#sink.wholePage(blockIndex, pageIndex, address, NO_SLOT));
      return;
    }
    const slot = cache.lookup(blockIndex, pageIndex);
    // Not every source looks for zeros itself, and against most pages their delta would overflow.
    if (slot !== PAGE_ZERO && this.#kernel.isZero(address, this.#pageBytes) === 1) {
      this.#sendZero(blockIndex, pageIndex);
      return;
    }
    if (slot === PAGE_ABSENT) {
      this.#sendWhole(blockIndex, pageIndex, address, "rawPages");
      return;
    }
    const baseline = this.#baselineOf(slot);
    const deltaBytes = this.#sink.deltaPage(
      blockIndex,
      pageIndex,
      baseline,
      address,
      slot === PAGE_ZERO ? NO_SLOT : slot,
    );
    if (deltaBytes === DELTA_UNCHANGED) {
      this.pages.unchangedPages++;
      this.#observe(blockIndex, pageIndex, PageClass.UNCHANGED, 0, address);
    } else if (deltaBytes === DELTA_OVERFLOW) {
      this.#sendWhole(blockIndex, pageIndex, address, "overflowPages");
    } else {
      this.pages.deltaPages++;
      this.pages.deltaBytes += deltaBytes;
      this.#observe(blockIndex, pageIndex, PageClass.DELTA, deltaBytes, address);
      this.#store(blockIndex, pageIndex, address);
    }
  }

  /** Where the page of a slot, or of zeros, can be read in the home memory; until the next call. */
  #baselineOf(slot: number): number {
    if (slot === PAGE_ZERO) return this.#zeroAddress;
    const cache = this.#cache!;
    const shard = cache.shardOf(slot);
    if (shard === 0) return cache.addressOf(slot);
    const page = cache.memoryOf(shard).bytes(cache.addressOf(slot), this.#pageBytes);
    this.#memory.bytes(this.#baselineAddress, this.#pageBytes).set(page);
    return this.#baselineAddress;
  }

  /**
   * Before the source's own records are carried on untouched: a CONTINUE among them, in this section or a later
   * one, means the block of the source's last record, which the destination has not seen if we dropped that
   * page as unchanged. Sending the page once more puts the destination there.
   */
  #realign(insideRam: boolean): void {
    const [blockIndex, pageIndex] = [this.#lastBlock, this.#lastPage];
    // In post-copy nothing was left out, and no page may come a second time.
    if (this.#isPostcopy) return;
    if (blockIndex === -1 || blockIndex === this.#sink.destinationBlock) return;
    const slot = this.#cache?.lookup(blockIndex, pageIndex) ?? PAGE_ABSENT;
    assert(slot !== PAGE_ABSENT, "a page was dropped only if it was in the cache");
    if (!insideRam) this.#sink.ramSection(SectionType.PART, this.#sectionId!);
    if (slot === PAGE_ZERO) this.#sink.zeroPage(blockIndex, pageIndex);
    else this.#sink.wholePage(blockIndex, pageIndex, this.#baselineOf(slot), slot);
    if (!insideRam) this.#sink.ramSectionEnd();
  }

  #observe(
    blockIndex: number,
    pageIndex: number,
    pageClass: PageClass,
    deltaBytes: number,
    address: number,
  ): void {
    this.#observer?.observe(
      blockIndex,
      pageIndex,
      this.#iteration,
      pageClass,
      deltaBytes,
      this.#home,
      address,
    );
  }

  /** A section may be megabytes long, which on a slow link are not to be wasted. */
  #considerLook(): void {
    if (!this.#bypasses || this.#bypassWanted) return;
    this.#bypasses = false;
    this.#sink.asPages();
  }

  #remember(blockIndex: number, pageIndex: number): void {
    this.#lastBlock = blockIndex;
    this.#lastPage = pageIndex;
    this.#untouched?.came(blockIndex, pageIndex);
  }

  #sendZero(blockIndex: number, pageIndex: number): void {
    this.pages.zeroPages++;
    this.#observe(blockIndex, pageIndex, PageClass.ZERO, 0, 0);
    this.#sink.zeroPage(blockIndex, pageIndex);
    this.#cache?.storeZero(blockIndex, pageIndex);
  }

  #sendWhole(
    blockIndex: number,
    pageIndex: number,
    address: number,
    pageClass: "rawPages" | "overflowPages",
  ): void {
    const observed = pageClass === "rawPages" ? PageClass.RAW : PageClass.OVERFLOW;
    this.#observe(blockIndex, pageIndex, observed, 0, address);
    const slot = this.#store(blockIndex, pageIndex, address);
    this.#countWhole(pageClass, this.#sink.wholePage(blockIndex, pageIndex, address, slot));
  }

  #countWhole(pageClass: "rawPages" | "overflowPages", isDuplicate: boolean): void {
    this.pages[isDuplicate ? "duplicatePages" : pageClass]++;
  }

  /** The destination is going to hold this content. @returns where the cache holds it, or NO_SLOT */
  #store(blockIndex: number, pageIndex: number, address: number): number {
    const cache = this.#cache!;
    const slot = cache.reserve(blockIndex, pageIndex);
    if (slot === NO_SLOT) return slot;
    cache.setTag(slot, NO_TAG);
    const shard = cache.shardOf(slot);
    if (shard === 0) this.#kernel.copy(cache.addressOf(slot), address, this.#pageBytes);
    else cache.slabOf(slot).set(this.#memory.bytes(address, this.#pageBytes), cache.offsetOf(slot));
    return slot;
  }
}
