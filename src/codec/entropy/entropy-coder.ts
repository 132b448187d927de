// Entropy coders of tunnel batches: their numbers on the wire and the one interface that all of them have.
// They work on addresses in the kernel memory. A coded batch is one complete block or frame of its format and
// nothing after it; its raw length is known from elsewhere. Formats: RFC 8878 (zstd), the LZ4 block format.

import { ProtocolError } from "../../base/errors.ts";

/**
 * Number of the coder on the wire. 0 is invalid; a number never changes its meaning. 2 (deflate) and 3 (brotli)
 * were used by version 1 of the protocol and stay retired.
 */
export const ENTROPY_NONE = 1;
export const ENTROPY_ZSTD = 4;
export const ENTROPY_LZ4 = 5;

export type EntropyCodecId = typeof ENTROPY_NONE | typeof ENTROPY_ZSTD | typeof ENTROPY_LZ4;

export interface EntropyCodec {
  readonly id: EntropyCodecId;
  readonly name: string;
  /** Levels are whole numbers from `levelMin` (fastest) to `levelMax` (smallest), without 0 unless it is both. */
  readonly levelMin: number;
  readonly levelMax: number;
}

/** What every Deltavee codes and decodes, the smallest output first. */
export const ENTROPY_CODECS: readonly EntropyCodec[] = [
  { id: ENTROPY_ZSTD, name: "zstd", levelMin: -5, levelMax: 19 },
  { id: ENTROPY_LZ4, name: "lz4", levelMin: 1, levelMax: 1 },
  { id: ENTROPY_NONE, name: "none", levelMin: 0, levelMax: 0 },
];

/** As a tunnel's two sides tell each other. */
export const ENTROPY_CODEC_IDS: readonly EntropyCodecId[] = ENTROPY_CODECS.map(({ id }) => id);

export interface EntropyCoder {
  /**
   * Codes `rawBytes` at `rawAddress`, writing at most `codedLimitBytes` to `codedAddress`; the ranges do not
   * overlap. Returns how many bytes it wrote, or -1 when the result would be larger than the limit (what lies at
   * `codedAddress` is undefined then).
   */
  compress(
    rawAddress: number,
    rawBytes: number,
    codedAddress: number,
    codedLimitBytes: number,
    level: number,
  ): number;
  /**
   * Writes exactly `rawBytes` to `rawAddress`, or throws; never writes more.
   * @throws ProtocolError PROTOCOL_INVALID_FRAME when the coded bytes are damaged or of another length decoded
   */
  decompress(codedAddress: number, codedBytes: number, rawAddress: number, rawBytes: number): void;
}

/** @throws ProtocolError PROTOCOL_INVALID_FRAME for a number that is no coder's */
export function entropyCodecOf(id: number): EntropyCodec {
  const codec = ENTROPY_CODECS.find((candidate) => candidate.id === id);
  if (codec !== undefined) return codec;
  throw new ProtocolError("PROTOCOL_INVALID_FRAME", `Decoding a batch failed: no coder has number ${id}`);
}

/** For the coders: what they throw for coded bytes that are not theirs. */
export function damagedBatch(
  name: string,
  codedBytes: number,
  rawBytes: number,
  why: string,
  cause?: Error,
): ProtocolError {
  const message = `Decoding ${codedBytes} bytes of ${name} into a batch of ${rawBytes} failed: ${why}`;
  return new ProtocolError("PROTOCOL_INVALID_FRAME", message, { cause });
}
