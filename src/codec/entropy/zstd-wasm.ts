// zstd where Node has none of its own (before 22.15): the WebAssembly build of @foxglove/wasm-zstd. Its memory is
// its own, so a batch is copied in and out. The package's own functions allocate per call and load in the
// background; hence we drive the module underneath, instantiated at once, and check first that it is as expected.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { assert } from "../../base/assert.ts";
import { DeltaveeError } from "../../base/errors.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { damagedBatch, type EntropyCoder } from "./entropy-coder.ts";

const PACKAGE = "@foxglove/wasm-zstd";

/** Sizes in bytes, addresses in the module's own memory. */
interface ZstdModule {
  /** Another one after the memory has grown. */
  readonly HEAPU8: Uint8Array;
  _malloc(bytes: number): number;
  _compressBound(rawBytes: number): number;
  /** All of these give -1 for every failure. */
  _compress(target: number, limitBytes: number, source: number, sourceBytes: number, level: number): number;
  _decompress(target: number, limitBytes: number, source: number, sourceBytes: number): number;
}

interface EmscriptenOptions {
  instantiateWasm(
    imports: Record<string, Record<string, unknown>>,
    received: (instance: WebAssembly.Instance) => void,
  ): Record<string, unknown>;
}

/** With `instantiateWasm`, emscripten's loader is done when it returns; its promise tells nothing more. */
function loadModule(): ZstdModule {
  const require = createRequire(import.meta.url);
  const load = require("@foxglove/wasm-zstd/dist/wasm-zstd.js") as (
    options: EmscriptenOptions,
  ) => Promise<unknown>;
  const compiled = new WebAssembly.Module(
    readFileSync(require.resolve("@foxglove/wasm-zstd/dist/wasm-zstd.wasm")),
  );
  const options: EmscriptenOptions & Partial<ZstdModule> = {
    instantiateWasm(imports, received) {
      const instance = new WebAssembly.Instance(compiled, imports);
      received(instance);
      return instance.exports;
    },
  };
  void load(options);
  for (const name of ["_malloc", "_compressBound", "_compress", "_decompress"] as const) {
    if (typeof options[name] === "function") continue;
    throw new DeltaveeError("INTERNAL", `Loading zstd failed: ${PACKAGE} has no function ${name}`);
  }
  if (!(options.HEAPU8 instanceof Uint8Array))
    throw new DeltaveeError("INTERNAL", `Loading zstd failed: ${PACKAGE} shows no memory`);
  return options as EmscriptenOptions & ZstdModule;
}

export class ZstdWasm implements EntropyCoder {
  readonly #memory: KernelMemory;
  readonly #module: ZstdModule;
  /** A raw batch, and room for the worst that coding makes of it: coding never fails for want of room. */
  readonly #raw: number;
  readonly #coded: number;
  readonly #rawBytesMax: number;
  readonly #codedBytesMax: number;

  /** @throws DeltaveeError INTERNAL when the installed package is not the one that this was written for */
  constructor(memory: KernelMemory, rawBytesMax: number) {
    this.#memory = memory;
    this.#module = loadModule();
    this.#rawBytesMax = rawBytesMax;
    this.#codedBytesMax = this.#module._compressBound(rawBytesMax);
    this.#raw = this.#module._malloc(rawBytesMax);
    this.#coded = this.#module._malloc(this.#codedBytesMax);
    if (this.#raw === 0 || this.#coded === 0)
      throw new DeltaveeError("OUT_OF_MEMORY", `No memory for zstd with batches of ${rawBytesMax} bytes`);
    this.#checkModule();
  }

  compress(
    rawAddress: number,
    rawBytes: number,
    codedAddress: number,
    codedLimitBytes: number,
    level: number,
  ): number {
    assert(rawBytes > 0 && rawBytes <= this.#rawBytesMax, "batch not empty and within its limit");
    const module = this.#module;
    module.HEAPU8.set(this.#memory.bytes(rawAddress, rawBytes), this.#raw);
    const codedBytes = module._compress(this.#coded, this.#codedBytesMax, this.#raw, rawBytes, level);
    assert(codedBytes > 0, "zstd has the memory and the room that it needs");
    if (codedBytes > codedLimitBytes) return -1;
    const coded = module.HEAPU8.subarray(this.#coded, this.#coded + codedBytes);
    this.#memory.bytes(codedAddress, codedBytes).set(coded);
    return codedBytes;
  }

  decompress(codedAddress: number, codedBytes: number, rawAddress: number, rawBytes: number): void {
    assert(rawBytes > 0 && rawBytes <= this.#rawBytesMax, "batch not empty and within its limit");
    if (codedBytes <= 0 || codedBytes > this.#codedBytesMax)
      throw damagedBatch("zstd", codedBytes, rawBytes, "no batch has that many");
    const module = this.#module;
    module.HEAPU8.set(this.#memory.bytes(codedAddress, codedBytes), this.#coded);
    const decoded = module._decompress(this.#raw, rawBytes, this.#coded, codedBytes);
    if (decoded === -1) throw damagedBatch("zstd", codedBytes, rawBytes, "damaged, cut short or too long");
    if (decoded !== rawBytes) throw damagedBatch("zstd", codedBytes, rawBytes, `it gave ${decoded}`);
    this.#memory.bytes(rawAddress, rawBytes).set(module.HEAPU8.subarray(this.#raw, this.#raw + rawBytes));
  }

  /** The functions are those of another package's inside: do they do what their names say? */
  #checkModule(): void {
    const module = this.#module;
    const rawBytes = 64;
    const raw = () => module.HEAPU8.subarray(this.#raw, this.#raw + rawBytes);
    raw().fill(7);
    const codedBytes = module._compress(this.#coded, this.#codedBytesMax, this.#raw, rawBytes, 1);
    raw().fill(0);
    const tooLong = module._decompress(this.#raw, rawBytes - 1, this.#coded, codedBytes);
    const decoded = module._decompress(this.#raw, rawBytes, this.#coded, codedBytes);
    if (tooLong === -1 && decoded === rawBytes && raw().every((byte) => byte === 7)) return;
    throw new DeltaveeError("INTERNAL", `Loading zstd failed: ${PACKAGE} does not give back what it coded`);
  }
}
