// The kernels: tight loops over pages and batches, compiled from assembly/ to WebAssembly. One instance per
// thread, all of them in the same memory. Addresses are byte offsets in that memory; nothing is checked beyond
// what each function says, so callers hand over only ranges that they own.

import { readFileSync } from "node:fs";
import type { KernelMemory } from "./memory.ts";

/** simd: what runs. scalar: where an engine has no SIMD. debug: SIMD with assertions, for tests. */
export type KernelVariant = "simd" | "scalar" | "debug";

export interface Kernel {
  isZero(address: number, bytes: number): number;
  isEqual(a: number, b: number, bytes: number): number;
  copy(target: number, source: number, bytes: number): void;
}

export function loadKernel(memory: KernelMemory, variant: KernelVariant = "simd"): Kernel {
  const file = new URL(`../../dist/kernel/${variant}.wasm`, import.meta.url);
  const module = new WebAssembly.Module(readFileSync(file));
  const instance = new WebAssembly.Instance(module, { env: { memory: memory.wasm } });
  return instance.exports as unknown as Kernel;
}
