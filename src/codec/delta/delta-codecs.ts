// The delta codecs by number and by name.

import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { XBZRLE_PAGE_BYTES_MAX } from "../xbzrle.ts";
import { CountedCodec, xbrleDelta, xbzrleDelta } from "./counted-codec.ts";
import {
  DELTA_WORD_MASK,
  DELTA_XBRLE,
  DELTA_XBZRLE,
  DELTA_ZSTD_DICTIONARY,
  type DeltaCodec,
  type DeltaCodecId,
} from "./delta-codec.ts";
import { WordMaskCodec } from "./word-mask-codec.ts";
import { zstdDictionaryDelta } from "./zstd-dictionary-delta.ts";

/** As they are called on the command line and in tables. */
export const DELTA_CODEC_NAMES: Readonly<Record<string, DeltaCodecId>> = {
  "word-mask": DELTA_WORD_MASK,
  xbzrle: DELTA_XBZRLE,
  xbrle: DELTA_XBRLE,
  "zstd-dictionary": DELTA_ZSTD_DICTIONARY,
};

export function deltaCodecName(id: DeltaCodecId | undefined): string {
  return Object.keys(DELTA_CODEC_NAMES).find((name) => DELTA_CODEC_NAMES[name] === id) ?? "none";
}

/** Everything that is coded must lie in what has been allocated of `memory` before. Undefined: there is none. */
export function makeDeltaCodec(
  id: number,
  memory: KernelMemory,
  kernel: Kernel,
  pageBytes: number,
): DeltaCodec | undefined {
  // All of them end as XBZRLE records or are of no larger pages; x86 has 4 KiB.
  if (pageBytes > XBZRLE_PAGE_BYTES_MAX) return undefined;
  switch (id) {
    case DELTA_WORD_MASK:
      return new WordMaskCodec(memory, kernel, pageBytes);
    case DELTA_XBZRLE:
      return new CountedCodec(memory, pageBytes, xbzrleDelta(kernel, pageBytes));
    case DELTA_XBRLE:
      return new CountedCodec(memory, pageBytes, xbrleDelta(kernel, pageBytes));
    case DELTA_ZSTD_DICTIONARY:
      return new CountedCodec(memory, pageBytes, zstdDictionaryDelta(memory, kernel, pageBytes));
    default:
      return undefined;
  }
}
