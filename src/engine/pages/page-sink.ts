// Where the rewriter puts its output, page by page: a stream for a stock QEMU (stream-sink.ts) or batches for a
// destination engine (batch-sink.ts). Addresses are in the home memory.

import type { StreamBlock } from "../../stream/reader.ts";

export interface PageSink {
  /** No more room for now: nothing may be put in until there is some. */
  readonly isFull: boolean;
  /** How deltas are coded; known when the RAMBlocks are. */
  readonly codecName: string;
  /** RAMBlock that the destination's hypervisor was told last, or -1: what a CONTINUE record would mean to it. */
  readonly destinationBlock: number;
  /** Bytes of the source's stream, carried on as they are: fastest where they are a view of the home memory. */
  verbatim(bytes: Uint8Array, start: number, end: number): void;
  /** Page records of this RAMBlock that do not name it may be given verbatim, up to CARRIED_BYTES_MAX of them. */
  carriesOn(blockIndex: number): boolean;
  /** The RAMBlocks; the cache, if there is one, is ready. Its bytes go verbatim. */
  setBlocks(blocks: readonly StreamBlock[], pageBytes: number, sectionId: number): void;
  /** START of the ram section has gone verbatim. */
  ramStarted(sectionId: number): void;
  /** PART or END begins. */
  ramSection(sectionType: number, sectionId: number): void;
  ramSectionEnd(): void;
  zeroPage(blockIndex: number, pageIndex: number): void;
  /**
   * A whole page. `slot`: where the cache holds the same bytes from now on, or NO_SLOT.
   * @returns whether a reference to an equal page was enough
   */
  wholePage(blockIndex: number, pageIndex: number, address: number, slot: number): boolean;
  /**
   * What changes the page at `oldAddress` to the one at `newAddress`. `slot`: the cache's slot of it, NO_SLOT for a
   * page of zeros. @returns bytes of the delta; DELTA_UNCHANGED, DELTA_OVERFLOW: nothing was put in
   */
  deltaPage(
    blockIndex: number,
    pageIndex: number,
    oldAddress: number,
    newAddress: number,
    slot: number,
  ): number;
  /** A record that is carried on although we do not know the page: a fill byte, or a delta of QEMU's own. */
  fillPage(blockIndex: number, pageIndex: number, fill: number): void;
  xbzrlePage(
    blockIndex: number,
    pageIndex: number,
    bytes: Uint8Array,
    offset: number,
    lengthBytes: number,
  ): void;
  /** From here to the end of the section records are written as those of a stream, and bytes may follow them. */
  asStream(): void;
  /** The end of that, within the section: what follows is put in as usual again. */
  asPages(): void;
}
