// What QEMU says of its RAM, as 7.2 prints it.

import { expect, test } from "vitest";
import { isAnonymous, parseMappedPieces, parseMemoryTree, parseRamBlocks } from "./ram-map.ts";

const RAMBLOCKS = `              Block Name    PSize              Offset               Used              Total
                  pc.ram    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000
   0000:00:02.0/vga.vram    4 KiB  0x0000000004080000 0x0000000001000000 0x0000000001000000
    /rom@etc/acpi/tables    4 KiB  0x0000000005100000 0x0000000000020000 0x0000000000200000
`;
const TREE = `FlatView #0
 AS "cpu-smm-0", root: memory
 Root memory region: memory
  0000000000000000-00000000000fffff (prio 0, ram): smm.only

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000e0000-00000000000fffff (prio 0, rom): pc.bios @0000000000020000
  0000000000100000-0000000003ffffff (prio 0, ram): pc.ram @0000000000100000
`;

test("RAMBlocks are read", () => {
  expect([...parseRamBlocks(RAMBLOCKS)]).toEqual([
    ["pc.ram", { offset: 0, usedBytes: 0x4000000, totalBytes: 0x4000000 }],
    ["0000:00:02.0/vga.vram", { offset: 0x4080000, usedBytes: 0x1000000, totalBytes: 0x1000000 }],
    ["/rom@etc/acpi/tables", { offset: 0x5100000, usedBytes: 0x20000, totalBytes: 0x200000 }],
  ]);
  expect(parseRamBlocks("unknown command: 'info ramblock'\n").size).toBe(0);
});

test("pieces of the system's memory are read, with where they lie in their block", () => {
  expect(parseMappedPieces(TREE)).toEqual([
    { name: "pc.ram", guestAddress: 0, offsetBytes: 0 },
    { name: "pc.bios", guestAddress: 0xe0000, offsetBytes: 0x20000 },
    { name: "pc.ram", guestAddress: 0x100000, offsetBytes: 0x100000 },
  ]);
  expect(parseMappedPieces("")).toEqual([]);
});

test("memory is a process's own where all of it is mapped, private and without a file", () => {
  const maps = `7f0000000000-7f0000400000 rw-p 00000000 00:00 0
7f0000400000-7f0000800000 rw-p 00000000 00:00 0
7f0000800000-7f0000900000 rw-s 00000000 00:01 2048                       /memfd:pc.ram (deleted)
7f0000900000-7f0000a00000 rw-p 00000000 fe:01 77                         /var/lib/ram
7f0000b00000-7f0000c00000 rw-p 00000000 00:00 0
`;
  const start = 0x7f0000000000;
  expect(isAnonymous(maps, start, 0x400000)).toBe(true);
  expect(isAnonymous(maps, start + 0x1000, 0x7ff000)).toBe(true);
  expect(isAnonymous(maps, start + 0x800000, 0x100000)).toBe(false);
  expect(isAnonymous(maps, start + 0x900000, 0x100000)).toBe(false);
  // A hole, and what lies beside everything.
  expect(isAnonymous(maps, start + 0xa00000, 0x200000)).toBe(false);
  expect(isAnonymous(maps, 0x10000, 0x1000)).toBe(false);
});

const TREE_WITH_HOLE = `FlatView #0
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
  expect(parseMemoryTree(TREE_WITH_HOLE)).toEqual([
    { start: 0x100000, bytes: 0xbff00000 },
    { start: 0x100000000, bytes: 0x140000000 },
  ]);
  expect(parseMemoryTree("nothing that anybody expects")).toEqual([]);
});
