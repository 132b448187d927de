// A general binary delta: the new page coded by zstd with the old page as its dictionary. Finds what has moved
// within the page, which no other codec here does, at a hundred times their cost: for the slowest links.

import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { ZstdDictionary } from "../entropy/zstd-dictionary.ts";
import type { CountedDelta } from "./counted-codec.ts";
import { DELTA_OVERFLOW, DELTA_UNCHANGED, DELTA_ZSTD_DICTIONARY } from "./delta-codec.ts";

/** Higher ones leave hardly less of a page (`npm run bench -- codec`). */
const LEVEL = 3;

export function zstdDictionaryDelta(memory: KernelMemory, kernel: Kernel, pageBytes: number): CountedDelta {
  const zstd = new ZstdDictionary(memory, pageBytes);
  return {
    id: DELTA_ZSTD_DICTIONARY,
    needsBaseline: true,
    encode(oldAddress, newAddress, outAddress) {
      if (kernel.isEqual(oldAddress, newAddress, pageBytes)) return DELTA_UNCHANGED;
      const bytes = zstd.compress(
        oldAddress,
        pageBytes,
        newAddress,
        pageBytes,
        outAddress,
        pageBytes - 1,
        LEVEL,
      );
      return bytes < 0 ? DELTA_OVERFLOW : bytes;
    },
    decode(deltaAddress, deltaBytes, out) {
      zstd.decompress(out, pageBytes, deltaAddress, deltaBytes, out, pageBytes);
      return pageBytes;
    },
  };
}
