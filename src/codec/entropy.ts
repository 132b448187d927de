// Entropy coders of tunnel frames: what Node has built in, one table of them, each with its number on the wire.
// Knows batches of bytes, nothing of what is in them. Formats: RFC 7932 (brotli), RFC 1951 (deflate), RFC 8878
// (zstd); a coded batch is one complete stream of its format and nothing after it.

import { promisify } from "node:util";
import zlib from "node:zlib";
import { assert } from "../base/assert.ts";
import { ProtocolError, toError } from "../base/errors.ts";

/** Number of the coder on the wire. 0 is invalid; a number never changes its meaning. */
export const ENTROPY_NONE = 1;
export const ENTROPY_DEFLATE_RAW = 2;
export const ENTROPY_BROTLI = 3;
export const ENTROPY_ZSTD = 4;

export type EntropyCodecId =
  | typeof ENTROPY_NONE
  | typeof ENTROPY_DEFLATE_RAW
  | typeof ENTROPY_BROTLI
  | typeof ENTROPY_ZSTD;

/** Largest batch that is coded or decoded: bounds what a peer can make us allocate for one frame. */
export const BATCH_BYTES_MAX = 4 * 1024 * 1024;

export interface EntropyCoder {
  readonly id: EntropyCodecId;
  readonly name: string;
  /** Levels are whole numbers from `levelMin` (fastest) to `levelMax` (smallest). */
  readonly levelMin: number;
  readonly levelMax: number;
  /** Runs on the calling thread. `raw` has 1 to BATCH_BYTES_MAX bytes. */
  compress(raw: Uint8Array, level: number): Uint8Array;
  /** Runs on libuv's pool. `raw` must not change until it is done. */
  compressAsync(raw: Uint8Array, level: number): Promise<Uint8Array>;
  /**
   * `rawBytes` is what the frame says; never more is produced. Runs on the calling thread.
   * @throws ProtocolError PROTOCOL_INVALID_FRAME when `coded` is damaged, or is not exactly `rawBytes` long decoded
   */
  decompress(coded: Uint8Array, rawBytes: number): Uint8Array;
  /** As decompress, on libuv's pool. `coded` must not change until it is done. */
  decompressAsync(coded: Uint8Array, rawBytes: number): Promise<Uint8Array>;
}

export interface CodedBatch {
  codecId: EntropyCodecId;
  /** With ENTROPY_NONE the very bytes that were given, not a copy. */
  bytes: Uint8Array;
}

type ZlibOptions = zlib.ZlibOptions | zlib.BrotliOptions;
/** Result of zlib's functions under `info: true`, which its typings leave out. */
interface Inflated {
  buffer: Uint8Array;
  engine: { bytesWritten: number };
}
type ZlibSync = (input: Uint8Array, options: ZlibOptions) => Uint8Array;
type ZlibAsync = (input: Uint8Array, options: ZlibOptions) => Promise<Uint8Array>;

interface ZlibFormat {
  id: EntropyCodecId;
  name: string;
  levelMin: number;
  levelMax: number;
  compressOptions(level: number, rawBytes: number): ZlibOptions;
  compressSync: ZlibSync;
  compressAsync: ZlibAsync;
  decompressSync: ZlibSync;
  decompressAsync: ZlibAsync;
}

function assertRaw(raw: Uint8Array): void {
  assert(raw.length > 0 && raw.length <= BATCH_BYTES_MAX, "batch not empty and within its limit");
}

function invalidFrame(name: string, coded: Uint8Array, rawBytes: number, why: string, cause?: unknown) {
  const message = `Decoding ${coded.length} bytes of ${name} into a batch of ${rawBytes} failed: ${why}`;
  return new ProtocolError("PROTOCOL_INVALID_FRAME", message, { cause });
}

function checkRawBytes(name: string, coded: Uint8Array, rawBytes: number): void {
  if (Number.isInteger(rawBytes) && rawBytes > 0 && rawBytes <= BATCH_BYTES_MAX) return;
  throw invalidFrame(name, coded, rawBytes, `length of a batch is 1 to ${BATCH_BYTES_MAX}`);
}

