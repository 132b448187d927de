// A migration stream that ends as post-copy: a guest of two RAMBlocks, of which a part is forgotten and sent again
// behind the device state. Fixed, since what varies in tests of post-copy is what goes wrong when.

import { type GuestStream, randomBytes } from "./arbitrary-stream.ts";
import { be32, END, PART, StreamBuilder } from "./stream-builder.ts";

const BLOCKS = [
  { idstr: "pc.ram", pages: 200 },
  { idstr: "vga.vram", pages: 4 },
];
const PAGE_BYTES = 4096;
/** Of pc.ram, dirty when the guest is stopped. */
export const MISSING_PAGES = 160;

/** `isOpaque`: something stands before the switch that the engine does not know, but the loader of the tests does. */
export function postcopyStream({ isOpaque = false } = {}): GuestStream {
  const builder = new StreamBuilder(PAGE_BYTES).header().configuration("pc");
  builder.command(1).command(2, be32(1)).start(2, BLOCKS).endSection();
  const guest = BLOCKS.map(({ pages }, block) =>
    Array.from({ length: pages }, (_, page) => noise(block, page)),
  );
  const sectionEnds = [builder.lengthBytes];
  const send = (block: number, pages: number): void => {
    builder.section(PART);
    for (let page = 0; page < pages; page++) builder.page(block, page, guest[block]![page]!);
    builder.endSection();
    sectionEnds.push(builder.lengthBytes);
  };
  for (const [block, { pages }] of BLOCKS.entries()) send(block, pages);
  const stopsAt = builder.lengthBytes;
  if (isOpaque) builder.opaque().command(99, be32(5));
  builder.discard(0, [0, MISSING_PAGES]).package(Buffer.alloc(20_000, "device state"));
  for (let page = 0; page < MISSING_PAGES; page++) guest[0]![page] = noise(2, page);
  send(0, MISSING_PAGES);
  builder.section(END).endSection().verbatim(Buffer.of(0));
  return {
    bytes: builder.bytes,
    calls: builder.calls,
    blocks: BLOCKS,
    pageBytes: PAGE_BYTES,
    images: guest.map((pages) => Buffer.concat(pages)),
    sectionEnds,
    stopsAt,
    isPostcopy: true,
  };
}

function noise(block: number, page: number): Uint8Array {
  const random = randomBytes(block * 1000 + page);
  return Uint8Array.from({ length: PAGE_BYTES }, random);
}
