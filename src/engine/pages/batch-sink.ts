// Output of the rewriter as payloads of DATA frames (wire/page-batch.ts): RAM records taken apart into streams of
// like things, everything else as stream bytes. A payload is built in a slot of the batch coder, and sealed when it
// is full, when another kind begins, or when the link asks for it. Whole pages are put in their final place at
// once; the short parts are gathered behind them when the payload is sealed.

import { assert } from "../../base/assert.ts";
import {
  controlBytesMax,
  DELTA_OVERFLOW,
  DELTA_UNCHANGED,
  type DeltaCodec,
  dataBytesMax,
} from "../../codec/delta/delta-codec.ts";
import { deltaCodecName } from "../../codec/delta/delta-codecs.ts";
import type { BatchCoder } from "../../codec/entropy/batch-coder.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { SectionType } from "../../stream/format.ts";
import type { StreamBlock } from "../../stream/reader.ts";
import { OutputBuffer, StreamWriter } from "../../stream/writer.ts";
import { RAW_BYTES_MAX } from "../../wire/frame.ts";
import {
  ADDRESS_BYTES_MAX,
  BATCH_ENTRIES_MAX,
  ENTRY_DELTA,
  ENTRY_REFERENCE,
  ENTRY_WHOLE,
  ENTRY_ZERO,
  encodeRamLayout,
  PAGES_HEADER_BYTES,
  PAYLOAD_PAGES,
  PAYLOAD_RAM_LAYOUT,
  PAYLOAD_STREAM,
  type PagesHeader,
  type PayloadKind,
  pagesPayloadBytes,
  REFERENCE_BYTES,
  SLOT_BYTES,
  writePagesHeader,
} from "../../wire/page-batch.ts";
import type { ContentWindow } from "./content-window.ts";
import type { PageSink } from "./page-sink.ts";

/** A payload that waits to be coded and sent, in the order in which it was sealed. */
export interface SealedBatch {
  slot: number;
  kind: PayloadKind;
  rawBytes: number;
  /** Of these, content of whole pages: what they are like decides what coding them is worth. */
  wholeBytes: number;
}

/** What the rewriter's pages are coded with; known when the RAMBlocks are. */
export interface PageCoding {
  delta: DeltaCodec | undefined;
  window: ContentWindow | undefined;
  windowPages: number;
  baselinePages: number;
}

const NO_SLOT = -1;
const NO_BLOCK = -1;
/** Any single record of a stream, and records that are carried on together, fit into what is left of a payload that is not full. */
const STREAM_SLACK_BYTES = 80 * 1024;
/** Control, data and whole pages are each bounded by what a payload may be, entries by their number. */
const PARTS_BYTES = RAW_BYTES_MAX + 64 * 1024;

export class BatchSink implements PageSink {
  readonly #memory: KernelMemory;
  readonly #kernel: Kernel;
  readonly #coder: BatchCoder;
  readonly #coding: (blocks: readonly StreamBlock[], pageBytes: number) => PageCoding;
  readonly #sealed: SealedBatch[] = [];
  /** Slot in which the payload under way is built, and one that is ready for the next. */
  #current = NO_SLOT;
  #spare = NO_SLOT;
  #kind: PayloadKind = PAYLOAD_STREAM;

  /** Writes stream payloads, in the current slot. */
  readonly #writer = new StreamWriter(new OutputBuffer(new Uint8Array(0)));
  #pageBytes = 0;
  #delta: DeltaCodec | undefined;
  #window: ContentWindow | undefined;
  #baselinePages = 0;
  #sectionType: number = SectionType.START;
  #sectionId = 0;
  /** Records of this section are written as a stream's. */
  #streaming = false;
  #destinationBlock = NO_BLOCK;

