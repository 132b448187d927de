// Frames of the tunnel between a source engine and a destination engine: types, limits and encoding.
// Knows no socket, no timer, no entropy codec, and not which frame may follow which (protocol-state.ts).
// Format: PROTOCOL.md in this folder, which explains what each frame means.

import { assert, assertNever } from "../base/assert.ts";
import type { Hello, Reason, Welcome } from "./bodies.ts";
import { encodeBody, helloSchema, ID_HEX, reasonSchema, welcomeSchema } from "./bodies.ts";
import type { PayloadKind } from "./page-batch.ts";

/** "DV" */
export const FRAME_MAGIC = 0x4456;
export const HEADER_BYTES = 16;
/** First bytes of HELLO's payload. */
export const HELLO_MAGIC = "DELTAVEE";
export const HELLO_FIXED_BYTES = HELLO_MAGIC.length + 4;
export const WELCOME_FIXED_BYTES = 2;
export const DATA_FIXED_BYTES = 12;
export const RESUME_BYTES = HELLO_MAGIC.length + 48;
export const RESUMED_BYTES = 24;
/** Without and with the destination's pace. */
export const ACK_BYTES = 8;
export const ACK_PACE_BYTES = 16;
/** A month and a half. */
export const PACE_MS_MAX = 2 ** 32 - 1;
/** Of a session's name and of its token. */
export const ID_BYTES = 16;
/** Connections of one migration: the first one begins with HELLO, the others with RESUME. */
export const CONNECTIONS_MAX = 2 ** 32 - 1;

/** Of a hypervisor's stream, in one DATA frame. */
export const RAW_BYTES_MAX = 1 << 20;
/** An entropy coder may lose a little on what cannot be compressed: this is how much. */
export const CODED_BYTES_MAX = RAW_BYTES_MAX + (16 << 10);
export const RETURN_BYTES_MAX = 64 << 10;
export const JSON_BYTES_MAX = 16 << 10;
/** SHA-256 of a piece of guest RAM. */
export const DIGEST_BYTES = 32;
/** Pieces that one VERIFY asks about. */
export const DIGESTS_MAX = 2048;
/** A piece: a power of two. */
export const VERIFY_PIECE_BYTES_MIN = 4 << 10;
export const VERIFY_PIECE_BYTES_MAX = 1 << 20;
/** Before the name of the RAMBlock, whose length is one byte. */
export const VERIFY_FIXED_BYTES = 16;
export const BLOCK_NAME_BYTES_MAX = 255;
/** u64 on the wire, but not above what a JavaScript number counts exactly. */
export const SEQUENCE_MAX = Number.MAX_SAFE_INTEGER;

/** A side that has sent nothing for this long sends KEEPALIVE. */
export const KEEPALIVE_MS = 1_000;
/** A side that has received not one byte for this long takes the link for dead. */
export const PEER_SILENT_MS = 10_000;

/** Both ends included. */
export interface VersionRange {
  readonly min: number;
  readonly max: number;
}

export type HelloFrame = { type: "hello"; versions: VersionRange; body: Hello };
export type WelcomeFrame = { type: "welcome"; version: number; body: Welcome };
export type RefuseFrame = { type: "refuse"; reason: Reason };
export type DataFrame = {
  type: "data";
  /** 1, 2, 3, ... */
  sequence: number;
  entropyCodec: number;
  /** What the raw bytes are: page-batch.ts. */
  payloadKind: PayloadKind;
  rawBytes: number;
  rawChecksum: number;
  coded: Uint8Array;
};
/** `sequence` of the last DATA whose bytes the destination hypervisor's socket has taken. */
export type AckFrame = {
  type: "ack";
  sequence: number;
  /** Undefined: not told. */
  pace?: Pace;
};
/**
 * Milliseconds since WELCOME at the destination, and of these, those in which it had DATA that its hypervisor had not taken.
 * Where the two grow alike it is the destination that the source waits for, and not the link.
 */
