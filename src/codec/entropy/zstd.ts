// zstd, whichever of its two implementations this Node has.

import type { KernelMemory } from "../../kernel/memory.ts";
import type { EntropyCoder } from "./entropy-coder.ts";
import { hasNativeZstd, ZstdNative } from "./zstd-native.ts";
import { ZstdWasm } from "./zstd-wasm.ts";

/** For batches of at most `rawBytesMax`. */
export function makeZstd(memory: KernelMemory, rawBytesMax: number): EntropyCoder {
  return hasNativeZstd() ? new ZstdNative(memory) : new ZstdWasm(memory, rawBytesMax);
}
