// Writes QEMU migration streams element by element, and beside the bytes what a reader must say about them.
// Written from src/stream/FORMAT.md alone: it shares no code with src/stream, so that the two check each other.

import type { Call } from "./stream-trace.ts";
import { Trace } from "./stream-trace.ts";

export const START = 0x01;
export const PART = 0x02;
export const END = 0x03;

const FULL = 0x04;
const ZERO = 0x02;
const MEM_SIZE = 0x04;
const PAGE = 0x08;
const EOS = 0x10;
const CONTINUE = 0x20;
const XBZRLE = 0x40;

export interface BuiltBlock {
  idstr: string;
  pages: number;
  /** As a RAMBlock of huge pages has it in a migration that may end as post-copy. */
  hugePageBytes?: number;
}

export function be16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function be64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

/** Length in one byte, then the text. */
export function counted(text: string): Buffer {
  return Buffer.concat([Buffer.of(text.length), Buffer.from(text, "latin1")]);
}

export class StreamBuilder {
  readonly #parts: Uint8Array[] = [];
  readonly #trace = new Trace();
  #lengthBytes = 0;
  #pageBytes: number;
  #blocks: readonly BuiltBlock[] = [];
  #sectionId = 0;
  #sectionType = 0;
  #insideRam = false;
  #ignoreShared = false;
  #stopped = false;
  #lastBlock: number | undefined;
  /** From here on a reader understands nothing. */
  #opaque = false;

