// Destination side of wire/page-batch.ts: a payload of pages becomes RAM records again, of a stream that any stock
// QEMU loads. Needs no copy of guest RAM: deltas say the new bytes, and the hypervisor applies them. What it keeps
// is bounded by the RAM layout: the window of whole pages that references mean, and, for codecs that need the page
// as it was, the source's page cache slot by slot. The peer's bytes are hostile: everything is checked before use.

import { DELTA_INVALID, type DeltaCodec } from "../../codec/delta/delta-codec.ts";
import { makeDeltaCodec } from "../../codec/delta/delta-codecs.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { SectionType } from "../../stream/format.ts";
import { OutputBuffer, StreamWriter } from "../../stream/writer.ts";
import {
  ADDRESS_BYTES_MAX,
  decodeRamLayout,
  ENTRY_DELTA,
  ENTRY_REFERENCE,
  ENTRY_WHOLE,
  ENTRY_ZERO,
  invalidPayload,
  PAGES_HEADER_BYTES,
  type PagesHeader,
  type RamLayout,
  REFERENCE_BYTES,
  readPagesHeader,
  SLOT_BYTES,
} from "../../wire/page-batch.ts";

/** What a peer may oblige us to keep, in bytes. */
export interface ExpanderLimits {
  windowBytesMax: number;
  baselineBytesMax: number;
}

const NO_SLOT = 0xffff_ffff;
const NO_BLOCK = -1;
/** Room that any entry needs in the output: a record, and the end of a section. */
const RECORD_BYTES_MAX = 8 + 256 + 3 + 65536 + 64;

export class BatchExpander {
  readonly #memory: KernelMemory;
  readonly #kernel: Kernel;
  readonly #limits: ExpanderLimits;
  readonly #writer = new StreamWriter(new OutputBuffer(new Uint8Array(0)));
  #layout: RamLayout | undefined;
  #delta: DeltaCodec | undefined;
  #deltaAddress = 0;
  #windowAddress = 0;
  #windowPages = 0;
  /** Whole pages that have come, counted through; the window holds the last of them. */
  #wholePages = 0;
  #baselineAddress = 0;
  /** By baseline slot: whether it holds a page. */
  #baselineKnown: Uint8Array = new Uint8Array(0);
  #bytes: Uint8Array = new Uint8Array(0);
  #view: DataView = new DataView(new ArrayBuffer(0));

  /** The batch under way, and where in its parts the next entry begins. */
  #header: PagesHeader | undefined;
  #entry = 0;
  #block = NO_BLOCK;
  #nextPage = 0;
  #wholeAt = 0;
  #wholeEnd = 0;
  #dataAt = 0;
  #dataEnd = 0;
  #controlAt = 0;
  #controlEnd = 0;
  #referenceAt = 0;
  #referenceEnd = 0;
  #slotAt = 0;
  #slotEnd = 0;
  #kindAt = 0;
  #addressAt = 0;
  #addressEnd = 0;

  constructor(memory: KernelMemory, kernel: Kernel, limits: ExpanderLimits) {
    this.#memory = memory;
    this.#kernel = kernel;
    this.#limits = limits;
  }

