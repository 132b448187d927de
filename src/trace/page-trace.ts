// A page trace in memory, without contents: what policies are run over. Nine bytes for each page record; pages are
// numbered through all RAMBlocks, as the page directory has them.

import { assert } from "../base/assert.ts";
import { DeltaveeError } from "../base/errors.ts";
import type { PageClass, PageObserver, TraceBlock, TraceHeader } from "./format.ts";
import type { TraceHandler } from "./reader.ts";

/** 1.2 GB of memory: half a terabyte of 4 KiB pages sent. */
const RECORDS_MAX = 2 ** 27;
const RECORDS_AT_FIRST = 2 ** 16;

export interface PageTrace {
  readonly name: string;
  readonly pageBytes: number;
  readonly pageCount: number;
  readonly hasContents: boolean;
  /** Each `recordCount` long. */
  readonly pages: Int32Array;
  readonly classes: Uint8Array;
  readonly deltaBytes: Int32Array;
  /** Records at which an iteration begins, ascending; there may be several at one record. */
  readonly iterationStarts: readonly number[];
}

export class PageTraceBuilder implements TraceHandler, PageObserver {
  readonly #name: string;
  #pageBytes = 0;
  #hasContents = false;
  #pageCount = 0;
  #firstPageOf: number[] = [];
  #pages = new Int32Array(RECORDS_AT_FIRST);
  #classes = new Uint8Array(RECORDS_AT_FIRST);
  #deltaBytes = new Int32Array(RECORDS_AT_FIRST);
  #recordCount = 0;
  readonly #iterationStarts: number[] = [];
  #iteration = -1;

  constructor(name: string) {
    this.#name = name;
  }

  /** The trace so far. */
  get trace(): PageTrace {
    assert(this.#pageBytes !== 0, "a trace has RAMBlocks");
    return {
      name: this.#name,
      pageBytes: this.#pageBytes,
      pageCount: this.#pageCount,
      hasContents: this.#hasContents,
      pages: this.#pages.subarray(0, this.#recordCount),
      classes: this.#classes.subarray(0, this.#recordCount),
      deltaBytes: this.#deltaBytes.subarray(0, this.#recordCount),
      iterationStarts: this.#iterationStarts,
    };
  }

  header({ blocks, pageBytes, hasContents }: TraceHeader): void {
    this.#hasContents = hasContents;
    this.ramBlocks(blocks, pageBytes);
  }

  ramBlocks(blocks: readonly TraceBlock[], pageBytes: number): void {
    this.#pageBytes = pageBytes;
    for (const { pageCount } of blocks) {
      this.#firstPageOf.push(this.#pageCount);
      this.#pageCount += pageCount;
    }
  }

  codec(): void {}

  iteration(iteration: number): void {
    this.#iteration = iteration;
    this.#iterationStarts.push(this.#recordCount);
  }

  observe(
    blockIndex: number,
    pageIndex: number,
    iteration: number,
    pageClass: PageClass,
    deltaBytes: number,
  ): void {
    if (iteration > this.#iteration) this.iteration(iteration);
    this.page(blockIndex, pageIndex, pageClass, deltaBytes);
  }

  /** @throws DeltaveeError TRACE_INVALID when it gets longer than memory allows */
  page(blockIndex: number, pageIndex: number, pageClass: PageClass, deltaBytes: number): void {
    if (this.#recordCount === this.#pages.length) this.#grow();
    const record = this.#recordCount++;
    this.#pages[record] = this.#firstPageOf[blockIndex]! + pageIndex;
    this.#classes[record] = pageClass;
    this.#deltaBytes[record] = deltaBytes;
  }

  #grow(): void {
    const length = 2 * this.#pages.length;
    if (length > RECORDS_MAX) {
      throw new DeltaveeError(
        "TRACE_INVALID",
        `Cannot read trace ${this.#name}: more than ${RECORDS_MAX} page records`,
      );
    }
    const [pages, classes, deltaBytes] = [this.#pages, this.#classes, this.#deltaBytes];
    this.#pages = new Int32Array(length);
    this.#classes = new Uint8Array(length);
    this.#deltaBytes = new Int32Array(length);
    this.#pages.set(pages);
    this.#classes.set(classes);
    this.#deltaBytes.set(deltaBytes);
  }
}
