// A destination hypervisor, as small as it can be: applies a migration stream to RAM and answers on the return
// path. Strict where QEMU is strict, and where QEMU trusts its peer too. Written from src/stream/FORMAT.md;
// shares no code with src. It also knows a few elements that src/stream does not (see arbitrary-stream.ts).

import { be16, be32, END, PART, START } from "./stream-builder.ts";
import { modelDecode } from "./xbzrle-model.ts";

/** RAM before the migration is not zero: firmware may be there. */
const BEFORE = 0xa5;

export interface LoadedBlock {
  idstr: string;
  bytes: Buffer;
  /** Pages that the stream has set. */
  known: Set<number>;
}

/** Whole pages of a block. */
export interface ZeroRange {
  idstr: string;
  offsetBytes: number;
  lengthBytes: number;
}

export interface LoadedRecord {
  block: string;
  page: number;
  kind: "zero" | "page" | "xbzrle";
}

export class LoadError extends Error {}

export class Loader {
  readonly blocks: LoadedBlock[] = [];
  readonly records: LoadedRecord[] = [];
  /** Types of the ram sections, in order. */
  readonly sections: number[] = [];
  readonly pings: number[] = [];
  /** Post-copy has begun: pages that it forgot, and only those, come whole and once. */
  isPostcopy = false;
  pageBytes = 4096;
  /** Everything has been read, device state and all. */
  complete = false;
  /** Payloads of the device sections; in post-copy the package. */
  readonly devices: Buffer[] = [];
  readonly #hasDescription: boolean;
  readonly #untouched: readonly ZeroRange[];
  readonly #reply: (bytes: Buffer) => void;
  readonly #work: Generator<void, void, void>;
  #input = Buffer.alloc(0);
  #offsetBytes = 0;
  #returnPath = false;
  #ignoreShared = false;
  #last: LoadedBlock | undefined;
  #failure: LoadError | undefined;

  /**
   * `hasDescription`: the stream goes on behind its end, as QEMU's do. `untouched`: where RAM is zero before the migration,
   * after all.
   */
  constructor(
    reply: (bytes: Buffer) => void = () => {},
    {
      hasDescription = true,
      untouched = [],
    }: { hasDescription?: boolean; untouched?: readonly ZeroRange[] } = {},
  ) {
    this.#untouched = untouched;
    this.#reply = reply;
    this.#hasDescription = hasDescription;
    this.#work = this.#stream();
    this.#work.next();
  }

  get failed(): boolean {
    return this.#failure !== undefined;
  }

  get images(): Buffer[] {
    return this.blocks.map((block) => Buffer.from(block.bytes));
  }

  /** @throws LoadError for anything that a destination would not load */
  push(bytes: Uint8Array): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#input = Buffer.concat([this.#input, bytes]);
    try {
      this.#work.next();
    } catch (thrown) {
      this.#failure = new LoadError(`${String(thrown)} at offset ${this.#offsetBytes}`);
      throw this.#failure;
    }
    if (this.complete && this.#input.length > 0) throw new LoadError("bytes behind the end of the stream");
  }

  *#take(count: number): Generator<void, Buffer, void> {
    while (this.#input.length < count) yield;
    const taken = this.#input.subarray(0, count);
    this.#input = this.#input.subarray(count);
    this.#offsetBytes += count;
    return taken;
  }

  *#u8(): Generator<void, number, void> {
    return (yield* this.#take(1)).readUInt8();
  }

  *#u16(): Generator<void, number, void> {
    return (yield* this.#take(2)).readUInt16BE();
  }

  *#u32(): Generator<void, number, void> {
    return (yield* this.#take(4)).readUInt32BE();
  }

