// zstd with a dictionary that both sides have: what is coded may refer to the dictionary as if it stood before it.
// With the old content of a page as dictionary that is a general binary delta. The WebAssembly build of
// @bokuweb/zstd-wasm, the one that offers it; like zstd-wasm.ts it copies, and is checked when it is loaded.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { assert } from "../../base/assert.ts";
import { DeltaveeError } from "../../base/errors.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { damagedBatch } from "./entropy-coder.ts";

/** Sizes in bytes, addresses in the module's own memory. */
interface ZstdModule {
  /** Another one after the memory has grown. */
  readonly HEAPU8: Uint8Array;
  _malloc(bytes: number): number;
  _ZSTD_compressBound(rawBytes: number): number;
  _ZSTD_isError(result: number): number;
  _ZSTD_createCCtx(): number;
  _ZSTD_createDCtx(): number;
  _ZSTD_compress_usingDict(
    ...[context, target, limitBytes, source, sourceBytes, dictionary, dictionaryBytes, level]: number[]
  ): number;
  _ZSTD_decompress_usingDict(
    ...[context, target, limitBytes, source, sourceBytes, dictionary, dictionaryBytes]: number[]
  ): number;
}

const FUNCTIONS = [
  "_malloc",
  "_ZSTD_compressBound",
  "_ZSTD_isError",
  "_ZSTD_createCCtx",
  "_ZSTD_createDCtx",
  "_ZSTD_compress_usingDict",
  "_ZSTD_decompress_usingDict",
] as const;

/** What emscripten's loader of this package reads and fills: one object per thread. */
interface EmscriptenModule extends Partial<ZstdModule> {
  instantiateWasm?: (
    imports: Record<string, Record<string, unknown>>,
    received: (instance: WebAssembly.Instance) => void,
  ) => Record<string, unknown>;
  init?: (wasmFile: string) => void;
}

let loaded: ZstdModule | undefined;

function loadModule(): ZstdModule {
  if (loaded !== undefined) return loaded;
  const require = createRequire(import.meta.url);
  // The package exports only its index; what we need lies beside it.
  const folder = dirname(require.resolve("@bokuweb/zstd-wasm"));
  const { Module: module } = require(join(folder, "zstd.js")) as { Module: EmscriptenModule };
  const wasmFile = join(folder, "zstd.wasm");
  module.instantiateWasm = (imports, received) => {
    const instance = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(wasmFile)), imports);
    received(instance);
    return instance.exports;
  };
  // With `instantiateWasm` the module is complete when this returns.
  module.init?.(wasmFile);
  for (const name of FUNCTIONS) {
    if (typeof module[name] === "function") continue;
    throw new DeltaveeError("INTERNAL", `Loading zstd failed: @bokuweb/zstd-wasm has no function ${name}`);
  }
  if (!(module.HEAPU8 instanceof Uint8Array))
    throw new DeltaveeError("INTERNAL", "Loading zstd failed: @bokuweb/zstd-wasm shows no memory");
  loaded = module as ZstdModule;
  return loaded;
}

export class ZstdDictionary {
  readonly #memory: KernelMemory;
  readonly #module: ZstdModule;
  readonly #compressor: number;
  readonly #decompressor: number;
  readonly #raw: number;
  readonly #coded: number;
  readonly #dictionary: number;
  readonly #rawBytesMax: number;
  readonly #codedBytesMax: number;

  /**
   * Of one thread. Neither what is coded nor a dictionary is longer than `rawBytesMax`.
   * @throws DeltaveeError INTERNAL when the installed package is not the one that this was written for
   */
  constructor(memory: KernelMemory, rawBytesMax: number) {
    this.#memory = memory;
    this.#module = loadModule();
    this.#rawBytesMax = rawBytesMax;
    this.#codedBytesMax = this.#module._ZSTD_compressBound(rawBytesMax);
    this.#compressor = this.#module._ZSTD_createCCtx();
    this.#decompressor = this.#module._ZSTD_createDCtx();
    this.#raw = this.#module._malloc(rawBytesMax);
    this.#coded = this.#module._malloc(this.#codedBytesMax);
    this.#dictionary = this.#module._malloc(rawBytesMax);
    const places = [this.#compressor, this.#decompressor, this.#raw, this.#coded, this.#dictionary];
    if (places.includes(0)) throw new DeltaveeError("OUT_OF_MEMORY", "No memory for zstd with dictionaries");
  }

  /**
   * As EntropyCoder's. -1 also for the rare dictionary that zstd takes for one in its own format, and finds damaged:
   * content that begins with that format's magic number.
   */
  compress(
    dictionaryAddress: number,
    dictionaryBytes: number,
    rawAddress: number,
    rawBytes: number,
    codedAddress: number,
    codedLimitBytes: number,
    level: number,
  ): number {
    this.#copyIn(this.#dictionary, dictionaryAddress, dictionaryBytes);
    this.#copyIn(this.#raw, rawAddress, rawBytes);
    const codedBytes = this.#module._ZSTD_compress_usingDict(
      this.#compressor,
      this.#coded,
      this.#codedBytesMax,
      this.#raw,
      rawBytes,
      this.#dictionary,
      dictionaryBytes,
      level,
    );
    if (this.#module._ZSTD_isError(codedBytes) !== 0 || codedBytes > codedLimitBytes) return -1;
    const coded = this.#module.HEAPU8.subarray(this.#coded, this.#coded + codedBytes);
    this.#memory.bytes(codedAddress, codedBytes).set(coded);
    return codedBytes;
  }

  /**
   * As EntropyCoder's, with the dictionary that was coded with.
   * @throws ProtocolError PROTOCOL_INVALID_FRAME when the coded bytes are damaged or of another length decoded;
   *   another dictionary of the same length need not be noticed
   */
  decompress(
    dictionaryAddress: number,
    dictionaryBytes: number,
    codedAddress: number,
    codedBytes: number,
    rawAddress: number,
    rawBytes: number,
  ): void {
    if (codedBytes <= 0 || codedBytes > this.#codedBytesMax)
      throw damagedBatch("zstd", codedBytes, rawBytes, "nothing is coded with that many");
    assert(rawBytes > 0 && rawBytes <= this.#rawBytesMax, "not empty and within the limit");
    this.#copyIn(this.#dictionary, dictionaryAddress, dictionaryBytes);
    this.#module.HEAPU8.set(this.#memory.bytes(codedAddress, codedBytes), this.#coded);
    const decoded = this.#module._ZSTD_decompress_usingDict(
      this.#decompressor,
      this.#raw,
      rawBytes,
      this.#coded,
      codedBytes,
      this.#dictionary,
      dictionaryBytes,
    );
    if (decoded !== rawBytes)
      throw damagedBatch("zstd", codedBytes, rawBytes, "damaged, or of another length");
    const raw = this.#module.HEAPU8.subarray(this.#raw, this.#raw + rawBytes);
    this.#memory.bytes(rawAddress, rawBytes).set(raw);
  }

  #copyIn(target: number, address: number, bytes: number): void {
    assert(bytes > 0 && bytes <= this.#rawBytesMax, "not empty and within the limit");
    this.#module.HEAPU8.set(this.#memory.bytes(address, bytes), target);
  }
}