  /** The payload of pages under way. */
  readonly #header: PagesHeader = {
    ownSection: false,
    entryCount: 0,
    wholePages: 0,
    dataBytes: 0,
    controlBytes: 0,
    referenceBytes: 0,
    slotBytes: 0,
    addressBytes: 0,
  };
  readonly #dataAddress: number;
  readonly #controlAddress: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #referencesAt: number;
  readonly #slotsAt: number;
  readonly #kindsAt: number;
  readonly #addressesAt: number;
  #lastBlock = NO_BLOCK;
  #nextPage = 0;

  /** `coding` is asked once, for the RAMBlocks of the stream. Memory is allocated here and never given back. */
  constructor(
    memory: KernelMemory,
    kernel: Kernel,
    coder: BatchCoder,
    coding: (blocks: readonly StreamBlock[], pageBytes: number) => PageCoding,
  ) {
    this.#memory = memory;
    this.#kernel = kernel;
    this.#coder = coder;
    this.#coding = coding;
    this.#dataAddress = memory.allocate(PARTS_BYTES);
    this.#controlAddress = memory.allocate(PARTS_BYTES);
    this.#referencesAt = memory.allocate(BATCH_ENTRIES_MAX * REFERENCE_BYTES);
    this.#slotsAt = memory.allocate(BATCH_ENTRIES_MAX * SLOT_BYTES);
    this.#kindsAt = memory.allocate(BATCH_ENTRIES_MAX);
    this.#addressesAt = memory.allocate(BATCH_ENTRIES_MAX * ADDRESS_BYTES_MAX);
    this.#bytes = new Uint8Array(memory.wasm.buffer);
    this.#view = new DataView(memory.wasm.buffer);
    this.#begin(coder.acquire());
    this.slotFreed();
  }

  get isFull(): boolean {
    return this.#spare === NO_SLOT;
  }

  get codecName(): string {
    return deltaCodecName(this.#delta?.id);
  }

  get destinationBlock(): number {
    return this.#destinationBlock;
  }

  /** Raw bytes of the payload under way. */
  get pendingBytes(): number {
    if (this.#kind !== PAYLOAD_PAGES) return this.#writer.output.length;
    return this.#header.entryCount === 0 ? 0 : pagesPayloadBytes(this.#header, this.#pageBytes);
  }

  /** Raw bytes of everything that was put in and not taken. */
  get waitingBytes(): number {
    let bytes = this.pendingBytes;
    for (const batch of this.#sealed) bytes += batch.rawBytes;
    return bytes;
  }

  /** The oldest payload that is complete. */
  takeSealed(): SealedBatch | undefined {
    return this.#sealed.shift();
  }

  get hasSealed(): boolean {
    return this.#sealed.length > 0;
  }

  /** The payload under way is complete as it is. There must be room for another (`isFull`). */
  seal(): void {
    const rawBytes = this.pendingBytes;
    if (rawBytes === 0) {
      this.#kind = PAYLOAD_STREAM;
      return;
    }
    const wholeBytes = this.#kind === PAYLOAD_PAGES ? this.#header.wholePages * this.#pageBytes : 0;
    if (this.#kind === PAYLOAD_PAGES) this.#gather();
    assert(rawBytes <= RAW_BYTES_MAX, "a payload is no longer than a frame takes");
    this.#sealed.push({ slot: this.#current, kind: this.#kind, rawBytes, wholeBytes });
    assert(this.#spare !== NO_SLOT, "whoever puts something in has looked at isFull");
    this.#begin(this.#spare);
    this.#spare = this.#coder.acquire();
  }

  /** The coder has a slot again. */
  slotFreed(): void {
    if (this.#spare === NO_SLOT) this.#spare = this.#coder.acquire();
  }

  verbatim(bytes: Uint8Array, start: number, end: number): void {
    const isHere = this.#memory.holds(bytes);
    let at = start;
    while (at < end) {
      this.#toStream();
      const next = Math.min(end, at + STREAM_SLACK_BYTES);
      if (isHere) {
        const to = this.#coder.slots[this.#current]!.rawAddress + this.#writer.space(next - at);
        this.#kernel.copy(to, bytes.byteOffset + at, next - at);
      } else this.#writer.verbatim(bytes, at, next);
      at = next;
    }
  }

  carriesOn(blockIndex: number): boolean {
    return this.#streaming && this.#hasStreamRoom && this.#writer.mayContinue(blockIndex);
  }

  setBlocks(blocks: readonly StreamBlock[], pageBytes: number, sectionId: number): void {
    this.#pageBytes = pageBytes;
    this.#writer.setBlocks(blocks, pageBytes);
    const { delta, window, windowPages, baselinePages } = this.#coding(blocks, pageBytes);
    this.#delta = delta;
    this.#window = window;
    this.#baselinePages = delta?.needsBaseline ? baselinePages : 0;
    this.seal();
    const layout = encodeRamLayout({
      sectionId,
      pageBytes,
      deltaCodec: delta?.id ?? 0,
      windowPages,
      baselinePages: this.#baselinePages,
      blocks,
    });
    this.#writer.verbatim(layout, 0, layout.length);
    // Sealed by what follows: one call may use up one slot, of which there is a spare.
    this.#kind = PAYLOAD_RAM_LAYOUT;
  }

  ramStarted(sectionId: number): void {
    this.#sectionType = SectionType.START;
    this.#sectionId = sectionId;
    this.#streaming = false;
  }

  ramSection(sectionType: number, sectionId: number): void {
    this.#sectionType = sectionType;
    this.#sectionId = sectionId;
    this.#streaming = false;
    // The destination opens and closes PART sections around each batch by itself.
    if (sectionType === SectionType.PART) return;
    this.#toStream();
    this.#writer.ramSection(sectionType, sectionId);
  }

  ramSectionEnd(): void {
    if (this.#sectionType === SectionType.PART && !this.#streaming) return;
    this.#toStream();
    // A writer knows only of sections that began in its own payload.
    this.#writer.continueSection(this.#sectionType, this.#sectionId);
    this.#writer.ramSectionEnd();
    this.#streaming = false;
  }

  asStream(): void {
    if (this.#streaming) return;
    this.#streaming = true;
    this.#toStream();
    if (this.#sectionType === SectionType.PART) this.#writer.ramSection(SectionType.PART, this.#sectionId);
  }

  asPages(): void {
    if (!this.#streaming || this.#sectionType !== SectionType.PART) return;
    // Without another slot, which what follows may need: a payload of records always has room for the section's end.
    assert(this.#kind === PAYLOAD_STREAM, "records of a stream are in a payload of a stream");
    this.#writer.continueSection(this.#sectionType, this.#sectionId);
    this.#writer.ramSectionEnd();
    this.#streaming = false;
  }

  zeroPage(blockIndex: number, pageIndex: number): void {
    if (this.#streaming) {
      this.#record(blockIndex).zeroPage(blockIndex, pageIndex);
      return;
    }
    this.#makeRoom();
    this.#entry(blockIndex, pageIndex, ENTRY_ZERO);
  }

  wholePage(blockIndex: number, pageIndex: number, address: number, slot: number): boolean {
    if (this.#streaming) {
      const at = this.#record(blockIndex).pageSpace(blockIndex, pageIndex);
      this.#kernel.copy(this.#coder.slots[this.#current]!.rawAddress + at, address, this.#pageBytes);
      return false;
    }
    this.#makeRoom();
    const header = this.#header;
    const number = this.#window?.find(address, slot) ?? -1;
    if (number >= 0) {
      this.#view.setUint32(this.#referencesAt + header.referenceBytes, number, true);
      header.referenceBytes += REFERENCE_BYTES;
      this.#entry(blockIndex, pageIndex, ENTRY_REFERENCE, slot);
      return true;
    }
    const { rawAddress } = this.#coder.slots[this.#current]!;
    const at = rawAddress + PAGES_HEADER_BYTES + header.wholePages * this.#pageBytes;
    this.#kernel.copy(at, address, this.#pageBytes);
    header.wholePages++;
    this.#entry(blockIndex, pageIndex, ENTRY_WHOLE, slot);
    return false;
  }

  deltaPage(
    blockIndex: number,
    pageIndex: number,
    oldAddress: number,
    newAddress: number,
    slot: number,
  ): number {
    const delta = this.#delta;
    // The destination has no slot for a page of zeros.
    const unknown = delta === undefined || (delta.needsBaseline && slot === NO_SLOT);
    if (unknown || this.#streaming) {
      return this.#kernel.isEqual(oldAddress, newAddress, this.#pageBytes) ? DELTA_UNCHANGED : DELTA_OVERFLOW;
    }
    this.#makeRoom();
    const header = this.#header;
    const size = delta.encode(
      oldAddress,
      newAddress,
      this.#controlAddress + header.controlBytes,
      this.#dataAddress + header.dataBytes,
    );
    if (size <= 0) return size;
    header.controlBytes += size & 0xffff;
    header.dataBytes += size >>> 16;
    this.#entry(blockIndex, pageIndex, ENTRY_DELTA, slot);
    return (size & 0xffff) + (size >>> 16);
  }

  fillPage(blockIndex: number, pageIndex: number, fill: number): void {
    this.#loneRecord(blockIndex).zeroPage(blockIndex, pageIndex, fill);
    this.#loneRecordEnd();
  }

  xbzrlePage(
    blockIndex: number,
    pageIndex: number,
    bytes: Uint8Array,
    offset: number,
    lengthBytes: number,
  ): void {
    this.#loneRecord(blockIndex).xbzrlePage(blockIndex, pageIndex, bytes, offset, lengthBytes);
    this.#loneRecordEnd();
  }

  /** A payload of stream bytes, until it turns out to be of pages. */
  #begin(slot: number): void {
    this.#current = slot;
    this.#kind = PAYLOAD_STREAM;
    this.#writer.moveTo(this.#memory.bytes(this.#coder.slots[slot]!.rawAddress, RAW_BYTES_MAX));
  }

  /** A writer inside this section, for one record in stream form. */
  #record(blockIndex: number): StreamWriter {
    this.#toStream();
    this.#destinationBlock = blockIndex;
    this.#writer.continueSection(this.#sectionType, this.#sectionId);
    return this.#writer;
  }

  #loneRecord(blockIndex: number): StreamWriter {
    if (this.#sectionType === SectionType.PART && !this.#streaming) {
      this.#toStream();
      this.#writer.ramSection(SectionType.PART, this.#sectionId);
    }
    return this.#record(blockIndex);
  }

  #loneRecordEnd(): void {
    if (this.#sectionType === SectionType.PART && !this.#streaming) this.#writer.ramSectionEnd();
  }

  /** The payload under way is of stream bytes and has room for a record. */
  #toStream(): void {
    if (!this.#hasStreamRoom) this.seal();
  }

  get #hasStreamRoom(): boolean {
    return this.#kind === PAYLOAD_STREAM && this.#writer.output.length + STREAM_SLACK_BYTES <= RAW_BYTES_MAX;
  }

  /** The payload under way is of pages and has room for one more, however it is coded. */
  #makeRoom(): void {
    const ownSection = this.#sectionType === SectionType.PART;
    const header = this.#header;
    if (this.#kind === PAYLOAD_PAGES) {
      const most =
        pagesPayloadBytes(header, this.#pageBytes) +
        controlBytesMax(this.#pageBytes) +
        dataBytesMax(this.#pageBytes) +
        REFERENCE_BYTES +
        SLOT_BYTES +
        1 +
        ADDRESS_BYTES_MAX;
      const full = header.entryCount === BATCH_ENTRIES_MAX || most > RAW_BYTES_MAX;
      if (!full && header.ownSection === ownSection) return;
    }
    this.seal();
    this.#kind = PAYLOAD_PAGES;
    this.#lastBlock = NO_BLOCK;
    header.ownSection = ownSection;
    header.entryCount = 0;
    header.wholePages = 0;
    header.dataBytes = 0;
    header.controlBytes = 0;
    header.referenceBytes = 0;
    header.slotBytes = 0;
    header.addressBytes = 0;
  }

  /** An entry's kind, address and slot; #makeRoom was called for it, and its content is in place. */
  #entry(blockIndex: number, pageIndex: number, kind: number, slot = NO_SLOT): void {
    const header = this.#header;
    this.#bytes[this.#kindsAt + header.entryCount++] = kind;
    const otherBlock = blockIndex !== this.#lastBlock;
    const gap = otherBlock ? pageIndex : pageIndex - this.#nextPage;
    const zigzag = gap >= 0 ? 2 * gap : -2 * gap - 1;
    this.#number(2 * zigzag + (otherBlock ? 1 : 0));
    if (otherBlock) this.#number(blockIndex);
    this.#lastBlock = blockIndex;
    this.#destinationBlock = blockIndex;
    this.#nextPage = pageIndex + 1;
    if (this.#baselinePages === 0 || kind === ENTRY_ZERO) return;
    this.#view.setUint32(this.#slotsAt + header.slotBytes, slot, true);
    header.slotBytes += SLOT_BYTES;
  }

  /** Seven bits a byte, the lowest first. */
  #number(value: number): void {
    let rest = value;
    let at = this.#addressesAt + this.#header.addressBytes;
    while (rest >= 0x80) {
      this.#bytes[at++] = (rest & 0x7f) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#bytes[at++] = rest;
    this.#header.addressBytes = at - this.#addressesAt;
  }

  /** Puts the parts behind the whole pages, and the header before them. */
  #gather(): void {
    const header = this.#header;
    const { rawAddress } = this.#coder.slots[this.#current]!;
    let at = rawAddress + PAGES_HEADER_BYTES + header.wholePages * this.#pageBytes;
    at = this.#append(at, this.#dataAddress, header.dataBytes);
    at = this.#append(at, this.#controlAddress, header.controlBytes);
    at = this.#append(at, this.#referencesAt, header.referenceBytes);
    at = this.#append(at, this.#slotsAt, header.slotBytes);
    at = this.#append(at, this.#kindsAt, header.entryCount);
    this.#append(at, this.#addressesAt, header.addressBytes);
    writePagesHeader(this.#view, rawAddress, header);
    header.entryCount = 0;
  }

  #append(at: number, address: number, bytes: number): number {
    this.#kernel.copy(at, address, bytes);
    return at + bytes;
  }
}
