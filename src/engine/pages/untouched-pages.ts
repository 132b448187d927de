// Pages that a destination holds although nothing was ever sent there: of RAM that its hypervisor has never touched, zeros.
// A page of zeros that comes for the first time need not be sent to it. Whether one has come before is told by the order:
// a hypervisor goes through a RAMBlock upwards, so that whatever is above all that has come is new.

import type { StreamBlock } from "../../stream/reader.ts";
import type { UntouchedRam } from "../ports.ts";

/** Of one RAMBlock, in pages. */
interface BlockPages {
  /** First and behind the last, upwards, without overlaps. */
  readonly ranges: readonly { readonly first: number; readonly end: number }[];
  /** The first of them that does not end below what has come. */
  at: number;
  /** Above the highest page that has come. */
  next: number;
}

export class UntouchedPages {
  readonly #blocks: BlockPages[];

  constructor(blocks: readonly StreamBlock[], pageBytes: number, untouched: readonly UntouchedRam[]) {
    this.#blocks = blocks.map(({ idstr }) => {
      const own = untouched.filter((ram) => ram.idstr === idstr).flatMap(({ ranges }) => ranges);
      const ranges = own
        .map(({ offsetBytes, lengthBytes }) => ({
          first: Math.ceil(offsetBytes / pageBytes),
          end: Math.floor((offsetBytes + lengthBytes) / pageBytes),
        }))
        .sort((a, b) => a.first - b.first);
      return { ranges, at: 0, next: 0 };
    });
  }

  /** The destination holds zeros there, and nothing has come that was to change them. */
  has(blockIndex: number, pageIndex: number): boolean {
    const block = this.#blocks[blockIndex]!;
    if (pageIndex < block.next) return false;
    let { at } = block;
    while (at < block.ranges.length && block.ranges[at]!.end <= pageIndex) at++;
    const range = block.ranges[at];
    return range !== undefined && range.first <= pageIndex;
  }

  /** A page has come, whatever it is. */
  came(blockIndex: number, pageIndex: number): void {
    const block = this.#blocks[blockIndex]!;
    if (pageIndex < block.next) return;
    block.next = pageIndex + 1;
    while (block.at < block.ranges.length && block.ranges[block.at]!.end <= block.next) block.at++;
  }
}
