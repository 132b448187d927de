// Writes a page trace (FORMAT.md) while a migration runs: calls in, chunks of bytes out. Knows no files. Nothing is
// allocated per page; a chunk is handed over when it is full and belongs to the sink from then on.

import { assert } from "../base/assert.ts";
import {
  BIT_OTHER_BLOCK,
  BLOCKS_MAX,
  CODEC_BYTES_MAX,
  carriesContent,
  FLAG_CONTENTS,
  NAME_BYTES_MAX,
  PageClass,
  type PageObserver,
  RECORD_CODEC,
  RECORD_END,
  RECORD_ITERATION,
  RECORD_TIME,
  TRACE_MAGIC,
  TRACE_VERSION,
  type TraceBlock,
} from "./format.ts";

const CHUNK_BYTES = 256 * 1024;
/** The longest record without its content, and an iteration and a time before it. */
const RECORD_BYTES_MAX = 64;
const NONE = -1;
const ULEB_MAX = 2 ** 32 - 1;

export interface TraceWriterOptions {
  /** Also the pages themselves. */
  readonly contents: boolean;
  /** Times are written where there is a clock. */
  readonly nowMs?: () => number;
}

export class TraceWriter implements PageObserver {
  readonly #sink: (chunk: Uint8Array) => void;
  readonly #contents: boolean;
  readonly #nowMs: (() => number) | undefined;
  #beganMs = 0;
  #chunk = new Uint8Array(CHUNK_BYTES);
  #length = 0;
  #pageBytes = 0;
  #iteration = NONE;
  #codec = "";
  #block = NONE;
  #nextPage = 0;
  #pageRecords = 0;

  constructor(sink: (chunk: Uint8Array) => void, options: TraceWriterOptions) {
    this.#sink = sink;
    this.#contents = options.contents;
    this.#nowMs = options.nowMs;
  }

  ramBlocks(blocks: readonly TraceBlock[], pageBytes: number): void {
    assert(this.#pageBytes === 0, "a trace has one list of RAMBlocks");
    assert(blocks.length <= BLOCKS_MAX, "RAMBlocks of a trace");
    this.#pageBytes = pageBytes;
    this.#beganMs = this.#nowMs?.() ?? 0;
    const header = Buffer.alloc(TRACE_MAGIC.length + 12);
    header.write(TRACE_MAGIC, "latin1");
    header.writeUInt16LE(TRACE_VERSION, 8);
    header.writeUInt16LE(this.#contents ? FLAG_CONTENTS : 0, 10);
    header.writeUInt32LE(pageBytes, 12);
    header.writeUInt32LE(blocks.length, 16);
    this.#bytes(header);
    for (const { idstr, pageCount } of blocks) {
      this.#text(idstr, NAME_BYTES_MAX);
      const count = Buffer.alloc(4);
      count.writeUInt32LE(pageCount);
      this.#bytes(count);
    }
  }

  codec(name: string): void {
    if (name === this.#codec) return;
    this.#codec = name;
    this.#room(1);
    this.#byte(RECORD_CODEC);
    this.#text(name, CODEC_BYTES_MAX);
  }

  observe(
    blockIndex: number,
    pageIndex: number,
    iteration: number,
    pageClass: PageClass,
    deltaBytes: number,
    content: Uint8Array,
    offset: number,
  ): void {
    assert(this.#pageBytes !== 0, "the RAMBlocks come before the pages");
    this.#room(RECORD_BYTES_MAX);
    // One that was begun later may have been reported earlier: iterations only grow.
    if (iteration > this.#iteration) {
      this.#iteration = iteration;
      this.#byte(RECORD_ITERATION);
      this.#uleb(iteration);
      this.#time();
    }
    if (blockIndex === this.#block) {
      this.#byte(pageClass);
    } else {
      this.#byte(pageClass | BIT_OTHER_BLOCK);
      this.#uleb(blockIndex);
      this.#block = blockIndex;
      this.#nextPage = 0;
    }
    const step = pageIndex - this.#nextPage;
    this.#uleb(step >= 0 ? 2 * step : -2 * step - 1);
    this.#nextPage = pageIndex + 1;
    if (pageClass === PageClass.DELTA) {
      assert(this.#codec !== "" && deltaBytes > 0, "a delta has a codec and a size");
      this.#uleb(deltaBytes);
    }
    if (this.#contents && carriesContent(pageClass)) {
      this.#bytes(content.subarray(offset, offset + this.#pageBytes));
    }
    this.#pageRecords++;
  }

  /** The migration is over, well or badly. Without RAMBlocks there is no trace, and nothing is written. */
  end(): void {
    if (this.#pageBytes === 0) return;
    this.#room(RECORD_BYTES_MAX);
    if (this.#iteration !== NONE) this.#time();
    this.#byte(RECORD_END);
    this.#uleb(this.#pageRecords);
    this.#flush();
  }

  #time(): void {
    if (this.#nowMs === undefined) return;
    this.#byte(RECORD_TIME);
    this.#uleb(Math.min(ULEB_MAX, Math.max(0, Math.round(this.#nowMs() - this.#beganMs))));
  }

  #text(text: string, bytesMax: number): void {
    const bytes = Buffer.from(text, "latin1");
    assert(bytes.length <= bytesMax, "length of a name in a trace");
    this.#room(1);
    this.#byte(bytes.length);
    this.#bytes(bytes);
  }

  #byte(value: number): void {
    this.#chunk[this.#length++] = value;
  }

  #uleb(value: number): void {
    let left = value;
    while (left >= 0x80) {
      this.#byte((left & 0x7f) | 0x80);
      left = Math.floor(left / 0x80);
    }
    this.#byte(left);
  }

  #bytes(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#chunk.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  #room(bytes: number): void {
    if (this.#length + bytes > CHUNK_BYTES) this.#flush();
  }

  #flush(): void {
    this.#sink(this.#chunk.subarray(0, this.#length));
    this.#chunk = new Uint8Array(CHUNK_BYTES);
    this.#length = 0;
  }
}