  /** RAM_LAYOUT has come. @throws ProtocolError, also for what is above the limits */
  layOut(payload: Uint8Array): void {
    if (this.#layout !== undefined) throw invalidPayload("a second RAM layout");
    const layout = decodeRamLayout(payload);
    const { pageBytes, windowPages, baselinePages, deltaCodec, blocks } = layout;
    if (windowPages * pageBytes > this.#limits.windowBytesMax) {
      throw invalidPayload(`${windowPages} pages to keep for references is too much`);
    }
    if (baselinePages * pageBytes > this.#limits.baselineBytesMax) {
      throw invalidPayload(
        `a delta codec for which ${baselinePages * pageBytes} bytes of pages are to be kept: ` +
          `more than the ${this.#limits.baselineBytesMax} that are allowed here`,
      );
    }
    this.#windowPages = windowPages;
    this.#windowAddress = this.#memory.allocate(windowPages * pageBytes, 4096);
    this.#baselineAddress = this.#memory.allocate(baselinePages * pageBytes, 4096);
    this.#baselineKnown = new Uint8Array(baselinePages);
    this.#deltaAddress = this.#memory.allocate(pageBytes + 64);
    this.#delta = makeDeltaCodec(deltaCodec, this.#memory, this.#kernel, pageBytes);
    if (this.#delta === undefined && deltaCodec !== 0) throw invalidPayload(`delta codec ${deltaCodec}`);
    this.#bytes = new Uint8Array(this.#memory.wasm.buffer);
    this.#view = new DataView(this.#memory.wasm.buffer);
    this.#writer.setBlocks(blocks, pageBytes);
    this.#layout = layout;
  }

  /** A payload of pages at `address` is to be expanded; it stays as it is until it is. @throws ProtocolError */
  begin(address: number, payloadBytes: number): void {
    const layout = this.#layout;
    if (layout === undefined) throw invalidPayload("pages before the RAM layout");
    const header = readPagesHeader(this.#view, address, payloadBytes, layout.pageBytes);
    this.#header = header;
    this.#entry = 0;
    this.#block = NO_BLOCK;
    this.#wholeAt = address + PAGES_HEADER_BYTES;
    this.#wholeEnd = this.#dataAt = this.#wholeAt + header.wholePages * layout.pageBytes;
    this.#dataEnd = this.#controlAt = this.#dataAt + header.dataBytes;
    this.#controlEnd = this.#referenceAt = this.#controlAt + header.controlBytes;
    this.#referenceEnd = this.#slotAt = this.#referenceAt + header.referenceBytes;
    this.#slotEnd = this.#kindAt = this.#slotAt + header.slotBytes;
    this.#addressAt = this.#kindAt + header.entryCount;
    this.#addressEnd = this.#addressAt + header.addressBytes;
  }

  /** Something of the batch is left to be expanded. */
  get isUnderWay(): boolean {
    return this.#header !== undefined;
  }

  /**
   * Expands into the region until it is full or the batch is done, and returns how many bytes it wrote.
   * @throws ProtocolError when the payload contradicts itself
   */
  expand(region: number, regionBytes: number): number {
    const header = this.#header!;
    const writer = this.#writer;
    const { sectionId } = this.#layout!;
    writer.moveTo(this.#memory.bytes(region, regionBytes));
    if (header.ownSection) writer.ramSection(SectionType.PART, sectionId);
    // The section is the source's own: which one does not matter for what stands in it.
    else writer.continueSection(SectionType.END, sectionId);
    while (this.#entry < header.entryCount && writer.output.length + RECORD_BYTES_MAX <= regionBytes) {
      this.#expandEntry(region);
    }
    if (header.ownSection) writer.ramSectionEnd();
    if (this.#entry === header.entryCount) this.#finish();
    return writer.output.length;
  }

  #expandEntry(region: number): void {
    const kind = this.#bytes[this.#kindAt + this.#entry++]!;
    this.#readAddress();
    const page = this.#nextPage++;
    switch (kind) {
      case ENTRY_ZERO:
        this.#writer.zeroPage(this.#block, page);
        return;
      case ENTRY_WHOLE:
        this.#wholePage(region, page);
        return;
      case ENTRY_REFERENCE:
        this.#reference(region, page);
        return;
      case ENTRY_DELTA:
        this.#deltaPage(region, page);
        return;
      default:
        throw invalidPayload(`entry of kind ${kind}`);
    }
  }

  /** Sets #block and #nextPage to the page of this entry. */
  #readAddress(): void {
    const first = this.#number();
    const zigzag = Math.floor(first / 2);
    const gap = zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
    if (first % 2 === 1) {
      this.#block = this.#number();
      this.#nextPage = gap;
    } else {
      this.#nextPage += gap;
    }
    const block = this.#layout!.blocks[this.#block];
    if (block === undefined) throw invalidPayload(`page of RAMBlock ${this.#block}`);
    const pageCount = block.lengthBytes / this.#layout!.pageBytes;
    if (this.#nextPage < 0 || this.#nextPage >= pageCount) {
      throw invalidPayload(`page ${this.#nextPage} of RAMBlock "${block.idstr}", which has ${pageCount}`);
    }
  }

  #number(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < ADDRESS_BYTES_MAX / 2; i++) {
      if (this.#addressAt === this.#addressEnd) throw invalidPayload("addresses end early");
      const byte = this.#bytes[this.#addressAt++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 0x80;
    }
    throw invalidPayload("a number that is too long");
  }

  #wholePage(region: number, page: number): void {
    const { pageBytes } = this.#layout!;
    const address = this.#wholeAt;
    if (address + pageBytes > this.#wholeEnd) throw invalidPayload("fewer whole pages than entries");
    this.#wholeAt += pageBytes;
    this.#writePage(region, page, address);
    if (this.#windowPages === 0) return;
    const number = this.#wholePages++ % this.#windowPages;
    this.#kernel.copy(this.#windowAddress + number * pageBytes, address, pageBytes);
  }

  #reference(region: number, page: number): void {
    if (this.#referenceAt + REFERENCE_BYTES > this.#referenceEnd)
      throw invalidPayload("references end early");
    const number = this.#view.getUint32(this.#referenceAt, true);
    this.#referenceAt += REFERENCE_BYTES;
    if (number >= Math.min(this.#wholePages, this.#windowPages)) {
      throw invalidPayload(`reference to page ${number} of the window, which is not there`);
    }
    this.#writePage(region, page, this.#windowAddress + number * this.#layout!.pageBytes);
  }

  #writePage(region: number, page: number, address: number): void {
    const { pageBytes } = this.#layout!;
    this.#kernel.copy(region + this.#writer.pageSpace(this.#block, page), address, pageBytes);
    const baseline = this.#baselineOf();
    if (baseline === undefined) return;
    this.#kernel.copy(baseline.address, address, pageBytes);
    this.#baselineKnown[baseline.slot] = 1;
  }

  #deltaPage(region: number, page: number): void {
    const delta = this.#delta;
    if (delta === undefined) throw invalidPayload("delta without a delta codec");
    const out = delta.needsBaseline ? this.#knownBaseline() : this.#deltaAddress;
    const length = delta.decode(
      this.#controlAt,
      this.#controlEnd - this.#controlAt,
      this.#dataAt,
      this.#dataEnd - this.#dataAt,
      out,
    );
    if (length === DELTA_INVALID) throw invalidPayload(`delta of page ${page}`);
    this.#controlAt += delta.controlBytesUsed;
    this.#dataAt += delta.dataBytesUsed;
    const at = delta.needsBaseline
      ? this.#writer.pageSpace(this.#block, page)
      : this.#writer.xbzrleSpace(this.#block, page, length);
    this.#kernel.copy(region + at, out, length);
  }

  /** The baseline slot of this entry, where the source keeps one. */
  #baselineOf(): { slot: number; address: number } | undefined {
    if (this.#baselineKnown.length === 0) return undefined;
    if (this.#slotAt + SLOT_BYTES > this.#slotEnd) throw invalidPayload("slots end early");
    const slot = this.#view.getUint32(this.#slotAt, true);
    this.#slotAt += SLOT_BYTES;
    if (slot === NO_SLOT) return undefined;
    if (slot >= this.#baselineKnown.length) throw invalidPayload(`slot ${slot} of the baseline`);
    return { slot, address: this.#baselineAddress + slot * this.#layout!.pageBytes };
  }

  #knownBaseline(): number {
    const baseline = this.#baselineOf();
    if (baseline === undefined || this.#baselineKnown[baseline.slot] === 0) {
      throw invalidPayload("delta of a page that is not kept");
    }
    return baseline.address;
  }

  #finish(): void {
    this.#header = undefined;
    const isUsed =
      this.#wholeAt === this.#wholeEnd &&
      this.#dataAt === this.#dataEnd &&
      this.#controlAt === this.#controlEnd &&
      this.#referenceAt === this.#referenceEnd &&
      this.#slotAt === this.#slotEnd &&
      this.#addressAt === this.#addressEnd;
    if (!isUsed) throw invalidPayload("batch of pages with bytes that belong to no entry");
  }
}
