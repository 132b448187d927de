// QEMU's return path, destination to source: be16 type, be16 length, payload (FORMAT.md, "Return path").
// Splits the byte stream into whole messages; knows nothing of what they are for.

import { ReturnPathType } from "./format.ts";

export interface ReturnPathMessage {
  type: number;
  /** The whole message, header included: what is to be forwarded. Owned by the receiver. */
  bytes: Buffer;
}

const HEADER_BYTES = 4;

export class ReturnPathReader {
  #pending: Buffer = Buffer.alloc(0);

  /** Messages completed by `chunk`. At most one incomplete message (64 KiB) is held back. */
  push(chunk: Uint8Array): ReturnPathMessage[] {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    const messages: ReturnPathMessage[] = [];
    let position = 0;
    while (this.#pending.length - position >= HEADER_BYTES) {
      const lengthBytes = HEADER_BYTES + this.#pending.readUInt16BE(position + 2);
      if (this.#pending.length - position < lengthBytes) break;
      messages.push({
        type: this.#pending.readUInt16BE(position),
        bytes: this.#pending.subarray(position, position + lengthBytes),
      });
      position += lengthBytes;
    }
    this.#pending = this.#pending.subarray(position);
    return messages;
  }
}

/** Value of a PONG, or undefined when the message is none. */
export function pongValue(message: ReturnPathMessage): number | undefined {
  if (message.type !== ReturnPathType.PONG || message.bytes.length !== HEADER_BYTES + 4) return undefined;
  return message.bytes.readUInt32BE(HEADER_BYTES);
}

/** Verdict of the destination on the whole migration (0 = loaded), or undefined when the message is no SHUT. */
export function shutValue(message: ReturnPathMessage): number | undefined {
  if (message.type !== ReturnPathType.SHUT || message.bytes.length !== HEADER_BYTES + 4) return undefined;
  return message.bytes.readUInt32BE(HEADER_BYTES);
}

/** Pages that the destination needs in post-copy. */
export interface PageRequest {
  /** The RAMBlock; undefined: that of the request before. */
  idstr: string | undefined;
  offsetBytes: number;
  /** 0 also for a request that is cut short. */
  lengthBytes: number;
}

const RANGE_BYTES = 8 + 4;

/** Undefined when the message is no request. */
export function pageRequest({ type, bytes }: ReturnPathMessage): PageRequest | undefined {
  if (type !== ReturnPathType.REQ_PAGES && type !== ReturnPathType.REQ_PAGES_ID) return undefined;
  const isNamed = type === ReturnPathType.REQ_PAGES_ID;
  const nameAt = HEADER_BYTES + RANGE_BYTES;
  const isWhole = isNamed
    ? bytes.length > nameAt && bytes.length === nameAt + 1 + bytes[nameAt]!
    : bytes.length === nameAt;
  if (!isWhole) return { idstr: undefined, offsetBytes: 0, lengthBytes: 0 };
  return {
    idstr: isNamed ? bytes.toString("latin1", nameAt + 1) : undefined,
    offsetBytes: Number(bytes.readBigUInt64BE(HEADER_BYTES)),
    lengthBytes: bytes.readUInt32BE(HEADER_BYTES + 8),
  };
}

/** A message that the destination would have sent. */
export function returnPathMessage(type: number, value?: number): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + (value === undefined ? 0 : 4));
  bytes.writeUInt16BE(type, 0);
  bytes.writeUInt16BE(bytes.length - HEADER_BYTES, 2);
  if (value !== undefined) bytes.writeUInt32BE(value, HEADER_BYTES);
  return bytes;
}
