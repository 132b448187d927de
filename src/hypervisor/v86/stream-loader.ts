// Loads a migration stream into the RAM of a v86 destination, as QEMU's own loader does: pages, zero pages and
// XBZRLE deltas are applied in place; behind the RAM comes one device section that holds the device state.
// The section's body is ours (engine/precopy/precopy.ts): be32 length, then so many bytes. Runs in the VM's thread.

import { QemuStreamError } from "../../base/errors.ts";
import { xbzrleDecode } from "../../codec/xbzrle.ts";
import { SectionType } from "../../stream/format.ts";
import { type StreamBlock, type StreamHandler, StreamReader } from "../../stream/reader.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";

/** v86's own is 2 MB before it is deflated. */
export const DEVICE_STATE_BYTES_MAX = 64 * 1024 * 1024;
/** Type, id, length of name, name, instance, version, length. */
const HEAD_FIXED_BYTES = 1 + 4 + 1 + 4 + 4 + 4;
const FOOT_BYTES = 1 + 4 + 1;

export class StreamLoader implements StreamHandler {
  readonly #reader: StreamReader;
  readonly #memory: () => Uint8Array;
  readonly #tail = new DeviceSection();
  #listed = false;
  #inTail = false;

  /** `memory`: guest RAM, asked for anew in every call since v86 may move it. */
  constructor(memory: () => Uint8Array) {
    this.#memory = memory;
    this.#reader = new StreamReader(this, PAGE_BYTES);
  }

  /** The device state, once all of the stream has been loaded. */
  get loadedState(): Uint8Array | undefined {
    return this.#tail.state;
  }

  /** @throws QemuStreamError, DeltaveeError XBZRLE_CORRUPT; RAM is then half written and worth nothing. */
  push(bytes: Uint8Array): void {
    this.#reader.push(bytes);
  }

  verbatim(bytes: Uint8Array, start: number, end: number): void {
    if (!this.#inTail) return;
    const problem = this.#tail.push(bytes.subarray(start, end));
    if (problem !== undefined) throw this.#error(problem);
  }

  ramBlocks(blocks: readonly StreamBlock[], pageBytes: number): void {
    this.#listed = true;
    const ramBytes = this.#memory().length;
    if (blocks.length === 1 && blocks[0]?.lengthBytes === ramBytes && pageBytes === PAGE_BYTES) return;
    const listed = blocks.map(({ idstr, lengthBytes }) => `${idstr} ${lengthBytes}`).join(", ");
    throw this.#error(`RAM of the source (${listed}) is not that of this VM (${ramBytes} bytes)`);
  }

  zeroPage(_block: number, pageIndex: number, fill: number): void {
    const start = pageIndex * PAGE_BYTES;
    this.#memory().fill(fill, start, start + PAGE_BYTES);
  }

  page(_block: number, pageIndex: number, bytes: Uint8Array, offset: number): void {
    this.#memory().set(bytes.subarray(offset, offset + PAGE_BYTES), pageIndex * PAGE_BYTES);
  }

  xbzrlePage(
    _block: number,
    pageIndex: number,
    bytes: Uint8Array,
    offset: number,
    lengthBytes: number,
  ): void {
    xbzrleDecode(bytes, offset, lengthBytes, this.#memory(), pageIndex * PAGE_BYTES, PAGE_BYTES);
  }

  deviceState(): void {
    if (!this.#listed) throw this.#error("The stream does not say what RAM it is of");
    this.#inTail = true;
  }

  opaque(reason: string): void {
    throw this.#error(`Not a stream of this hypervisor: ${reason}`);
  }

  // Sections, commands and the source's stop mean nothing to a loader.
  ramSection(): void {}
  ramSectionEnd(): void {}
  command(): void {}
  stopped(): void {}

  #error(message: string): QemuStreamError {
    return new QemuStreamError(message, this.#reader.offsetBytes, this.#inTail ? "device-state" : "ram");
  }
}

/** What follows RAM: one FULL section, its footer, and the stream's end. */
class DeviceSection {
  #parts: Buffer[] = [];
  #bytes = 0;
  /** Length of section, footer and end together, once the section's head is there. */
  #bytesExpected: number | undefined;
  state: Uint8Array | undefined;

  /** Takes the next bytes. Returns what is wrong with them, if anything. */
  push(bytes: Uint8Array): string | undefined {
    if (this.state !== undefined) return "Bytes behind the end of the stream";
    this.#parts.push(Buffer.from(bytes));
    this.#bytes += bytes.length;
    if (this.#bytesExpected === undefined) {
      const head = this.#join();
      if (head.length < 6 || head.length < headBytes(head)) return undefined;
      if (head.readUInt8(0) !== SectionType.FULL) return `Section type ${head.readUInt8(0)} behind RAM`;
      const stateBytes = head.readUInt32BE(headBytes(head) - 4);
      if (stateBytes > DEVICE_STATE_BYTES_MAX) return `Device state of ${stateBytes} bytes`;
      this.#bytesExpected = headBytes(head) + stateBytes + FOOT_BYTES;
    }
    if (this.#bytes < this.#bytesExpected) return undefined;
    if (this.#bytes > this.#bytesExpected) return "Bytes behind the end of the stream";
    const section = this.#join();
    if (section.at(-FOOT_BYTES) !== SectionType.FOOTER || section.at(-1) !== SectionType.EOF) {
      return "The device section has no footer";
    }
    this.state = section.subarray(headBytes(section), section.length - FOOT_BYTES);
    return undefined;
  }

  #join(): Buffer {
    if (this.#parts.length > 1) this.#parts = [Buffer.concat(this.#parts)];
    return this.#parts[0]!;
  }
}

function headBytes(section: Buffer): number {
  return HEAD_FIXED_BYTES + section.readUInt8(5);
}
