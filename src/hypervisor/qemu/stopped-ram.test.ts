// What QEMU says of its RAM, as 7.2 prints it, and what is not to be had.

import { expect, test } from "vitest";
import type { QmpClient } from "./qmp.ts";
import { isAnonymous, openStoppedRam, parseMappedPieces, parseRamBlocks } from "./stopped-ram.ts";

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

test("names and used lengths of RAMBlocks are read", () => {
  expect([...parseRamBlocks(RAMBLOCKS)]).toEqual([
    ["pc.ram", 0x4000000],
    ["0000:00:02.0/vga.vram", 0x1000000],
    ["/rom@etc/acpi/tables", 0x20000],
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

test("a QEMU whose process cannot be found is one whose RAM cannot be compared", async () => {
  const qmp = { address: { kind: "tcp", host: "127.0.0.1", port: 4444 } } as unknown as QmpClient;
  await expect(openStoppedRam(qmp)).rejects.toMatchObject({
    code: "VERIFY_UNAVAILABLE",
    message: expect.stringContaining("Whose monitor it is can only be seen of a unix socket"),
  });
});
