// Bytes of a connection, in pieces of any size, to frames: form only, not which frame may follow which
// (protocol-state.ts). The peer's bytes are hostile: each header is checked before its payload is awaited,
// and what is held of the peer's is at most one payload. Format: PROTOCOL.md.

import { assert, assertNever } from "../base/assert.ts";
import { ProtocolError } from "../base/errors.ts";
import { copyToShared } from "../base/shared-copy.ts";
import { decodeBody, helloSchema, reasonSchema, welcomeSchema } from "./bodies.ts";
import type { DataFrame, Frame, FrameType, ResumeStage } from "./frame.ts";
import {
  ACK_BYTES,
  ACK_PACE_BYTES,
  DATA_FIXED_BYTES,
  DIGEST_BYTES,
  DIGESTS_MAX,
  FRAME_LAYOUTS,
  FRAME_MAGIC,
  HEADER_BYTES,
  HELLO_FIXED_BYTES,
  HELLO_MAGIC,
  ID_BYTES,
  isBlockName,
  isPieceSize,
  RAW_BYTES_MAX,
  RESUME_STAGE_NUMBERS,
  SEQUENCE_MAX,
  VERIFY_FIXED_BYTES,
  WELCOME_FIXED_BYTES,
} from "./frame.ts";
import { isPayloadKind } from "./page-batch.ts";

type DataFields = Omit<DataFrame, "coded">;

interface Header {
  type: FrameType;
  payloadBytes: number;
  sequence: number;
}

/** Makes the error to throw, which then says where in the connection the frame began. */
type Invalid = (expected: string) => ProtocolError;

const TYPE_BY_NUMBER: ReadonlyMap<number, FrameType> = new Map(
  (Object.keys(FRAME_LAYOUTS) as FrameType[]).map((type) => [FRAME_LAYOUTS[type].number, type]),
);

const RESUME_STAGES = Object.keys(RESUME_STAGE_NUMBERS) as ResumeStage[];

/** Where, in shared memory, the coded bytes of a DATA frame are to be put together; undefined: nowhere in particular. */
export type RoomForCoded = (codedBytes: number) => Uint8Array | undefined;

const EMPTY: Uint8Array = new Uint8Array(0);

/**
 * `push` a chunk, then call `next` until it returns undefined; frames before an invalid one are returned
 * first, however the bytes were cut. The chunk is borrowed until then. Arrays in a frame (`coded`, `bytes`)
 * are views, valid until the following call of `next`: whoever needs them longer copies them.
 *
 * Whoever has a place for coded bytes (`roomForCoded`) gets those of a frame that came in several chunks there, and
 * a connection that reads into the reader's `space` puts them there itself: nothing copies them.
 */
export class FrameReader {
  readonly #roomForCoded: RoomForCoded | undefined;
  #chunk = EMPTY;
  /** How much of the chunk has been taken. */
  #chunkBytes = 0;
  /** What arrives in more than one chunk is put together in `place`: `assembly`, or room that was given for it. */
  #place = EMPTY;
  #placeBytes = 0;
  /** Grows to one payload. */
  #assembly = EMPTY;
  #header: Header | undefined;
  /** Of DATA, whose coded bytes are awaited. */
  #data: DataFields | undefined;
  /** Where in the connection the current frame begins. */
  #offsetBytes = 0;
  #failure: ProtocolError | undefined;

  /** `roomForCoded` is asked when the first coded bytes of a frame have come, and again as long as it has none. */
  constructor(roomForCoded?: RoomForCoded) {
    this.#roomForCoded = roomForCoded;
  }

