import { expect, test } from "vitest";
import { KernelMemory } from "./memory.ts";

test("a view belongs to the memory however often that has grown since, and no other does", () => {
  const memory = new KernelMemory();
  const early = memory.bytes(memory.allocate(64), 64);
  const bufferBefore = memory.wasm.buffer;
  memory.allocate(1024 * 1024);
  const late = memory.bytes(memory.allocate(64), 64);
  expect(memory.wasm.buffer).not.toBe(bufferBefore);
  expect(memory.holds(early)).toBe(true);
  expect(memory.holds(early.subarray(8))).toBe(true);
  expect(memory.holds(late)).toBe(true);
  expect(memory.holds(new Uint8Array(64))).toBe(false);
  const other = new KernelMemory();
  expect(memory.holds(other.bytes(other.allocate(64), 64))).toBe(false);
});
