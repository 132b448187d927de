// Incremental reader of QEMU's migration stream (FORMAT.md). Bytes in, calls on a StreamHandler out; knows
// nothing of sockets, caches or deltas. The calls never depend on how the bytes were cut into chunks, except
// that `verbatim` pieces may come in several parts.
//
// What it does not know makes it opaque: from that element on all bytes are handed over as they are, so that
// a migration never fails because we did not understand it. What contradicts the format is an error.

import { assert } from "../base/assert.ts";
import { QemuStreamError } from "../base/errors.ts";
import {
  CAPABILITIES_MAX,
  Command,
  DEFAULT_PAGE_BYTES,
  DISCARD_VERSION,
  MACHINE_NAME_BYTES_MAX,
  PAGE_BITS_MAX,
  PAGE_BITS_MIN,
  RAM_BLOCKS_MAX,
  RAM_SECTION_NAME,
  RAM_SECTION_VERSION,
  RamFlag,
  SectionType,
  STREAM_MAGIC,
  STREAM_VERSION,
  XBZRLE_ENCODING,
} from "./format.ts";

export interface StreamBlock {
  idstr: string;
  lengthBytes: number;
}

/**
 * Receives the stream in order. Every byte of the input is either in a `verbatim` call or stands behind one
 * of the record calls. Byte ranges are valid only during the call.
 */
export interface StreamHandler {
  /** Takes no more for now: `consume` stops before the next element. `push` does not ask. */
  readonly isFull?: boolean;
  /** Bytes to be carried on as they are: headers, commands, the RAMBlock list, device state. */
  verbatim(bytes: Uint8Array, start: number, end: number): void;
  /** The RAMBlock list has been read; block indices below count in its order. Its bytes come verbatim. */
  ramBlocks(blocks: readonly StreamBlock[], pageBytes: number): void;
  /** Header of a ram section: its bytes are not given verbatim, since the writer may split sections. */
  ramSection(sectionType: number, sectionId: number): void;
  /** EOS record and footer: the ram section ends. */
  ramSectionEnd(sectionId: number): void;
  zeroPage(blockIndex: number, pageIndex: number, fill: number): void;
  /** A whole page at bytes[offset, offset + pageBytes). */
  page(blockIndex: number, pageIndex: number, bytes: Uint8Array, offset: number): void;
  /**
   * Whether records of whole pages and of zeros that name no RAMBlock, and so are of this one, may go on as they are.
   * They are then told by `carriedPage`, one by one, and their bytes come verbatim behind that, those of many records at
   * a time and CARRIED_BYTES_MAX at most; but for those of which it returns false, which do not come at all. Absent: they
   * never may.
   */
  carriesOn?(blockIndex: number): boolean;
  carriedPage?(blockIndex: number, pageIndex: number, isZero: boolean): boolean;
  /** A delta made by QEMU itself, at bytes[offset, offset + lengthBytes). */
  xbzrlePage(
    blockIndex: number,
    pageIndex: number,
    bytes: Uint8Array,
    offset: number,
    lengthBytes: number,
  ): void;
  /** A command to the destination (its bytes have been given verbatim). */
  command(command: number): void;
  /** The source's vCPUs have stopped: what follows is the last pass over RAM, then device state. Once. */
  stopped(): void;
  /**
   * Post-copy is about to begin: the destination forgets these pages, which are dirty, and gets them anew. This and the
   * next two may be absent where no stream with post-copy in it can come.
   */
  discarded?(blockIndex: number, pageIndex: number, pageCount: number): void;
  /**
   * Post-copy begins with the bytes that follow: the device state in a package, and in it the command to run the
   * guest. Once. Pages behind it are to reach the destination whole, and each only once.
   */
  package?(): void;
  /** All of the package was given verbatim. */
  packageEnd?(): void;
  /** RAM is complete; what follows is device state (in post-copy nothing but the end) and comes verbatim. Once. */
  deviceState(offsetBytes: number): void;
  /**
   * From here on nothing is interpreted. When `insideRam`, the bytes that follow continue a ram section of
   * the source, whose next record may say CONTINUE and mean the block of the last record read.
   */
  opaque(reason: string, offsetBytes: number, insideRam: boolean): void;
}

type State =
  | "header"
  | "configuration"
  | "subsections"
  | "sections"
  | "ram"
  | "ram-blocks"
  | "package"
  | "device-state"
  | "opaque";