  /**
   * Where the bytes that come next belong: pushed as the next chunk they are not copied. Undefined while that is not
   * known, or a chunk waits to be taken.
   */
  get space(): Uint8Array | undefined {
    const isWaiting = this.#chunkBytes < this.#chunk.length;
    if (isWaiting || this.#placeBytes === 0 || this.#place === this.#assembly) return undefined;
    return this.#place.subarray(this.#placeBytes);
  }

  push(chunk: Uint8Array): void {
    if (this.#failure !== undefined) throw this.#failure;
    assert(this.#chunkBytes === this.#chunk.length, "FrameReader.push before next() had returned undefined");
    // Sockets give Buffers, whose slice() does not copy: views of one would trap whoever wants to keep them.
    this.#chunk = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length);
    this.#chunkBytes = 0;
  }

  /**
   * The next frame, or undefined when it needs more bytes.
   * @throws ProtocolError PROTOCOL_INVALID_FRAME, and the same one ever after: there is no way to find the
   * beginning of another frame.
   */
  next(): Frame | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return this.#next();
    } catch (thrown) {
      if (thrown instanceof ProtocolError) this.#failure = thrown;
      throw thrown;
    }
  }

  #next(): Frame | undefined {
    const invalid: Invalid = (expected) =>
      new ProtocolError(
        "PROTOCOL_INVALID_FRAME",
        `Invalid frame at offset ${this.#offsetBytes} of the connection: expected ${expected}`,
      );
    if (this.#header === undefined) {
      const bytes = this.#take(HEADER_BYTES);
      if (bytes === undefined) return undefined;
      this.#header = decodeHeader(bytes, invalid);
    }
    const header = this.#header;
    const frame = header.type === "data" ? this.#nextData(header, invalid) : this.#nextOther(header, invalid);
    if (frame === undefined) return undefined;
    this.#header = undefined;
    this.#offsetBytes += HEADER_BYTES + header.payloadBytes;
    return frame;
  }

  #nextData(header: Header, invalid: Invalid): DataFrame | undefined {
    if (this.#data === undefined) {
      const fixed = this.#take(DATA_FIXED_BYTES);
      if (fixed === undefined) return undefined;
      this.#data = decodeDataFields(header, fixed, invalid);
    }
    const coded = this.#take(header.payloadBytes - DATA_FIXED_BYTES, this.#roomForCoded);
    if (coded === undefined) return undefined;
    const frame = { ...this.#data, coded };
    this.#data = undefined;
    return frame;
  }

