// Constants of the page trace (FORMAT.md) and what a trace is made of. Knows nothing of streams and hypervisors.

export const TRACE_MAGIC = "DVTRACE\n";
export const TRACE_VERSION = 2;
/** Had no times. */
export const TRACE_VERSION_MIN = 1;
export const FLAG_CONTENTS = 1;

export const PAGE_BYTES_MIN = 512;
export const PAGE_BYTES_MAX = 65536;
export const BLOCKS_MAX = 4096;
export const NAME_BYTES_MAX = 255;
export const CODEC_BYTES_MAX = 32;

/** What became of a page; the numbers are those of the format. */
export const PageClass = { ZERO: 1, UNCHANGED: 2, DELTA: 3, OVERFLOW: 4, RAW: 5 } as const;
export type PageClass = (typeof PageClass)[keyof typeof PageClass];

export const RECORD_ITERATION = 6;
export const RECORD_CODEC = 7;
export const RECORD_END = 8;
export const RECORD_TIME = 9;
export const BIT_OTHER_BLOCK = 0x10;

export interface TraceBlock {
  readonly idstr: string;
  readonly pageCount: number;
}

export interface TraceHeader {
  readonly pageBytes: number;
  readonly blocks: readonly TraceBlock[];
  readonly hasContents: boolean;
}

/** Takes what a migration does with its pages, as it does it. Nothing may be kept of `content` after the call. */
export interface PageObserver {
  /** Once, before all pages. */
  ramBlocks(blocks: readonly TraceBlock[], pageBytes: number): void;
  /** Deltas from here on are made by this codec. */
  codec(name: string): void;
  /**
   * `deltaBytes` is of a delta only, else 0. The page is at content[offset, offset + pageBytes); it is not looked
   * at when the page is zero or unchanged.
   */
  observe(
    blockIndex: number,
    pageIndex: number,
    iteration: number,
    pageClass: PageClass,
    deltaBytes: number,
    content: Uint8Array,
    offset: number,
  ): void;
}

/** Whether the record of a page of this class is followed by its content, in a trace that has contents. */
export function carriesContent(pageClass: PageClass): boolean {
  return pageClass >= PageClass.DELTA;
}
