// The device state of a v86 VM as it travels: everything but RAM, compressed. Format (integers little-endian):
//
//   offset 0   4 bytes   "DV86"
//   offset 4   u8        version, 1
//   offset 5   u16       length of the compatibility text (compatibility.ts)
//   offset 7   u16       length of the unfinished serial line
//   offset 9   u32       length of v86's state when inflated
//   offset 13            the two texts (latin1), then v86's state (save_state, RAM packed to nothing), zlib
//
// The bytes come from a peer: whatever is wrong with them is a typed error. Knows the head of v86's state only.

import { deflateSync, inflateSync } from "node:zlib";
import { assert } from "../../base/assert.ts";
import { QemuStreamError } from "../../base/errors.ts";
import { assertCompatible, type Compatibility } from "./compatibility.ts";
import { LINE_CHARACTERS_MAX } from "./serial-lines.ts";

/** Version of v86's own state format, the second word of what save_state returns. */
export const V86_STATE_VERSION = 6;

const MAGIC = "DV86";
const VERSION = 1;
const HEAD_BYTES = 13;
const V86_STATE_MAGIC = 0x86768676;
const V86_STATE_HEAD_BYTES = 16;
/** Bounds what a peer can make us inflate; the state of our machine has 2.1 MB (most of it VGA memory). */
const STATE_BYTES_MAX = 64 * 1024 * 1024;
/** Level 1 takes 1 ms for 10 kB; level 4, which finds 3 kB, takes 6 ms. Both are part of the downtime. */
const DEFLATE_LEVEL = 1;
/** The least that zlib takes. */
const CHUNK_BYTES_MIN = 64;
const SECTION = "v86 device state";

export interface DeviceState {
  compatibility: Compatibility;
  /** Serial output since the last line ended (serial-lines.ts). */
  unfinishedLine: string;
  /** As returned by v86's save_state. */
  state: ArrayBuffer;
}

export function encodeDeviceState({
  compatibility,
  unfinishedLine,
  state,
}: DeviceState): Uint8Array<ArrayBuffer> {
  assert(isV86State(state), "v86 saved a state of an unknown version");
  assert(unfinishedLine.length <= LINE_CHARACTERS_MAX, "the unfinished serial line is too long");
  const deflated = deflateSync(new Uint8Array(state), { level: DEFLATE_LEVEL });
  const texts = Buffer.from(compatibility + unfinishedLine, "latin1");
  const bytes = new Uint8Array(HEAD_BYTES + texts.length + deflated.length);
  const view = new DataView(bytes.buffer);
  bytes.set(Buffer.from(MAGIC, "latin1"), 0);
  view.setUint8(4, VERSION);
  view.setUint16(5, compatibility.length, true);
  view.setUint16(7, unfinishedLine.length, true);
  view.setUint32(9, state.byteLength, true);
  bytes.set(texts, HEAD_BYTES);
  bytes.set(deflated, HEAD_BYTES + texts.length);
  return bytes;
}

/**
 * @throws DeltaveeError HYPERVISOR_INCOMPATIBLE if it was saved by another v86 or VM than `compatibility` says
 * @throws QemuStreamError if it is damaged
 */
export function decodeDeviceState(bytes: Uint8Array, compatibility: Compatibility): DeviceState {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < HEAD_BYTES || buffer.toString("latin1", 0, 4) !== MAGIC || buffer[4] !== VERSION) {
    throw new QemuStreamError(`Not a v86 device state of version ${VERSION}`, 0, SECTION);
  }
  const lineAt = HEAD_BYTES + buffer.readUInt16LE(5);
  const stateAt = lineAt + buffer.readUInt16LE(7);
  const stateBytes = buffer.readUInt32LE(9);
  if (stateAt > buffer.length || stateAt - lineAt > LINE_CHARACTERS_MAX) {
    throw new QemuStreamError("Texts are longer than they can be", HEAD_BYTES, SECTION);
  }
  assertCompatible(compatibility, buffer.toString("latin1", HEAD_BYTES, lineAt));
  if (stateBytes > STATE_BYTES_MAX) {
    throw new QemuStreamError(`State of ${stateBytes} bytes is above the limit`, 9, SECTION);
  }
  const state = inflate(buffer.subarray(stateAt), stateBytes, stateAt);
  if (!isV86State(state)) {
    throw new QemuStreamError(`Not a v86 state of version ${V86_STATE_VERSION}`, stateAt, SECTION);
  }
  return { compatibility, unfinishedLine: buffer.toString("latin1", lineAt, stateAt), state };
}

function inflate(deflated: Buffer, stateBytes: number, offsetBytes: number): ArrayBuffer {
  let inflated: Buffer;
  try {
    // One chunk (with room to see that it is not exceeded): joining many would allocate the state twice.
    inflated = inflateSync(deflated, {
      chunkSize: Math.max(CHUNK_BYTES_MIN, stateBytes + 1),
      maxOutputLength: Math.max(1, stateBytes),
    });
  } catch (cause) {
    throw new QemuStreamError("State cannot be inflated", offsetBytes, SECTION, { cause });
  }
  if (inflated.length !== stateBytes) {
    throw new QemuStreamError(`State has ${inflated.length} of ${stateBytes} bytes`, offsetBytes, SECTION);
  }
  // v86 reads its buffers from offset 0 of an ArrayBuffer; inflateSync may return a part of a larger one.
  const state = new ArrayBuffer(stateBytes);
  new Uint8Array(state).set(inflated);
  return state;
}

function isV86State(state: ArrayBuffer): boolean {
  if (state.byteLength < V86_STATE_HEAD_BYTES) return false;
  const view = new DataView(state);
  return (
    view.getUint32(0, true) === V86_STATE_MAGIC &&
    view.getUint32(4, true) === V86_STATE_VERSION &&
    view.getUint32(8, true) === state.byteLength
  );
}
