// Writer of QEMU's migration stream: RAM records with their own CONTINUE state, section frames, commands.
// What is written is always valid for a stock destination, whatever the source's own records looked like:
// the writer names a RAMBlock whenever the destination could not know it. Format: FORMAT.md.

import { assert } from "../base/assert.ts";
import {
  Command,
  DEFAULT_PAGE_BYTES,
  PAGE_BYTES_MAX,
  RAM_SECTION_NAME,
  RAM_SECTION_VERSION,
  RamFlag,
  SectionType,
  STREAM_MAGIC,
  STREAM_VERSION,
  XBZRLE_ENCODING,
} from "./format.ts";
import type { StreamBlock } from "./reader.ts";

/** Room that any single record needs: header, name, page. */
const RECORD_BYTES_MAX = 8 + 1 + 255 + 3 + PAGE_BYTES_MAX;
const NO_BLOCK = -1;

/** Bytes written and not yet taken. Grows to what one turn produces, then is reused. */
export class OutputBuffer {
  bytes: Uint8Array;
  view: DataView;
  length = 0;

  constructor(place: Uint8Array = new Uint8Array(256 * 1024)) {
    this.bytes = place;
    this.view = new DataView(place.buffer, place.byteOffset, place.byteLength);
  }

  /** Empty, at another place. */
  moveTo(place: Uint8Array): void {
    this.bytes = place;
    this.view = new DataView(place.buffer, place.byteOffset, place.byteLength);
    this.length = 0;
  }

  /** Makes room for `extraBytes` more. */
  reserve(extraBytes: number): void {
    const needed = this.length + extraBytes;
    if (needed <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
  }

  append(bytes: Uint8Array, start: number, end: number): void {
    this.reserve(end - start);
    this.bytes.set(bytes.subarray(start, end), this.length);
    this.length += end - start;
  }

  /** Forgets the first `bytes`, which have been dealt with. */
  drop(bytes: number): void {
    this.bytes.copyWithin(0, bytes, this.length);
    this.length -= bytes;
  }

  /** Copy of all that was written since the last call; the buffer is empty afterwards. */
  take(): Buffer {
    const taken = Buffer.from(this.bytes.subarray(0, this.length));
    this.length = 0;
    return taken;
  }
}

export class StreamWriter {
  readonly output: OutputBuffer;
  #pageBytes = DEFAULT_PAGE_BYTES;
  #names: Uint8Array[] = [];
  /** RAMBlock named last in this section: records may say CONTINUE. */
  #lastBlock = NO_BLOCK;
  #destinationBlock = NO_BLOCK;
  #sectionId: number | undefined;
  #sectionType: number = SectionType.PART;

  constructor(output: OutputBuffer) {
    this.output = output;
  }

  /** True inside a ram section, where RAM records may be written and the section may be split. */
  get insideRamSection(): boolean {
    return this.#sectionId !== undefined;
  }

  /** A page record of this RAMBlock that does not name it would be understood. */
  mayContinue(blockIndex: number): boolean {
    return this.#sectionId !== undefined && this.#lastBlock === blockIndex;
  }

  /** RAMBlock that the destination was told last, in whatever section, or -1. */
  get destinationBlock(): number {
    return this.#destinationBlock;
  }

  /** Goes on elsewhere, for a reader who knows nothing of what was written before: no section is open. */
  moveTo(place: Uint8Array): void {
    this.output.moveTo(place);
    this.#sectionId = undefined;
    this.#lastBlock = NO_BLOCK;
  }

  verbatim(bytes: Uint8Array, start: number, end: number): void {
    this.output.append(bytes, start, end);
  }

  /** As verbatim, for so many bytes that the caller writes: where in the output they go, in which there must be room. */
  space(bytes: number): number {
    const { output } = this;
    const at = output.length;
    assert(at + bytes <= output.bytes.length, "there is room for what is written elsewhere");
    output.length += bytes;
    return at;
  }

  /** Names for the block indices of later records, and the size of their pages; writes nothing. */
  setBlocks(blocks: readonly StreamBlock[], pageBytes: number): void {
    this.#pageBytes = pageBytes;
    this.#names = blocks.map((block) => Buffer.from(block.idstr, "latin1"));
  }

  /** File header and configuration section of a stream that begins here. */
  header(machine: string): void {
    const { output } = this;
    const name = Buffer.from(machine, "latin1");
    output.reserve(13 + name.length);
    output.view.setUint32(output.length, STREAM_MAGIC);
    output.view.setUint32(output.length + 4, STREAM_VERSION);
    output.view.setUint8(output.length + 8, SectionType.CONFIGURATION);
    output.view.setUint32(output.length + 9, name.length);
    output.length += 13;
    output.append(name, 0, name.length);
  }

  /** START of the ram section, its RAMBlock list included; the section is left open. */
  ramStart(sectionId: number, blocks: readonly StreamBlock[], pageBytes = DEFAULT_PAGE_BYTES): void {
    this.setBlocks(blocks, pageBytes);
    const { output } = this;
    const name = Buffer.from(RAM_SECTION_NAME, "latin1");
    output.reserve(32);
    output.view.setUint8(output.length, SectionType.START);
    output.view.setUint32(output.length + 1, sectionId);
    output.view.setUint8(output.length + 5, name.length);
    output.length += 6;
    output.append(name, 0, name.length);
    output.reserve(16);
    output.view.setUint32(output.length, 0); // instance id
    output.view.setUint32(output.length + 4, RAM_SECTION_VERSION);
    output.length += 8;
    this.#be64(
      blocks.reduce((sum, block) => sum + block.lengthBytes, 0),
      RamFlag.MEM_SIZE,
    );
    blocks.forEach((block, index) => {
      this.#name(index);
      this.#be64(block.lengthBytes, 0);
    });
    this.#sectionId = sectionId;
    this.#sectionType = SectionType.START;
    this.#lastBlock = NO_BLOCK;
  }

