// RAM that a destination has never touched, for tests: which pages, and both ways of saying so.

import type { UntouchedRam } from "../../src/engine/ports.ts";
import type { ZeroRange } from "./loader.ts";

/** Every page of the blocks by this pattern, over and over; an empty one: none. */
export function untouchedBy(
  pattern: readonly boolean[],
  blocks: readonly { idstr: string; pages: number }[],
  pageBytes: number,
): ZeroRange[] {
  const ranges: ZeroRange[] = [];
  let number = 0;
  for (const { idstr, pages } of blocks) {
    for (let page = 0; page < pages; page++) {
      if (pattern[number++ % pattern.length] !== true) continue;
      ranges.push({ idstr, offsetBytes: page * pageBytes, lengthBytes: pageBytes });
    }
  }
  return ranges;
}

export function asUntouchedRam(ranges: readonly ZeroRange[]): UntouchedRam[] {
  return [...new Set(ranges.map(({ idstr }) => idstr))].map((idstr) => ({
    idstr,
    ranges: ranges
      .filter((range) => range.idstr === idstr)
      .map(({ offsetBytes, lengthBytes }) => ({ offsetBytes, lengthBytes })),
  }));
}
