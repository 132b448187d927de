// SentFrames against a queue of the frames' bytes: whatever is put in and released, every frame that is held is as it
// was written, and there is room whenever it was promised.

import fc from "fast-check";
import { expect, test } from "vitest";
import { uncodedData } from "../../../test/support/data-frame.ts";
import { CODED_BYTES_MAX, DATA_FRAME_BYTES_MAX, encodeFrame } from "../../wire/frame.ts";
import { SentFrames } from "./sent-frames.ts";

const MIB = 1024 * 1024;

/** Frames of these lengths fill a ring to the last byte. */
const EVEN = [MIB / 2, MIB].map((bytes) => bytes - (DATA_FRAME_BYTES_MAX - CODED_BYTES_MAX));

/** A frame with content of its own. */
const frameOf = (sequence: number, codedBytes: number) => ({
  ...uncodedData(1, Uint8Array.of(1)),
  sequence,
  coded: new Uint8Array(codedBytes).fill(sequence % 251),
});

test("frames fit wherever room was promised, and are as they were written until they are released", () => {
  const step = fc.record({
    codedBytes: fc.oneof(
      fc.integer({ min: 1, max: 5000 }),
      fc.integer({ min: 1, max: CODED_BYTES_MAX }),
      fc.constantFrom(...EVEN),
    ),
    /** None at first, so that the ring fills; later as many as are put in. */
    released: fc.nat({ max: 2 }),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 80 }), (steps) => {
      const frames = new SentFrames(4 * MIB);
      const held: { bytes: Uint8Array; written: Uint8Array }[] = [];
      let sequence = 0;
      let releasedSequence = 0;
      for (const [i, { codedBytes, released }] of steps.entries()) {
        if (frames.hasRoomFor(codedBytes)) {
          const frame = frameOf(++sequence, codedBytes);
          const bytes = frames.put(frame);
          // As the coded bytes of a batch are aligned: what they are copied from.
          expect((bytes.byteOffset + bytes.length - codedBytes) % 8).toBe(0);
          held.push({ bytes, written: encodeFrame(frame) });
        }
        for (const { bytes, written } of held) expect(Buffer.compare(bytes, written)).toBe(0);
        const count = i < 10 ? 0 : Math.min(released, held.length);
        held.splice(0, count);
        releasedSequence += count;
        frames.release(releasedSequence);
      }
      expect(frames.ringBytes).toBeLessThanOrEqual(4 * MIB);
    }),
    { numRuns: 100 },
  );
});

test("takes no more memory than what was unacknowledged at one time, and at least one frame of any length", () => {
  const frames = new SentFrames();
  for (let sequence = 1; sequence <= 10_000; sequence++) {
    frames.put(frameOf(sequence, 10_000));
    frames.release(Math.max(0, sequence - 50));
  }
  expect(frames.ringBytes).toBe(MIB);
  frames.put(frameOf(10_001, CODED_BYTES_MAX));
  expect(frames.ringBytes).toBe(2 * MIB);
});

test("is bounded, and says when it is full", () => {
  const frames = new SentFrames();
  let sequence = 0;
  while (frames.hasRoomFor(CODED_BYTES_MAX)) frames.put(frameOf(++sequence, CODED_BYTES_MAX));
  expect(sequence * DATA_FRAME_BYTES_MAX).toBeGreaterThan(28 * MIB);
  expect(frames.ringBytes).toBe(32 * MIB);
  frames.release(1);
  expect(frames.hasRoomFor(CODED_BYTES_MAX)).toBe(true);
});