  *#u64(): Generator<void, number, void> {
    return Number((yield* this.#take(8)).readBigUInt64BE());
  }

  *#text(lengthBytes: number): Generator<void, string, void> {
    return (yield* this.#take(lengthBytes)).toString("latin1");
  }

  *#stream(): Generator<void, void, void> {
    expect(yield* this.#u32(), 0x5145564d, "magic");
    expect(yield* this.#u32(), 3, "version");
    let type = yield* this.#u8();
    if (type === 7) {
      yield* this.#text(yield* this.#u32());
      for (type = yield* this.#u8(); type === 5; type = yield* this.#u8()) yield* this.#subsection();
    }
    let ramId: number | undefined;
    let complete = false;
    for (;;) {
      if (type === 0) break;
      else if (type === 8) yield* this.#command();
      else if (type === START) {
        expect(ramId, undefined, "sections of ram so far");
        ramId = yield* this.#u32();
        expect(yield* this.#text(yield* this.#u8()), "ram", "section");
        expect(yield* this.#u32(), 0, "instance");
        expect(yield* this.#u32(), 4, "version of ram");
        yield* this.#ram(START, ramId);
      } else if (type === PART || type === END) {
        expect(yield* this.#u32(), ramId, "section id");
        expect(complete, false, "ram after its END");
        complete = type === END;
        yield* this.#ram(type, ramId!);
      } else if (type === 4) {
        const id = yield* this.#u32();
        yield* this.#text(yield* this.#u8());
        yield* this.#take(8);
        this.devices.push(Buffer.from(yield* this.#take(yield* this.#u32())));
        yield* this.#footer(id);
      } else throw new Error(`section type ${type}`);
      type = yield* this.#u8();
    }
    expect(complete, true, "ram complete");
    if (this.isPostcopy) {
      this.complete = true;
      return;
    }
    if (this.#hasDescription) {
      expect(yield* this.#u8(), 6, "description");
      yield* this.#take(yield* this.#u32());
    }
    this.complete = true;
  }

  *#subsection(): Generator<void, void, void> {
    const name = yield* this.#text(yield* this.#u8());
    yield* this.#u32();
    if (name === "configuration/target-page-bits") this.pageBytes = 2 ** (yield* this.#u32());
    else if (name === "configuration/uuid") yield* this.#take(16);
    else {
      expect(name, "configuration/capabilities", "subsection");
      const count = yield* this.#u32();
      for (let i = 0; i < count; i++) {
        if ((yield* this.#text(yield* this.#u8())) === "x-ignore-shared") this.#ignoreShared = true;
      }
    }
  }

  *#command(): Generator<void, void, void> {
    const command = yield* this.#u16();
    const payload = yield* this.#take(yield* this.#u16());
    if (command === 1) this.#returnPath = true;
    else if (command === 2) {
      expect(payload.length, 4, "length of PING");
      expect(this.#returnPath, true, "return path");
      this.pings.push(payload.readUInt32BE());
      this.#reply(Buffer.concat([be16(2), be16(4), payload]));
    } else if (command === 6) {
      const nameEnd = 2 + payload.readUInt8(1);
      const block = this.blocks.find(({ idstr }) => idstr === payload.toString("latin1", 2, nameEnd))!;
      for (let at = nameEnd + 1; at < payload.length; at += 16) {
        const first = Number(payload.readBigUInt64BE(at)) / this.pageBytes;
        const pages = Number(payload.readBigUInt64BE(at + 8)) / this.pageBytes;
        for (let page = first; page < first + pages; page++) {
          block.known.delete(page);
          block.bytes.fill(BEFORE, page * this.pageBytes, (page + 1) * this.pageBytes);
        }
      }
    } else if (command === 7) {
      this.devices.push(Buffer.from(yield* this.#take(payload.readUInt32BE())));
      this.isPostcopy = true;
    } else if (command !== 3 && command !== 11 && command !== 99) throw new Error(`command ${command}`);
  }

  *#footer(id: number): Generator<void, void, void> {
    expect(yield* this.#u8(), 0x7e, "footer");
    expect(yield* this.#u32(), id, "id in the footer");
  }

  *#ram(type: number, id: number): Generator<void, void, void> {
    this.sections.push(type);
    for (;;) {
      const head = yield* this.#take(8);
      const low = head.readUInt32BE(4);
      const flags = low % this.pageBytes;
      const offset = head.readUInt32BE(0) * 2 ** 32 + (low - flags);
      if (flags === 0x10) break;
      if (flags === 0x200) continue;
      if (flags === 0x04) {
        expect(this.blocks.length, 0, "blocks before the list");
        yield* this.#list(offset);
        continue;
      }
      const continues = (flags & 0x20) !== 0;
      const kind = flags & ~0x20;
      if (!continues) {
        const idstr = yield* this.#text(yield* this.#u8());
        this.#last = this.blocks.find((block) => block.idstr === idstr);
        if (this.#last === undefined) throw new Error(`RAMBlock ${idstr}`);
      }
      const block = this.#last;
      if (block === undefined) throw new Error("CONTINUE of nothing");
      if (offset >= block.bytes.length) throw new Error(`offset ${offset} of ${block.idstr}`);
      yield* this.#page(block, offset, kind);
    }
    yield* this.#footer(id);
  }

  *#list(totalBytes: number): Generator<void, void, void> {
    for (let left = totalBytes; left > 0; ) {
      const idstr = yield* this.#text(yield* this.#u8());
      const lengthBytes = yield* this.#u64();
      if (this.#ignoreShared) yield* this.#u64();
      expect(lengthBytes % this.pageBytes, 0, "rest of a page");
      if (lengthBytes > left) throw new Error("blocks are longer than their total");
      left -= lengthBytes;
      const block: LoadedBlock = { idstr, bytes: Buffer.alloc(lengthBytes, BEFORE), known: new Set() };
      for (const range of this.#untouched) if (range.idstr === idstr) this.#leaveZero(block, range);
      this.blocks.push(block);
    }
  }

  #leaveZero({ bytes, known }: LoadedBlock, { offsetBytes, lengthBytes }: ZeroRange): void {
    bytes.fill(0, offsetBytes, offsetBytes + lengthBytes);
    for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += this.pageBytes)
      known.add(at / this.pageBytes);
  }

  *#page(block: LoadedBlock, offset: number, kind: number): Generator<void, void, void> {
    const index = offset / this.pageBytes;
    const page = block.bytes.subarray(offset, offset + this.pageBytes);
    const record = (what: LoadedRecord["kind"]) =>
      this.records.push({ block: block.idstr, page: index, kind: what });
    if (kind === 0x02) {
      page.fill(yield* this.#u8());
      record("zero");
    } else if (kind === 0x08) {
      page.set(yield* this.#take(this.pageBytes));
      record("page");
    } else if (kind === 0x40) {
      expect(yield* this.#u8(), 1, "XBZRLE encoding");
      const delta = yield* this.#take(yield* this.#u16());
      expect(block.known.has(index), true, "a page to apply a delta to");
      modelDecode(delta, page);
      record("xbzrle");
    } else throw new Error(`flags ${kind}`);
    if (this.isPostcopy) {
      expect(block.known.has(index), false, "a page that is there already");
      expect(kind === 0x40, false, "a delta in post-copy");
    }
    block.known.add(index);
  }

  /** Verdict on the whole migration: 0 = loaded. */
  shut(verdict: number): void {
    this.#reply(Buffer.concat([be16(1), be16(4), be32(verdict)]));
  }
}

function expect(actual: unknown, wanted: unknown, what: string): void {
  if (actual !== wanted) throw new Error(`${what}: ${String(actual)} instead of ${String(wanted)}`);
}

/** Loads a whole stream. @throws LoadError */
export function load(bytes: Uint8Array): Loader {
  const loader = new Loader();
  loader.push(bytes);
  if (!loader.complete) throw new LoadError("the stream ends too early");
  return loader;
}
