// The codecs of dirty pages, as the codec benchmark calls them: one page a call, as in a migration. Each lays out
// one batch of pages the way it would be sent, and takes it apart again.

import { assert } from "../src/base/assert.ts";
import { ZstdDictionary } from "../src/codec/entropy/zstd-dictionary.ts";
import { xbzrleDecode, xbzrleEncode } from "../src/codec/xbzrle.ts";
import type { Kernel } from "../src/kernel/kernel.ts";
import type { KernelMemory } from "../src/kernel/memory.ts";
import { PAGE_BYTES, type PageSet, pageCountOf } from "./pages/page-set.ts";

/** What a batch of the tunnel holds: enough for the entropy coder to find what repeats. */
export const BATCH_PAGES = 64;
/** Longest masks of a page: a bit for each line, a byte for each changed line. */
const MASK_BYTES_MAX = (PAGE_BYTES / 512) * 9;
/** Kernels write a little beyond what they return. */
const SLACK_BYTES = 64;
/** A batch is at most all of its pages whole, with all masks. */
export const BATCH_BYTES_MAX = BATCH_PAGES * (PAGE_BYTES + MASK_BYTES_MAX) + SLACK_BYTES;
const OVERFLOW = -1;
export const READABLE = "XBZRLE, readable TypeScript";
/** As in src/codec/delta/zstd-dictionary-delta.ts. */
const DICTIONARY_LEVEL = 3;

/** The pages of a set in kernel memory. `target` begins as the old pages: deltas are applied to it. */
export interface LoadedSet {
  readonly pages: number;
  readonly oldPages: number;
  readonly newPages: number;
  readonly target: number;
}

/** One codec on one set. A batch is `count` pages from page `first` on. */
export interface Codec {
  readonly name: string;
  /** Makes sense with an entropy coder behind it. */
  readonly isCodedAgain: boolean;
  /**
   * Lays the batch out at `out`, BATCH_BYTES_MAX long; a delta that would not be smaller than its page is the page
   * itself when `wholePages`, and nothing otherwise. Returns its length.
   */
  encode(first: number, count: number, out: number, wholePages: boolean): number;
  /** How many bytes the last `encode` left out, since they belong to whole pages. */
  readonly omittedBytes: number;
  /** Applies a batch that was laid out with whole pages. */
  decode(first: number, count: number, batch: number): void;
}

export class SetMemory {
  readonly #memory: KernelMemory;
  readonly #room: LoadedSet;

  /** Room for sets of at most `pages`. */
  constructor(memory: KernelMemory, pages: number) {
    this.#memory = memory;
    const allocate = () => memory.allocate(pages * PAGE_BYTES, PAGE_BYTES);
    this.#room = { pages, oldPages: allocate(), newPages: allocate(), target: allocate() };
  }