export type Pace = { elapsedMs: number; busyMs: number };
export type ReturnFrame = { type: "return"; bytes: Uint8Array };
/** Post-copy: the guest could run at the destination, paused, with part of its RAM still at the source. */
export type ReadyFrame = { type: "ready" };
export type LoadedFrame = { type: "loaded" };
/** `resume` false: leave the guest paused, as it was at the source. */
export type CommitFrame = { type: "commit"; resume: boolean };
export type RunningFrame = { type: "running" };
/** How far a side has come, on whatever connection: RESUME and RESUMED tell it. */
export type ResumeStage = "streaming" | "loaded" | "committed" | "ready" | "given";
/** The first frame of a connection that takes the place of one that broke. */
export type ResumeFrame = {
  type: "resume";
  /** Protocol version of the migration. */
  version: number;
  stage: ResumeStage;
  /** Which connection of the migration this is: 2, 3, ... */
  connection: number;
  /** As in HELLO. */
  session: string;
  /** As in WELCOME. */
  token: string;
  /** Bytes of all RETURN that the source has received. */
  returnBytes: number;
};
export type ResumedFrame = {
  type: "resumed";
  stage: ResumeStage;
  /** Sequence of the last DATA that was received in order; what comes after it is sent again. 0: none was. */
  dataSequence: number;
  /** As ACK has it; 0: nothing was acknowledged. */
  ackSequence: number;
};
/** The source has so many bytes of RETURN: they need not be kept any longer. */
export type ReturnedFrame = { type: "returned"; returnBytes: number };
/** The source has received the last frame (RUNNING, in post-copy LOADED) and closes the connection. */
export type DoneFrame = { type: "done" };
/**
 * What of the stopped guest's RAM is to be compared: `pieces` of `pieceBytes` in a RAMBlock, from `offsetBytes` on.
 */
export type VerifyFrame = {
  type: "verify";
  block: string;
  offsetBytes: number;
  pieceBytes: number;
  pieces: number;
};
/** The digests of what VERIFY asked about, one behind the other. */
export type DigestsFrame = { type: "digests"; digests: Uint8Array };
export type AbortFrame = { type: "abort"; reason: Reason };
export type KeepaliveFrame = { type: "keepalive" };

export type Frame =
  | HelloFrame
  | WelcomeFrame
  | RefuseFrame
  | DataFrame
  | AckFrame
  | ReturnFrame
  | LoadedFrame
  | CommitFrame
  | RunningFrame
  | AbortFrame
  | KeepaliveFrame
  | ResumeFrame
  | ResumedFrame
  | ReturnedFrame
  | DoneFrame
  | ReadyFrame
  | VerifyFrame
  | DigestsFrame;
export type FrameType = Frame["type"];

interface FrameLayout {
  /** On the wire. 0 is invalid. */
  readonly number: number;
  readonly payloadBytesMin: number;
  readonly payloadBytesMax: number;
}

/** The shortest JSON object. */
const JSON_BYTES_MIN = 2;

export const FRAME_LAYOUTS: Readonly<Record<FrameType, FrameLayout>> = {
  hello: layout(1, HELLO_FIXED_BYTES + JSON_BYTES_MIN, HELLO_FIXED_BYTES + JSON_BYTES_MAX),
  welcome: layout(2, WELCOME_FIXED_BYTES + JSON_BYTES_MIN, WELCOME_FIXED_BYTES + JSON_BYTES_MAX),
  refuse: layout(3, JSON_BYTES_MIN, JSON_BYTES_MAX),
  data: layout(4, DATA_FIXED_BYTES + 1, DATA_FIXED_BYTES + CODED_BYTES_MAX),
  ack: layout(5, ACK_BYTES, ACK_PACE_BYTES),
  return: layout(6, 1, RETURN_BYTES_MAX),
  loaded: layout(7, 0, 0),
  commit: layout(8, 1, 1),
  running: layout(9, 0, 0),
  abort: layout(10, JSON_BYTES_MIN, JSON_BYTES_MAX),
  keepalive: layout(11, 0, 0),
  resume: layout(12, RESUME_BYTES, RESUME_BYTES),
  resumed: layout(13, RESUMED_BYTES, RESUMED_BYTES),
  returned: layout(14, 8, 8),
  done: layout(15, 0, 0),
  ready: layout(16, 0, 0),
  verify: layout(17, VERIFY_FIXED_BYTES + 1, VERIFY_FIXED_BYTES + BLOCK_NAME_BYTES_MAX),
  digests: layout(18, DIGEST_BYTES, DIGESTS_MAX * DIGEST_BYTES),
};

/** On the wire. 0 is invalid. */
export const RESUME_STAGE_NUMBERS: Readonly<Record<ResumeStage, number>> = {
  streaming: 1,
  loaded: 2,
  committed: 3,
  ready: 4,
  given: 5,
};

