// A BatchCoder that codes on the calling thread, at once: for simulations on a virtual clock, for machines with a
// single core, and as what the one with workers must equal.

import type { DeltaveeError } from "../../base/errors.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import type { BatchCoder, BatchSlot, DecodedBatch, EncodedBatch } from "./batch-coder.ts";
import { BatchJobs, checkDecodeJob, checkEncodeJob } from "./batch-job.ts";
import { BatchSlots } from "./batch-slots.ts";
import type { EntropyCodecId } from "./entropy-coder.ts";
import { allocateLz4Table } from "./lz4.ts";

export interface InlineBatchCoderOptions {
  slotCount: number;
  /** For `encodeMs` and `decodeMs`. */
  nowMs: () => number;
  /** Calls the function later, and all of them in some order; without it results are told before a call returns. */
  defer?: (callback: () => void) => void;
}

export class InlineBatchCoder implements BatchCoder {
  readonly concurrency = 1;
  /** There is nothing that could be begun. */
  readonly isReady = true;
  readonly #slots: BatchSlots;
  readonly #jobs: BatchJobs;
  readonly #defer: ((callback: () => void) => void) | undefined;
  readonly #deferred: (() => void)[] = [];
  #closed = false;

  constructor(memory: KernelMemory, kernel: Kernel, options: InlineBatchCoderOptions) {
    this.#slots = new BatchSlots(memory, options.slotCount);
    this.#jobs = new BatchJobs(memory, kernel, allocateLz4Table(memory), options.nowMs);
    this.#defer = options.defer;
  }

  get slots(): readonly BatchSlot[] {
    return this.#slots.slots;
  }

  prepare(): void {}

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
    const result = this.#jobs.encode(this.#slots.beginJob(slot), rawBytes, codecId, level);
    this.#finish(slot, () => done(result));
  }

  decode(
    slot: number,
    codedBytes: number,
    codecId: number,
    rawBytes: number,
    rawChecksum: number,
    done: (result: DecodedBatch | DeltaveeError) => void,
  ): void {
    checkDecodeJob(codedBytes);
    const place = this.#slots.beginJob(slot);
    const result = this.#jobs.decode(place, codedBytes, codecId, rawBytes, rawChecksum);
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