  /** Tells the writer of a section whose START went out verbatim. */
  ramStarted(sectionId: number): void {
    this.#sectionId = sectionId;
    this.#sectionType = SectionType.START;
    this.#lastBlock = NO_BLOCK;
  }

  /** Header of PART or END. Records after it name their RAMBlock anew. */
  ramSection(sectionType: number, sectionId: number): void {
    const { output } = this;
    output.reserve(5);
    output.view.setUint8(output.length, sectionType);
    output.view.setUint32(output.length + 1, sectionId);
    output.length += 5;
    this.#sectionId = sectionId;
    this.#sectionType = sectionType;
    this.#lastBlock = NO_BLOCK;
  }

  /** A section that was opened elsewhere, and is still open: what follows is written into it. */
  continueSection(sectionType: number, sectionId: number): void {
    if (this.#sectionId !== undefined) return;
    this.#sectionId = sectionId;
    this.#sectionType = sectionType;
    this.#lastBlock = NO_BLOCK;
  }

  /** EOS and footer. */
  ramSectionEnd(): void {
    assert(this.#sectionId !== undefined, "a ram section is open");
    const { output } = this;
    this.#be64(0, RamFlag.EOS);
    output.reserve(5);
    output.view.setUint8(output.length, SectionType.FOOTER);
    output.view.setUint32(output.length + 1, this.#sectionId);
    output.length += 5;
    this.#sectionId = undefined;
  }

  zeroPage(blockIndex: number, pageIndex: number, fill = 0): void {
    this.#recordHeader(blockIndex, pageIndex, RamFlag.ZERO);
    this.output.view.setUint8(this.output.length++, fill);
  }

  page(blockIndex: number, pageIndex: number, bytes: Uint8Array, offset: number): void {
    // First the room for it: the output may be another array afterwards.
    const at = this.pageSpace(blockIndex, pageIndex);
    this.output.bytes.set(bytes.subarray(offset, offset + this.#pageBytes), at);
  }

  /** A page record whose content the caller writes: where in the output it goes. */
  pageSpace(blockIndex: number, pageIndex: number): number {
    this.#recordHeader(blockIndex, pageIndex, RamFlag.PAGE);
    const at = this.output.length;
    this.output.length += this.#pageBytes;
    return at;
  }

  /** As pageSpace, for a delta of XBZRLE. */
  xbzrleSpace(blockIndex: number, pageIndex: number, lengthBytes: number): number {
    this.#recordHeader(blockIndex, pageIndex, RamFlag.XBZRLE);
    const { output } = this;
    output.view.setUint8(output.length, XBZRLE_ENCODING);
    output.view.setUint16(output.length + 1, lengthBytes);
    const at = output.length + 3;
    output.length = at + lengthBytes;
    return at;
  }

  xbzrlePage(
    blockIndex: number,
    pageIndex: number,
    bytes: Uint8Array,
    offset: number,
    lengthBytes: number,
  ): void {
    const at = this.xbzrleSpace(blockIndex, pageIndex, lengthBytes);
    this.output.bytes.set(bytes.subarray(offset, offset + lengthBytes), at);
  }

  /**
   * A PING to the destination, which answers PONG with the same value on the return path once it has loaded
   * everything before it. Inside a PART section the section is closed and reopened around it (18 + 5 bytes):
   * commands are only legal between sections, and a section may end after any record. What was written before
   * must end with a whole element. Returns false in START and END, which cannot be reopened.
   */
  ping(value: number): boolean {
    const sectionId = this.#sectionId;
    const splits = sectionId !== undefined;
    if (splits && this.#sectionType !== SectionType.PART) return false;
    if (splits) this.ramSectionEnd();
    const { output } = this;
    output.reserve(9);
    output.view.setUint8(output.length, SectionType.COMMAND);
    output.view.setUint16(output.length + 1, Command.PING);
    output.view.setUint16(output.length + 3, 4);
    output.view.setUint32(output.length + 5, value);
    output.length += 9;
    if (splits) this.ramSection(SectionType.PART, sectionId);
    return true;
  }

  #recordHeader(blockIndex: number, pageIndex: number, flag: number): void {
    assert(this.#sectionId !== undefined, "RAM records stand inside a ram section");
    this.output.reserve(RECORD_BYTES_MAX);
    if (blockIndex === this.#lastBlock) {
      this.#be64(pageIndex * this.#pageBytes, flag | RamFlag.CONTINUE);
    } else {
      this.#be64(pageIndex * this.#pageBytes, flag);
      this.#name(blockIndex);
      this.#lastBlock = blockIndex;
      this.#destinationBlock = blockIndex;
    }
  }

  #name(blockIndex: number): void {
    const name = this.#names[blockIndex];
    assert(name !== undefined, "the RAMBlock was announced");
    const { output } = this;
    output.reserve(1 + name.length);
    output.view.setUint8(output.length++, name.length);
    output.bytes.set(name, output.length);
    output.length += name.length;
  }

  /** A multiple of the page size (or a total) with flags in its low bits. */
  #be64(value: number, flags: number): void {
    const { output } = this;
    output.reserve(8);
    output.view.setUint32(output.length, Math.floor(value / 2 ** 32));
    output.view.setUint32(output.length + 4, (value % 2 ** 32) + flags);
    output.length += 8;
  }
}
