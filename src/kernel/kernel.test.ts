// Kernels on whole ranges, the hash and the entropy estimate; and what holds for the module as such.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { expectSameBytes, KERNEL_VARIANTS, KernelArena } from "../../test/support/kernel-arena.ts";
import { changed, noise } from "../../test/support/page-pairs.ts";
import { hash32 } from "../codec/hash32.ts";
import { ENTROPY_SCRATCH_BYTES, loadKernel } from "./kernel.ts";
import { KernelMemory } from "./memory.ts";

const LENGTHS = [0, 1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 200, 512, 4096, 4099, 65536];

describe.each(KERNEL_VARIANTS)("the %s kernel", (variant) => {
  const arena = new KernelArena(variant);
  const { kernel } = arena;

  test("a range is zero when all of its bytes are, whatever lies around it", () => {
    for (const lengthBytes of LENGTHS) {
      arena.reset();
      const address = arena.place(new Uint8Array(lengthBytes));
      expect(kernel.isZero(address, lengthBytes)).toBe(1);
      const step = Math.max(1, Math.floor(lengthBytes / 300));
      for (let i = lengthBytes - 1; i >= 0; i -= step) {
        arena.bytes(address, lengthBytes)[i] = 1 << (i % 8);
        expect(kernel.isZero(address, lengthBytes)).toBe(0);
        arena.bytes(address, lengthBytes)[i] = 0;
      }
      arena.expectGuards();
    }
  });

  test("ranges are equal when all of their bytes are, whatever lies around them", () => {
    for (const lengthBytes of LENGTHS) {
      arena.reset();
      const a = arena.place(noise(lengthBytes));
      const b = arena.place(Uint8Array.of(...noise(lengthBytes), 1));
      expect(kernel.isEqual(a, b, lengthBytes)).toBe(1);
      const step = Math.max(1, Math.floor(lengthBytes / 300));
      for (let i = lengthBytes - 1; i >= 0; i -= step) {
        arena.bytes(b, lengthBytes)[i]! ^= 1 << (i % 8);
        expect(kernel.isEqual(a, b, lengthBytes)).toBe(0);
        arena.bytes(b, lengthBytes)[i]! ^= 1 << (i % 8);
      }
      arena.expectGuards();
    }
  });

  test("copying and filling change exactly the target", () => {
    for (const lengthBytes of LENGTHS) {
      arena.reset();
      const source = arena.place(noise(lengthBytes));
      const target = arena.placeEmpty(lengthBytes);
      kernel.copy(target, source, lengthBytes);
      expectSameBytes(arena.bytes(target, lengthBytes), noise(lengthBytes));
      kernel.fill(target, 0xab, lengthBytes);
      expectSameBytes(arena.bytes(target, lengthBytes), new Uint8Array(lengthBytes).fill(0xab));
      arena.expectGuards();
    }
  });

  function hash(content: Uint8Array): number {
    arena.reset();
    return kernel.hash32(arena.placeAtEnd(content), content.length);
  }

  test("the hash is the same in every build, and that of the readable reference", () => {
    const other = new KernelArena("simd");
    fc.assert(
      fc.property(fc.constantFrom(...LENGTHS), fc.nat(), (lengthBytes, seed) => {
        const content = noise(lengthBytes, seed);
        expect(hash(content)).toBe(other.kernel.hash32(other.place(content), lengthBytes));
        expect(hash(content) >>> 0).toBe(hash32(content));
        other.reset();
      }),
      { numRuns: 100 },
    );
  });

  test("a single changed bit changes half of the hash's bits, wherever it is", () => {
    for (const page of [noise(4096), new Uint8Array(4096)]) {
      const before = hash(page);
      let total = 0;
      let worst = 32;
      for (let i = 0; i < 4096; i++) {
        const after = page.slice();
        after[i] = after[i]! ^ (1 << (i % 8));
        const flipped = bitsOf(hash(after) ^ before);
        total += flipped;
        worst = Math.min(worst, flipped);
      }
      expect(total / 4096).toBeGreaterThan(15.5);
      expect(total / 4096).toBeLessThan(16.5);
      expect(worst).toBeGreaterThan(0);
    }
  });

  test("pages that differ in little have hashes that differ, as often as chance allows", () => {
    const hashes = new Set<number>();
    const page = new Uint8Array(4096);
    let pages = 0;
    // Counters, words that changed places, pages of one repeated byte, lengths.
    for (let i = 0; i < 4000; i++, pages++) {
      page.fill(0);
      new DataView(page.buffer).setUint32((i % 8) * 4, i + 1, true);
      hashes.add(hash(page));
    }
    for (let i = 0; i < 1024; i++, pages++) {
      page.fill(0);
      page[i * 4] = 0xff;
      hashes.add(hash(page));
    }
    for (let i = 0; i < 256; i++, pages++) hashes.add(hash(page.fill(i)));
    for (let i = 1; i < 4096; i++, pages++) hashes.add(hash(new Uint8Array(i)));
    // Of n hashes of 32 bits n^2 / 2^33 pairs collide by chance: here one in a hundred such tests.
    expect(pages - hashes.size).toBeLessThanOrEqual(1);
  });

  test("changes of two words do not cancel each other, even in their top bits and in one column", () => {
    const page = noise(4096);
    for (let distanceBytes = 4; distanceBytes < 4000; distanceBytes += 4) {
      const after = page.slice();
      after[3] = after[3]! ^ 0x80;
      after[3 + distanceBytes] = after[3 + distanceBytes]! ^ 0x80;
      expect(hash(after)).not.toBe(hash(page));
    }
  });

  function entropy(content: Uint8Array): number {
    arena.reset();
    const scratch = arena.place(noise(ENTROPY_SCRATCH_BYTES));
    const result = kernel.sampledEntropy(arena.placeAtEnd(content), content.length, scratch);
    arena.expectGuards();
    return result;
  }

  test("the entropy tells random bytes from text and from zeros", () => {
    const text = Buffer.from(
      "When the guest dirties memory faster than the link carries it, it waits. ".repeat(1000),
    );
    for (const lengthBytes of [512, 4096, 65536]) {
      expect(entropy(new Uint8Array(lengthBytes))).toBe(0);
      expect(entropy(text.subarray(0, lengthBytes))).toBeGreaterThan(80);
      expect(entropy(text.subarray(0, lengthBytes))).toBeLessThan(170);
      for (let seed = 1; seed < 50; seed++) {
        const random = entropy(noise(lengthBytes, seed * 7919));
        expect(random).toBeGreaterThan(lengthBytes === 512 ? 215 : 240);
        expect(random).toBeLessThanOrEqual(255);
      }
    }
  });

  test("the entropy is that of the distribution, whichever values the bytes have", () => {
    const content = noise(4096).map((byte) => byte & 0x1f);
    for (const value of [0x20, 0x80, 0xe0]) {
      expect(entropy(content.map((byte) => byte ^ value))).toBe(entropy(content));
    }
    expect(entropy(new Uint8Array(4096).fill(0xff))).toBe(0);
  });

  test("the entropy is the same in every build, for any length", () => {
    const other = new KernelArena("simd");
    for (let lengthBytes = 8; lengthBytes < 3000; lengthBytes += 13) {
      const content = noise(lengthBytes, lengthBytes).map((byte) => byte & 0x3f);
      other.reset();
      const scratch = other.placeEmpty(ENTROPY_SCRATCH_BYTES);
      expect(entropy(content)).toBe(other.kernel.sampledEntropy(other.place(content), lengthBytes, scratch));
    }
  });

  test("addresses in the upper half of the memory are no different", () => {
    const memory = new KernelMemory();
    const high = loadKernel(memory, variant);
    memory.allocate(2 ** 31);
    const page = noise(4096);
    const [oldAt, newAt, out] = [memory.allocate(4096), memory.allocate(4096), memory.allocate(8192)];
    memory.bytes(oldAt, 4096).set(page);
    memory.bytes(newAt, 4096).set(changed(page, 100, 50));
    expect(high.isEqual(oldAt, newAt, 4096)).toBe(0);
    expect(high.isEqual(oldAt, newAt, 100)).toBe(1);
    const deltaBytes = high.xbzrleEncode(oldAt, newAt, 4096, out, 4096);
    expect(deltaBytes).toBe(52);
    expect(high.xbzrleDecode(out, deltaBytes, oldAt, 4096)).toBe(150);
    expect(high.isEqual(oldAt, newAt, 4096)).toBe(1);
    expect(high.hash32(oldAt, 4096)).toBe(hash(changed(page, 100, 50)));
  });
});

function bitsOf(word: number): number {
  let count = 0;
  for (let rest = word; rest !== 0; rest &= rest - 1) count++;
  return count;
}

test("the debug build says which assumption of a kernel is not kept", () => {
  const kernel = loadKernel(new KernelMemory(), "debug");
  expect(() => kernel.xbzrleEncode(0, 0, 4096, 0, 4097)).toThrow(
    /Assertion failed: delta limit no larger than the page \(kernel assembly\/xbzrle.ts:\d+\)/,
  );
});

test("without being asked for one, the build that runs everywhere it can is loaded: SIMD here", () => {
  expect(() => loadKernel(new KernelMemory()).isZero(65536, 64)).not.toThrow();
});