/** Text with its length in the byte before it. */
const TEXT_BYTES_MAX = 1 + 255;
/** The longest element that must be seen whole: a capability list; a page record is far shorter. */
export const ELEMENT_BYTES_MAX = 1 + TEXT_BYTES_MAX + 4 + 4 + CAPABILITIES_MAX * TEXT_BYTES_MAX;
/** Of page records that are carried on as they are (`carriesOn`), at a time. */
export const CARRIED_BYTES_MAX = 64 * 1024;
const NO_BLOCK = -1;

export class StreamReader {
  readonly #handler: StreamHandler;
  #state: State = "header";
  /** Offset in the stream of byte 0 of the buffer being parsed. */
  #baseBytes = 0;
  #pageBytes: number;
  #blocks: StreamBlock[] = [];
  #blockIndexByName = new Map<string, number>();
  #lastBlock = NO_BLOCK;
  #ramSectionId: number | undefined;
  #ramBytesUnlisted = 0;
  #blocksReported = false;
  #ignoreShared = false;
  /** Page sizes of RAMBlocks, or-ed, where post-copy may come and some have pages other than ours. */
  #otherPageSizes = 0n;
  #stopped = false;
  #ramSectionType: number = SectionType.START;
  #packageBytesLeft = 0;
  #packaged = false;
  /** An element cut by the end of a chunk; never longer than one element plus one look-ahead. */
  #carry: Uint8Array = new Uint8Array(2 * ELEMENT_BYTES_MAX);
  #carryBytes = 0;
  /** Elements that begin here or behind it are not to be read yet. */
  #stopAt = 0;
  /** Of the buffer that consume() was given last. */
  #view: DataView | undefined;

  /** `pageBytes`: target page size if it is known from elsewhere; the stream's own statement wins. */
  constructor(handler: StreamHandler, pageBytes: number = DEFAULT_PAGE_BYTES) {
    this.#handler = handler;
    this.#pageBytes = pageBytes;
  }

  /** Offset of the first byte not yet handed over. */
  get offsetBytes(): number {
    return this.#baseBytes;
  }

  get isOpaque(): boolean {
    return this.#state === "opaque";
  }

  /**
   * Takes the next bytes of the stream. `chunk` is not kept.
   * @throws QemuStreamError when they contradict the format; the reader is unusable afterwards.
   */
  push(chunk: Uint8Array): void {
    let start = 0;
    if (this.#carryBytes > 0) {
      const taken = Math.min(chunk.length, ELEMENT_BYTES_MAX);
      this.#carry.set(taken === chunk.length ? chunk : chunk.subarray(0, taken), this.#carryBytes);
      const end = this.#carryBytes + taken;
      // Elements that begin in the carry are parsed there, those that begin in the chunk are parsed in place.
      const consumed = this.#parse(this.#carry, 0, end, this.#carryBytes);
      if (consumed < this.#carryBytes) {
        assert(taken === chunk.length, "an element is longer than ELEMENT_BYTES_MAX");
        this.#carry.copyWithin(0, consumed, end);
        this.#carryBytes = end - consumed;
        return;
      }
      start = consumed - this.#carryBytes;
    }
    const consumed = this.#parse(chunk, start, chunk.length, chunk.length);
    assert(chunk.length - consumed <= ELEMENT_BYTES_MAX, "an element is longer than ELEMENT_BYTES_MAX");
    this.#carry.set(chunk.subarray(consumed), 0);
    this.#carryBytes = chunk.length - consumed;
  }

  /**
   * Reads elements of bytes[start, end) that are whole and begin before `stopAt`, in place, until the handler is
   * full. Returns where the first byte lies that was not read: it and what follows is to be given again, with more
   * behind it. Not to be mixed with `push`. @throws QemuStreamError as push()
   */
  consume(bytes: Uint8Array, start: number, end: number, stopAt = end): number {
    assert(this.#carryBytes === 0, "consume is not mixed with push");
    if (this.#view?.buffer !== bytes.buffer || this.#view.byteOffset !== bytes.byteOffset) {
      this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }
    const view = this.#view;
    const handler = this.#handler;
    let position = start;
    this.#stopAt = stopAt;
    while (position < stopAt && handler.isFull !== true) {
      const next = this.#next(bytes, view, position, this.#isVerbatim ? stopAt : end);
      if (next < 0) break;
      position = next;
    }
    return position;
  }

  /** The input has ended. @throws QemuStreamError when it ended inside an element or before the device state. */
  end(): void {
    if (this.#state === "opaque" || this.#state === "device-state") return;
    throw this.#error(
      this.#carryBytes,
      `Stream ended early: ${this.#carryBytes} bytes of an element left over`,
    );
  }

  /**
   * Parses elements of bytes[start, end) that begin before `stopAt`. Returns where the first one begins that
   * is not complete.
   */
  #parse(bytes: Uint8Array, start: number, end: number, stopAt: number): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let position = start;
    this.#stopAt = stopAt;
    while (position < stopAt) {
      const next = this.#next(bytes, view, position, end);
      if (next < 0) break;
      position = next;
    }
    return position;
  }

