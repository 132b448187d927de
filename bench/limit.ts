// The bytes that must cross when a VM is moved, whatever the method: the RAM that it ends up with, once, as small as
// a general coder makes it. Zero pages cost nothing, a page that is there twice counts once, what cannot be made
// smaller counts whole, everything else is coded at zstd's best in batches (of many, evenly spread ones stand for
// all), and all of it in full packets with their headers, as the link counts. A real migration sends pages that change
// meanwhile again: that is not in it.

import { createHash } from "node:crypto";
import { readFileSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import type { EntropyCoder } from "../src/codec/entropy/entropy-coder.ts";
import { hasNativeZstd, ZstdNative } from "../src/codec/entropy/zstd-native.ts";
import { ZstdWasm } from "../src/codec/entropy/zstd-wasm.ts";
import { KernelMemory } from "../src/kernel/memory.ts";
import { PAYLOAD_SHARE } from "../src/planner/link-model.ts";
import type { QemuVm } from "../test/support/qemu-vm.ts";

const PAGE_BYTES = 4096;
const BATCH_BYTES = 256 * 1024;
const LEVEL_BEST = 19;
/** A page that a fast pass makes smaller than this share is worth the best one. */
const LEVEL_FAST = 1;
const COMPRESSIBLE_RATIO_MAX = 0.95;
/** zstd's best takes a second for a few of them. */
const BATCHES_CODED_MAX = 96;
/** Which page it is, and what kind: a record of the migration stream takes 8 bytes, a reference to a page 4 more. */
const RECORD_BYTES = 8;
const REFERENCE_BYTES = 12;

/** Stops the guest for good. */
export async function limitBytesOf(vm: QemuVm): Promise<number> {
  await vm.qmp.execute("stop");
  const filename = join(vm.folder, "ram");
  await vm.qmp.execute("pmemsave", { val: 0, size: vm.memoryBytes, filename });
  const ram = readFileSync(filename);
  unlinkSync(filename);
  return limitBytes(ram);
}

function limitBytes(ram: Uint8Array): number {
  const coder = new Coder();
  const seen = new Set<string>();
  const compressible: Uint8Array[] = [];
  let bytes = 0;
  for (let at = 0; at < ram.length; at += PAGE_BYTES) {
    const page = ram.subarray(at, at + PAGE_BYTES);
    if (page.every((byte) => byte === 0)) continue;
    const digest = createHash("sha1").update(page).digest("base64");
    if (seen.has(digest)) {
      bytes += REFERENCE_BYTES;
      continue;
    }
    seen.add(digest);
    bytes += RECORD_BYTES;
    if (coder.codedBytes(page, LEVEL_FAST) > COMPRESSIBLE_RATIO_MAX * PAGE_BYTES) bytes += PAGE_BYTES;
    else compressible.push(page);
  }
  const payloadBytes = bytes + codedBytes(coder, compressible);
  return Math.round(payloadBytes / PAYLOAD_SHARE);
}

function codedBytes(coder: Coder, pages: readonly Uint8Array[]): number {
  const pagesPerBatch = BATCH_BYTES / PAGE_BYTES;
  const batches = Math.ceil(pages.length / pagesPerBatch);
  const coded = Math.min(batches, BATCHES_CODED_MAX);
  let [rawTotal, codedTotal] = [0, 0];
  for (let i = 0; i < coded; i++) {
    const first = Math.floor((i * batches) / coded) * pagesPerBatch;
    const batch = Buffer.concat(pages.slice(first, first + pagesPerBatch));
    rawTotal += batch.length;
    codedTotal += coder.codedBytes(batch, LEVEL_BEST);
  }
  return rawTotal === 0 ? 0 : (codedTotal / rawTotal) * pages.length * PAGE_BYTES;
}

class Coder {
  readonly #memory = new KernelMemory();
  readonly #raw = this.#memory.allocate(BATCH_BYTES);
  readonly #coded = this.#memory.allocate(BATCH_BYTES);
  readonly #coder: EntropyCoder = hasNativeZstd()
    ? new ZstdNative(this.#memory)
    : new ZstdWasm(this.#memory, BATCH_BYTES);

  codedBytes(raw: Uint8Array, level: number): number {
    this.#memory.bytes(this.#raw, raw.length).set(raw);
    const coded = this.#coder.compress(this.#raw, raw.length, this.#coded, raw.length - 1, level);
    return coded === -1 ? raw.length : coded;
  }
}