  load(set: PageSet): LoadedSet {
    const pages = pageCountOf(set);
    assert(pages <= this.#room.pages, "the set fits");
    const loaded = { ...this.#room, pages };
    this.#memory.bytes(loaded.oldPages, pages * PAGE_BYTES).set(set.oldPages);
    this.#memory.bytes(loaded.newPages, pages * PAGE_BYTES).set(set.newPages);
    this.resetTarget(loaded);
    return loaded;
  }

  resetTarget({ pages, oldPages, target }: LoadedSet): void {
    this.#memory.bytes(target, pages * PAGE_BYTES).set(this.#memory.bytes(oldPages, pages * PAGE_BYTES));
  }

  /** Deltas were applied to the target: is it the new pages now? */
  isTargetNew({ pages, newPages, target }: LoadedSet): boolean {
    const of = (address: number) => this.#memory.bytes(address, pages * PAGE_BYTES);
    return Buffer.compare(of(newPages), of(target)) === 0;
  }
}

/** Codecs of one delta per page: `deltaBytes` says how long each is, 0 for a page that is whole. */
abstract class DeltaCodec implements Codec {
  abstract readonly name: string;
  readonly isCodedAgain: boolean = true;
  omittedBytes = 0;
  protected readonly kernel: Kernel;
  protected readonly set: LoadedSet;
  readonly #deltaBytes: Int32Array;

  constructor(kernel: Kernel, set: LoadedSet) {
    this.kernel = kernel;
    this.set = set;
    this.#deltaBytes = new Int32Array(set.pages);
  }

  encode(first: number, count: number, out: number, wholePages: boolean): number {
    let at = out;
    this.omittedBytes = 0;
    for (let page = first; page < first + count; page++) {
      const bytes = this.encodePage(page, at);
      this.#deltaBytes[page] = bytes === OVERFLOW ? 0 : bytes;
      if (bytes !== OVERFLOW) at += bytes;
      else if (wholePages) {
        this.kernel.copy(at, this.set.newPages + page * PAGE_BYTES, PAGE_BYTES);
        at += PAGE_BYTES;
      } else this.omittedBytes += PAGE_BYTES;
    }
    return at - out;
  }

  decode(first: number, count: number, batch: number): void {
    let at = batch;
    for (let page = first; page < first + count; page++) {
      const bytes = this.#deltaBytes[page]!;
      const target = this.set.target + page * PAGE_BYTES;
      if (bytes === 0) {
        this.kernel.copy(target, at, PAGE_BYTES);
        at += PAGE_BYTES;
      } else {
        this.decodePage(at, bytes, target);
        at += bytes;
      }
    }
  }

  /** As the kernel's encoders: OVERFLOW when the delta is not smaller than the page. */
  protected abstract encodePage(page: number, out: number): number;
  protected abstract decodePage(delta: number, deltaBytes: number, target: number): void;
}

class Xbzrle extends DeltaCodec {
  readonly name = "XBZRLE";

  protected encodePage(page: number, out: number): number {
    const { oldPages, newPages } = this.set;
    const offset = page * PAGE_BYTES;
    return this.kernel.xbzrleEncode(oldPages + offset, newPages + offset, PAGE_BYTES, out, PAGE_BYTES - 1);
  }

  protected decodePage(delta: number, deltaBytes: number, target: number): void {
    this.kernel.xbzrleDecode(delta, deltaBytes, target, PAGE_BYTES);
  }
}

class Xbrle extends DeltaCodec {
  readonly name = "XBRLE";

  protected encodePage(page: number, out: number): number {
    const { oldPages, newPages } = this.set;
    const offset = page * PAGE_BYTES;
    return this.kernel.xbrleEncode(oldPages + offset, newPages + offset, PAGE_BYTES, out, PAGE_BYTES - 1);
  }

  protected decodePage(delta: number, deltaBytes: number, target: number): void {
    this.kernel.xbrleDecode(delta, deltaBytes, target, PAGE_BYTES);
  }
}

/** The readable implementation in TypeScript, src/codec/xbzrle.ts. */
class XbzrleReference extends DeltaCodec {
  readonly name = READABLE;
  override readonly isCodedAgain = false;
  readonly #bytes: Uint8Array;

  constructor(memory: KernelMemory, kernel: Kernel, set: LoadedSet) {
    super(kernel, set);
    this.#bytes = new Uint8Array(memory.wasm.buffer);
  }

  protected encodePage(page: number, out: number): number {
    const { oldPages, newPages } = this.set;
    const [bytes, offset] = [this.#bytes, page * PAGE_BYTES];
    return xbzrleEncode(
      bytes,
      oldPages + offset,
      bytes,
      newPages + offset,
      PAGE_BYTES,
      bytes,
      out,
      PAGE_BYTES - 1,
    );
  }

  protected decodePage(delta: number, deltaBytes: number, target: number): void {
    xbzrleDecode(this.#bytes, delta, deltaBytes, this.#bytes, target, PAGE_BYTES);
  }
}

/** zstd with the old page as dictionary: a general binary delta, for the slowest links. */
class ZstdOfOldPage extends DeltaCodec {
  readonly name = "zstd, old page as dictionary";
  override readonly isCodedAgain = false;
  readonly #zstd: ZstdDictionary;

  constructor(memory: KernelMemory, kernel: Kernel, set: LoadedSet) {
    super(kernel, set);
    this.#zstd = new ZstdDictionary(memory, PAGE_BYTES);
  }

  protected encodePage(page: number, out: number): number {
    const { oldPages, newPages } = this.set;
    const offset = page * PAGE_BYTES;
    const [old, now] = [oldPages + offset, newPages + offset];
    return this.#zstd.compress(old, PAGE_BYTES, now, PAGE_BYTES, out, PAGE_BYTES - 1, DICTIONARY_LEVEL);
  }

  protected decodePage(delta: number, deltaBytes: number, target: number): void {
    this.#zstd.decompress(target, PAGE_BYTES, delta, deltaBytes, target, PAGE_BYTES);
  }
}

/** Which words changed, and the new words: not as a difference, which would be harder to make smaller. */
class WordMask implements Codec {
  readonly name = "word mask";
  readonly isCodedAgain = true;
  omittedBytes = 0;
  readonly #kernel: Kernel;
  readonly #set: LoadedSet;
  readonly #scratch: number;
  readonly #result: number;
  readonly #resultView: DataView;
  /** Whether a page is whole; for the batch beginning at a page, where its masks begin. */
  readonly #isWhole: Uint8Array;
  readonly #masksAt: Int32Array;
  readonly #batchBytes: Int32Array;

  constructor(memory: KernelMemory, kernel: Kernel, set: LoadedSet, scratch: number) {
    this.#kernel = kernel;
    this.#set = set;
    this.#result = scratch;
    this.#resultView = new DataView(memory.wasm.buffer, scratch, 8);
    this.#scratch = scratch + SLACK_BYTES;
    this.#isWhole = new Uint8Array(set.pages);
    this.#masksAt = new Int32Array(set.pages);
    this.#batchBytes = new Int32Array(set.pages);
  }

  /** All words, then all masks. */
  encode(first: number, count: number, out: number, wholePages: boolean): number {
    const kernel = this.#kernel;
    const { oldPages, newPages } = this.#set;
    let words = out;
    let masks = this.#scratch;
    this.omittedBytes = 0;
    for (let page = first; page < first + count; page++) {
      const newPage = newPages + page * PAGE_BYTES;
      const bytes = kernel.wordMaskEncode(
        oldPages + page * PAGE_BYTES,
        newPage,
        PAGE_BYTES,
        masks,
        words,
        PAGE_BYTES - 1,
      );
      this.#isWhole[page] = bytes === OVERFLOW ? 1 : 0;
      if (bytes !== OVERFLOW) {
        masks += bytes & 0xffff;
        words += bytes >>> 16;
      } else if (wholePages) {
        kernel.copy(words, newPage, PAGE_BYTES);
        words += PAGE_BYTES;
      } else this.omittedBytes += PAGE_BYTES;
    }
    const maskBytes = masks - this.#scratch;
    kernel.copy(words, this.#scratch, maskBytes);
    this.#masksAt[first] = words - out;
    this.#batchBytes[first] = words - out + maskBytes;
    return words - out + maskBytes;
  }

  decode(first: number, count: number, batch: number): void {
    const kernel = this.#kernel;
    const wordsEnd = batch + this.#masksAt[first]!;
    const masksEnd = batch + this.#batchBytes[first]!;
    let words = batch;
    let masks = wordsEnd;
    for (let page = first; page < first + count; page++) {
      const target = this.#set.target + page * PAGE_BYTES;
      if (this.#isWhole[page] === 1) {
        kernel.copy(target, words, PAGE_BYTES);
        words += PAGE_BYTES;
        continue;
      }
      const [maskBytes, wordBytes] = [masksEnd - masks, wordsEnd - words];
      words += kernel.wordMaskDecode(masks, maskBytes, words, wordBytes, target, PAGE_BYTES, this.#result);
      masks += this.#resultView.getUint32(0, true);
    }
  }
}

/** All codecs on one set. `scratch`: SCRATCH_BYTES of kernel memory. */
export function codecsOf(memory: KernelMemory, kernel: Kernel, set: LoadedSet, scratch: number): Codec[] {
  return [
    new Xbzrle(kernel, set),
    new WordMask(memory, kernel, set, scratch),
    new Xbrle(kernel, set),
    new ZstdOfOldPage(memory, kernel, set),
    new XbzrleReference(memory, kernel, set),
  ];
}

export const SCRATCH_BYTES = SLACK_BYTES + BATCH_PAGES * MASK_BYTES_MAX;
