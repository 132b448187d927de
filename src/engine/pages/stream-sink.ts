// Output of the rewriter as a migration stream that any stock QEMU loads: deltas are XBZRLE records. It is written
// into regions that are handed out whole, and come back when the link has taken them.

import { assert } from "../../base/assert.ts";
import { DELTA_OVERFLOW, DELTA_UNCHANGED } from "../../codec/delta/delta-codec.ts";
import { XBZRLE_PAGE_BYTES_MAX } from "../../codec/xbzrle.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { NO_REGION, RegionPool } from "../../kernel/region-pool.ts";
import { SectionType } from "../../stream/format.ts";
import type { StreamBlock } from "../../stream/reader.ts";
import { OutputBuffer, StreamWriter } from "../../stream/writer.ts";
import type { PageSink } from "./page-sink.ts";

const REGION_COUNT = 4;
const REGION_BYTES = 1024 * 1024;
/** What the largest single call may add: bytes of one turn of input, or a record. */
const CALL_BYTES_MAX = 512 * 1024;
/** The kernel writes a little beyond a delta. */
const DELTA_SLACK_BYTES = 64;

export class StreamSink implements PageSink {
  readonly codecName = "xbzrle";
  readonly writer = new StreamWriter(new OutputBuffer(new Uint8Array(0)));
  readonly #memory: KernelMemory;
  readonly #kernel: Kernel;
  readonly #regions: RegionPool;
  #region = NO_REGION;
  #pageBytes = 0;
  #deltaAddress = 0;
  /** A PART section that is opened only when something stands in it. */
  #sectionToOpen: number | undefined;

  constructor(memory: KernelMemory, kernel: Kernel) {
    this.#memory = memory;
    this.#kernel = kernel;
    this.#regions = new RegionPool(memory, REGION_COUNT, REGION_BYTES);
    this.#nextRegion();
  }

  /** False: all regions are with the link. */
  get isWritable(): boolean {
    return this.#region !== NO_REGION;
  }

  get isFull(): boolean {
    return !this.isWritable || this.pendingBytes > REGION_BYTES - CALL_BYTES_MAX;
  }

  get destinationBlock(): number {
    return this.writer.destinationBlock;
  }

  /** Written and not taken. */
  get pendingBytes(): number {
    return this.writer.output.length;
  }

  /** All that was written, and what to call when it may be overwritten. */
  take(): { bytes: Uint8Array; release: () => void } {
    const region = this.#region;
    assert(region !== NO_REGION, "only what was written is taken");
    const bytes = this.#memory.bytes(region, this.pendingBytes);
    this.#nextRegion();
    const release = () => {
      this.#regions.give(region);
      if (this.#region === NO_REGION) this.#nextRegion();
    };
    return { bytes, release };
  }

  verbatim(bytes: Uint8Array, start: number, end: number): void {
    if (!this.#memory.holds(bytes)) {
      this.writer.verbatim(bytes, start, end);
      return;
    }
    const length = end - start;
    // V8 copies within shared memory word by word only what is aligned alike, and all else byte by byte.
    this.#kernel.copy(this.#region + this.writer.space(length), bytes.byteOffset + start, length);
  }

  carriesOn(blockIndex: number): boolean {
    return this.#sectionToOpen === undefined && this.writer.mayContinue(blockIndex);
  }

  setBlocks(blocks: readonly StreamBlock[], pageBytes: number): void {
    this.#pageBytes = pageBytes;
    this.#deltaAddress = this.#memory.allocate(pageBytes + DELTA_SLACK_BYTES);
    this.writer.setBlocks(blocks, pageBytes);
  }

  ramStarted(sectionId: number): void {
    this.writer.ramStarted(sectionId);
  }

  ramSection(sectionType: number, sectionId: number): void {
    if (sectionType === SectionType.PART) this.#sectionToOpen = sectionId;
    else this.writer.ramSection(sectionType, sectionId);
  }

  ramSectionEnd(): void {
    // A section in which every page was unchanged leaves no trace.
    if (this.#sectionToOpen !== undefined) this.#sectionToOpen = undefined;
    else this.writer.ramSectionEnd();
  }

  zeroPage(blockIndex: number, pageIndex: number): void {
    this.#open();
    this.writer.zeroPage(blockIndex, pageIndex);
  }

  wholePage(blockIndex: number, pageIndex: number, address: number): boolean {
    this.#open();
    const at = this.#region + this.writer.pageSpace(blockIndex, pageIndex);
    this.#kernel.copy(at, address, this.#pageBytes);
    return false;
  }

  deltaPage(blockIndex: number, pageIndex: number, oldAddress: number, newAddress: number): number {
    const pageBytes = this.#pageBytes;
    if (pageBytes > XBZRLE_PAGE_BYTES_MAX) {
      return this.#kernel.isEqual(oldAddress, newAddress, pageBytes) ? DELTA_UNCHANGED : DELTA_OVERFLOW;
    }
    const delta = this.#deltaAddress;
    const bytes = this.#kernel.xbzrleEncode(oldAddress, newAddress, pageBytes, delta, pageBytes - 1);
    if (bytes <= 0) return bytes;
    this.#open();
    const at = this.#region + this.writer.xbzrleSpace(blockIndex, pageIndex, bytes);
    this.#kernel.copy(at, delta, bytes);
    return bytes;
  }

  fillPage(blockIndex: number, pageIndex: number, fill: number): void {
    this.#open();
    this.writer.zeroPage(blockIndex, pageIndex, fill);
  }

  xbzrlePage(
    blockIndex: number,
    pageIndex: number,
    bytes: Uint8Array,
    offset: number,
    lengthBytes: number,
  ): void {
    this.#open();
    this.writer.xbzrlePage(blockIndex, pageIndex, bytes, offset, lengthBytes);
  }

  asStream(): void {
    this.#open();
  }

  /** Records are a stream's in any case. */
  asPages(): void {}

  #open(): void {
    if (this.#sectionToOpen === undefined) return;
    this.writer.ramSection(SectionType.PART, this.#sectionToOpen);
    this.#sectionToOpen = undefined;
  }

  /** The stream goes on in another region, as if nothing had happened. */
  #nextRegion(): void {
    this.#region = this.#regions.take();
    const isThere = this.#region !== NO_REGION;
    this.writer.output.moveTo(isThere ? this.#memory.bytes(this.#region, REGION_BYTES) : new Uint8Array(0));
  }
}
