// Payloads of DATA frames: what kinds there are, and the layout of the two that are not plain stream bytes (the
// RAMBlock list and a batch of pages). Knows addresses and sizes, not how a delta is made. Peer bytes are hostile:
// lengths must add up before anything behind them is looked at. Format: PROTOCOL.md, "Payloads".
//
// Little-endian, unlike the frames around it: that is what WebAssembly and the machines that run it are.

import { ProtocolError } from "../base/errors.ts";

/** Bytes of the hypervisor's stream, as they are. */
export const PAYLOAD_STREAM = 1;
/** The RAMBlocks, and how their pages are coded from here on. Before the first batch of pages, and once. */
export const PAYLOAD_RAM_LAYOUT = 2;
/** RAM records, taken apart. */
export const PAYLOAD_PAGES = 3;
/** Bytes that stand for nothing: how long so many take is what they are for. */
export const PAYLOAD_PADDING = 4;

export type PayloadKind =
  | typeof PAYLOAD_STREAM
  | typeof PAYLOAD_RAM_LAYOUT
  | typeof PAYLOAD_PAGES
  | typeof PAYLOAD_PADDING;

export function isPayloadKind(value: number): value is PayloadKind {
  return value >= PAYLOAD_STREAM && value <= PAYLOAD_PADDING;
}

/** Kinds of entries in a batch of pages. 0 is invalid. */
export const ENTRY_ZERO = 1;
export const ENTRY_WHOLE = 2;
export const ENTRY_DELTA = 3;
/** The content is that of a whole page sent before: its number in the window of whole pages. */
export const ENTRY_REFERENCE = 4;

export const PAGES_HEADER_BYTES = 32;
/** Entries of one batch: bounds what a peer can make us do for one frame. */
export const BATCH_ENTRIES_MAX = 4096;
/** Flag: the records are a PART section of their own, which the destination opens and closes around them. */
export const PAGES_FLAG_OWN_SECTION = 1;
/** An address: at most so many bytes in each of its two numbers. */
export const ADDRESS_BYTES_MAX = 10;
export const REFERENCE_BYTES = 4;
export const SLOT_BYTES = 4;

/** Sizes of a batch's parts, which follow the header in this order. */
export interface PagesHeader {
  ownSection: boolean;
  entryCount: number;
  /** Content of ENTRY_WHOLE, `pageBytes` each. */
  wholePages: number;
  /** Two streams of the delta codec. */
  dataBytes: number;
  controlBytes: number;
  /** Of ENTRY_REFERENCE, REFERENCE_BYTES each. */
  referenceBytes: number;
  /** Of every entry but ENTRY_ZERO, SLOT_BYTES each; none unless the delta codec needs the baseline. */
  slotBytes: number;
  /** One byte an entry, its kind, is between these and the header's other parts. */
  addressBytes: number;
}

export function pagesPayloadBytes(header: PagesHeader, pageBytes: number): number {
  return (
    PAGES_HEADER_BYTES +
    header.wholePages * pageBytes +
    header.dataBytes +
    header.controlBytes +
    header.referenceBytes +
    header.slotBytes +
    header.entryCount +
    header.addressBytes
  );
}

export function writePagesHeader(view: DataView, at: number, header: PagesHeader): void {
  view.setUint8(at, header.ownSection ? PAGES_FLAG_OWN_SECTION : 0);
  view.setUint8(at + 1, 0);
  view.setUint16(at + 2, 0);
  view.setUint32(at + 4, header.entryCount, true);
  view.setUint32(at + 8, header.wholePages, true);
  view.setUint32(at + 12, header.dataBytes, true);
  view.setUint32(at + 16, header.controlBytes, true);
  view.setUint32(at + 20, header.referenceBytes, true);
  view.setUint32(at + 24, header.slotBytes, true);
  view.setUint32(at + 28, header.addressBytes, true);
}

/** @throws ProtocolError when the lengths do not add up to the payload's */
export function readPagesHeader(
  view: DataView,
  at: number,
  payloadBytes: number,
  pageBytes: number,
): PagesHeader {
  if (payloadBytes < PAGES_HEADER_BYTES) throw invalidPayload(`batch of pages of ${payloadBytes} bytes`);
  const flags = view.getUint32(at, true);
  if ((flags & ~PAGES_FLAG_OWN_SECTION) !== 0) throw invalidPayload(`batch of pages with flags ${flags}`);
  const header: PagesHeader = {
    ownSection: flags === PAGES_FLAG_OWN_SECTION,
    entryCount: view.getUint32(at + 4, true),
    wholePages: view.getUint32(at + 8, true),
    dataBytes: view.getUint32(at + 12, true),
    controlBytes: view.getUint32(at + 16, true),
    referenceBytes: view.getUint32(at + 20, true),
    slotBytes: view.getUint32(at + 24, true),
    addressBytes: view.getUint32(at + 28, true),
  };
  const { entryCount } = header;
  if (entryCount === 0 || entryCount > BATCH_ENTRIES_MAX) {
    throw invalidPayload(`batch of ${entryCount} pages (1 to ${BATCH_ENTRIES_MAX})`);
  }
  const statedBytes = pagesPayloadBytes(header, pageBytes);
  if (statedBytes !== payloadBytes) {
    throw invalidPayload(`batch of pages of ${payloadBytes} bytes whose parts are ${statedBytes}`);
  }
  return header;
}

