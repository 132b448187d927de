// How the page tables of a guest's process are read. Reading all of it is tested with a real QEMU (test/e2e/plan.test.ts).

import { expect, test } from "vitest";
import { pagemapRunEnd } from "./guest-memory.ts";

test("pagemap entries that lie near each other are read together, those far apart are not", () => {
  const near = Array.from({ length: 40 }, (_, i) => 1000 + 170 * i);
  // 4096 entries at once at most.
  expect(pagemapRunEnd(near, 0)).toBe(25);
  expect(pagemapRunEnd(near, 25)).toBe(40);
  expect(pagemapRunEnd([1000, 1512, 2025], 0)).toBe(2);
  // The next range of RAM may lie below the one before.
  expect(pagemapRunEnd([5000, 100, 101], 0)).toBe(1);
  expect(pagemapRunEnd([5000], 0)).toBe(1);
});
