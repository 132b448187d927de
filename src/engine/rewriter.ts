// Rewrites a migration stream page by page: what the destination already holds is not sent again. Every page
// is classified against the page cache (zero, unchanged, delta, overflow, raw); everything else is carried on
// as it is. The output is a stream that any stock QEMU loads. Knows nothing of links.

import { assert } from "../base/assert.ts";
import { XBZRLE_OVERFLOW, xbzrleDecode, xbzrleEncode } from "../codec/xbzrle.ts";
import { PAGE_ABSENT, PAGE_ZERO, type PageCache } from "../memory/page-cache.ts";
import { isZeroPage } from "../memory/zero.ts";
import type { PageClasses } from "../record/schema.ts";
import { PAGE_BYTES_MAX, SectionType } from "../stream/format.ts";
import type { StreamBlock, StreamHandler } from "../stream/reader.ts";
import type { StreamWriter } from "../stream/writer.ts";

/** What the rewriter sees pass by and others need to know. */
export interface RewriterListener {
  ramBlocks(blocks: readonly StreamBlock[], pageBytes: number): void;
  command(command: number): void;
  /** vCPUs have stopped; the last pass over RAM follows. */
  stopped(): void;
  /** RAM is complete; the device state follows. */
  deviceState(): void;
  opaque(reason: string, offsetBytes: number): void;
}

/** Makes the cache once the page size is known. Undefined = method `standard`: whole pages, always. */
export type CacheFactory = (pageBytes: number) => PageCache;

export class StreamRewriter implements StreamHandler {
  readonly pages: PageClasses = {
    zeroPages: 0,
    unchangedPages: 0,
    deltaPages: 0,
    overflowPages: 0,
    rawPages: 0,
    deltaBytes: 0,
  };
  readonly #writer: StreamWriter;
  readonly #listener: RewriterListener;
  readonly #cacheFactory: CacheFactory | undefined;
  #cache: PageCache | undefined;
  #pageBytes = 0;
  readonly #zero = new Uint8Array(PAGE_BYTES_MAX);
  readonly #delta = new Uint8Array(PAGE_BYTES_MAX);
  readonly #decoded = new Uint8Array(PAGE_BYTES_MAX);
  #sectionId: number | undefined;
  /** A PART section of the source that is opened in the output only when something stands in it. */
  #sectionToOpen: number | undefined;
  /** Last page record of the source: what a CONTINUE record of its own would refer to. */
  #lastBlock = -1;
  #lastPage = -1;

  constructor(writer: StreamWriter, listener: RewriterListener, cacheFactory: CacheFactory | undefined) {
    this.#writer = writer;
    this.#listener = listener;
    this.#cacheFactory = cacheFactory;
  }

  get cache(): PageCache | undefined {
    return this.#cache;
  }

  verbatim(bytes: Uint8Array, start: number, end: number): void {
    this.#writer.verbatim(bytes, start, end);
  }

  ramBlocks(blocks: readonly StreamBlock[], pageBytes: number): void {
    this.#pageBytes = pageBytes;
    this.#writer.setBlocks(blocks, pageBytes);
    this.#cache = this.#cacheFactory?.(pageBytes);
    for (const block of blocks) this.#cache?.addBlock(block);
    this.#listener.ramBlocks(blocks, pageBytes);
  }

  ramSection(sectionType: number, sectionId: number): void {
    this.#sectionId = sectionId;
    if (sectionType === SectionType.START) this.#writer.ramStarted(sectionId);
    else if (sectionType === SectionType.PART) this.#sectionToOpen = sectionId;
    else this.#writer.ramSection(sectionType, sectionId);
  }

