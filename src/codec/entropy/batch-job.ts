// One batch coded or decoded, on whatever thread this runs: the coders of a thread, the choice not to code, the
// checksum. What all implementations of BatchCoder do between taking a job and telling its result.

import { assert } from "../../base/assert.ts";
import { ProtocolError } from "../../base/errors.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import {
  type BatchSlot,
  type DecodedBatch,
  type EncodedBatch,
  SLOT_CODED_BYTES,
  SLOT_RAW_BYTES,
} from "./batch-coder.ts";
import {
  damagedBatch,
  ENTROPY_LZ4,
  ENTROPY_NONE,
  ENTROPY_ZSTD,
  type EntropyCodec,
  type EntropyCodecId,
  type EntropyCoder,
  entropyCodecOf,
} from "./entropy-coder.ts";
import { Lz4 } from "./lz4.ts";
import { makeZstd } from "./zstd.ts";

/** Of one thread. */
export class BatchJobs {
  readonly #memory: KernelMemory;
  readonly #kernel: Kernel;
  readonly #lz4: EntropyCoder;
  readonly #nowMs: () => number;
  #zstd: EntropyCoder | undefined;

  /** `kernel` and `lz4TableAddress` (allocateLz4Table) are this thread's own. */
  constructor(memory: KernelMemory, kernel: Kernel, lz4TableAddress: number, nowMs: () => number) {
    this.#memory = memory;
    this.#kernel = kernel;
    this.#lz4 = new Lz4(kernel, lz4TableAddress);
    this.#nowMs = nowMs;
  }

  /** Loads what otherwise the first job with zstd would wait for. */
  warmUp(): void {
    this.#coderOf(ENTROPY_ZSTD);
  }

  encode(slot: BatchSlot, rawBytes: number, codecId: EntropyCodecId, level: number): EncodedBatch {
    const startMs = this.#nowMs();
    const rawChecksum = this.#checksum(slot.rawAddress, rawBytes);
    let codedBytes = -1;
    if (codecId !== ENTROPY_NONE) {
      // One byte less than raw: a batch that does not get smaller is sent as it is.
      const limitBytes = Math.min(rawBytes - 1, SLOT_CODED_BYTES);
      const coder = this.#coderOf(codecId);
      codedBytes = coder.compress(slot.rawAddress, rawBytes, slot.codedAddress, limitBytes, level);
    }
    const encodeMs = this.#nowMs() - startMs;
    if (codedBytes !== -1)
      return { codecId, codedAddress: slot.codedAddress, codedBytes, rawChecksum, encodeMs };
    return {
      codecId: ENTROPY_NONE,
      codedAddress: slot.rawAddress,
      codedBytes: rawBytes,
      rawChecksum,
      encodeMs,
    };
  }

  /** A batch that is not what its description says gives a ProtocolError PROTOCOL_INVALID_FRAME. */
  decode(
    slot: BatchSlot,
    codedBytes: number,
    codecId: number,
    rawBytes: number,
    rawChecksum: number,
  ): DecodedBatch | ProtocolError {
    const startMs = this.#nowMs();
    try {
      const codec = checkedDescription(codecId, codedBytes, rawBytes);
      let rawAddress = slot.codedAddress;
      if (codec.id !== ENTROPY_NONE) {
        rawAddress = slot.rawAddress;
        this.#coderOf(codec.id).decompress(slot.codedAddress, codedBytes, rawAddress, rawBytes);
      }
      const checksum = this.#checksum(rawAddress, rawBytes);
      if (checksum !== rawChecksum) {
        const why = `it has checksum ${hex32(checksum)}, expected ${hex32(rawChecksum)}`;
        return damagedBatch(codec.name, codedBytes, rawBytes, why);
      }
      return { rawAddress, decodeMs: this.#nowMs() - startMs };
    } catch (thrown) {
      if (thrown instanceof ProtocolError) return thrown;
      throw thrown;
    }
  }

  /** As codec/hash32.ts makes it. */
  #checksum(address: number, bytes: number): number {
    return this.#kernel.hash32(address, bytes) >>> 0;
  }

  #coderOf(codecId: typeof ENTROPY_ZSTD | typeof ENTROPY_LZ4): EntropyCoder {
    if (codecId === ENTROPY_LZ4) return this.#lz4;
    this.#zstd ??= makeZstd(this.#memory, SLOT_RAW_BYTES);
    return this.#zstd;
  }
}

/** @throws ProtocolError PROTOCOL_INVALID_FRAME for a number or a length that no batch has */
function checkedDescription(codecId: number, codedBytes: number, rawBytes: number): EntropyCodec {
  const codec = entropyCodecOf(codecId);
  if (!Number.isInteger(rawBytes) || rawBytes < 1 || rawBytes > SLOT_RAW_BYTES)
    throw damagedBatch(codec.name, codedBytes, rawBytes, `length of a batch is 1 to ${SLOT_RAW_BYTES}`);
  if (codec.id === ENTROPY_NONE && codedBytes !== rawBytes)
    throw damagedBatch(codec.name, codedBytes, rawBytes, "lengths differ");
  return codec;
}

function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, "0")}`;
}

/** A job that breaks these is our own mistake. */
export function checkEncodeJob(rawBytes: number, codecId: EntropyCodecId, level: number): void {
  const { levelMin, levelMax } = entropyCodecOf(codecId);
  assert(rawBytes >= 1 && rawBytes <= SLOT_RAW_BYTES, "batch not empty and within its slot");
  assert(Number.isInteger(level) && level >= levelMin && level <= levelMax, "level within the codec's");
  assert(level !== 0 || (levelMin === 0 && levelMax === 0), "level 0 is no level");
}

export function checkDecodeJob(codedBytes: number): void {
  assert(codedBytes >= 1 && codedBytes <= SLOT_CODED_BYTES, "coded bytes not none and within their slot");
}
