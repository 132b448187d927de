// Sets of pages in two versions for the benchmarks of kernels: synthetic ones, the same in every run. What real
// guests make of their pages is in between: `mixed` has its shape.

/** Versions of pages, one page after another. Only pages that changed. */
export interface PageSet {
  name: string;
  pageBytes: number;
  oldPages: Uint8Array;
  newPages: Uint8Array;
}

const PAGE_BYTES = 4096;

type Rewrite = (page: Uint8Array, random: Random) => void;

/** sparse: 1 to 16 words; medium: a tenth, in clusters; dense: all of it; heap: text, pointers and integers. */
const REWRITES: Record<string, Rewrite> = {
  sparse: (page, random) => writeWords(page, random, 1 + random.below(16)),
  medium: (page, random) => writeClusters(page, random, PAGE_BYTES / 10),
  dense: (page, random) => random.fill(page),
  heap: (page, random) => writeHeap(page, random, 0, PAGE_BYTES),
  /** As measured of a VM and of a process's heap: 40 % of the pages change up to 128 bytes, 35 % over 2 KiB. */
  mixed: (page, random) => {
    const kind = random.below(100);
    if (kind < 40) writeWords(page, random, 1 + random.below(16));
    else if (kind < 65) writeClusters(page, random, 128 + random.below(1900));
    else {
      const lengthBytes = 2048 + 64 * random.below(33);
      writeHeap(page, random, 8 * random.below((PAGE_BYTES - lengthBytes) / 8 + 1), lengthBytes);
    }
  },
};

export function syntheticSets(pageCount: number): PageSet[] {
  return Object.entries(REWRITES).map(([name, rewrite]) => {
    const random = new Random(name.length * 7919 + pageCount);
    const oldPages = new Uint8Array(pageCount * PAGE_BYTES);
    for (let at = 0; at < oldPages.length; at += PAGE_BYTES) {
      writeHeap(oldPages.subarray(at, at + PAGE_BYTES), random, 0, PAGE_BYTES);
    }
    const newPages = oldPages.slice();
    for (let at = 0; at < newPages.length; at += PAGE_BYTES) {
      rewrite(newPages.subarray(at, at + PAGE_BYTES), random);
    }
    return { name, pageBytes: PAGE_BYTES, oldPages, newPages };
  });
}

function writeWords(page: Uint8Array, random: Random, words: number): void {
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  for (let i = 0; i < words; i++) {
    const at = 8 * random.below(page.length / 8);
    // Counters and pointers: the upper bytes stay.
    view.setUint32(at, view.getUint32(at, true) + 1 + random.below(1 << 20), true);
  }
}

function writeClusters(page: Uint8Array, random: Random, totalBytes: number): void {
  for (let written = 0; written < totalBytes; ) {
    const lengthBytes = Math.min(16 + 8 * random.below(16), totalBytes - written);
    const start = 8 * random.below(page.length / 8);
    random.fill(page.subarray(start, start + lengthBytes));
    written += lengthBytes;
  }
}

const TEXT = Buffer.from(
  "the quick page cache of a source that migrates its guest over a slow link keeps every page it sent ",
);

/** Objects of 16 to 128 bytes: strings, pointers into one region, small integers, zeros. */
function writeHeap(page: Uint8Array, random: Random, start: number, lengthBytes: number): void {
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  const end = start + lengthBytes;
  for (let at = start; at < end; ) {
    const objectEnd = Math.min(end, at + 16 + 8 * random.below(15));
    const kind = random.below(4);
    const textAt = random.below(TEXT.length);
    for (; at < objectEnd; at += 8) {
      if (kind === 0) for (let i = 0; i < 8; i++) page[at + i] = TEXT[(textAt + at + i) % TEXT.length]!;
      else if (kind === 1) {
        view.setUint32(at, 8 * random.below(1 << 24), true);
        view.setUint32(at + 4, 0x7f12, true);
      } else if (kind === 2) {
        view.setUint32(at, random.below(1000), true);
        view.setUint32(at + 4, random.below(4), true);
      } else if (random.below(4) === 0) view.setUint32(at, random.next(), true);
      else view.setBigUint64(at, 0n, true);
    }
  }
}

/** xorshift32: fast enough to make tens of megabytes, and the same every time. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 1;
  }

  next(): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return state >>> 0;
  }

  below(limit: number): number {
    return this.next() % limit;
  }

  fill(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.next() >>> 11;
  }
}
