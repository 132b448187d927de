// The bytes that must cross when a VM is moved, whatever the method: the RAM that it ends up with, once, as small as
// a general coder makes it. Zero pages cost nothing, a page that is there twice counts once, what cannot be made
// smaller counts whole, everything else is coded at zstd's best in batches. A real migration sends pages that
// change meanwhile again, and pays for the link's own headers: neither is in it.

import { createHash } from "node:crypto";
import { readFileSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import type { EntropyCoder } from "../src/codec/entropy/entropy-coder.ts";
import { hasNativeZstd, ZstdNative } from "../src/codec/entropy/zstd-native.ts";
import { ZstdWasm } from "../src/codec/entropy/zstd-wasm.ts";
import { KernelMemory } from "../src/kernel/memory.ts";
import type { QemuVm } from "../test/support/qemu-vm.ts";

const PAGE_BYTES = 4096;
const BATCH_BYTES = 256 * 1024;
const LEVEL_BEST = 19;
/** A page that a fast pass makes smaller than this share is worth the best one. */
const LEVEL_FAST = 1;
const COMPRESSIBLE_RATIO_MAX = 0.95;
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
    else bytes += coder.add(page);
  }
  return bytes + coder.finish();
}

/** Gathers compressible pages into batches. */
class Coder {
  readonly #memory = new KernelMemory();
  readonly #coder: EntropyCoder;
  readonly #raw = this.#memory.allocate(BATCH_BYTES);
  readonly #coded = this.#memory.allocate(BATCH_BYTES);
  readonly #batch = new Uint8Array(BATCH_BYTES);
  #batchBytes = 0;

  constructor() {
    this.#coder = hasNativeZstd() ? new ZstdNative(this.#memory) : new ZstdWasm(this.#memory, BATCH_BYTES);
  }

  codedBytes(raw: Uint8Array, level: number): number {
    this.#memory.bytes(this.#raw, raw.length).set(raw);
    const coded = this.#coder.compress(this.#raw, raw.length, this.#coded, raw.length - 1, level);
    return coded === -1 ? raw.length : coded;
  }

  /** @returns bytes of a batch that has become full, else 0 */
  add(page: Uint8Array): number {
    this.#batch.set(page, this.#batchBytes);
    this.#batchBytes += page.length;
    return this.#batchBytes === BATCH_BYTES ? this.finish() : 0;
  }

  finish(): number {
    if (this.#batchBytes === 0) return 0;
    const bytes = this.codedBytes(this.#batch.subarray(0, this.#batchBytes), LEVEL_BEST);
    this.#batchBytes = 0;
    return bytes;
  }
}