const noneCoder: EntropyCoder = {
  id: ENTROPY_NONE,
  name: "none",
  levelMin: 0,
  levelMax: 0,
  compress(raw) {
    assertRaw(raw);
    return raw;
  },
  compressAsync: async (raw, level) => noneCoder.compress(raw, level),
  decompress(coded, rawBytes) {
    checkRawBytes("none", coded, rawBytes);
    if (coded.length !== rawBytes) throw invalidFrame("none", coded, rawBytes, "lengths differ");
    return coded;
  },
  decompressAsync: async (coded, rawBytes) => noneCoder.decompress(coded, rawBytes),
};

function zlibCoder(format: ZlibFormat): EntropyCoder {
  const { id, name, levelMin, levelMax } = format;

  function compressOptions(raw: Uint8Array, level: number): ZlibOptions {
    assertRaw(raw);
    assert(Number.isInteger(level) && level >= levelMin && level <= levelMax, "level within the coder's");
    return format.compressOptions(level, raw.length);
  }

  function decompressOptions(coded: Uint8Array, rawBytes: number): ZlibOptions {
    checkRawBytes(name, coded, rawBytes);
    // One output chunk for the whole batch; a spare byte, since zlib asks for another when the first is full.
    // `info` tells how much of the input was used, the one way to see bytes after the end of the stream.
    return { maxOutputLength: rawBytes, chunkSize: Math.max(64, rawBytes + 1), info: true };
  }

  function checked(result: Uint8Array, coded: Uint8Array, rawBytes: number): Uint8Array {
    const { buffer, engine } = result as unknown as Inflated;
    if (engine.bytesWritten !== coded.length)
      throw invalidFrame(name, coded, rawBytes, "bytes after its end");
    if (buffer.length !== rawBytes) throw invalidFrame(name, coded, rawBytes, `it gave ${buffer.length}`);
    return buffer;
  }

  function failed(thrown: unknown, coded: Uint8Array, rawBytes: number): Error {
    if (thrown instanceof ProtocolError) return thrown;
    return invalidFrame(name, coded, rawBytes, "damaged, cut short or too long", toError(thrown));
  }

  return {
    id,
    name,
    levelMin,
    levelMax,
    compress: (raw, level) => format.compressSync(raw, compressOptions(raw, level)),
    compressAsync: async (raw, level) => format.compressAsync(raw, compressOptions(raw, level)),
    decompress(coded, rawBytes) {
      const options = decompressOptions(coded, rawBytes);
      try {
        return checked(format.decompressSync(coded, options), coded, rawBytes);
      } catch (thrown) {
        throw failed(thrown, coded, rawBytes);
      }
    },
    async decompressAsync(coded, rawBytes) {
      const options = decompressOptions(coded, rawBytes);
      try {
        return checked(await format.decompressAsync(coded, options), coded, rawBytes);
      } catch (thrown) {
        throw failed(thrown, coded, rawBytes);
      }
    },
  };
}

const deflateRawCoder = zlibCoder({
  id: ENTROPY_DEFLATE_RAW,
  name: "deflate-raw",
  levelMin: 1,
  levelMax: 9,
  compressOptions: (level) => ({ level }),
  compressSync: zlib.deflateRawSync,
  compressAsync: promisify(zlib.deflateRaw) as ZlibAsync,
  decompressSync: zlib.inflateRawSync,
  decompressAsync: promisify(zlib.inflateRaw) as ZlibAsync,
});

