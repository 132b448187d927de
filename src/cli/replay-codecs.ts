// The delta codecs of the tunnel as a replay of page traces runs them: by their sizes, before any entropy coding.

import type { DeltaCodec } from "../codec/delta/delta-codec.ts";
import {
  controlBytesMax,
  DELTA_OVERFLOW,
  type DeltaCodecId,
  dataBytesMax,
} from "../codec/delta/delta-codec.ts";
import { DELTA_CODEC_NAMES, makeDeltaCodec } from "../codec/delta/delta-codecs.ts";
import { loadKernel } from "../kernel/kernel.ts";
import { KernelMemory } from "../kernel/memory.ts";
import type { ReplayCodec } from "../trace/codec-replay.ts";

export const REPLAY_CODECS: readonly ReplayCodec[] = Object.entries(DELTA_CODEC_NAMES).map(([name, id]) =>
  replayCodec(name, id),
);

function replayCodec(name: string, id: DeltaCodecId): ReplayCodec {
  /** For the page size asked for last. */
  let made: CodecInMemory | undefined;
  return {
    name,
    deltaBytes(old, oldOffset, page, offset, pageBytes) {
      if (made?.pageBytes !== pageBytes) made = new CodecInMemory(id, pageBytes);
      return made.deltaBytes(old, oldOffset, page, offset);
    },
  };
}

/** A codec with a memory of its own, and room in it for what it takes and writes. */
class CodecInMemory {
  readonly pageBytes: number;
  readonly #codec: DeltaCodec | undefined;
  readonly #old: Uint8Array;
  readonly #page: Uint8Array;
  readonly #addresses: readonly [old: number, page: number, control: number, data: number];

  constructor(id: DeltaCodecId, pageBytes: number) {
    const memory = new KernelMemory();
    this.pageBytes = pageBytes;
    const [old, page] = [memory.allocate(pageBytes), memory.allocate(pageBytes)];
    const control = memory.allocate(controlBytesMax(pageBytes));
    this.#addresses = [old, page, control, memory.allocate(dataBytesMax(pageBytes))];
    this.#old = memory.bytes(old, pageBytes);
    this.#page = memory.bytes(page, pageBytes);
    this.#codec = makeDeltaCodec(id, memory, loadKernel(memory), pageBytes);
  }

  deltaBytes(old: Uint8Array, oldOffset: number, page: Uint8Array, offset: number): number | undefined {
    if (this.#codec === undefined) return undefined;
    this.#old.set(old.subarray(oldOffset, oldOffset + this.pageBytes));
    this.#page.set(page.subarray(offset, offset + this.pageBytes));
    const size = this.#codec.encode(...this.#addresses);
    return size === DELTA_OVERFLOW ? undefined : (size & 0xffff) + (size >>> 16);
  }
}
