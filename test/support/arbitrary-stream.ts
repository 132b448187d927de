// Random, valid migration streams: a guest with a few RAMBlocks whose pages change between passes, and a source
// that sends them the ways QEMU may. Small numbers in, a stream out, so that a failing case shrinks.

import fc from "fast-check";
import { type BuiltBlock, be32, END, PART, StreamBuilder } from "./stream-builder.ts";
import type { Call } from "./stream-trace.ts";
import { modelEncode } from "./xbzrle-model.ts";

/** What the guest did to a page since it was sent last. */
type Change = "same" | "sparse" | "rewrite" | "zero" | "fill";

export interface PlannedPage {
  /** Block and page, counted around. */
  at: number;
  change: Change;
  seed: number;
  /** The source may send a delta of its own. */
  asXbzrle: boolean;
  /** A page of zeros travels as a whole page all the same. */
  whole: boolean;
  names: boolean;
}

export interface PlannedSection {
  pages: PlannedPage[];
  /** PINGs of the source itself before this section. */
  pings: number[];
}

/** Something that the reader does not know, but the loader of the tests does. */
export type UnknownKind = "none" | "command" | "device" | "flag";

export interface StreamPlan {
  machine: string | undefined;
  /** undefined: 4096 bytes, and the stream does not say so. */
  pageBits: 12 | 14 | undefined;
  uuid: boolean;
  ignoreShared: boolean;
  returnPath: boolean;
  sectionId: number;
  blocks: BuiltBlock[];
  /** Content of RAM before the migration. */
  seed: number;
  /** Pages of the first pass in one section. */
  firstPassPages: number;
  passes: PlannedSection[];
  last: PlannedSection;
  switchoverStart: boolean;
  devicePayload: Uint8Array;
  unknown: UnknownKind;
  /** Where the unknown comes: before this section, or (for a flag) this many pages into it. */
  unknownSection: number;
  unknownPages: number;
}

export interface GuestStream {
  bytes: Buffer;
  calls: Call[];
  blocks: BuiltBlock[];
  pageBytes: number;
  /** RAM of the guest when it was stopped. */
  images: Buffer[];
  /** Offsets at which a section ends. */
  sectionEnds: number[];
  /** Offset at which the guest has to be stopped: the last pass begins. */
  stopsAt: number;
  /** What follows is post-copy. */
  isPostcopy?: boolean;
}

/** Pages that appear in a stream are all there is: the first pass sends each one. */
export function buildGuestStream(plan: StreamPlan): GuestStream {
  const builder = new StreamBuilder(4096).header();
  if (plan.machine !== undefined) {
    builder.configuration(plan.machine);
    if (plan.pageBits !== undefined) builder.pageBits(plan.pageBits);
    if (plan.ignoreShared) builder.capabilities(["x-ignore-shared"]);
    if (plan.uuid) builder.uuid(Buffer.from("0123456789abcdef"));
  }
  if (plan.returnPath) builder.command(1).command(2, be32(1));
  builder.start(plan.sectionId, plan.blocks).endSection();

  const { pageBytes } = builder;
  const guest = plan.blocks.map(({ pages }) =>
    Array.from({ length: pages }, (): Uint8Array => new Uint8Array(pageBytes)),
  );
  const places = plan.blocks.flatMap(({ pages }, block) =>
    Array.from({ length: pages }, (_, page) => ({ block, page })),
  );
  const sent = new Set<Uint8Array>();
  const sectionEnds = [builder.lengthBytes];

  const send = (planned: PlannedPage): void => {
    const { block, page } = places[planned.at % places.length]!;
    const before = guest[block]![page]!;
    const after = changed(before, planned);
    guest[block]![page] = after;
    const known = sent.delete(before);
    sent.add(after);
    const delta = planned.asXbzrle && known ? modelEncode(before, after) : undefined;
    const fill = after.every((byte) => byte === after[0]) ? after[0]! : undefined;
    if (delta !== undefined) builder.xbzrle(block, page, delta, planned.names);
    else if (fill === undefined || planned.whole) builder.page(block, page, after, planned.names);
    else builder.zero(block, page, fill, planned.names);
  };

  const sections: { type: typeof PART | typeof END; pings: number[]; pages: PlannedPage[] }[] = [];
  for (let from = 0; from < places.length; from += plan.firstPassPages) {
    const pages = places.slice(from, from + plan.firstPassPages).map((_, i): PlannedPage => {
      const seed = plan.seed + from + i;
      const change = (["zero", "rewrite", "sparse"] as const)[seed % 3]!;
      return { at: from + i, change, seed, asXbzrle: false, whole: seed % 7 === 0, names: false };
    });
    sections.push({ type: PART, pings: [], pages });
  }
  for (const pass of plan.passes) sections.push({ type: PART, ...pass });
  sections.push({ type: END, ...plan.last });

  let stopsAt = 0;
  const unknownAt = plan.unknown === "none" ? -1 : plan.unknownSection % sections.length;
  sections.forEach((section, index) => {
    for (const value of plan.returnPath ? section.pings : []) builder.command(2, be32(value));
    if (index === unknownAt && plan.unknown === "command") builder.opaque().command(99, be32(5));
    if (index === unknownAt && plan.unknown === "device") builder.opaque().device("early", be32(9));
    if (section.type === END) stopsAt = builder.lengthBytes;
    if (section.type === END && plan.switchoverStart) builder.command(11);
    builder.section(section.type);
    const flagAt =
      index === unknownAt && plan.unknown === "flag" ? plan.unknownPages % (section.pages.length + 1) : -1;
    section.pages.forEach((page, i) => {
      if (i === flagAt) builder.opaque().verbatim(MULTIFD_FLUSH);
      send(page);
    });
    if (flagAt === section.pages.length) builder.opaque().verbatim(MULTIFD_FLUSH);
    builder.endSection();
    sectionEnds.push(builder.lengthBytes);
  });
  builder.device("cpu", plan.devicePayload).eof();
  return {
    bytes: builder.bytes,
    calls: builder.calls,
    blocks: plan.blocks,
    pageBytes,
    images: guest.map((pages) => Buffer.concat(pages)),
    sectionEnds,
    stopsAt,
  };
}