  constructor(pageBytes = 4096) {
    this.#pageBytes = pageBytes;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }

  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  get calls(): Call[] {
    return this.#trace.calls;
  }

  get pageBytes(): number {
    return this.#pageBytes;
  }

  header(version = 3): this {
    return this.verbatim(Buffer.concat([be32(0x5145564d), be32(version)]));
  }

  configuration(machine: string): this {
    return this.verbatim(Buffer.concat([Buffer.of(7), be32(machine.length), Buffer.from(machine, "latin1")]));
  }

  pageBits(bits: number): this {
    this.#pageBytes = 2 ** bits;
    return this.subsection("configuration/target-page-bits", be32(bits));
  }

  uuid(bytes: Uint8Array): this {
    return this.subsection("configuration/uuid", bytes);
  }

  capabilities(names: readonly string[]): this {
    this.#ignoreShared = names.includes("x-ignore-shared");
    return this.subsection(
      "configuration/capabilities",
      Buffer.concat([be32(names.length), ...names.map(counted)]),
    );
  }

  subsection(name: string, body: Uint8Array): this {
    return this.verbatim(Buffer.concat([Buffer.of(5), counted(name), be32(1), body]));
  }

  command(command: number, payload: Uint8Array = new Uint8Array(0)): this {
    if (command === 11) this.#stop();
    this.verbatim(Buffer.concat([Buffer.of(8), be16(command), be16(payload.length), payload]));
    if (!this.#opaque) this.#trace.add({ call: "command", command });
    return this;
  }

  /** Post-copy: pages that the destination forgets, as ranges of page and count. */
  discard(block: number, ...ranges: [page: number, pages: number][]): this {
    this.#stop();
    for (const [page, pages] of ranges) this.#say({ call: "discarded", block, page, pages });
    const bytes = ranges.flatMap((range) => range.map((pages) => be64(pages * this.#pageBytes)));
    return this.command(
      6,
      Buffer.concat([Buffer.of(0), counted(this.#blocks[block]!.idstr), Buffer.of(0), ...bytes]),
    );
  }

  /** Post-copy: device state and the command to run the guest, in one piece. */
  package(body: Uint8Array): this {
    this.#stop();
    this.#say({ call: "package" });
    this.verbatim(Buffer.concat([Buffer.of(8), be16(7), be16(4), be32(body.length), body]));
    return this.#say({ call: "packageEnd" });
  }

  /** START of the ram section, which is left open, without the RAMBlock list that belongs in it. */
  startWithoutList(sectionId: number): this {
    this.#sectionId = sectionId;
    this.#sectionType = START;
    this.#insideRam = true;
    this.verbatim(Buffer.concat([Buffer.of(START), be32(sectionId), counted("ram"), be32(0), be32(4)]));
    return this.#say({ call: "ramSection", type: START, id: sectionId });
  }

  /** START of the ram section with its RAMBlock list; the section is left open. */
  start(sectionId: number, blocks: readonly BuiltBlock[]): this {
    this.startWithoutList(sectionId);
    this.#blocks = blocks;
    const lengthOf = (block: BuiltBlock) => block.pages * this.#pageBytes;
    const totalBytes = blocks.reduce((sum, block) => sum + lengthOf(block), 0);
    this.verbatim(be64(totalBytes + MEM_SIZE));
    for (const block of blocks) {
      const address = this.#ignoreShared ? be64(0x1234000) : Buffer.alloc(0);
      const hugePage = block.hugePageBytes === undefined ? Buffer.alloc(0) : be64(block.hugePageBytes);
      this.verbatim(Buffer.concat([counted(block.idstr), be64(lengthOf(block)), hugePage, address]));
    }
    return this.#say({
      call: "ramBlocks",
      blocks: blocks.map((block) => ({ idstr: block.idstr, lengthBytes: lengthOf(block) })),
      pageBytes: this.#pageBytes,
    });
  }

  section(type: typeof PART | typeof END): this {
    if (type === END) this.#stop();
    this.#sectionType = type;
    this.#insideRam = true;
    this.#append(Buffer.concat([Buffer.of(type), be32(this.#sectionId)]));
    return this.#say({ call: "ramSection", type, id: this.#sectionId });
  }

  endSection(): this {
    this.#append(Buffer.concat([be64(EOS), Buffer.of(0x7e), be32(this.#sectionId)]));
    this.#insideRam = false;
    this.#say({ call: "ramSectionEnd", id: this.#sectionId });
    if (this.#sectionType === END) this.#say({ call: "deviceState", offsetBytes: this.#lengthBytes });
    return this;
  }

  /** `names` false: CONTINUE is said where it may be. */
  zero(block: number, page: number, fill = 0, names = false): this {
    this.#append(Buffer.concat([this.#pageHeader(block, page, ZERO, names), Buffer.of(fill)]));
    return this.#say({ call: "zeroPage", block, page, fill });
  }

  page(block: number, page: number, content: Uint8Array, names = false): this {
    this.#append(Buffer.concat([this.#pageHeader(block, page, PAGE, names), content]));
    return this.#say({ call: "page", block, page, bytes: Buffer.from(content) });
  }

  xbzrle(block: number, page: number, delta: Uint8Array, names = false): this {
    const head = this.#pageHeader(block, page, XBZRLE, names);
    this.#append(Buffer.concat([head, Buffer.of(1), be16(delta.length), delta]));
    return this.#say({ call: "xbzrlePage", block, page, bytes: Buffer.from(delta) });
  }

  /** A FULL section as the loader of the tests knows it: be32 length, payload, footer. */
  device(name: string, payload: Uint8Array): this {
    const head = Buffer.concat([Buffer.of(FULL), be32(77), counted(name), be32(0), be32(1)]);
    const foot = Buffer.concat([Buffer.of(0x7e), be32(77)]);
    return this.verbatim(Buffer.concat([head, be32(payload.length), payload, foot]));
  }

  /** End of the stream, and the description behind it. */
  eof(): this {
    const description = Buffer.from('{"page_size": 4096}');
    return this.verbatim(Buffer.concat([Buffer.of(0, 6), be32(description.length), description]));
  }

  /** From here on a reader must pass everything through. */
  opaque(): this {
    if (!this.#opaque) {
      this.#trace.add({ call: "opaque", offsetBytes: this.#lengthBytes, insideRam: this.#insideRam });
    }
    this.#opaque = true;
    return this;
  }

  /** Bytes that a reader hands on as they are. */
  verbatim(bytes: Uint8Array): this {
    this.#append(bytes);
    if (!this.#opaque) this.#trace.verbatim(bytes);
    return this;
  }

  #append(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.#lengthBytes += bytes.length;
    if (this.#opaque) this.#trace.verbatim(bytes);
  }

  #say(call: Exclude<Call, { call: "verbatim" }>): this {
    if (!this.#opaque) this.#trace.add(call);
    return this;
  }

  #stop(): void {
    if (!this.#stopped) this.#say({ call: "stopped" });
    this.#stopped = true;
  }

  #pageHeader(block: number, page: number, flag: number, names: boolean): Buffer {
    const continues = !names && block === this.#lastBlock;
    this.#lastBlock = block;
    const address = be64(page * this.#pageBytes + flag + (continues ? CONTINUE : 0));
    return continues ? address : Buffer.concat([address, counted(this.#blocks[block]!.idstr)]);
  }
}