  get #isVerbatim(): boolean {
    return this.#state === "opaque" || this.#state === "device-state" || this.#state === "package";
  }

  /** Reads the element at `position`. Returns where it ends, or -1 when it is not complete yet. */
  #next(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    const next = this.#isVerbatim
      ? this.#passThrough(bytes, position, end)
      : this.#element(bytes, view, position, end);
    if (next >= 0) this.#baseBytes += next - position;
    return next;
  }

  /** End of the element at `position`, or -1 when it is not complete yet. */
  #element(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    switch (this.#state) {
      case "ram":
        return this.#ramRecord(bytes, view, position, end);
      case "sections":
        return this.#section(bytes, view, position, end);
      case "ram-blocks":
        return this.#ramBlock(bytes, view, position, end);
      case "subsections":
        return this.#subsection(bytes, view, position, end);
      case "configuration":
        return this.#configuration(bytes, view, position, end);
      case "header":
        return this.#header(bytes, view, position, end);
      default:
        throw this.#error(0, `Reader has no element in state ${this.#state}`);
    }
  }

  #passThrough(bytes: Uint8Array, position: number, end: number): number {
    const next = this.#state === "package" ? Math.min(end, position + this.#packageBytesLeft) : end;
    this.#handler.verbatim(bytes, position, next);
    if (this.#state === "package") {
      this.#packageBytesLeft -= next - position;
      if (this.#packageBytesLeft === 0) {
        this.#state = "sections";
        this.#handler.packageEnd?.();
      }
    }
    return next;
  }

  #verbatim(bytes: Uint8Array, position: number, next: number): number {
    this.#handler.verbatim(bytes, position, next);
    return next;
  }

  /** Stops interpreting at the element that begins at `position`. */
  #goOpaque(position: number, reason: string): number {
    const insideRam = this.#state === "ram";
    this.#state = "opaque";
    this.#handler.opaque(reason, this.#baseBytes, insideRam);
    return position;
  }

  #header(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    // A TLS record (type 22, version 3.x) means that QEMU itself encrypts: nothing to read for us.
    if (bytes[position] === 0x16) return this.#goOpaque(position, "the stream is encrypted by QEMU (TLS)");
    if (end - position < 8) return -1;
    const magic = view.getUint32(position);
    if (magic !== STREAM_MAGIC) {
      throw this.#error(0, `Not a QEMU migration stream: it begins with 0x${magic.toString(16)}`);
    }
    const version = view.getUint32(position + 4);
    if (version !== STREAM_VERSION) return this.#goOpaque(position, `stream version ${version} is not known`);
    this.#state = "configuration";
    return this.#verbatim(bytes, position, position + 8);
  }

  #configuration(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    if (bytes[position] !== SectionType.CONFIGURATION) {
      // Machine types that send none (isapc, none) go on with sections at once.
      this.#state = "sections";
      return position;
    }
    if (end - position < 5) return -1;
    const nameBytes = view.getUint32(position + 1);
    if (nameBytes > MACHINE_NAME_BYTES_MAX) {
      throw this.#error(0, `Machine name of ${nameBytes} bytes (at most ${MACHINE_NAME_BYTES_MAX})`);
    }
    const next = position + 5 + nameBytes;
    if (next > end) return -1;
    this.#state = "subsections";
    return this.#verbatim(bytes, position, next);
  }

  /** Subsections of the configuration: be32 version, then fields without any length. */
  #subsection(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    if (bytes[position] !== SectionType.SUBSECTION) {
      this.#state = "sections";
      return position;
    }
    if (end - position < 2) return -1;
    const nameEnd = position + 2 + (bytes[position + 1] ?? 0);
    const body = nameEnd + 4;
    if (body > end) return -1;
    const name = latin1(bytes, position + 2, nameEnd);
    switch (name) {
      case "configuration/target-page-bits": {
        if (body + 4 > end) return -1;
        const bits = view.getUint32(body);
        if (bits < PAGE_BITS_MIN || bits > PAGE_BITS_MAX) {
          return this.#goOpaque(position, `target pages of 2^${bits} bytes are not known`);
        }
        this.#pageBytes = 2 ** bits;
        return this.#verbatim(bytes, position, body + 4);
      }
      case "configuration/uuid":
        return body + 16 > end ? -1 : this.#verbatim(bytes, position, body + 16);
      case "configuration/capabilities": {
        if (body + 4 > end) return -1;
        const count = view.getUint32(body);
        if (count > CAPABILITIES_MAX)
          throw this.#error(0, `${count} capabilities (at most ${CAPABILITIES_MAX})`);
        let cursor = body + 4;
        for (let i = 0; i < count; i++) {
          if (cursor >= end) return -1;
          const textEnd = cursor + 1 + (bytes[cursor] ?? 0);
          if (textEnd > end) return -1;
          const capability = latin1(bytes, cursor + 1, textEnd);
          // QEMU lists only those that change the stream: this one adds addresses to the RAMBlock list.
          if (capability !== "x-ignore-shared") {
            return this.#goOpaque(position, `capability "${printable(capability)}" is not known`);
          }
          this.#ignoreShared = true;
          cursor = textEnd;
        }
        return this.#verbatim(bytes, position, cursor);
      }
      default:
        return this.#goOpaque(position, `configuration subsection "${printable(name)}" is not known`);
    }
  }

  /** Top level, between sections. */
  #section(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    const type = bytes[position];
    switch (type) {
      case SectionType.COMMAND:
        return this.#command(bytes, view, position, end);
      case SectionType.START:
      case SectionType.FULL:
        return this.#sectionStart(bytes, view, position, end);
      case SectionType.PART:
      case SectionType.END: {
        if (end - position < 5) return -1;
        const sectionId = view.getUint32(position + 1);
        if (sectionId !== this.#ramSectionId) {
          throw this.#error(0, `Section ${sectionId} goes on, but was never started`);
        }
        this.#ramSectionType = type;
        if (type === SectionType.END) this.#markStopped();
        this.#state = "ram";
        this.#handler.ramSection(type, sectionId);
        return position + 5;
      }
      case SectionType.EOF:
        if (this.#ramSectionId === undefined) return this.#goOpaque(position, "the stream carries no RAM");
        throw this.#error(0, "Stream ends before RAM is complete");
      default:
        return this.#goOpaque(position, `section type 0x${(type ?? 0).toString(16)} is not known`);
    }
  }

  #sectionStart(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    const isFull = bytes[position] === SectionType.FULL;
    if (end - position < 6) return -1;
    const nameEnd = position + 6 + (bytes[position + 5] ?? 0);
    const next = nameEnd + 8;
    if (next > end) return -1;
    const name = latin1(bytes, position + 6, nameEnd);
    // Neither a device section nor the section of another live device says how long it is.
    if (isFull)
      return this.#goOpaque(position, `device section "${printable(name)}" comes before RAM is complete`);
    if (name !== RAM_SECTION_NAME) {
      return this.#goOpaque(position, `live section "${printable(name)}" is not known`);
    }
    const version = view.getUint32(nameEnd + 4);
    if (version !== RAM_SECTION_VERSION) return this.#goOpaque(position, `ram section version ${version}`);
    if (this.#ramSectionId !== undefined) throw this.#error(0, "The ram section starts twice");
    this.#ramSectionId = view.getUint32(position + 1);
    this.#handler.verbatim(bytes, position, next);
    this.#handler.ramSection(SectionType.START, this.#ramSectionId);
    this.#state = "ram";
    return next;
  }

  #command(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    if (end - position < 5) return -1;
    const command = view.getUint16(position + 1);
    const next = position + 5 + view.getUint16(position + 3);
    switch (command) {
      case Command.OPEN_RETURN_PATH:
      case Command.PING:
      case Command.SWITCHOVER_START:
        break;
      case Command.POSTCOPY_ADVISE:
        return this.#advise(bytes, view, position, next, end);
      case Command.POSTCOPY_RAM_DISCARD:
        return this.#discard(bytes, view, position, next, end);
      case Command.PACKAGED:
        return this.#package(bytes, view, position, next, end);
      default:
        // COLO and the recovery of post-copy change what the rest of the stream means.
        return this.#goOpaque(position, `command ${command} is not known`);
    }
    if (next > end) return -1;
    if (command === Command.SWITCHOVER_START) this.#markStopped();
    this.#verbatim(bytes, position, next);
    this.#handler.command(command);
    return next;
  }

  /** Post-copy may come: be64 sizes of pages of all RAMBlocks, or-ed, be64 page size of the target; or nothing. */
  #advise(bytes: Uint8Array, view: DataView, position: number, next: number, end: number): number {
    if (next > end) return -1;
    const body = position + 5;
    if (next === body + 16) {
      const sizes = view.getBigUint64(body);
      if (sizes !== BigInt(this.#pageBytes)) {
        // Then behind a length may stand a page size, an address, or both.
        if (this.#ignoreShared) {
          return this.#goOpaque(position, `post-copy with pages of other sizes (0x${sizes.toString(16)})`);
        }
        this.#otherPageSizes = sizes;
      }
    } else if (next !== body) return this.#goOpaque(position, `advice on post-copy of ${next - body} bytes`);
    this.#verbatim(bytes, position, next);
    this.#handler.command(Command.POSTCOPY_ADVISE);
    return next;
  }

  /** Version, name with a zero behind it, then be64 offset and be64 length of each range, in bytes. */
  #discard(bytes: Uint8Array, view: DataView, position: number, next: number, end: number): number {
    if (next > end) return -1;
    const body = position + 5;
    if (next - body < 3 || bytes[body] !== DISCARD_VERSION) {
      throw this.#error(0, `Pages to discard in a form of version ${bytes[body]}`);
    }
    const nameEnd = body + 2 + (bytes[body + 1] ?? 0);
    const rangesAt = nameEnd + 1;
    if (rangesAt > next || (next - rangesAt) % 16 !== 0) {
      throw this.#error(0, `List of pages to discard of ${next - body} bytes`);
    }
    const name = latin1(bytes, body + 2, nameEnd);
    const block = this.#blockIndexByName.get(name);
    if (block === undefined) {
      throw this.#error(0, `Pages of RAMBlock "${printable(name)}" to discard, which was not listed`);
    }
    const { lengthBytes, idstr } = this.#blocks[block]!;
    // Only between the stop and the device state is there anything to discard.
    this.#markStopped();
    for (let at = rangesAt; at < next; at += 16) {
      const offset = Number(view.getBigUint64(at));
      const length = Number(view.getBigUint64(at + 8));
      if (offset % this.#pageBytes !== 0 || length % this.#pageBytes !== 0 || offset + length > lengthBytes) {
        throw this.#error(0, `Discard of ${length} bytes at ${offset} of RAMBlock "${idstr}"`);
      }
      this.#handler.discarded?.(block, offset / this.#pageBytes, length / this.#pageBytes);
    }
    this.#verbatim(bytes, position, next);
    this.#handler.command(Command.POSTCOPY_RAM_DISCARD);
    return next;
  }

  /** be32 length, and behind the command, not in it, so many bytes. */
  #package(bytes: Uint8Array, view: DataView, position: number, next: number, end: number): number {
    if (next > end) return -1;
    if (next !== position + 9) throw this.#error(0, `Package whose length has ${next - position - 5} bytes`);
    if (this.#packaged) throw this.#error(0, "A second package");
    const packageBytes = view.getUint32(position + 5);
    if (packageBytes === 0 || !this.#blocksReported) throw this.#error(0, `Package of ${packageBytes} bytes`);
    this.#markStopped();
    this.#packaged = true;
    this.#packageBytesLeft = packageBytes;
    this.#handler.package?.();
    this.#state = "package";
    return this.#verbatim(bytes, position, next);
  }

  #ramRecord(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    if (this.#lastBlock !== NO_BLOCK && this.#handler.carriesOn?.(this.#lastBlock) === true) {
      const next = this.#carryOn(bytes, view, position, end);
      if (next > position) return next;
    }
    if (end - position < 8) return -1;
    const low = view.getUint32(position + 4);
    const flags = low & (this.#pageBytes - 1);
    const offset = view.getUint32(position) * 2 ** 32 + (low - flags);
    switch (flags) {
      case RamFlag.PAGE:
      case RamFlag.PAGE | RamFlag.CONTINUE:
      case RamFlag.ZERO:
      case RamFlag.ZERO | RamFlag.CONTINUE:
      case RamFlag.XBZRLE:
      case RamFlag.XBZRLE | RamFlag.CONTINUE:
        return this.#pageRecord(bytes, view, position, end, flags, offset);
      case RamFlag.EOS:
        return this.#ramEnd(bytes, view, position, end);
      case RamFlag.MEM_SIZE:
        if (this.#blocksReported) throw this.#error(0, "RAMBlocks are listed twice");
        // A section with a list in it could not be split.
        if (this.#ramSectionType !== SectionType.START) {
          return this.#goOpaque(position, "RAMBlocks are listed after START");
        }
        if (offset > Number.MAX_SAFE_INTEGER) throw this.#error(0, `RAM of ${offset} bytes`);
        this.#ramBytesUnlisted = offset;
        this.#state = "ram-blocks";
        return this.#verbatim(bytes, position, position + 8);
      default:
        return this.#goOpaque(position, `RAM record flags 0x${flags.toString(16)} are not known`);
    }
  }

  #pageRecord(
    bytes: Uint8Array,
    view: DataView,
    position: number,
    end: number,
    flags: number,
    offset: number,
  ): number {
    let payload = position + 8;
    let block = this.#lastBlock;
    if ((flags & RamFlag.CONTINUE) === 0) {
      if (payload >= end) return -1;
      const nameEnd = payload + 1 + (bytes[payload] ?? 0);
      if (nameEnd > end) return -1;
      // Names repeat for millions of pages: comparing with the last one spares a string per record.
      if (block === NO_BLOCK || !sameText(this.#blocks[block]!.idstr, bytes, payload + 1, nameEnd)) {
        const name = latin1(bytes, payload + 1, nameEnd);
        const found = this.#blockIndexByName.get(name);
        if (found === undefined)
          throw this.#error(0, `Page of RAMBlock "${printable(name)}", which was not listed`);
        block = found;
      }
      payload = nameEnd;
    } else if (block === NO_BLOCK) {
      throw this.#error(0, "Page record says CONTINUE, but no RAMBlock was named before");
    }

    const kind = flags & ~RamFlag.CONTINUE;
    let next = payload;
    if (kind === RamFlag.PAGE) next += this.#pageBytes;
    else if (kind === RamFlag.ZERO) next += 1;
    else {
      if (payload + 3 > end) return -1;
      const deltaBytes = view.getUint16(payload + 1);
      if (bytes[payload] !== XBZRLE_ENCODING) throw this.#error(0, `XBZRLE encoding ${bytes[payload]}`);
      if (deltaBytes > this.#pageBytes) throw this.#error(0, `XBZRLE record of ${deltaBytes} bytes`);
      next += 3 + deltaBytes;
    }
    if (next > end) return -1;

    const { lengthBytes, idstr } = this.#blocks[block]!;
    if (offset >= lengthBytes) {
      throw this.#error(0, `Page at ${offset} of RAMBlock "${idstr}", which has ${lengthBytes} bytes`);
    }
    const pageIndex = offset / this.#pageBytes;
    this.#lastBlock = block;
    if (kind === RamFlag.PAGE) this.#handler.page(block, pageIndex, bytes, payload);
    else if (kind === RamFlag.ZERO) this.#handler.zeroPage(block, pageIndex, bytes[payload] ?? 0);
    else this.#handler.xbzrlePage(block, pageIndex, bytes, payload + 3, next - payload - 3);
    return next;
  }

  /**
   * Page records that go on as they are, one after the other: on a link that is faster than each of them can be looked
   * at, this loop is all that a page costs. Returns where the first one begins that is something else, is not complete or
   * cannot be right.
   */
  #carryOn(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    const handler = this.#handler;
    const block = this.#lastBlock;
    const pageBytes = this.#pageBytes;
    const { lengthBytes } = this.#blocks[block]!;
    const stopAt = Math.min(this.#stopAt, position + CARRIED_BYTES_MAX - 8 - pageBytes);
    let from = position;
    let next = position;
    while (next < stopAt && next + 9 <= end) {
      const low = view.getUint32(next + 4);
      const flags = low & (pageBytes - 1);
      const offset = view.getUint32(next) * 2 ** 32 + (low - flags);
      const isZero = flags === (RamFlag.ZERO | RamFlag.CONTINUE);
      if (isZero ? bytes[next + 8] !== 0 : flags !== (RamFlag.PAGE | RamFlag.CONTINUE)) break;
      const after = next + 8 + (isZero ? 1 : pageBytes);
      if (after > end || offset >= lengthBytes) break;
      if (handler.carriedPage?.(block, offset / pageBytes, isZero) === false) {
        if (next > from) handler.verbatim(bytes, from, next);
        from = after;
      }
      next = after;
    }
    if (next > from) handler.verbatim(bytes, from, next);
    return next;
  }

  /** One entry of the RAMBlock list, which ends when the lengths add up to the total of MEM_SIZE. */
  #ramBlock(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    if (this.#ramBytesUnlisted === 0) {
      this.#blocksReported = true;
      this.#handler.ramBlocks(this.#blocks, this.#pageBytes);
      this.#state = "ram";
      return position;
    }
    const nameEnd = position + 1 + (bytes[position] ?? 0);
    let next = nameEnd + 8 + (this.#ignoreShared ? 8 : 0);
    if (next > end) return -1;
    if (this.#otherPageSizes !== 0n) {
      if (next + 8 > end) return -1;
      if (this.#isPageSize(view.getBigUint64(next))) next += 8;
    }
    const idstr = latin1(bytes, position + 1, nameEnd);
    const lengthBytes = view.getUint32(nameEnd) * 2 ** 32 + view.getUint32(nameEnd + 4);
    if (lengthBytes > this.#ramBytesUnlisted || lengthBytes % this.#pageBytes !== 0) {
      throw this.#error(
        0,
        `RAMBlock "${printable(idstr)}" has ${lengthBytes} bytes, ${this.#ramBytesUnlisted} are left`,
      );
    }
    if (this.#blockIndexByName.has(idstr))
      throw this.#error(0, `RAMBlock "${printable(idstr)}" is listed twice`);
    if (this.#blocks.length === RAM_BLOCKS_MAX) throw this.#error(0, `More than ${RAM_BLOCKS_MAX} RAMBlocks`);
    this.#blockIndexByName.set(idstr, this.#blocks.length);
    this.#blocks.push({ idstr, lengthBytes });
    this.#ramBytesUnlisted -= lengthBytes;
    return this.#verbatim(bytes, position, next);
  }

  /**
   * Whether what follows a RAMBlock's length is the size of its pages, which only those of huge pages have. Otherwise it is
   * the next name, whose length comes first and is not zero, or a RAM record, whose flags are not.
   */
  #isPageSize(next: bigint): boolean {
    if (next >> 56n !== 0n || next % BigInt(this.#pageBytes) !== 0n) return false;
    if (next === 0n || (next & this.#otherPageSizes) !== next)
      throw this.#error(0, `RAMBlock with pages of ${next} bytes, which were not announced`);
    return true;
  }

  /** EOS record and the section's footer, read as one element. */
  #ramEnd(bytes: Uint8Array, view: DataView, position: number, end: number): number {
    if (end - position < 9) return -1;
    // Machine types before 2.4 send no footers; there is nothing to be gained from supporting them.
    if (bytes[position + 8] !== SectionType.FOOTER)
      return this.#goOpaque(position, "sections have no footers");
    if (end - position < 13) return -1;
    const sectionId = view.getUint32(position + 9);
    if (sectionId !== this.#ramSectionId) {
      throw this.#error(8, `Footer of section ${sectionId} behind section ${this.#ramSectionId}`);
    }
    this.#handler.ramSectionEnd(sectionId);
    if (this.#ramSectionType === SectionType.END) {
      this.#state = "device-state";
      this.#handler.deviceState(this.#baseBytes + 13);
    } else {
      this.#state = "sections";
    }
    return position + 13;
  }

  #markStopped(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#handler.stopped();
  }

  /** `aheadBytes`: how far behind the current element's begin the trouble is. */
  #error(aheadBytes: number, message: string): QemuStreamError {
    return new QemuStreamError(message, this.#baseBytes + aheadBytes, this.#state);
  }
}

function latin1(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("latin1");
}

function sameText(text: string, bytes: Uint8Array, start: number, end: number): boolean {
  if (text.length !== end - start) return false;
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) !== bytes[start + i]) return false;
  }
  return true;
}

/** Names come from outside: control characters do not belong in messages. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?");
}
