// A coder of batches that codes for a while and then fails for good, as one does whose thread has died.

import { DeltaveeError } from "../../src/base/errors.ts";
import type { DecodedBatch, EncodedBatch } from "../../src/codec/entropy/batch-coder.ts";
import type { EntropyCodecId } from "../../src/codec/entropy/entropy-coder.ts";
import {
  InlineBatchCoder,
  type InlineBatchCoderOptions,
} from "../../src/codec/entropy/inline-batch-coder.ts";
import type { Kernel } from "../../src/kernel/kernel.ts";
import type { KernelMemory } from "../../src/kernel/memory.ts";

interface MortalCoderOptions extends InlineBatchCoderOptions {
  failsAt: number | undefined;
}

export class MortalCoder extends InlineBatchCoder {
  readonly #failsAt: number;
  #jobs = 0;

  constructor(memory: KernelMemory, kernel: Kernel, { failsAt, ...options }: MortalCoderOptions) {
    super(memory, kernel, options);
    this.#failsAt = failsAt ?? Number.POSITIVE_INFINITY;
  }

  override encode(
    slot: number,
    rawBytes: number,
    codecId: EntropyCodecId,
    level: number,
    done: (result: EncodedBatch | DeltaveeError) => void,
  ): void {
    super.encode(slot, rawBytes, codecId, level, this.#orFailure(done));
  }

  override decode(
    slot: number,
    codedBytes: number,
    codecId: number,
    rawBytes: number,
    rawChecksum: number,
    done: (result: DecodedBatch | DeltaveeError) => void,
  ): void {
    super.decode(slot, codedBytes, codecId, rawBytes, rawChecksum, this.#orFailure(done));
  }

  #orFailure<Result>(
    done: (result: Result | DeltaveeError) => void,
  ): (result: Result | DeltaveeError) => void {
    if (++this.#jobs < this.#failsAt) return done;
    return () => done(new DeltaveeError("OUT_OF_MEMORY", "A thread that codes batches has ended"));
  }
}
