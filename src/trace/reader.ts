// Reads a page trace (FORMAT.md), strictly and in pieces of any size. Its bytes are whatever a file holds: what
// contradicts the format is an error that names the offset, and no more than one record is ever held back.

import { DeltaveeError } from "../base/errors.ts";
import { PAGE_COUNT_MAX } from "../memory/page-directory.ts";
import {
  BIT_OTHER_BLOCK,
  BLOCKS_MAX,
  CODEC_BYTES_MAX,
  carriesContent,
  FLAG_CONTENTS,
  NAME_BYTES_MAX,
  PAGE_BYTES_MAX,
  PAGE_BYTES_MIN,
  PageClass,
  RECORD_CODEC,
  RECORD_END,
  RECORD_ITERATION,
  RECORD_TIME,
  TRACE_MAGIC,
  TRACE_VERSION,
  TRACE_VERSION_MIN,
  type TraceBlock,
  type TraceHeader,
} from "./format.ts";

export interface TraceHandler {
  header(header: TraceHeader): void;
  iteration(iteration: number): void;
  codec(name: string): void;
  /** Since the trace began: what follows happened no earlier. Optional: most look at the order alone. */
  time?(atMs: number): void;
  /** The content, if the trace has it and the class carries it, is at content[offset…]; valid during the call. */
  page(
    blockIndex: number,
    pageIndex: number,
    pageClass: PageClass,
    deltaBytes: number,
    content: Uint8Array,
    offset: number,
  ): void;
}

const FIXED_HEADER_BYTES = TRACE_MAGIC.length + 12;
const ULEB_BYTES_MAX = 5;
const ULEB_MAX = 2 ** 32 - 1;
const NONE = -1;
/** Thrown inside the parser where a piece ends before its element does. */
const INCOMPLETE = Symbol("incomplete");

type State = "header" | "blocks" | "records" | "end";

export class TraceReader {
  readonly #handler: TraceHandler;
  /** For messages. */
  readonly #name: string;
  #state: State = "header";
  #carry: Uint8Array = new Uint8Array(0);
  /** Offset in the file of byte 0 of what is being parsed. */
  #baseBytes = 0;

  // What is being parsed, and how far.
  #bytes: Uint8Array = this.#carry;
  #at = 0;

  #pageBytes = 0;
  #hasContents = false;
  #blockCount = 0;
  #blocks: TraceBlock[] = [];
  #pageCount = 0;
  #iteration = NONE;
  #timeMs = 0;
  #hasCodec = false;
  #block = NONE;
  #nextPage = 0;
  #pageRecords = 0;

  constructor(name: string, handler: TraceHandler) {
    this.#name = name;
    this.#handler = handler;
  }

  /** @throws DeltaveeError TRACE_INVALID; the reader is unusable afterwards */
  push(chunk: Uint8Array): void {
    this.#bytes = this.#carry.length === 0 ? chunk : Buffer.concat([this.#carry, chunk]);
    let position = 0;
    while (position < this.#bytes.length) {
      this.#at = position;
      try {
        this.#element(position);
      } catch (thrown) {
        if (thrown !== INCOMPLETE) throw thrown;
        break;
      }
      position = this.#at;
    }
    this.#baseBytes += position;
    this.#carry = Uint8Array.prototype.slice.call(this.#bytes, position);
  }

  /**
   * The file has ended. @returns what a person should know: that it is the trace of an interrupted migration
   * @throws DeltaveeError TRACE_INVALID when not even its header is whole
   */
  end(): string | undefined {
    if (this.#state === "header" || this.#state === "blocks") {
      this.#refuse(this.#carry.length, "ends inside its header");
    }
    if (this.#state === "end") return undefined;
    return `Trace ${this.#name} has no end: the migration was interrupted, or is still going`;
  }

  #element(start: number): void {
    switch (this.#state) {
      case "header":
        this.#header(start);
        break;
      case "blocks":
        this.#blockEntry(start);
        break;
      case "records":
        this.#record(start);
        break;
      case "end":
        this.#refuse(start, "goes on after its end");
    }
  }

