// Runs delta codecs over the contents of a page trace: each page that came again is encoded against the one before,
// by every codec. Holds the guest's memory as the trace shows it, so it needs as much as the guest has pages.

import { DeltaveeError } from "../base/errors.ts";
import { PageClass, type TraceHeader } from "./format.ts";
import type { TraceHandler } from "./reader.ts";

/** A delta codec, as far as its sizes matter. */
export interface ReplayCodec {
  readonly name: string;
  /** Bytes of the delta from the old page to the new one; undefined when it would not be smaller than the page. */
  deltaBytes(
    old: Uint8Array,
    oldOffset: number,
    page: Uint8Array,
    offset: number,
    pageBytes: number,
  ): number | undefined;
}

export interface CodecResult {
  readonly name: string;
  readonly deltaPages: number;
  readonly deltaBytes: number;
  readonly overflowPages: number;
}

interface Tally {
  readonly codec: ReplayCodec;
  deltaPages: number;
  deltaBytes: number;
  overflowPages: number;
}

export class CodecReplay implements TraceHandler {
  readonly #name: string;
  readonly #tallies: readonly Tally[];
  #pageBytes = 0;
  #memories: Uint8Array[] = [];
  /** By block and page: 1 when its content is known. */
  #known: Uint8Array[] = [];

  constructor(name: string, codecs: readonly ReplayCodec[]) {
    this.#name = name;
    this.#tallies = codecs.map((codec) => ({ codec, deltaPages: 0, deltaBytes: 0, overflowPages: 0 }));
  }

  get results(): CodecResult[] {
    return this.#tallies.map(({ codec, ...tally }) => ({ name: codec.name, ...tally }));
  }

  /** @throws DeltaveeError TRACE_INVALID when the trace has no contents */
  header({ pageBytes, blocks, hasContents }: TraceHeader): void {
    if (!hasContents) {
      throw new DeltaveeError("TRACE_INVALID", `Trace ${this.#name} has no contents to run codecs over`);
    }
    this.#pageBytes = pageBytes;
    this.#memories = blocks.map(({ pageCount }) => new Uint8Array(pageCount * pageBytes));
    this.#known = blocks.map(({ pageCount }) => new Uint8Array(pageCount));
  }

  iteration(): void {}
  codec(): void {}

  page(
    blockIndex: number,
    pageIndex: number,
    pageClass: PageClass,
    _deltaBytes: number,
    content: Uint8Array,
    offset: number,
  ): void {
    if (pageClass === PageClass.UNCHANGED) return;
    const memory = this.#memories[blockIndex]!;
    const known = this.#known[blockIndex]!;
    const at = pageIndex * this.#pageBytes;
    if (pageClass === PageClass.ZERO) {
      memory.fill(0, at, at + this.#pageBytes);
    } else {
      if (known[pageIndex] === 1) {
        for (const tally of this.#tallies) this.#encode(tally, memory, at, content, offset);
      }
      memory.set(content.subarray(offset, offset + this.#pageBytes), at);
    }
    known[pageIndex] = 1;
  }

  #encode(tally: Tally, memory: Uint8Array, at: number, content: Uint8Array, offset: number): void {
    const bytes = tally.codec.deltaBytes(memory, at, content, offset, this.#pageBytes);
    if (bytes === undefined) {
      tally.overflowPages++;
    } else {
      tally.deltaPages++;
      tally.deltaBytes += bytes;
    }
  }
}
