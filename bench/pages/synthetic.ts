// Generated sets, the same on every machine: the extremes between which real pages lie.

import { PAGE_BYTES, type PageSet, SET_PAGES_MAX } from "./page-set.ts";

const PAGE_WORDS = PAGE_BYTES / 4;
const TEXT =
  "the guest keeps running while its memory moves page by page and what was written again is sent again but only what is new of it ";

type Random = () => number;

/** Whole 32-bit numbers (mulberry32). */
function randomOf(seed: number): Random {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/** 1 to 16 random words of 8 bytes at random places. */
function sparse(page: Int32Array, random: Random): void {
  for (let left = 1 + (random() % 16); left > 0; left--) {
    const at = 2 * (random() % (PAGE_WORDS / 2));
    page[at] = random();
    page[at + 1] = random();
  }
}

/** A tenth of the page, in runs of 64 bytes at random places. */
function clustered(page: Int32Array, random: Random): void {
  for (let left = 7; left > 0; left--) {
    const start = random() % (PAGE_WORDS - 16);
    for (let i = start; i < start + 16; i++) page[i] = random();
  }
}

function rewritten(page: Int32Array, random: Random): void {
  for (let i = 0; i < PAGE_WORDS; i++) page[i] = random();
}

/** Objects of a language with a heap: header, pointer, small number, text. */
function heapObjects(page: Int32Array, random: Random): void {
  const bytes = Buffer.from(page.buffer, page.byteOffset, PAGE_BYTES);
  for (let at = 0; at < PAGE_BYTES; at += 64) {
    bytes.writeUInt32LE(0x00401000 + 64 * (random() % 512), at);
    bytes.writeUInt32LE(0x7f2a, at + 4);
    bytes.writeUInt32LE((random() % 0x04000000) * 8, at + 8);
    bytes.writeUInt32LE(0x7f2a, at + 12);
    bytes.writeUInt32LE(random() % 100_000, at + 16);
    bytes.writeUInt32LE(random() % 100, at + 20);
    const from = random() % (TEXT.length - 40);
    bytes.write(TEXT.slice(from, from + 40), at + 24, "latin1");
  }
}

interface Recipe {
  name: string;
  description: string;
  fill: (page: Int32Array, random: Random) => void;
  change: (page: Int32Array, random: Random) => void;
}

const RECIPES: readonly Recipe[] = [
  {
    name: "sparse",
    description: "1 to 16 random 8-byte words of a random page",
    fill: rewritten,
    change: sparse,
  },
  {
    name: "medium",
    description: "7 runs of 64 random bytes in a random page",
    fill: rewritten,
    change: clustered,
  },
  {
    name: "dense",
    description: "random pages rewritten with other random bytes",
    fill: rewritten,
    change: rewritten,
  },
  {
    name: "heap",
    description: "objects of text, pointers and numbers, all rewritten",
    fill: heapObjects,
    change: heapObjects,
  },
];

export function syntheticSets(): PageSet[] {
  return RECIPES.map(({ name, description, fill, change }, index) => {
    const random = randomOf(0x5eed + index);
    const oldPages = new Uint8Array(SET_PAGES_MAX * PAGE_BYTES);
    for (let page = 0; page < SET_PAGES_MAX; page++) {
      fill(new Int32Array(oldPages.buffer, page * PAGE_BYTES, PAGE_WORDS), random);
    }
    const newPages = oldPages.slice();
    for (let page = 0; page < SET_PAGES_MAX; page++) {
      change(new Int32Array(newPages.buffer, page * PAGE_BYTES, PAGE_WORDS), random);
    }
    return { name, description, kind: "synthetic", oldPages, newPages };
  });
}