  #header(start: number): void {
    const magic = Buffer.from(TRACE_MAGIC, "latin1");
    // Whatever else it is, it need not be long enough to be refused.
    for (let i = 0; i < Math.min(magic.length, this.#bytes.length - start); i++) {
      if (this.#bytes[start + i] !== magic[i]) this.#refuse(start, "not a page trace");
    }
    this.#take(FIXED_HEADER_BYTES);
    const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset + start, FIXED_HEADER_BYTES);
    const version = view.getUint16(8, true);
    if (version < TRACE_VERSION_MIN || version > TRACE_VERSION) {
      const known = `${TRACE_VERSION_MIN} to ${TRACE_VERSION}`;
      this.#refuse(start + 8, `version ${version} is unknown: this Deltavee reads ${known}`);
    }
    const flags = view.getUint16(10, true);
    if ((flags & ~FLAG_CONTENTS) !== 0) this.#refuse(start + 10, `unknown flags 0x${flags.toString(16)}`);
    this.#hasContents = (flags & FLAG_CONTENTS) !== 0;
    this.#pageBytes = view.getUint32(12, true);
    const isPowerOfTwo = (this.#pageBytes & (this.#pageBytes - 1)) === 0;
    if (this.#pageBytes < PAGE_BYTES_MIN || this.#pageBytes > PAGE_BYTES_MAX || !isPowerOfTwo) {
      this.#refuse(start + 12, `pages of ${this.#pageBytes} bytes`);
    }
    this.#blockCount = view.getUint32(16, true);
    if (this.#blockCount > BLOCKS_MAX) {
      this.#refuse(start + 16, `${this.#blockCount} RAMBlocks (at most ${BLOCKS_MAX})`);
    }
    this.#state = "blocks";
    if (this.#blockCount === 0) this.#headerEnds();
  }

  #blockEntry(start: number): void {
    const idstr = this.#text("name of a RAMBlock", 0, NAME_BYTES_MAX);
    const at = this.#take(4);
    const pageCount = new DataView(this.#bytes.buffer, this.#bytes.byteOffset + at, 4).getUint32(0, true);
    this.#pageCount += pageCount;
    if (this.#pageCount > PAGE_COUNT_MAX) this.#refuse(start, `more than ${PAGE_COUNT_MAX} pages`);
    this.#blocks.push({ idstr, pageCount });
    if (this.#blocks.length === this.#blockCount) this.#headerEnds();
  }

  #headerEnds(): void {
    this.#state = "records";
    this.#handler.header({
      pageBytes: this.#pageBytes,
      blocks: this.#blocks,
      hasContents: this.#hasContents,
    });
  }

  #record(start: number): void {
    const kind = this.#bytes[this.#take(1)]!;
    switch (kind) {
      case RECORD_ITERATION: {
        const iteration = this.#uleb();
        if (iteration <= this.#iteration) {
          this.#refuse(start, `iteration ${iteration} after iteration ${this.#iteration}`);
        }
        this.#iteration = iteration;
        this.#handler.iteration(iteration);
        return;
      }
      case RECORD_CODEC: {
        const name = this.#text("name of a codec", 1, CODEC_BYTES_MAX);
        this.#hasCodec = true;
        this.#handler.codec(name);
        return;
      }
      case RECORD_TIME: {
        const atMs = this.#uleb();
        if (atMs < this.#timeMs) this.#refuse(start, `${atMs} ms after ${this.#timeMs} ms`);
        this.#timeMs = atMs;
        this.#handler.time?.(atMs);
        return;
      }
      case RECORD_END: {
        const pageRecords = this.#uleb();
        if (pageRecords !== this.#pageRecords % 2 ** 32) {
          this.#refuse(start, `${this.#pageRecords} page records, but its end counts ${pageRecords}`);
        }
        this.#state = "end";
        return;
      }
    }
    const pageClass = kind & ~BIT_OTHER_BLOCK;
    if (pageClass < PageClass.ZERO || pageClass > PageClass.RAW) {
      this.#refuse(start, `unknown record 0x${kind.toString(16)}`);
    }
    this.#page(start, pageClass as PageClass, (kind & BIT_OTHER_BLOCK) !== 0);
  }

  #page(start: number, pageClass: PageClass, isOtherBlock: boolean): void {
    const blockIndex = isOtherBlock ? this.#uleb() : this.#block;
    const block = this.#blocks[blockIndex];
    if (block === undefined) {
      this.#refuse(
        start,
        isOtherBlock ? `RAMBlock ${blockIndex} of ${this.#blockCount}` : "page of no RAMBlock",
      );
    }
    if (isOtherBlock && blockIndex === this.#block) this.#refuse(start, "the same RAMBlock is named again");
    const zigzag = this.#uleb();
    const step = zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
    const pageIndex = (isOtherBlock ? 0 : this.#nextPage) + step;
    if (pageIndex < 0 || pageIndex >= block.pageCount) {
      this.#refuse(start, `page ${pageIndex} of the ${block.pageCount} of RAMBlock ${blockIndex}`);
    }
    let deltaBytes = 0;
    if (pageClass === PageClass.DELTA) {
      deltaBytes = this.#uleb();
      if (deltaBytes < 1 || deltaBytes > this.#pageBytes) this.#refuse(start, `delta of ${deltaBytes} bytes`);
      if (!this.#hasCodec) this.#refuse(start, "a delta of no codec");
    }
    if (this.#iteration === NONE) this.#refuse(start, "a page before the first iteration");
    const hasContent = this.#hasContents && carriesContent(pageClass);
    const offset = hasContent ? this.#take(this.#pageBytes) : this.#at;
    // The record is whole: only now does it count.
    this.#block = blockIndex;
    this.#nextPage = pageIndex + 1;
    this.#pageRecords++;
    this.#handler.page(blockIndex, pageIndex, pageClass, deltaBytes, this.#bytes, offset);
  }

  /** Offset of the next `bytes` bytes. */
  #take(bytes: number): number {
    const at = this.#at;
    if (at + bytes > this.#bytes.length) throw INCOMPLETE;
    this.#at = at + bytes;
    return at;
  }

  #uleb(): number {
    const start = this.#at;
    let value = 0;
    let factor = 1;
    for (let i = 0; i < ULEB_BYTES_MAX; i++) {
      const byte = this.#bytes[this.#take(1)]!;
      value += (byte & 0x7f) * factor;
      factor *= 0x80;
      if (byte < 0x80) {
        if (value > ULEB_MAX || (byte === 0 && i > 0)) break;
        return value;
      }
    }
    return this.#refuse(start, "a number that is too large, or not in its shortest form");
  }

  #text(what: string, bytesMin: number, bytesMax: number): string {
    const start = this.#at;
    const length = this.#bytes[this.#take(1)]!;
    if (length < bytesMin || length > bytesMax) this.#refuse(start, `${what} of ${length} bytes`);
    const at = this.#take(length);
    return Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset + at, length).toString("latin1");
  }

  #refuse(position: number, reason: string): never {
    const offsetBytes = this.#baseBytes + position;
    throw new DeltaveeError(
      "TRACE_INVALID",
      `Cannot read trace ${this.#name}: offset ${offsetBytes}: ${reason}`,
    );
  }
}
