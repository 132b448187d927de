// Where guest RAM lies, as QEMU tells it. Reading it is tested with a real QEMU (test/e2e/plan.test.ts).

import { expect, test } from "vitest";
import { pagemapRunEnd, parseMemoryTree } from "./guest-memory.ts";

const TREE = `FlatView #0
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-00000000000c2fff (prio 0, ram): pc.ram
  00000000000c3000-00000000000e7fff (prio 0, rom): pc.ram @00000000000c3000
  0000000000100000-00000000bfffffff (prio 0, ram): pc.ram @0000000000100000
  00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic
  0000000100000000-000000023fffffff (prio 0, ram): pc.ram @00000000c0000000 KVM

FlatView #1
 AS "cpu-smm-0", root: memory
  0000000000000000-00000000ffffffff (prio 0, ram): other
`;

test("the system's ranges of RAM are found, above and below the hole, and nothing else", () => {
  expect(parseMemoryTree(TREE)).toEqual([
    { start: 0x100000, bytes: 0xbff00000 },
    { start: 0x100000000, bytes: 0x140000000 },
  ]);
  expect(parseMemoryTree("nothing that anybody expects")).toEqual([]);
});

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
