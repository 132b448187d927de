import { describe, expect, it } from "vitest";
import { HotPages } from "./hot-pages.ts";

function due(hotPages: HotPages, ...dirty: number[]): number[] {
  return [...hotPages.dueOf(Uint32Array.from(dirty))];
}

describe("hot pages", () => {
  it("are those found dirty three times in a row; others are due at once", () => {
    const hotPages = new HotPages(8);
    expect(due(hotPages, 1, 2)).toEqual([1, 2]);
    expect(due(hotPages, 1, 3)).toEqual([1, 3]);
    expect(due(hotPages, 1, 4)).toEqual([4]);
    expect(due(hotPages, 1, 5)).toEqual([5]);
  });

  it("cool down as soon as they are found clean once", () => {
    const hotPages = new HotPages(8);
    for (let scan = 0; scan < 3; scan++) due(hotPages, 1);
    due(hotPages, 2);
    expect(due(hotPages, 1)).toEqual([1]);
  });

  it("are tried again now and then, since a page that is held looks dirty whether it changes or not", () => {
    const hotPages = new HotPages(8);
    const sent = Array.from({ length: 20 }, () => due(hotPages, 1).length);
    expect(sent.join("")).toBe("11000001000001000001");
  });

  it("are sent as long as each scan finds fewer dirty pages: the link is faster than the guest", () => {
    const hotPages = new HotPages(1000);
    const all = Array.from({ length: 512 }, (_, i) => i);
    for (let count = 512; count >= 1; count /= 2) {
      const dirty = all.slice(0, count);
      expect(due(hotPages, ...dirty)).toEqual(dirty);
    }
    expect(due(hotPages, 0)).toEqual([]);
  });
});