const NOTHING: Uint8Array = new Uint8Array(0);

/** The longest DATA. */
export const DATA_FRAME_BYTES_MAX = HEADER_BYTES + DATA_FIXED_BYTES + CODED_BYTES_MAX;

function layout(number: number, payloadBytesMin: number, payloadBytesMax: number): FrameLayout {
  return { number, payloadBytesMin, payloadBytesMax };
}

/** The frame as it is written, in one piece: everything is copied. */
export function encodeFrame(frame: Frame): Uint8Array {
  switch (frame.type) {
    case "hello": {
      const json = encodeBody(helloSchema, frame.body);
      const { bytes, view } = begin("hello", HELLO_FIXED_BYTES, json);
      const { min, max } = frame.versions;
      assert(1 <= min && min <= max, `version range ${min}..${max}`);
      new TextEncoder().encodeInto(HELLO_MAGIC, bytes.subarray(HEADER_BYTES));
      view.setUint16(HEADER_BYTES + 8, min);
      view.setUint16(HEADER_BYTES + 10, max);
      return bytes;
    }
    case "welcome": {
      const json = encodeBody(welcomeSchema, frame.body);
      const { bytes, view } = begin("welcome", WELCOME_FIXED_BYTES, json);
      view.setUint16(HEADER_BYTES, frame.version);
      return bytes;
    }
    case "refuse":
    case "abort":
      return begin(frame.type, 0, encodeBody(reasonSchema, frame.reason)).bytes;
    case "data": {
      const bytes = new Uint8Array(dataFrameBytes(frame));
      writeDataFrame(frame, bytes);
      return bytes;
    }
    case "ack": {
      const { sequence, pace } = frame;
      assert(isSequence(sequence), `ACK sequence ${sequence}`);
      const { bytes, view } = begin("ack", pace === undefined ? ACK_BYTES : ACK_PACE_BYTES, NOTHING);
      setUint64(view, HEADER_BYTES, sequence);
      if (pace === undefined) return bytes;
      assert(isPace(pace), `busy for ${pace.busyMs} of ${pace.elapsedMs} ms`);
      view.setUint32(HEADER_BYTES + ACK_BYTES, pace.elapsedMs);
      view.setUint32(HEADER_BYTES + ACK_BYTES + 4, pace.busyMs);
      return bytes;
    }
    case "return":
      return begin("return", 0, frame.bytes).bytes;
    case "commit": {
      const { bytes, view } = begin("commit", 1, NOTHING);
      view.setUint8(HEADER_BYTES, frame.resume ? 1 : 0);
      return bytes;
    }
    case "resume": {
      const { bytes, view } = begin("resume", RESUME_BYTES, NOTHING);
      assert(isSequence(frame.connection) && frame.connection <= CONNECTIONS_MAX, "connections are counted");
      new TextEncoder().encodeInto(HELLO_MAGIC, bytes.subarray(HEADER_BYTES));
      const at = HEADER_BYTES + HELLO_MAGIC.length;
      view.setUint16(at, frame.version);
      view.setUint8(at + 2, RESUME_STAGE_NUMBERS[frame.stage]);
      view.setUint32(at + 4, frame.connection);
      setId(bytes, at + 8, frame.session);
      setId(bytes, at + 8 + ID_BYTES, frame.token);
      setUint64(view, at + 8 + 2 * ID_BYTES, frame.returnBytes);
      return bytes;
    }
    case "resumed": {
      const { bytes, view } = begin("resumed", RESUMED_BYTES, NOTHING);
      view.setUint8(HEADER_BYTES, RESUME_STAGE_NUMBERS[frame.stage]);
      setUint64(view, HEADER_BYTES + 8, frame.dataSequence);
      setUint64(view, HEADER_BYTES + 16, frame.ackSequence);
      return bytes;
    }
    case "returned": {
      assert(isSequence(frame.returnBytes), `RETURNED of ${frame.returnBytes} bytes`);
      const { bytes, view } = begin("returned", 8, NOTHING);
      setUint64(view, HEADER_BYTES, frame.returnBytes);
      return bytes;
    }
    case "verify": {
      const { block, offsetBytes, pieceBytes, pieces } = frame;
      assert(
        isPieceSize(pieceBytes) && 1 <= pieces && pieces <= DIGESTS_MAX,
        "a VERIFY that can be answered",
      );
      const { bytes, view } = begin("verify", VERIFY_FIXED_BYTES, new TextEncoder().encode(block));
      setUint64(view, HEADER_BYTES, offsetBytes);
      view.setUint32(HEADER_BYTES + 8, pieceBytes);
      view.setUint32(HEADER_BYTES + 12, pieces);
      return bytes;
    }
    case "digests":
      assert(frame.digests.length % DIGEST_BYTES === 0, "whole digests");
      return begin("digests", 0, frame.digests).bytes;
    case "loaded":
    case "running":
    case "keepalive":
    case "done":
    case "ready":
      return begin(frame.type, 0, NOTHING).bytes;
    default:
      return assertNever(frame, "frame");
  }
}

