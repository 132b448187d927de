// A BatchCoder that codes on the calling thread, at once: for simulations on a virtual clock, for machines with a
// single core, and as what the one with workers must equal.

import { type DeltaveeError, ProtocolError } from "../../base/errors.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import type { BatchCoder, BatchSlot, DecodedBatch, EncodedBatch } from "./batch-coder.ts";
import { BatchJobs, checkDecodeJob, checkEncodeJob } from "./batch-job.ts";
import { BatchSlots } from "./batch-slots.ts";
import { ENTROPY_NONE, type EntropyCodecId } from "./entropy-coder.ts";
import { allocateLz4Table } from "./lz4.ts";

export interface InlineBatchCoderOptions {
  slotCount: number;
  /** For `encodeMs` and `decodeMs`. */
  nowMs: () => number;
  /** Calls the function later, and all of them in some order; without it results are told before a call returns. */
  defer?: (callback: () => void) => void;
}

export class InlineBatchCoder implements BatchCoder {
  readonly #slots: BatchSlots;
  readonly #jobs: BatchJobs;
  readonly #nowMs: () => number;
  readonly #defer: ((callback: () => void) => void) | undefined;
  readonly #deferred: (() => void)[] = [];
  #closed = false;

  constructor(memory: KernelMemory, kernel: Kernel, options: InlineBatchCoderOptions) {
    this.#slots = new BatchSlots(memory, options.slotCount);
    this.#jobs = new BatchJobs(memory, kernel, allocateLz4Table(memory));
    this.#nowMs = options.nowMs;
    this.#defer = options.defer;
  }

  get slots(): readonly BatchSlot[] {
    return this.#slots.slots;
  }

  acquire(): number {
    return this.#slots.acquire();
  }

  release(slot: number): void {
    this.#slots.release(slot);
  }

  encode(
    slot: number,
    rawBytes: number,
    codecId: EntropyCodecId,
    level: number,
    done: (result: EncodedBatch | DeltaveeError) => void,
  ): void {
    checkEncodeJob(rawBytes, codecId, level);
    const place = this.#slots.beginJob(slot);
    const startMs = this.#nowMs();
    const coded = this.#jobs.encode(place, rawBytes, codecId, level);
    const codedAddress = coded.codecId === ENTROPY_NONE ? place.rawAddress : place.codedAddress;
    const encodeMs = this.#nowMs() - startMs;
    this.#finish(slot, () => done({ ...coded, codedAddress, encodeMs }));
  }

  decode(
    slot: number,
    codedBytes: number,
    codecId: number,
    rawBytes: number,
    rawCrc32: number,
    done: (result: DecodedBatch | DeltaveeError) => void,
  ): void {
    checkDecodeJob(codedBytes);
    const place = this.#slots.beginJob(slot);
    const startMs = this.#nowMs();
    let result: DecodedBatch | DeltaveeError;
    try {
      const rawAddress = this.#jobs.decode(place, codedBytes, codecId, rawBytes, rawCrc32);
      result = { rawAddress, decodeMs: this.#nowMs() - startMs };
    } catch (thrown) {
      if (!(thrown instanceof ProtocolError)) throw thrown;
      result = thrown;
    }
    this.#finish(slot, () => done(result));
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #finish(slot: number, tell: () => void): void {
    const finish = () => {
      this.#slots.endJob(slot);
      tell();
    };
    if (this.#defer === undefined) {
      finish();
      return;
    }
    // Whatever order the deferred calls come in, each tells the oldest result.
    this.#deferred.push(finish);
    this.#defer(() => {
      const oldest = this.#deferred.shift();
      if (!this.#closed) oldest?.();
    });
  }
}
