// What every BatchCoder must do, inline or with workers: one suite for all of them.

import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { DeltaveeError, ProtocolError } from "../../src/base/errors.ts";
import {
  type BatchCoder,
  type DecodedBatch,
  type EncodedBatch,
  SLOT_RAW_BYTES,
} from "../../src/codec/entropy/batch-coder.ts";
import {
  ENTROPY_CODECS,
  ENTROPY_NONE,
  ENTROPY_ZSTD,
  type EntropyCodecId,
} from "../../src/codec/entropy/entropy-coder.ts";
import { hash32 } from "../../src/codec/hash32.ts";
import { KernelMemory } from "../../src/kernel/memory.ts";
import { fillPayload, type PayloadKind } from "./batch-payloads.ts";

const SLOTS = 4;
const KINDS: PayloadKind[] = ["text", "words", "random", "mixed"];

interface Job {
  rawBytes: number;
  kind: PayloadKind;
  seed: number;
  codecId: EntropyCodecId;
  level: number;
}

function isError<Result>(result: Result | DeltaveeError): result is DeltaveeError {
  return result instanceof DeltaveeError;
}

export function encodeWith(
  coder: BatchCoder,
  slot: number,
  rawBytes: number,
  codecId: EntropyCodecId,
  level: number,
) {
  return new Promise<EncodedBatch>((resolve, reject) => {
    coder.encode(slot, rawBytes, codecId, level, (result) =>
      isError(result) ? reject(result) : resolve(result),
    );
  });
}

function decodeWith(
  coder: BatchCoder,
  slot: number,
  codedBytes: number,
  codecId: number,
  rawBytes: number,
  checksum: number,
) {
  return new Promise<DecodedBatch>((resolve, reject) => {
    coder.decode(slot, codedBytes, codecId, rawBytes, checksum, (result) =>
      isError(result) ? reject(result) : resolve(result),
    );
  });
}

