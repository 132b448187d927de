import { expect, test } from "vitest";
import { UntouchedPages } from "./untouched-pages.ts";

const BLOCKS = [
  { idstr: "pc.ram", lengthBytes: 20 * 4096 },
  { idstr: "vga.vram", lengthBytes: 8 * 4096 },
];
const range = (firstPage: number, pages: number) => ({
  offsetBytes: firstPage * 4096,
  lengthBytes: pages * 4096,
});

test("pages of the ranges are held until they, or any above them, have come", () => {
  const ranges = [range(12, 4), range(2, 4)];
  const pages = new UntouchedPages(BLOCKS, 4096, [{ idstr: "pc.ram", ranges }]);
  const held = Array.from({ length: 20 }, (_, page) => page).filter((page) => pages.has(0, page));
  expect(held).toEqual([2, 3, 4, 5, 12, 13, 14, 15]);
  pages.came(0, 13);
  expect(pages.has(0, 12)).toBe(false);
  expect(pages.has(0, 13)).toBe(false);
  expect(pages.has(0, 14)).toBe(true);
  // One that came out of order takes nothing back.
  pages.came(0, 3);
  expect(pages.has(0, 4)).toBe(false);
  expect(pages.has(0, 14)).toBe(true);
});

test("blocks are told apart, and of one that nothing is said of nothing is held", () => {
  const pages = new UntouchedPages(BLOCKS, 4096, [
    { idstr: "vga.vram", ranges: [range(0, 8)] },
    { idstr: "pc.rom", ranges: [range(0, 20)] },
  ]);
  pages.came(0, 19);
  expect(pages.has(0, 5)).toBe(false);
  expect(pages.has(1, 5)).toBe(true);
});

test("a page is held only if all of it is, whatever its size", () => {
  const pages = new UntouchedPages([{ idstr: "pc.ram", lengthBytes: 8 * 16_384 }], 16_384, [
    { idstr: "pc.ram", ranges: [range(1, 12)] },
  ]);
  expect([0, 1, 2, 3].map((page) => pages.has(0, page))).toEqual([false, true, true, false]);
});