export function dataFrameBytes(frame: DataFrame): number {
  return HEADER_BYTES + DATA_FIXED_BYTES + frame.coded.length;
}

/** Writes the frame to `bytes`, which are `dataFrameBytes` long and may hold anything. */
export function writeDataFrame(frame: DataFrame, bytes: Uint8Array): void {
  const { sequence, entropyCodec, payloadKind, rawBytes, coded } = frame;
  assert(isSequence(sequence), `DATA sequence ${sequence}`);
  assert(1 <= entropyCodec && entropyCodec <= 255, `entropy codec id ${entropyCodec}`);
  assert(1 <= rawBytes && rawBytes <= RAW_BYTES_MAX, `DATA with ${rawBytes} raw bytes`);
  const view = viewOf(bytes);
  writeHeader(view, "data", DATA_FIXED_BYTES + coded.length, sequence);
  view.setUint8(HEADER_BYTES, entropyCodec);
  view.setUint8(HEADER_BYTES + 1, payloadKind);
  view.setUint16(HEADER_BYTES + 2, 0);
  view.setUint32(HEADER_BYTES + 4, rawBytes);
  view.setUint32(HEADER_BYTES + 8, frame.rawChecksum);
  bytes.set(coded, HEADER_BYTES + DATA_FIXED_BYTES);
}

/** A frame of which only `fixedBytes` of payload, between the header and `rest`, are still to be written. */
function begin(type: FrameType, fixedBytes: number, rest: Uint8Array): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(HEADER_BYTES + fixedBytes + rest.length);
  const view = viewOf(bytes);
  writeHeader(view, type, fixedBytes + rest.length, 0);
  bytes.set(rest, HEADER_BYTES + fixedBytes);
  return { bytes, view };
}

function writeHeader(view: DataView, type: FrameType, payloadBytes: number, sequence: number): void {
  const { number, payloadBytesMin, payloadBytesMax } = FRAME_LAYOUTS[type];
  assert(
    payloadBytesMin <= payloadBytes && payloadBytes <= payloadBytesMax,
    `${type} frame with a payload of ${payloadBytes} bytes`,
  );
  view.setUint16(0, FRAME_MAGIC);
  view.setUint8(2, number);
  view.setUint8(3, 0);
  view.setUint32(4, payloadBytes);
  setUint64(view, 8, sequence);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

export function isPieceSize(bytes: number): boolean {
  const isPowerOfTwo = (bytes & (bytes - 1)) === 0;
  return isPowerOfTwo && VERIFY_PIECE_BYTES_MIN <= bytes && bytes <= VERIFY_PIECE_BYTES_MAX;
}

/** A name of a RAMBlock as VERIFY has it: visible characters, since messages repeat it. */
export function isBlockName(name: string): boolean {
  return /^[\x21-\x7e]{1,255}$/.test(name);
}

function isPace({ elapsedMs, busyMs }: Pace): boolean {
  const isCount = Number.isInteger(busyMs) && Number.isInteger(elapsedMs);
  return isCount && 0 <= busyMs && busyMs <= elapsedMs && elapsedMs <= PACE_MS_MAX;
}

function isSequence(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 1;
}

function setUint64(view: DataView, offsetBytes: number, value: number): void {
  view.setUint32(offsetBytes, Math.floor(value / 2 ** 32));
  view.setUint32(offsetBytes + 4, value >>> 0);
}

function setId(bytes: Uint8Array, offsetBytes: number, hex: string): void {
  assert(ID_HEX.test(hex), "sessions and tokens are 16 bytes in lowercase hex");
  for (let i = 0; i < ID_BYTES; i++) {
    bytes[offsetBytes + i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  }
}
