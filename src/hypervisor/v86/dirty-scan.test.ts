import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DirtyScan, PAGE_BYTES } from "./dirty-scan.ts";

const MEMORY_PAGES = 37; // not a multiple of what is compared at once

/** The same by brute force: byte for byte, no shadow kept up to date by anyone else. */
class Model {
  readonly shadow = new Uint8Array(MEMORY_PAGES * PAGE_BYTES);

  scan(memory: Uint8Array): number[] {
    const dirty = new Set<number>();
    for (let i = 0; i < memory.length; i++) {
      if (memory[i] !== this.shadow[i]) dirty.add(Math.floor(i / PAGE_BYTES));
    }
    return [...dirty];
  }

  take(memory: Uint8Array, page: number): void {
    for (let i = page * PAGE_BYTES; i < (page + 1) * PAGE_BYTES; i++) this.shadow[i] = memory[i]!;
  }
}

describe("a dirty scan", () => {
  it("finds exactly the pages that differ from what was taken, whatever was written and taken before", () => {
    const write = fc.record({
      offset: fc.nat(MEMORY_PAGES * PAGE_BYTES - 1),
      value: fc.nat(255),
    });
    const step = fc.record({
      writes: fc.array(write, { maxLength: 8 }),
      takes: fc.array(fc.nat(MEMORY_PAGES - 1), { maxLength: 8 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 6 }), (steps) => {
        const memory = Buffer.alloc(MEMORY_PAGES * PAGE_BYTES);
        const scan = new DirtyScan(memory.length);
        const model = new Model();
        const page = Buffer.alloc(PAGE_BYTES);
        for (const { writes, takes } of steps) {
          for (const { offset, value } of writes) memory[offset] = value;
          expect([...scan.scan(memory)]).toEqual(model.scan(memory));
          for (const pageIndex of takes) {
            scan.take(memory, pageIndex, page, 0);
            model.take(memory, pageIndex);
            expect(page.equals(memory.subarray(pageIndex * PAGE_BYTES, (pageIndex + 1) * PAGE_BYTES))).toBe(
              true,
            );
          }
          expect([...scan.scan(memory)]).toEqual(model.scan(memory));
        }
      }),
      { numRuns: 40 },
    );
  });

  it("finds a change of the first and of the last byte of every page", () => {
    const memory = Buffer.alloc(MEMORY_PAGES * PAGE_BYTES);
    const scan = new DirtyScan(memory.length);
    for (let pageIndex = 0; pageIndex < MEMORY_PAGES; pageIndex++) {
      for (const offset of [pageIndex * PAGE_BYTES, (pageIndex + 1) * PAGE_BYTES - 1]) {
        memory[offset] = 1;
        expect([...scan.scan(memory)]).toEqual([pageIndex]);
        memory[offset] = 0;
      }
    }
  });

  it("counts a page that was written and written back as clean", () => {
    const memory = Buffer.alloc(MEMORY_PAGES * PAGE_BYTES);
    const scan = new DirtyScan(memory.length);
    memory[5 * PAGE_BYTES] = 1;
    memory[5 * PAGE_BYTES] = 0;
    expect(scan.scan(memory)).toHaveLength(0);
  });

  it("copies a taken page to its place in the target and nowhere else", () => {
    const memory = Buffer.alloc(MEMORY_PAGES * PAGE_BYTES, 7);
    const target = Buffer.alloc(3 * PAGE_BYTES);
    new DirtyScan(memory.length).take(memory, 36, target, PAGE_BYTES);
    const expected = Buffer.concat([
      Buffer.alloc(PAGE_BYTES),
      Buffer.alloc(PAGE_BYTES, 7),
      Buffer.alloc(PAGE_BYTES),
    ]);
    expect(target.equals(expected)).toBe(true);
  });

  it("finds all pages that are not zero after a reset", () => {
    const memory = Buffer.alloc(MEMORY_PAGES * PAGE_BYTES);
    const scan = new DirtyScan(memory.length);
    const page = Buffer.alloc(PAGE_BYTES);
    memory[3 * PAGE_BYTES] = 1;
    memory[30 * PAGE_BYTES] = 1;
    scan.take(memory, 3, page, 0);
    scan.take(memory, 30, page, 0);
    scan.reset();
    expect([...scan.scan(memory)]).toEqual([3, 30]);
  });

  it("refuses a page that does not exist", () => {
    const memory = Buffer.alloc(MEMORY_PAGES * PAGE_BYTES);
    const scan = new DirtyScan(memory.length);
    expect(() => scan.take(memory, MEMORY_PAGES, Buffer.alloc(PAGE_BYTES), 0)).toThrow("no page 37");
  });
});
