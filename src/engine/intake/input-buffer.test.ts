import fc from "fast-check";
import { expect, test } from "vitest";
import { KernelMemory } from "../../kernel/memory.ts";
import { ELEMENT_BYTES_MAX } from "../../stream/reader.ts";
import { InputBuffer } from "./input-buffer.ts";

/** What one read may bring. */
const READ_BYTES = new InputBuffer(new KernelMemory()).space().length;

/** What is in the buffer. */
const content = (input: InputBuffer) => Buffer.from(input.bytes.subarray(input.head, input.tail));

/** Different at every offset within any two reads. */
function numbered(from: number, length: number): Uint8Array {
  const bytes = Buffer.alloc(length + 4);
  for (let i = 0; i < length; i += 4) bytes.writeUInt32LE((from + i) >>> 0, i);
  return bytes.subarray(0, length);
}

const step = fc.record({
  /** "space": a channel that reads into the buffer. "append": bytes of its own. */
  how: fc.constantFrom("space" as const, "append" as const),
  bytes: fc.oneof(fc.nat(64), fc.nat(READ_BYTES), fc.nat(3 * READ_BYTES)),
  /** Share of what is there that is taken afterwards. */
  takes: fc.constantFrom(0, 0.3, 0.9, 1),
});

test("is a queue: what goes in comes out, in order, as far as there is room", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25, size: "max" }), (steps) => {
      const input = new InputBuffer(new KernelMemory());
      let queue: Buffer = Buffer.alloc(0);
      let count = 0;
      for (const { how, bytes, takes } of steps) {
        const given = numbered(count, bytes);
        let put: number;
        if (how === "append") put = input.append(given);
        else {
          const space = input.space();
          put = Math.min(space.length, bytes);
          space.set(given.subarray(0, put));
          input.filled(put);
        }
        // As much as a read is, or whatever is left.
        const room = Math.min(READ_BYTES, input.bytes.length - queue.length);
        expect(put).toBe(Math.min(bytes, room));
        count += put;
        queue = Buffer.concat([queue, given.subarray(0, put)]);
        expect(input.lengthBytes).toBe(queue.length);
        expect(content(input).equals(queue)).toBe(true);
        const taken = Math.floor(queue.length * takes);
        input.taken(input.head + taken);
        queue = queue.subarray(taken);
        expect(content(input).equals(queue)).toBe(true);
      }
    }),
    { numRuns: 60 },
  );
});

test("room for a read that was asked for stays where it is, however much is taken before it comes", () => {
  const input = new InputBuffer(new KernelMemory());
  input.append(numbered(0, READ_BYTES));
  // The channel asks for its next room and is paused; then what is there is taken, piece by piece.
  const space = input.space();
  for (let i = 0; i < 10; i++) input.taken(input.head + 1000);
  expect(content(input).equals(numbered(0, READ_BYTES).subarray(10_000))).toBe(true);
  space.set(numbered(READ_BYTES, READ_BYTES));
  input.filled(READ_BYTES);
  expect(content(input).equals(numbered(0, 2 * READ_BYTES).subarray(10_000))).toBe(true);
});

test("there is room for two reads behind the beginning of the longest element", () => {
  const input = new InputBuffer(new KernelMemory());
  input.append(numbered(0, ELEMENT_BYTES_MAX));
  expect(input.append(numbered(0, READ_BYTES))).toBe(READ_BYTES);
  expect(input.space().length).toBe(READ_BYTES);
});

test("more than there is room for, or taking what is not there, is our own mistake", () => {
  const input = new InputBuffer(new KernelMemory());
  expect(() => input.filled(input.bytes.length + 1)).toThrow("Assertion failed");
  input.append(numbered(0, 10));
  input.taken(4);
  expect(() => input.taken(3)).toThrow("Assertion failed");
  expect(() => input.taken(11)).toThrow("Assertion failed");
});

test("lies in the home memory", () => {
  const memory = new KernelMemory();
  expect(new InputBuffer(memory).bytes.buffer).toBe(memory.wasm.buffer);
});
