// How a batch is coded: by what it holds, by what is known of the link it has before it, and by whether pages are looked
// at. The choice among the coders themselves is EntropyChoice's.

import type { BatchCoder, EncodedBatch } from "../../codec/entropy/batch-coder.ts";
import { ENTROPY_SCRATCH_BYTES, type Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { PAGES_HEADER_BYTES, PAYLOAD_PAGES } from "../../wire/page-batch.ts";
import { FAST_BYTES_PER_SECOND } from "../intake/bypass.ts";
import type { SealedBatch } from "../pages/batch-sink.ts";
import type { Limit } from "./bottleneck.ts";
import { type BatchClass, EntropyChoice, type EntropyMethod, NO_ENTROPY } from "./entropy-choice.ts";

/** A batch of which at least this much is whole pages is judged by them. */
const WHOLE_SHARE_MIN = 0.5;
/** Looking at less would say little. */
const WHOLE_BYTES_MIN = 16 * 1024;
/** Ten milliseconds of the lightest coder, and what a slow link takes to show itself. */
const OPENING_BYTES_MAX = 8 * 1024 * 1024;

/** What batches have before them. */
export interface Outlook {
  /** What is known of the link: that it carries so much, or, as long as that is not known, no less. */
  readonly linkBytesPerSecond: number;
  readonly isLinkKnown: boolean;
  readonly limit: Limit;
  readonly destinationBytesPerSecond: number;
  /** Batches wait for an encoder. */
  readonly isBehind: boolean;
}

export interface BatchMethod extends EntropyMethod {
  readonly batchClass: BatchClass;
}

export class BatchCoding {
  readonly #coder: BatchCoder;
  readonly #kernel: Kernel;
  readonly #entropyScratch: number;
  readonly #choice: EntropyChoice;
  #bypasses = false;
  /** In bypass from the start. */
  #isOpening = true;
  #openingBytes = 0;

  /** `decided` hears of every change, with its reason. */
  constructor(
    coder: BatchCoder,
    kernel: Kernel,
    memory: KernelMemory,
    decided: (choice: string, reason: string) => void,
  ) {
    this.#coder = coder;
    this.#kernel = kernel;
    this.#entropyScratch = memory.allocate(ENTROPY_SCRATCH_BYTES);
    this.#choice = new EntropyChoice(coder.concurrency, decided);
  }

  /** The destination decodes only these. */
  allow(codecIds: readonly number[]): void {
    this.#choice.allow(codecIds);
  }

  /** Whether what comes from here on was not looked at. */
  bypass(wanted: boolean): void {
    this.#bypasses = wanted;
    if (!wanted) this.#isOpening = false;
  }

  methodFor(batch: SealedBatch, outlook: Outlook): BatchMethod {
    // What is carried on as it is consists of whole pages, too.
    const isPages = this.#bypasses || batch.wholeBytes >= WHOLE_SHARE_MIN * batch.rawBytes;
    const batchClass: BatchClass = isPages ? "pages" : "deltas";
    const method = this.#bypasses
      ? this.#whileBypassed(batch, outlook)
      : this.#choose(batch, batchClass, outlook);
    return { ...method, batchClass };
  }

  /** A batch was coded with what `methodFor` said. */
  coded({ batchClass, name }: BatchMethod, rawBytes: number, { codedBytes, encodeMs }: EncodedBatch): void {
    this.#choice.observe(batchClass, name, rawBytes, codedBytes, encodeMs);
  }

  /**
   * What is carried on as it is costs nothing. Until the link has shown what it carries, some hundred kilobytes on a
   * fast one, it is made smaller at next to no cost: a slow link needs a tenth of a second to show that it is. Where it has
   * turned out to be neither, in as far as that pays.
   */
  #whileBypassed(batch: SealedBatch, outlook: Outlook): EntropyMethod {
    if (!this.#isOpening || outlook.linkBytesPerSecond >= FAST_BYTES_PER_SECOND) return NO_ENTROPY;
    if (outlook.isLinkKnown) return this.#choose(batch, "pages", outlook);
    if (outlook.limit === "destination") return NO_ENTROPY;
    this.#openingBytes += batch.rawBytes;
    // Of what gets very small the fastest link shows little.
    return this.#openingBytes <= OPENING_BYTES_MAX ? this.#choice.lightest : NO_ENTROPY;
  }

  #choose(batch: SealedBatch, batchClass: BatchClass, outlook: Outlook): EntropyMethod {
    const { linkBytesPerSecond, isLinkKnown, limit } = outlook;
    const isSlow = isLinkKnown && linkBytesPerSecond < FAST_BYTES_PER_SECOND;
    if (!this.#coder.isReady) {
      // The first batches of a dearer method take tens of milliseconds, in which this thread would do nothing else.
      if (isSlow) this.#coder.prepare();
      return this.#choice.lightest;
    }
    return this.#choice.choose(batchClass, batch.rawBytes, this.#randomness(batch, batchClass), {
      ...outlook,
      // Over a slow link bytes are dear in themselves, and the destination may become faster.
      isDestinationLimit: limit === "destination" && !isSlow,
    });
  }

  /** Of the whole pages in it; undefined: they are not most of it. */
  #randomness({ slot, kind, rawBytes, wholeBytes }: SealedBatch, batchClass: BatchClass): number | undefined {
    const { rawAddress } = this.#coder.slots[slot]!;
    const [address, bytes] =
      kind === PAYLOAD_PAGES ? [rawAddress + PAGES_HEADER_BYTES, wholeBytes] : [rawAddress, rawBytes];
    if (batchClass === "deltas" || bytes < Math.max(WHOLE_BYTES_MIN, WHOLE_SHARE_MIN * rawBytes))
      return undefined;
    return this.#kernel.sampledEntropy(address, bytes, this.#entropyScratch);
  }
}