  ramSectionEnd(): void {
    // A section in which every page was unchanged leaves no trace.
    if (this.#sectionToOpen !== undefined) this.#sectionToOpen = undefined;
    else this.#writer.ramSectionEnd();
  }

  zeroPage(blockIndex: number, pageIndex: number, fill: number): void {
    this.#remember(blockIndex, pageIndex);
    if (fill !== 0) {
      this.#cache?.forget(blockIndex, pageIndex);
      this.pages.rawPages++;
      this.#open();
      this.#writer.zeroPage(blockIndex, pageIndex, fill);
      return;
    }
    // The first zero page must be sent all the same: the destination's RAM may hold firmware there.
    if (this.#cache !== undefined && this.#cache.lookup(blockIndex, pageIndex) === PAGE_ZERO) {
      this.pages.unchangedPages++;
      return;
    }
    this.#sendZero(blockIndex, pageIndex);
  }

  page(blockIndex: number, pageIndex: number, bytes: Uint8Array, offset: number): void {
    this.#remember(blockIndex, pageIndex);
    const cache = this.#cache;
    if (cache === undefined) {
      this.pages.rawPages++;
      this.#open();
      this.#writer.page(blockIndex, pageIndex, bytes, offset);
      return;
    }
    const slot = cache.lookup(blockIndex, pageIndex);
    // Not every source looks for zeros itself, and against most pages their delta would overflow.
    if (slot !== PAGE_ZERO && isZeroPage(bytes, offset, this.#pageBytes)) {
      this.#sendZero(blockIndex, pageIndex);
      return;
    }
    if (slot === PAGE_ABSENT) {
      this.#sendWhole(blockIndex, pageIndex, bytes, offset, "rawPages");
      return;
    }
    const baseline = slot === PAGE_ZERO ? this.#zero : cache.slabOf(slot);
    const baselineOffset = slot === PAGE_ZERO ? 0 : cache.offsetOf(slot);
    const deltaBytes = xbzrleEncode(
      baseline,
      baselineOffset,
      bytes,
      offset,
      this.#pageBytes,
      this.#delta,
      0,
      this.#pageBytes - 1,
    );
    if (deltaBytes === 0) {
      this.pages.unchangedPages++;
    } else if (deltaBytes === XBZRLE_OVERFLOW) {
      this.#sendWhole(blockIndex, pageIndex, bytes, offset, "overflowPages");
    } else {
      this.pages.deltaPages++;
      this.pages.deltaBytes += deltaBytes;
      this.#open();
      this.#writer.xbzrlePage(blockIndex, pageIndex, this.#delta, 0, deltaBytes);
      cache.store(blockIndex, pageIndex, bytes, offset);
    }
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
      this.#open();
      this.#writer.xbzrlePage(blockIndex, pageIndex, bytes, offset, lengthBytes);
      return;
    }
    if (slot === PAGE_ZERO) this.#decoded.fill(0, 0, this.#pageBytes);
    else {
      const from = this.#cache.offsetOf(slot);
      this.#decoded.set(this.#cache.slabOf(slot).subarray(from, from + this.#pageBytes));
    }
    xbzrleDecode(bytes, offset, lengthBytes, this.#decoded, 0, this.#pageBytes);
    this.page(blockIndex, pageIndex, this.#decoded, 0);
  }

  command(command: number): void {
    this.#listener.command(command);
  }

  stopped(): void {
    this.#listener.stopped();
  }

  deviceState(): void {
    this.#listener.deviceState();
  }

  opaque(reason: string, offsetBytes: number, insideRam: boolean): void {
    if (insideRam) this.#open();
    this.#realign(insideRam);
    this.#listener.opaque(reason, offsetBytes);
  }

  /**
   * Before the source's own records are carried on untouched: a CONTINUE among them, in this section or a later
   * one, means the block of the source's last record, which the destination has not seen if we dropped that
   * page as unchanged. Sending the page once more puts the destination there.
   */
  #realign(insideRam: boolean): void {
    const [blockIndex, pageIndex] = [this.#lastBlock, this.#lastPage];
    if (blockIndex === -1 || blockIndex === this.#writer.destinationBlock) return;
    const cache = this.#cache;
    const slot = cache?.lookup(blockIndex, pageIndex) ?? PAGE_ABSENT;
    assert(cache !== undefined && slot !== PAGE_ABSENT, "a page was dropped only if it was in the cache");
    if (!insideRam) this.#writer.ramSection(SectionType.PART, this.#sectionId!);
    if (slot === PAGE_ZERO) this.#writer.zeroPage(blockIndex, pageIndex);
    else this.#writer.page(blockIndex, pageIndex, cache.slabOf(slot), cache.offsetOf(slot));
    if (!insideRam) this.#writer.ramSectionEnd();
  }

  #remember(blockIndex: number, pageIndex: number): void {
    this.#lastBlock = blockIndex;
    this.#lastPage = pageIndex;
  }

  #open(): void {
    if (this.#sectionToOpen === undefined) return;
    this.#writer.ramSection(SectionType.PART, this.#sectionToOpen);
    this.#sectionToOpen = undefined;
  }

  #sendZero(blockIndex: number, pageIndex: number): void {
    this.pages.zeroPages++;
    this.#open();
    this.#writer.zeroPage(blockIndex, pageIndex);
    this.#cache?.storeZero(blockIndex, pageIndex);
  }

  #sendWhole(
    blockIndex: number,
    pageIndex: number,
    bytes: Uint8Array,
    offset: number,
    pageClass: "rawPages" | "overflowPages",
  ): void {
    this.pages[pageClass]++;
    this.#open();
    this.#writer.page(blockIndex, pageIndex, bytes, offset);
    this.#cache?.store(blockIndex, pageIndex, bytes, offset);
  }
}
