// One batch coded or decoded, on whatever thread this runs: the coders of a thread, the choice not to code, the
// checksum. What both implementations of BatchCoder do between taking a job and telling its result.

import { crc32 } from "node:zlib";
import { assert } from "../../base/assert.ts";
import { ProtocolError } from "../../base/errors.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { type BatchSlot, SLOT_CODED_BYTES, SLOT_RAW_BYTES } from "./batch-coder.ts";
import {
  damagedBatch,
  ENTROPY_LZ4,
  ENTROPY_NONE,
  ENTROPY_ZSTD,
  type EntropyCodecId,
  type EntropyCoder,
  entropyCodecOf,
} from "./entropy-coder.ts";
import { Lz4 } from "./lz4.ts";
import { hasNativeZstd, ZstdNative } from "./zstd-native.ts";
import { ZstdWasm } from "./zstd-wasm.ts";

export interface CodedSize {
  readonly codecId: EntropyCodecId;
  readonly codedBytes: number;
  readonly rawCrc32: number;
}

/** Of one thread. */
export class BatchJobs {
  readonly #memory: KernelMemory;
  readonly #lz4: EntropyCoder;
  #zstd: EntropyCoder | undefined;

  /** `kernel` and `lz4TableAddress` (allocateLz4Table) are this thread's own. */
  constructor(memory: KernelMemory, kernel: Kernel, lz4TableAddress: number) {
    this.#memory = memory;
    this.#lz4 = new Lz4(kernel, lz4TableAddress);
  }

  /** Loads what otherwise the first job with zstd would wait for. */
  warmUp(): void {
    this.#coderOf(ENTROPY_ZSTD);
  }

  encode(slot: BatchSlot, rawBytes: number, codecId: EntropyCodecId, level: number): CodedSize {
    const rawCrc32 = crc32(this.#memory.bytes(slot.rawAddress, rawBytes));
    const asItIs: CodedSize = { codecId: ENTROPY_NONE, codedBytes: rawBytes, rawCrc32 };
    // One byte less than raw: a batch that does not get smaller is sent as it is.
    const limitBytes = Math.min(rawBytes - 1, SLOT_CODED_BYTES);
    if (codecId === ENTROPY_NONE || limitBytes === 0) return asItIs;
    const codedBytes = this.#coderOf(codecId).compress(
      slot.rawAddress,
      rawBytes,
      slot.codedAddress,
      limitBytes,
      level,
    );
    return codedBytes === -1 ? asItIs : { codecId, codedBytes, rawCrc32 };
  }

  /**
   * Returns where the raw bytes are.
   * @throws ProtocolError PROTOCOL_INVALID_FRAME when the batch is not what its description says
   */
  decode(slot: BatchSlot, codedBytes: number, codecId: number, rawBytes: number, rawCrc32: number): number {
    const { id, name } = entropyCodecOf(codecId);
    if (!Number.isInteger(rawBytes) || rawBytes < 1 || rawBytes > SLOT_RAW_BYTES)
      throw damagedBatch(name, codedBytes, rawBytes, `length of a batch is 1 to ${SLOT_RAW_BYTES}`);
    let rawAddress = slot.rawAddress;
    if (id !== ENTROPY_NONE) {
      this.#coderOf(id).decompress(slot.codedAddress, codedBytes, rawAddress, rawBytes);
    } else {
      if (codedBytes !== rawBytes) throw damagedBatch(name, codedBytes, rawBytes, "lengths differ");
      rawAddress = slot.codedAddress;
    }
    const crc = crc32(this.#memory.bytes(rawAddress, rawBytes));
    if (crc === rawCrc32) return rawAddress;
    throw new ProtocolError(
      "PROTOCOL_INVALID_FRAME",
      `Decoding ${codedBytes} bytes of ${name} gave a batch of ${rawBytes} with CRC-32 ${hex32(crc)}, ` +
        `expected ${hex32(rawCrc32)}`,
    );
  }

  #coderOf(codecId: typeof ENTROPY_ZSTD | typeof ENTROPY_LZ4): EntropyCoder {
    if (codecId === ENTROPY_LZ4) return this.#lz4;
    this.#zstd ??= hasNativeZstd()
      ? new ZstdNative(this.#memory)
      : new ZstdWasm(this.#memory, SLOT_RAW_BYTES);
    return this.#zstd;
  }
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
