// Compression effort goes up while encoding takes little of the time that the link needs, and down at once when
// it takes much.

import { expect, test } from "vitest";
import { CompressionEffort } from "./effort.ts";

const LINK_BYTES_PER_SECOND = 1e6;
/** The link needs 100 ms for each. */
const BATCH_BYTES = 100_000;
const RAW_BYTES = 300_000;

function observe(effort: CompressionEffort, encodeMs: number, batches: number): void {
  for (let i = 0; i < batches; i++) effort.observe(RAW_BYTES, BATCH_BYTES, encodeMs, LINK_BYTES_PER_SECOND);
}

test("begins with the least, and goes up step by step while encoding takes no time", () => {
  const effort = new CompressionEffort();
  const levels = [effort.level];
  for (let i = 0; i < 5; i++) {
    observe(effort, 0, 16);
    levels.push(effort.level);
  }
  expect(levels).toEqual([1, 3, 5, 5, 5, 5]);
});

test("a step up needs a number of batches at the level before", () => {
  const effort = new CompressionEffort();
  observe(effort, 0, 15);
  expect(effort.level).toBe(1);
  observe(effort, 0, 1);
  expect(effort.level).toBe(3);
});

test("one batch that takes long is enough for a step down, and never below the least", () => {
  const effort = new CompressionEffort();
  observe(effort, 0, 32);
  const levels = [effort.level];
  for (let i = 0; i < 3; i++) {
    observe(effort, 60, 1);
    levels.push(effort.level);
  }
  expect(levels).toEqual([5, 3, 1, 1]);
});

test("stays where it is when the next level would take too long", () => {
  const effort = new CompressionEffort();
  observe(effort, 0, 16);
  observe(effort, 30, 100);
  expect(effort.level).toBe(3);
});

test("learns nothing while the link is not known", () => {
  const effort = new CompressionEffort();
  for (let i = 0; i < 100; i++) effort.observe(RAW_BYTES, BATCH_BYTES, 0, 0);
  expect(effort.level).toBe(1);
});

test("spends nothing on bytes that cannot be made smaller, and then goes on with the level it had", () => {
  const effort = new CompressionEffort();
  observe(effort, 0, 32);
  const levels = [effort.level];
  for (let i = 0; i < 40; i++) effort.observe(BATCH_BYTES, BATCH_BYTES, 90, LINK_BYTES_PER_SECOND);
  levels.push(effort.level);
  observe(effort, 90, 1);
  levels.push(effort.level);
  expect(levels).toEqual([5, 1, 5]);
});