  #nextOther(header: Header, invalid: Invalid): Frame | undefined {
    const payload = this.#take(header.payloadBytes);
    return payload === undefined ? undefined : decodePayload(header, payload, invalid);
  }

  /** The next `wantedBytes`: a view of the chunk where they lie in it, else put together; undefined: not yet. */
  #take(wantedBytes: number, roomFor?: RoomForCoded): Uint8Array | undefined {
    const availableBytes = this.#chunk.length - this.#chunkBytes;
    if (this.#placeBytes === 0 && availableBytes >= wantedBytes) {
      const view = this.#chunk.subarray(this.#chunkBytes, this.#chunkBytes + wantedBytes);
      this.#chunkBytes += wantedBytes;
      return view;
    }
    if (availableBytes === 0) return undefined;
    if (this.#placeBytes === 0) this.#place = roomFor?.(wantedBytes) ?? this.#assemblyOf(wantedBytes);
    const takenBytes = Math.min(availableBytes, wantedBytes - this.#placeBytes);
    const taken = this.#chunk.subarray(this.#chunkBytes, this.#chunkBytes + takenBytes);
    const isInPlace =
      taken.buffer === this.#place.buffer && taken.byteOffset === this.#place.byteOffset + this.#placeBytes;
    if (this.#place === this.#assembly) this.#place.set(taken, this.#placeBytes);
    else if (!isInPlace) copyToShared(this.#place.subarray(this.#placeBytes), taken);
    this.#chunkBytes += takenBytes;
    this.#placeBytes += takenBytes;
    if (this.#placeBytes < wantedBytes) return undefined;
    this.#placeBytes = 0;
    return this.#place.subarray(0, wantedBytes);
  }

  #assemblyOf(wantedBytes: number): Uint8Array {
    if (this.#assembly.length < wantedBytes) this.#assembly = new Uint8Array(wantedBytes);
    return this.#assembly;
  }
}

function decodeHeader(bytes: Uint8Array, invalid: Invalid): Header {
  const view = viewOf(bytes);
  const magic = view.getUint16(0);
  if (magic !== FRAME_MAGIC) throw invalid(`frame magic ${hex(FRAME_MAGIC)}, got ${hex(magic)}`);
  const number = view.getUint8(2);
  const type = TYPE_BY_NUMBER.get(number);
  if (type === undefined) throw invalid(`a frame type from 1 to ${TYPE_BY_NUMBER.size}, got ${number}`);
  const flags = view.getUint8(3);
  if (flags !== 0) throw invalid(`${type} flags 0, got ${hex(flags)}`);
  const payloadBytes = view.getUint32(4);
  const { payloadBytesMin, payloadBytesMax } = FRAME_LAYOUTS[type];
  if (payloadBytes < payloadBytesMin || payloadBytes > payloadBytesMax) {
    throw invalid(`${type} payload of ${payloadBytesMin} to ${payloadBytesMax} bytes, got ${payloadBytes}`);
  }
  const sequence = getUint64(view, 8);
  if (type === "data") checkSequence(type, sequence, invalid);
  else if (sequence !== 0) throw invalid(`${type} sequence 0, got ${sequence}`);
  return { type, payloadBytes, sequence };
}

function decodeDataFields({ sequence }: Header, fixed: Uint8Array, invalid: Invalid): DataFields {
  const view = viewOf(fixed);
  const entropyCodec = view.getUint8(0);
  if (entropyCodec === 0) throw invalid("an entropy codec id of 1 or above, got 0");
  const payloadKind = view.getUint8(1);
  if (!isPayloadKind(payloadKind)) throw invalid(`a kind of payload that is known, got ${payloadKind}`);
  const reserved = view.getUint16(2);
  if (reserved !== 0) throw invalid(`data reserved bytes 0, got ${hex(reserved)}`);
  const rawBytes = view.getUint32(4);
  if (rawBytes < 1 || rawBytes > RAW_BYTES_MAX) {
    throw invalid(`data of 1 to ${RAW_BYTES_MAX} raw bytes, got ${rawBytes}`);
  }
  return { type: "data", sequence, entropyCodec, payloadKind, rawBytes, rawChecksum: view.getUint32(8) };
}

function decodePayload(header: Header, payload: Uint8Array, invalid: Invalid): Frame {
  const view = viewOf(payload);
  const type = header.type as Exclude<FrameType, "data">;
  switch (type) {
    case "hello": {
      checkMagic(type, payload, invalid);
      const versions = { min: view.getUint16(8), max: view.getUint16(10) };
      if (versions.min < 1 || versions.min > versions.max) {
        throw invalid(`a version range that begins at 1 or above, got ${versions.min} to ${versions.max}`);
      }
      return {
        type,
        versions,
        body: decodeBody(helloSchema, payload.subarray(HELLO_FIXED_BYTES), invalid),
      };
    }
    case "welcome": {
      const version = view.getUint16(0);
      if (version === 0) throw invalid("welcome version 1 or above, got 0");
      return {
        type,
        version,
        body: decodeBody(welcomeSchema, payload.subarray(WELCOME_FIXED_BYTES), invalid),
      };
    }
    case "refuse":
    case "abort":
      return { type, reason: decodeBody(reasonSchema, payload, invalid) };
    case "ack": {
      const sequence = getUint64(view, 0);
      checkSequence(type, sequence, invalid);
      if (payload.length === ACK_BYTES) return { type, sequence };
      if (payload.length !== ACK_PACE_BYTES)
        throw invalid(`ack payload of ${ACK_BYTES} or ${ACK_PACE_BYTES} bytes, got ${payload.length}`);
      const [elapsedMs, busyMs] = [view.getUint32(ACK_BYTES), view.getUint32(ACK_BYTES + 4)];
      if (busyMs > elapsedMs) throw invalid(`ack with at most ${elapsedMs} ms busy, got ${busyMs}`);
      return { type, sequence, pace: { elapsedMs, busyMs } };
    }
    case "return":
      return { type, bytes: payload };
    case "commit": {
      const resume = view.getUint8(0);
      if (resume > 1) throw invalid(`commit resume 0 or 1, got ${resume}`);
      return { type, resume: resume === 1 };
    }
    case "resume": {
      checkMagic(type, payload, invalid);
      const at = HELLO_MAGIC.length;
      const version = view.getUint16(at);
      if (version === 0) throw invalid("resume version 1 or above, got 0");
      const stage = resumeStage(type, view.getUint8(at + 2), invalid);
      const reserved = view.getUint8(at + 3);
      if (reserved !== 0) throw invalid(`resume reserved byte 0, got ${hex(reserved)}`);
      const connection = view.getUint32(at + 4);
      if (connection < 2) throw invalid(`resume connection 2 or above, got ${connection}`);
      const session = getId(payload, at + 8);
      const token = getId(payload, at + 8 + ID_BYTES);
      const returnBytes = checkCount(type, getUint64(view, at + 8 + 2 * ID_BYTES), invalid);
      return { type, version, stage, connection, session, token, returnBytes };
    }
    case "resumed": {
      const stage = resumeStage(type, view.getUint8(0), invalid);
      if (view.getUint8(1) !== 0 || view.getUint16(2) !== 0 || view.getUint32(4) !== 0) {
        throw invalid("resumed reserved bytes 0");
      }
      const dataSequence = checkCount(type, getUint64(view, 8), invalid);
      const ackSequence = checkCount(type, getUint64(view, 16), invalid);
      return { type, stage, dataSequence, ackSequence };
    }
    case "returned": {
      const returnBytes = checkCount(type, getUint64(view, 0), invalid);
      if (returnBytes === 0) throw invalid("returned bytes 1 or above, got 0");
      return { type, returnBytes };
    }
    case "verify": {
      const offsetBytes = checkCount(type, getUint64(view, 0), invalid);
      const pieceBytes = view.getUint32(8);
      if (!isPieceSize(pieceBytes)) throw invalid(`a size of pieces that is known, got ${pieceBytes}`);
      const pieces = view.getUint32(12);
      if (pieces < 1 || pieces > DIGESTS_MAX) throw invalid(`1 to ${DIGESTS_MAX} pieces, got ${pieces}`);
      return {
        type,
        block: blockName(payload.subarray(VERIFY_FIXED_BYTES), invalid),
        offsetBytes,
        pieceBytes,
        pieces,
      };
    }
    case "digests":
      if (payload.length % DIGEST_BYTES !== 0) throw invalid(`whole digests, got ${payload.length} bytes`);
      return { type, digests: payload };
    case "loaded":
    case "running":
    case "keepalive":
    case "done":
    case "ready":
      return { type };
    default:
      return assertNever(type, "frame type");
  }
}

function checkSequence(type: FrameType, sequence: number, invalid: Invalid): void {
  if (sequence < 1 || sequence > SEQUENCE_MAX) {
    throw invalid(`${type} sequence from 1 to ${SEQUENCE_MAX}, got ${sequence}`);
  }
}

function checkMagic(type: FrameType, payload: Uint8Array, invalid: Invalid): void {
  const magic = String.fromCharCode(...payload.subarray(0, HELLO_MAGIC.length));
  if (magic !== HELLO_MAGIC) throw invalid(`${type} to begin with "${HELLO_MAGIC}"`);
}

function resumeStage(type: FrameType, number: number, invalid: Invalid): ResumeStage {
  const stage = RESUME_STAGES.find((candidate) => RESUME_STAGE_NUMBERS[candidate] === number);
  if (stage === undefined) throw invalid(`a ${type} stage that is known, got ${number}`);
  return stage;
}

function blockName(bytes: Uint8Array, invalid: Invalid): string {
  const name = String.fromCharCode(...bytes);
  if (!isBlockName(name)) throw invalid("a name of visible ASCII characters");
  return name;
}

function checkCount(type: FrameType, count: number, invalid: Invalid): number {
  if (count > SEQUENCE_MAX) throw invalid(`a ${type} count up to ${SEQUENCE_MAX}, got ${count}`);
  return count;
}

function getId(bytes: Uint8Array, offsetBytes: number): string {
  let text = "";
  for (let i = 0; i < ID_BYTES; i++) text += bytes[offsetBytes + i]!.toString(16).padStart(2, "0");
  return text;
}

/** Exact up to SEQUENCE_MAX; above it some number above it. */
function getUint64(view: DataView, offsetBytes: number): number {
  return view.getUint32(offsetBytes) * 2 ** 32 + view.getUint32(offsetBytes + 4);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