const brotliCoder = zlibCoder({
  id: ENTROPY_BROTLI,
  name: "brotli",
  levelMin: 0,
  levelMax: 11,
  compressOptions: (level, rawBytes) => ({
    params: {
      [zlib.constants.BROTLI_PARAM_QUALITY]: level,
      // The window need not reach back further than the batch; it is memory on both sides.
      [zlib.constants.BROTLI_PARAM_LGWIN]: brotliWindowBits(rawBytes),
      [zlib.constants.BROTLI_PARAM_SIZE_HINT]: rawBytes,
      // BROTLI_PARAM_MODE stays generic: up to quality 6 "text" gave the same bytes at the same speed.
    },
  }),
  compressSync: zlib.brotliCompressSync,
  compressAsync: promisify(zlib.brotliCompress) as ZlibAsync,
  decompressSync: zlib.brotliDecompressSync,
  decompressAsync: promisify(zlib.brotliDecompress) as ZlibAsync,
});

/** Smallest window (16 bytes less than a power of two) that covers the batch. */
function brotliWindowBits(rawBytes: number): number {
  const bits = Math.ceil(Math.log2(rawBytes + 16));
  const { BROTLI_MIN_WINDOW_BITS, BROTLI_MAX_WINDOW_BITS } = zlib.constants;
  return Math.min(BROTLI_MAX_WINDOW_BITS, Math.max(BROTLI_MIN_WINDOW_BITS, bits));
}

/** Part of node:zlib since Node 22.15; the typings of the oldest Node that we support do not have it. */
interface ZlibWithZstd {
  zstdCompressSync: ZlibSync;
  zstdCompress: Parameters<typeof promisify>[0];
  zstdDecompressSync: ZlibSync;
  zstdDecompress: Parameters<typeof promisify>[0];
  constants: { ZSTD_c_compressionLevel: number };
}

function zstdCoder(): EntropyCoder | undefined {
  const maybe = zlib as unknown as Partial<ZlibWithZstd>;
  if (maybe.zstdCompressSync === undefined) return undefined;
  const zstd = maybe as ZlibWithZstd;
  return zlibCoder({
    id: ENTROPY_ZSTD,
    name: "zstd",
    levelMin: 1,
    levelMax: 19,
    compressOptions: (level) => ({ params: { [zstd.constants.ZSTD_c_compressionLevel]: level } }),
    compressSync: zstd.zstdCompressSync,
    compressAsync: promisify(zstd.zstdCompress) as ZlibAsync,
    decompressSync: zstd.zstdDecompressSync,
    decompressAsync: promisify(zstd.zstdDecompress) as ZlibAsync,
  });
}

/** In order of preference. */
const coders: readonly EntropyCoder[] = [zstdCoder(), brotliCoder, deflateRawCoder, noneCoder].filter(
  (coder) => coder !== undefined,
);

/** What this Node can code and decode, the best first. Never empty: ENTROPY_NONE is always last. */
export function availableEntropyCodecs(): EntropyCodecId[] {
  return coders.map((coder) => coder.id);
}

/** @throws ProtocolError PROTOCOL_INVALID_FRAME for a number that is unknown, or that this Node cannot decode */
export function entropyCoderOf(id: number): EntropyCoder {
  const coder = coders.find((candidate) => candidate.id === id);
  if (coder !== undefined) return coder;
  throw new ProtocolError(
    "PROTOCOL_INVALID_FRAME",
    `Decoding a batch failed: no entropy coder has number ${id}`,
  );
}

/** What to send of a coded batch: itself, or the raw bytes when coding did not make it smaller. */
function smallerOf(raw: Uint8Array, coded: Uint8Array, coder: EntropyCoder): CodedBatch {
  if (coded.length >= raw.length) return { codecId: ENTROPY_NONE, bytes: raw };
  return { codecId: coder.id, bytes: coded };
}

/** Codes a batch, or leaves it as it is (ENTROPY_NONE) when it cannot be made smaller. On the calling thread. */
export function encodeBatch(raw: Uint8Array, coder: EntropyCoder, level: number): CodedBatch {
  return smallerOf(raw, coder.compress(raw, level), coder);
}

/** As encodeBatch, on libuv's pool: `raw` must not change until it is done. Batches may finish out of order. */
export async function encodeBatchAsync(
  raw: Uint8Array,
  coder: EntropyCoder,
  level: number,
): Promise<CodedBatch> {
  return smallerOf(raw, await coder.compressAsync(raw, level), coder);
}
