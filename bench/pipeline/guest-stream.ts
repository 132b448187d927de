// A migration stream of QEMU as a busy guest would give it, made of the real page sets: a first pass over all RAM,
// with as many zero pages as others, then dirty iterations in which every page changes to its other version.
// There is no end to it: it is for measuring how fast it is taken. Format: src/stream/FORMAT.md.

import { be32, be64, PART, StreamBuilder } from "../../test/support/stream-builder.ts";
import { PAGE_BYTES, type PageSet, pageCountOf } from "../pages/page-set.ts";

const SECTION_ID = 1;
const BLOCK = "pc.ram";
/** A round number of what QEMU puts into one section before it looks at the time. */
const SECTION_PAGES = 1024;
const FLAG = { ZERO: 0x02, PAGE: 0x08, EOS: 0x10, CONTINUE: 0x20 } as const;
const FOOTER = 0x7e;

export interface GuestStream {
  /** One after another they are the stream. The same buffer may come several times. */
  readonly parts: readonly Buffer[];
  readonly lengthBytes: number;
  /** Page records with content; zero pages are not among them. */
  readonly pages: number;
  readonly zeroPages: number;
  readonly guestRamBytes: number;
}

export function guestStream(sets: readonly PageSet[], dirtyIterations: number): GuestStream {
  const contents = (version: "oldPages" | "newPages") =>
    sets.flatMap((set) =>
      Array.from({ length: pageCountOf(set) }, (_, page) =>
        set[version].subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES),
      ),
    );
  const [old, now] = [contents("oldPages"), contents("newPages")];
  const pages = 2 * old.length;
  const head = new StreamBuilder(PAGE_BYTES)
    .header()
    .configuration("pc-i440fx-10.0")
    .start(SECTION_ID, [{ idstr: BLOCK, pages }])
    .endSection().bytes;
  // Behind each run of content lies one of zeros: neither comes alone in a real guest.
  const firstPass = sections(
    Array.from({ length: pages }, (_, page) => {
      const isZero = Math.floor(page / ZERO_RUN_PAGES) % 2 === 1;
      return { page, content: isZero ? undefined : old[contentIndex(page)] };
    }),
  );
  const iterations = [now, old].map((version) =>
    sections(version.map((content, index) => ({ page: pageOf(index), content }))),
  );
  const parts = [head, firstPass];
  for (let i = 0; i < dirtyIterations; i++) parts.push(iterations[i % 2]!);
  return {
    parts,
    lengthBytes: parts.reduce((sum, { length }) => sum + length, 0),
    pages: (1 + dirtyIterations) * old.length,
    zeroPages: old.length,
    guestRamBytes: pages * PAGE_BYTES,
  };
}

const ZERO_RUN_PAGES = 32;
const contentIndex = (page: number) =>
  Math.floor(page / (2 * ZERO_RUN_PAGES)) * ZERO_RUN_PAGES + (page % ZERO_RUN_PAGES);
const pageOf = (index: number) =>
  Math.floor(index / ZERO_RUN_PAGES) * 2 * ZERO_RUN_PAGES + (index % ZERO_RUN_PAGES);

interface Record {
  page: number;
  /** Undefined: zero. */
  content: Uint8Array | undefined;
}

function sections(records: readonly Record[]): Buffer {
  const pieces: Uint8Array[] = [];
  for (let from = 0; from < records.length; from += SECTION_PAGES) {
    pieces.push(Buffer.of(PART), be32(SECTION_ID));
    records.slice(from, from + SECTION_PAGES).forEach(({ page, content }, index) => {
      const flags = (content === undefined ? FLAG.ZERO : FLAG.PAGE) | (index === 0 ? 0 : FLAG.CONTINUE);
      pieces.push(be64(page * PAGE_BYTES + flags));
      if (index === 0) pieces.push(Buffer.of(BLOCK.length), Buffer.from(BLOCK, "latin1"));
      pieces.push(content ?? Buffer.of(0));
    });
    pieces.push(be64(FLAG.EOS), Buffer.of(FOOTER), be32(SECTION_ID));
  }
  return Buffer.concat(pieces);
}