/** A record that means nothing with one channel: the loader skips it, the reader does not know it. */
const MULTIFD_FLUSH = Buffer.from("0000000000000200", "hex");

function changed(before: Uint8Array, { change, seed }: PlannedPage): Uint8Array {
  const random = randomBytes(seed);
  const after = before.slice();
  if (change === "rewrite") for (let i = 0; i < after.length; i++) after[i] = random();
  else if (change === "zero") after.fill(0);
  else if (change === "fill") after.fill(1 + (random() % 255));
  else if (change === "sparse") {
    for (let spots = 1 + (random() % 5); spots > 0; spots--) {
      const at = (random() * 256 + random()) % after.length;
      for (let i = at; i < Math.min(after.length, at + 1 + (random() % 12)); i++) after[i] = random();
    }
  }
  return after;
}

/** mulberry32: small, and the same everywhere. */
export function randomBytes(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) & 0xff;
  };
}

const plannedPage = fc.record({
  at: fc.nat(40),
  change: fc.constantFrom<Change>("same", "sparse", "sparse", "rewrite", "zero", "fill"),
  seed: fc.nat(0xffff),
  asXbzrle: fc.boolean(),
  whole: fc.boolean(),
  names: fc.boolean(),
});
const section = fc.record({
  pages: fc.array(plannedPage, { maxLength: 12 }),
  pings: fc.array(fc.nat(0xffff), { maxLength: 2 }),
});
const blocks = fc
  .uniqueArray(fc.constantFrom("pc.ram", "vga.vram", "pc.bios", "0000:00:03.0/e1000.rom", ""), {
    minLength: 1,
    maxLength: 3,
  })
  .chain((names) =>
    fc.tuple(
      ...names.map((idstr) =>
        fc.record({ idstr: fc.constant(idstr), pages: fc.integer({ min: 1, max: 5 }) }),
      ),
    ),
  );

/** `unknown`: the kinds of unknown elements that may turn up, none if not given. */
export function arbitraryPlan(unknown: readonly UnknownKind[] = ["none"]): fc.Arbitrary<StreamPlan> {
  return fc.record({
    machine: fc.option(fc.constantFrom("pc-i440fx-7.2", "virt-10.0", ""), { nil: undefined, freq: 8 }),
    pageBits: fc.constantFrom(undefined, undefined, 12 as const, 14 as const),
    uuid: fc.boolean(),
    ignoreShared: fc.boolean(),
    returnPath: fc.boolean(),
    sectionId: fc.nat(0xffffffff),
    blocks,
    seed: fc.nat(0xffff),
    firstPassPages: fc.integer({ min: 1, max: 20 }),
    passes: fc.array(section, { maxLength: 5 }),
    last: section,
    switchoverStart: fc.boolean(),
    devicePayload: fc.uint8Array({ maxLength: 64 }),
    unknown: fc.constantFrom(...unknown),
    unknownSection: fc.nat(20),
    unknownPages: fc.nat(12),
  });
}
