// What the engine asks of whoever codes its batches, on this thread or another: a fixed number of slots in the
// kernel memory, each with a raw and a coded region, and results in the order in which they were asked for. Types
// and sizes only: the engine must not know of threads. Two implementations: inline-batch-coder.ts, src/worker/.

import type { DeltaveeError } from "../../base/errors.ts";
import type { EntropyCodecId } from "./entropy-coder.ts";

const RAW_BYTES_MAX = 1 << 20;
/** A raw region: the largest batch of the protocol, and slack for whoever fills it and stops when it is full. */
export const SLOT_RAW_BYTES = RAW_BYTES_MAX + (64 << 10);
/** A coded region: the largest payload of the protocol. */
export const SLOT_CODED_BYTES = RAW_BYTES_MAX + (16 << 10);

export interface BatchSlot {
  /** SLOT_RAW_BYTES long. */
  readonly rawAddress: number;
  /** SLOT_CODED_BYTES long. */
  readonly codedAddress: number;
}

export interface EncodedBatch {
  /** ENTROPY_NONE when coding did not make it smaller. */
  readonly codecId: EntropyCodecId;
  /** Where the bytes to be sent are: the slot's coded region, with ENTROPY_NONE its raw region. */
  readonly codedAddress: number;
  readonly codedBytes: number;
  readonly rawChecksum: number;
  /** Time of the coding alone, without waiting for its turn. */
  readonly encodeMs: number;
}

export interface DecodedBatch {
  /** Where the raw bytes are: the slot's raw region, with ENTROPY_NONE its coded region. */
  readonly rawAddress: number;
  readonly decodeMs: number;
}

/**
 * A slot is acquired, filled, coded, sent from and released. From `encode` or `decode` until `done` it is the
 * coder's alone. `done` is called exactly once per job unless the coder is closed first, in the order of the jobs,
 * and possibly before `encode` or `decode` returns; it may submit further jobs. An instance is used in one
 * direction or both.
 */
export interface BatchCoder {
  readonly slots: readonly BatchSlot[];
  /** Batches that are coded at the same time, at most. */
  readonly concurrency: number;
  /** What costs much does not keep the calling thread from its work. */
  readonly isReady: boolean;
  /** Begins what that takes, which may be a while, unless it has begun. */
  prepare(): void;
  /** Index of a free slot, or -1. */
  acquire(): number;
  /** Of an acquired slot that no job is using. */
  release(slot: number): void;
  /**
   * Codes `rawBytes` (1 to SLOT_RAW_BYTES) of the raw region with `level` of the codec's. An error is never the
   * batch's fault: it says that the coder has failed, and every later job will get it too.
   */
  encode(
    slot: number,
    rawBytes: number,
    codecId: EntropyCodecId,
    level: number,
    done: (result: EncodedBatch | DeltaveeError) => void,
  ): void;
  /**
   * Decodes `codedBytes` (1 to SLOT_CODED_BYTES) of the coded region; everything else is as the peer says and
   * trusted in nothing. The error is ProtocolError PROTOCOL_INVALID_FRAME when number, length, content or
   * checksum are wrong, any other when the coder has failed.
   */
  decode(
    slot: number,
    codedBytes: number,
    codecId: number,
    rawBytes: number,
    rawChecksum: number,
    done: (result: DecodedBatch | DeltaveeError) => void,
  ): void;
  /** Ends whatever works for it; jobs under way are never done. The slots stay part of the memory. */
  close(): Promise<void>;
}