export interface RamLayout {
  /** Of the hypervisor's ram section. */
  sectionId: number;
  /** A power of two from 512 to 65536. */
  pageBytes: number;
  deltaCodec: number;
  /** Whole pages sent last that a reference may mean: the destination keeps them. */
  windowPages: number;
  /** Pages that the destination keeps for a codec that needs the baseline; else 0. */
  baselinePages: number;
  blocks: readonly { idstr: string; lengthBytes: number }[];
}

const LAYOUT_FIXED_BYTES = 24;
/** Above what any RAMBlock can be (QEMU's own limit of the address space is lower). */
const BLOCK_PAGES_MAX = 2 ** 31;

export function encodeRamLayout(layout: RamLayout): Uint8Array {
  const names = layout.blocks.map(({ idstr }) => Buffer.from(idstr, "latin1"));
  const bytes = Buffer.alloc(LAYOUT_FIXED_BYTES + names.reduce((sum, name) => sum + 9 + name.length, 0));
  bytes.writeUInt32LE(layout.sectionId, 0);
  bytes.writeUInt32LE(layout.pageBytes, 4);
  bytes.writeUInt8(layout.deltaCodec, 8);
  bytes.writeUInt32LE(layout.windowPages, 12);
  bytes.writeUInt32LE(layout.baselinePages, 16);
  bytes.writeUInt32LE(layout.blocks.length, 20);
  let at = LAYOUT_FIXED_BYTES;
  layout.blocks.forEach(({ lengthBytes }, index) => {
    const name = names[index]!;
    bytes.writeBigUInt64LE(BigInt(lengthBytes), at);
    bytes.writeUInt8(name.length, at + 8);
    name.copy(bytes, at + 9);
    at += 9 + name.length;
  });
  return bytes;
}

/** @throws ProtocolError for anything that encodeRamLayout does not write */
export function decodeRamLayout(payload: Uint8Array): RamLayout {
  // A copy: it is a few hundred bytes, once.
  const bytes = Buffer.from(payload);
  if (bytes.length < LAYOUT_FIXED_BYTES) throw invalidPayload(`RAM layout of ${bytes.length} bytes`);
  const pageBytes = bytes.readUInt32LE(4);
  if (pageBytes < 512 || pageBytes > 65536 || (pageBytes & (pageBytes - 1)) !== 0) {
    throw invalidPayload(`RAM layout with pages of ${pageBytes} bytes`);
  }
  if (bytes.readUIntLE(9, 3) !== 0) throw invalidPayload("RAM layout with reserved bytes other than 0");
  const count = bytes.readUInt32LE(20);
  const blocks: { idstr: string; lengthBytes: number }[] = [];
  let at = LAYOUT_FIXED_BYTES;
  for (let i = 0; i < count; i++) {
    const end = at + 9 + (bytes[at + 8] ?? 0);
    if (end > bytes.length) throw invalidPayload(`RAM layout that ends in RAMBlock ${i}`);
    const lengthBytes = Number(bytes.readBigUInt64LE(at));
    if (lengthBytes % pageBytes !== 0 || lengthBytes / pageBytes > BLOCK_PAGES_MAX) {
      throw invalidPayload(`RAMBlock ${i} of ${lengthBytes} bytes`);
    }
    blocks.push({ idstr: bytes.toString("latin1", at + 9, end), lengthBytes });
    at = end;
  }
  if (at !== bytes.length) throw invalidPayload(`RAM layout with ${bytes.length - at} bytes too many`);
  return {
    sectionId: bytes.readUInt32LE(0),
    pageBytes,
    deltaCodec: bytes.readUInt8(8),
    windowPages: bytes.readUInt32LE(12),
    baselinePages: bytes.readUInt32LE(16),
    blocks,
  };
}

/** What is wrong with a peer's payload. */
export function invalidPayload(what: string): ProtocolError {
  return new ProtocolError("PROTOCOL_INVALID_FRAME", `Decoding a payload failed: ${what}`);
}