/** `makeCoder` makes one with SLOTS slots that is ready: what it starts in the background has started. */
export function batchCoderSuite(
  makeCoder: (memory: KernelMemory, slotCount: number) => BatchCoder | Promise<BatchCoder>,
): void {
  const coders: BatchCoder[] = [];
  afterEach(async () => {
    for (const coder of coders.splice(0)) await coder.close();
  });

  async function setUp() {
    const memory = new KernelMemory();
    const coder = await makeCoder(memory, SLOTS);
    coders.push(coder);
    const raw = (slot: number, bytes: number) => memory.bytes(coder.slots[slot]!.rawAddress, bytes);
    const coded = (slot: number, bytes: number) => memory.bytes(coder.slots[slot]!.codedAddress, bytes);
    return { memory, coder, raw, coded };
  }

  const arbitraryJob: fc.Arbitrary<Job> = fc
    .record({
      rawBytes: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: SLOT_RAW_BYTES })),
      kind: fc.constantFrom(...KINDS),
      seed: fc.integer({ min: 1, max: 2 ** 31 }),
      codec: fc.constantFrom(...ENTROPY_CODECS),
      levelAt: fc.nat({ max: 9 }),
    })
    .map(({ codec, levelAt, ...job }) => {
      const level = Math.min(codec.levelMax, codec.levelMin + levelAt);
      return { ...job, codecId: codec.id, level: level === 0 && codec.levelMax > 0 ? 1 : level };
    });

  test("what was encoded decodes to the same bytes, with its checksum, whatever codec, level and content", async () => {
    const { memory, coder, raw, coded } = await setUp();
    await fc.assert(
      fc.asyncProperty(arbitraryJob, async ({ rawBytes, kind, seed, codecId, level }) => {
        const [from, to] = [coder.acquire(), coder.acquire()];
        fillPayload(raw(from, rawBytes), kind, seed);
        const encoded = await encodeWith(coder, from, rawBytes, codecId, level);
        expect(encoded.rawChecksum).toBe(hash32(raw(from, rawBytes)));
        if (encoded.codecId === ENTROPY_NONE) expect(encoded.codedBytes).toBe(rawBytes);
        else expect(encoded.codedBytes).toBeLessThan(rawBytes);
        // Batches that are sent as they are may be larger than a coded region.
        if (encoded.codecId !== ENTROPY_NONE || rawBytes <= 1 << 20) {
          coded(to, encoded.codedBytes).set(memory.bytes(encoded.codedAddress, encoded.codedBytes));
          raw(to, rawBytes).fill(0x5a);
          const { codedBytes, rawChecksum } = encoded;
          const decoded = await decodeWith(coder, to, codedBytes, encoded.codecId, rawBytes, rawChecksum);
          const same = Buffer.compare(memory.bytes(decoded.rawAddress, rawBytes), raw(from, rawBytes));
          expect(same).toBe(0);
        }
        coder.release(from);
        coder.release(to);
      }),
      { numRuns: 60 },
    );
  });

  test("a batch that cannot be made smaller is left where it is", async () => {
    const { coder, raw } = await setUp();
    for (const { id, levelMax } of ENTROPY_CODECS) {
      for (const rawBytes of [1, 2, 100, 200_000]) {
        const slot = coder.acquire();
        fillPayload(raw(slot, rawBytes), "random", 77);
        const encoded = await encodeWith(coder, slot, rawBytes, id, Math.min(levelMax, 3));
        expect(encoded.codecId).toBe(ENTROPY_NONE);
        expect(encoded.codedAddress).toBe(coder.slots[slot]!.rawAddress);
        coder.release(slot);
      }
    }
  });

  test("results come in the order of the jobs, whatever their sizes and levels", async () => {
    const { coder, raw } = await setUp();
    await fc.assert(
      fc.asyncProperty(fc.array(arbitraryJob, { minLength: 2, maxLength: 12 }), async (jobs) => {
        const order: number[] = [];
        let submitted = 0;
        await new Promise<void>((finished, failed) => {
          function submitAll(): void {
            while (submitted < jobs.length) {
              const slot = coder.acquire();
              if (slot === -1) return;
              const number = submitted++;
              const { rawBytes, kind, seed, codecId, level } = jobs[number]!;
              fillPayload(raw(slot, rawBytes), kind, seed);
              coder.encode(slot, rawBytes, codecId, level, (result) => {
                if (isError(result)) return failed(result);
                order.push(number);
                coder.release(slot);
                if (order.length === jobs.length) finished();
                else submitAll();
              });
            }
          }
          submitAll();
        });
        expect(order).toEqual(jobs.map((_, index) => index));
      }),
      { numRuns: 15 },
    );
  });

  test("there are as many slots as were asked for, and a released one is free again", async () => {
    const { coder } = await setUp();
    const slots = Array.from({ length: SLOTS }, () => coder.acquire());
    expect(new Set(slots).size).toBe(SLOTS);
    expect(coder.acquire()).toBe(-1);
    coder.release(slots[2]!);
    expect(coder.acquire()).toBe(slots[2]);
    expect(() => coder.release(99)).toThrow("Assertion failed");
  });

  test("a slot in a job can neither be released nor given another job", async () => {
    const { coder, raw } = await setUp();
    const slot = coder.acquire();
    fillPayload(raw(slot, 1_000_000), "text", 3);
    let told = false;
    const encoded = encodeWith(coder, slot, 1_000_000, ENTROPY_ZSTD, 3).then(() => {
      told = true;
    });
    await Promise.resolve();
    if (!told) {
      expect(() => coder.release(slot)).toThrow("in no job");
      expect(() => coder.encode(slot, 10, ENTROPY_ZSTD, 1, () => {})).toThrow("acquired slot");
    }
    await encoded;
    coder.release(slot);
    expect(() => coder.encode(slot, 10, ENTROPY_ZSTD, 1, () => {})).toThrow("acquired slot");
  });

  describe("damaged batches", () => {
    async function codedText(codecId: EntropyCodecId, rawBytes = 50_000) {
      const set = await setUp();
      const [from, to] = [set.coder.acquire(), set.coder.acquire()];
      fillPayload(set.raw(from, rawBytes), "text", 5);
      const encoded = await encodeWith(set.coder, from, rawBytes, codecId, codecId === ENTROPY_NONE ? 0 : 1);
      const bytes = set.memory.bytes(encoded.codedAddress, encoded.codedBytes).slice();
      const decode = (coded: Uint8Array, id: number, length: number, checksum = encoded.rawChecksum) => {
        set.coded(to, coded.length).set(coded);
        return decodeWith(set.coder, to, coded.length, id, length, checksum);
      };
      return { ...set, to, bytes, decode, rawBytes };
    }

    for (const { id, name } of ENTROPY_CODECS) {
      test(`${name}: a wrong length, checksum or end is refused, and the next batch is decoded`, async () => {
        const { bytes, decode, rawBytes } = await codedText(id);
        const longer = new Uint8Array(bytes.length + 1);
        longer.set(bytes);
        await expect(decode(bytes, id, rawBytes - 1)).rejects.toThrow(ProtocolError);
        await expect(decode(bytes, id, rawBytes + 1)).rejects.toThrow(ProtocolError);
        await expect(decode(bytes, id, rawBytes, 12345)).rejects.toThrow("checksum");
        await expect(decode(bytes.subarray(0, -1), id, rawBytes)).rejects.toThrow(ProtocolError);
        await expect(decode(longer, id, rawBytes)).rejects.toThrow(ProtocolError);
        await expect(decode(bytes, id, rawBytes)).resolves.toBeDefined();
      });

      test(`${name}: whatever byte is changed, the batch is refused or right, and nothing is written past it`, async () => {
        const { memory, coder, to, bytes, decode, rawBytes } = await codedText(id, 3000);
        const beyond = memory.bytes(coder.slots[to]!.rawAddress + rawBytes, 4096);
        beyond.fill(0xa5);
        const flips = fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 })), {
          minLength: 1,
          maxLength: 4,
        });
        await fc.assert(
          fc.asyncProperty(flips, async (changes) => {
            const damaged = bytes.slice();
            for (const [at, flip] of changes) damaged[at]! ^= flip;
            const error = await decode(damaged, id, rawBytes).then(
              () => undefined,
              (thrown) => thrown,
            );
            if (error !== undefined) expect(error).toBeInstanceOf(ProtocolError);
            expect(beyond.every((byte) => byte === 0xa5)).toBe(true);
          }),
          { numRuns: 150 },
        );
      });
    }

    test("any bytes at all are refused or decoded", async () => {
      const { decode } = await codedText(ENTROPY_ZSTD);
      const arbitrary = fc.record({
        bytes: fc.uint8Array({ minLength: 1, maxLength: 300 }),
        codecId: fc.constantFrom(...ENTROPY_CODECS.map(({ id }) => id)),
        zstdMagic: fc.boolean(),
        rawBytes: fc.oneof(fc.integer({ min: 1, max: 2000 }), fc.integer({ min: 1, max: SLOT_RAW_BYTES })),
      });
      await fc.assert(
        fc.asyncProperty(arbitrary, async ({ bytes, codecId, zstdMagic, rawBytes }) => {
          if (zstdMagic) bytes.set([0x28, 0xb5, 0x2f, 0xfd].slice(0, bytes.length));
          const error = await decode(bytes, codecId, rawBytes).then(
            () => undefined,
            (thrown) => thrown,
          );
          if (error !== undefined) expect(error).toBeInstanceOf(ProtocolError);
        }),
        { numRuns: 300 },
      );
    });

    test("numbers that no coder has and lengths that no batch has are refused", async () => {
      const { bytes, decode, rawBytes } = await codedText(ENTROPY_ZSTD);
      for (const id of [0, 2, 3, 6, 255]) {
        await expect(decode(bytes, id, rawBytes)).rejects.toThrow("no coder has number");
      }
      for (const length of [0, -1, SLOT_RAW_BYTES + 1, 2 ** 32]) {
        await expect(decode(bytes, ENTROPY_ZSTD, length)).rejects.toThrow("length of a batch");
      }
    });
  });

  test("a closed coder tells no more results", async () => {
    const { coder, raw } = await setUp();
    const slots = Array.from({ length: SLOTS }, () => coder.acquire());
    let told = 0;
    for (const slot of slots) {
      fillPayload(raw(slot, SLOT_RAW_BYTES), "mixed", slot + 1);
      coder.encode(slot, SLOT_RAW_BYTES, ENTROPY_ZSTD, 9, () => told++);
    }
    // Time for workers to end some of them, none for this thread to hear of it.
    const endMs = performance.now() + 50;
    while (performance.now() < endMs);
    const closing = coder.close();
    const toldBefore = told;
    await closing;
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(told).toBe(toldBefore);
  });
}
