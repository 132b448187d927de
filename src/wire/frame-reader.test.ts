import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ProtocolError } from "../base/errors.ts";
import type { DataFrame, Frame, FrameType, ResumeStage } from "./frame.ts";
import {
  CODED_BYTES_MAX,
  CONNECTIONS_MAX,
  DATA_FIXED_BYTES,
  DIGESTS_MAX,
  encodeFrame,
  FRAME_LAYOUTS,
  HEADER_BYTES,
  PACE_MS_MAX,
  RAW_BYTES_MAX,
  RETURN_BYTES_MAX,
  SEQUENCE_MAX,
} from "./frame.ts";
import { FrameReader } from "./frame-reader.ts";
import { PAYLOAD_PAGES, PAYLOAD_RAM_LAYOUT, PAYLOAD_STREAM } from "./page-batch.ts";

// ---- Frames of every type, as any engine might send them.

const printable = (maxLength: number) =>
  fc
    .string({ unit: "grapheme", maxLength })
    .filter((text) => text.length <= maxLength && !/[\p{Cc}\p{Cs}]/u.test(text));
const bytes = (maxLength: number) => fc.uint8Array({ minLength: 1, maxLength, size: "max" });
const sequence = fc.oneof(fc.integer({ min: 1, max: 2 ** 33 }), fc.constant(SEQUENCE_MAX));
const uint16 = fc.integer({ min: 1, max: 0xffff });
const codecs = fc.uniqueArray(fc.integer({ min: 1, max: 255 }), { minLength: 1, maxLength: 16 });
const hypervisor = fc.record(
  {
    kind: fc.constantFrom("qemu" as const, "v86" as const),
    version: printable(128),
    compatibility: printable(64),
  },
  { requiredKeys: ["kind", "version"] },
);
const id = fc.stringMatching(/^[0-9a-f]{32}$/);
const resumeStage = fc.constantFrom<ResumeStage>("streaming", "loaded", "committed", "ready", "given");
const reason = fc.record({ code: fc.stringMatching(/^[A-Z][A-Z0-9_]{0,63}$/), message: printable(100) });
const pace = fc
  .tuple(fc.integer({ min: 0, max: PACE_MS_MAX }), fc.integer({ min: 0, max: PACE_MS_MAX }))
  .map(([a, b]) => ({ elapsedMs: Math.max(a, b), busyMs: Math.min(a, b) }));
const anyFrame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record({
    type: fc.constant("hello" as const),
    versions: fc.tuple(uint16, uint16).map(([a, b]) => ({ min: Math.min(a, b), max: Math.max(a, b) })),
    body: fc.record(
      {
        deltavee: printable(64),
        session: id,
        hypervisor,
        entropyCodecs: codecs,
        guestRamBytes: fc.maxSafeNat(),
        name: printable(256),
      },
      { requiredKeys: ["deltavee", "session", "hypervisor", "entropyCodecs"] },
    ),
  }),
  fc.record({
    type: fc.constant("welcome" as const),
    version: uint16,
    body: fc.record(
      {
        deltavee: printable(64),
        entropyCodecs: codecs,
        hypervisor,
        resumption: fc.record({ token: id, timeoutMs: fc.integer({ min: 1, max: 2 ** 40 }) }),
      },
      { requiredKeys: ["deltavee", "entropyCodecs", "hypervisor"] },
    ),
  }),
  fc.record({
    type: fc.constant("resume" as const),
    version: uint16,
    stage: resumeStage,
    connection: fc.integer({ min: 2, max: CONNECTIONS_MAX }),
    session: id,
    token: id,
    returnBytes: fc.maxSafeNat(),
  }),
  fc.record({
    type: fc.constant("resumed" as const),
    stage: resumeStage,
    dataSequence: fc.maxSafeNat(),
    ackSequence: fc.maxSafeNat(),
  }),
  fc.record({ type: fc.constant("returned" as const), returnBytes: sequence }),
  fc.record({ type: fc.constantFrom("refuse" as const, "abort" as const), reason }),
  fc.record({
    type: fc.constant("data" as const),
    sequence,
    entropyCodec: fc.integer({ min: 1, max: 255 }),
    payloadKind: fc.constantFrom(PAYLOAD_STREAM, PAYLOAD_RAM_LAYOUT, PAYLOAD_PAGES),
    rawBytes: fc.integer({ min: 1, max: RAW_BYTES_MAX }),
    rawChecksum: fc.integer({ min: 0, max: 0xffffffff }),
    coded: bytes(300),
  }),
  fc.record({ type: fc.constant("ack" as const), sequence }),
  fc.record({ type: fc.constant("ack" as const), sequence, pace }),
  fc.record({ type: fc.constant("return" as const), bytes: bytes(300) }),
  fc.record({
    type: fc.constant("verify" as const),
    block: fc.stringMatching(/^[\x21-\x7e]{1,255}$/),
    offsetBytes: fc.maxSafeNat(),
    pieceBytes: fc.integer({ min: 12, max: 20 }).map((bits) => 2 ** bits),
    pieces: fc.integer({ min: 1, max: DIGESTS_MAX }),
  }),
  fc.record({
    type: fc.constant("digests" as const),
    digests: fc
      .integer({ min: 1, max: 5 })
      .chain((n) => fc.uint8Array({ minLength: 32 * n, maxLength: 32 * n })),
  }),
  fc.record({ type: fc.constant("commit" as const), resume: fc.boolean() }),
  fc.record({
    type: fc.constantFrom(
      "loaded" as const,
      "running" as const,
      "keepalive" as const,
      "done" as const,
      "ready" as const,
    ),
  }),
);

// ---- Reading.

/** What a connection says: all frames (their views copied), and the error that ended it, if any. */
function readAll(chunks: Iterable<Uint8Array>): { frames: Frame[]; error: ProtocolError | undefined } {
  const reader = new FrameReader();
  const frames: Frame[] = [];
  try {
    for (const chunk of chunks) {
      // As a socket does that reads into the same buffer again and again.
      const borrowed = Buffer.from(chunk);
      reader.push(borrowed);
      for (let frame = reader.next(); frame !== undefined; frame = reader.next()) frames.push(copy(frame));
      borrowed.fill(0xee);
    }
  } catch (thrown) {
    if (!(thrown instanceof ProtocolError)) throw thrown;
    return { frames, error: thrown };
  }
  return { frames, error: undefined };
}

function copy(frame: Frame): Frame {
  if (frame.type === "data") return { ...frame, coded: frame.coded.slice() };
  if (frame.type === "return") return { ...frame, bytes: frame.bytes.slice() };
  if (frame.type === "digests") return { ...frame, digests: frame.digests.slice() };
  return frame;
}

function* cut(all: Uint8Array, sizes: Iterable<number>): Generator<Uint8Array> {
  let at = 0;
  for (const size of sizes) {
    yield all.subarray(at, at + size);
    at += size;
  }
  yield all.subarray(at);
}

const encoded = (frames: Frame[]): Uint8Array => Buffer.concat(frames.map(encodeFrame));

/** A valid frame with some of its bytes changed. */
function patched(frame: Frame, at: number, ...values: number[]): Uint8Array {
  const all = encoded([frame]);
  all.set(values, at);
  return all;
}

function withJson(type: "hello" | "welcome" | "refuse" | "abort", json: Uint8Array | string): Uint8Array {
  const fixed = { hello: "DELTAVEE\0\x01\0\x01", welcome: "\0\x01", refuse: "", abort: "" }[type];
  const payload = Buffer.concat([Buffer.from(fixed, "latin1"), Buffer.from(json)]);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(0x4456, 0);
  header.writeUInt8(FRAME_LAYOUTS[type].number, 2);
  header.writeUInt32BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}

const VERIFY: Frame = { type: "verify", block: "pc.ram", offsetBytes: 4096, pieceBytes: 4096, pieces: 1 };
const DIGESTS: Frame = { type: "digests", digests: new Uint8Array(64) };
const HELLO_BODY = {
  deltavee: "0.1.0",
  session: "00112233445566778899aabbccddeeff",
  hypervisor: { kind: "qemu" as const, version: "10.0.2" },
  entropyCodecs: [2, 1],
};
const HELLO: Frame = { type: "hello", versions: { min: 1, max: 1 }, body: HELLO_BODY };
const WELCOME: Frame = {
  type: "welcome",
  version: 1,
  body: { deltavee: "0.1.0", entropyCodecs: [1], hypervisor: HELLO_BODY.hypervisor },
};
const DATA: DataFrame = {
  type: "data",
  sequence: 7,
  entropyCodec: 1,
  payloadKind: PAYLOAD_PAGES,
  rawBytes: 3,
  rawChecksum: 0x01020304,
  coded: Uint8Array.of(1, 2, 3),
};
const ACK: Frame = { type: "ack", sequence: 7 };
const PACED: Frame = { type: "ack", sequence: 7, pace: { elapsedMs: 300, busyMs: 40 } };
const KEEPALIVE: Frame = { type: "keepalive" };
const RESUME: Frame = {
  type: "resume",
  version: 3,
  stage: "loaded",
  connection: 2,
  session: HELLO_BODY.session,
  token: HELLO_BODY.session,
  returnBytes: 5,
};
const RESUMED: Frame = { type: "resumed", stage: "loaded", dataSequence: 7, ackSequence: 7 };

describe("FrameReader", () => {
  test("what was encoded is read back the same, however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(anyFrame, { maxLength: 8, size: "max" }),
        fc.array(fc.integer({ min: 0, max: 200 }), { maxLength: 40, size: "max" }),
        (frames, sizes) => {
          expect(readAll(cut(encoded(frames), sizes))).toEqual({ frames, error: undefined });
        },
      ),
      { numRuns: 300 },
    );
  });

  test("what was encoded is read back the same, one byte at a time", () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { maxLength: 4, size: "max" }), (frames) => {
        const all = encoded(frames);
        expect(readAll(cut(all, Array(all.length).fill(1)))).toEqual({ frames, error: undefined });
      }),
      { numRuns: 50 },
    );
  });

  test("frames before an invalid one are read, and the error is the same, however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(anyFrame, { maxLength: 4, size: "max" }),
        fc.uint8Array({ minLength: HEADER_BYTES, maxLength: 60 }),
        fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 40, size: "max" }),
        (frames, garbage, sizes) => {
          garbage[0] = 0;
          const all = Buffer.concat([encoded(frames), garbage]);
          const whole = readAll([all]);
          const pieces = readAll(cut(all, sizes));
          expect(whole.frames).toEqual(frames);
          expect(whole.error?.message).toContain(`offset ${all.length - garbage.length} of`);
          expect(pieces.frames).toEqual(whole.frames);
          expect(pieces.error?.message).toBe(whole.error?.message);
        },
      ),
    );
  });

  test("payloads of exactly the largest size are read, in pieces of a socket's size", () => {
    const coded = new Uint8Array(CODED_BYTES_MAX).map((_, i) => i * 31);
    const frames: Frame[] = [
      { ...DATA, rawBytes: RAW_BYTES_MAX, coded },
      { type: "return", bytes: coded.slice(0, RETURN_BYTES_MAX) },
    ];
    const read = readAll(cut(encoded(frames), Array(20).fill(65_536)));
    expect(read.error).toBeUndefined();
    expect(read.frames.map((frame) => frame.type)).toEqual(["data", "return"]);
    // Compared as buffers: a megabyte is too much for toEqual.
    expect(Buffer.compare(encoded(read.frames), encoded([...frames]))).toBe(0);
  });

  test("a payload that lies whole in a chunk is a view of it, not a copy", () => {
    const chunk = encoded([DATA]);
    const reader = new FrameReader();
    reader.push(chunk);
    const frame = reader.next();
    expect(frame?.type === "data" && frame.coded.buffer === chunk.buffer).toBe(true);
  });

  test("coded bytes are put where room is given for them, by a connection that reads into it too, paused or not", () => {
    const read = fc.record({ bytes: fc.integer({ min: 1, max: 200 }), isPaused: fc.boolean() });
    fc.assert(
      fc.property(
        fc.array(anyFrame, { maxLength: 8, size: "max" }),
        fc.infiniteStream(read),
        (frames, reads) => {
          const room = new Uint8Array(CODED_BYTES_MAX);
          const reader = new FrameReader((codedBytes) => room.subarray(0, codedBytes));
          const own = new Uint8Array(200);
          const got: Frame[] = [];
          const all = encoded(frames);
          // As SocketChannel: asks after each call where the next bytes may be put, whether it is paused then or not.
          let space = reader.space ?? own;
          for (let at = 0; at < all.length; ) {
            const { bytes, isPaused } = reads.next().value;
            const chunk = space.subarray(0, bytes);
            chunk.set(all.subarray(at, at + chunk.length));
            const end = Math.min(all.length, at + chunk.length);
            reader.push(chunk.subarray(0, end - at));
            at = end;
            if (isPaused) space = reader.space ?? own;
            for (let frame = reader.next(); frame !== undefined; frame = reader.next()) got.push(copy(frame));
            if (!isPaused) space = reader.space ?? own;
          }
          expect(got).toEqual(frames);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("a frame whose beginning has come is read straight into its room, and no further", () => {
    const room = new Uint8Array(3);
    const reader = new FrameReader(() => room);
    const all = encoded([DATA, KEEPALIVE]);
    const codedAt = HEADER_BYTES + DATA_FIXED_BYTES;
    reader.push(all.slice(0, codedAt + 1));
    expect(reader.space).toBeUndefined();
    expect(reader.next()).toBeUndefined();
    const space = reader.space!;
    expect([space.buffer, space.byteOffset, space.length]).toEqual([room.buffer, 1, 2]);
    space.set(all.slice(codedAt + 1, codedAt + 3));
    reader.push(space);
    const frame = reader.next() as DataFrame;
    expect([frame.coded.buffer, frame.coded]).toEqual([room.buffer, DATA.coded]);
    expect(reader.space).toBeUndefined();
  });

  test("views of a Buffer are plain arrays, so that slice() copies them", () => {
    const chunk = Buffer.from(encoded([DATA]));
    const reader = new FrameReader();
    reader.push(chunk);
    const frame = reader.next();
    const kept = frame?.type === "data" ? frame.coded.slice() : undefined;
    chunk.fill(0xee);
    expect(kept).toEqual(Uint8Array.of(1, 2, 3));
  });

  test("memory for what arrives in pieces does not grow with what has arrived", () => {
    const reader = new FrameReader();
    const coded = new Uint8Array(CODED_BYTES_MAX);
    const pieces = [...cut(encoded([{ ...DATA, rawBytes: RAW_BYTES_MAX, coded }]), Array(20).fill(65_536))];
    const readOnce = () => {
      for (const piece of pieces) {
        reader.push(piece);
        while (reader.next() !== undefined);
      }
    };
    readOnce();
    const beforeBytes = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 200; i++) readOnce();
    expect(process.memoryUsage().arrayBuffers - beforeBytes).toBeLessThan(4 * CODED_BYTES_MAX);
  });

  test("after an error it says the same error again, to next and to push", () => {
    const reader = new FrameReader();
    reader.push(new Uint8Array(HEADER_BYTES));
    expect(() => reader.next()).toThrow(ProtocolError);
    expect(() => reader.next()).toThrow("expected frame magic 0x4456, got 0x0");
    expect(() => reader.push(encoded([KEEPALIVE]))).toThrow("expected frame magic 0x4456, got 0x0");
  });

  test("pushing before the chunk is used up is a mistake of ours", () => {
    const reader = new FrameReader();
    reader.push(encoded([KEEPALIVE, KEEPALIVE]));
    reader.next();
    expect(() => reader.push(new Uint8Array(1))).toThrow("Assertion failed");
  });

  test("JSON members that this version does not know are ignored", () => {
    const body = { ...HELLO_BODY, future: { deep: [1] }, hypervisor: { ...HELLO_BODY.hypervisor, x: 1 } };
    expect(readAll([withJson("hello", JSON.stringify(body))])).toEqual({ frames: [HELLO], error: undefined });
  });

  test.each<[string, Uint8Array, string]>([
    ["another frame magic", patched(ACK, 0, 0x47, 0x45), "frame magic 0x4456, got 0x4745"],
    ["type 0", patched(ACK, 2, 0), "a frame type from 1 to 18, got 0"],
    ["an unknown type", patched(ACK, 2, 19), "a frame type from 1 to 18, got 19"],
    ["flags", patched(ACK, 3, 0x80), "ack flags 0, got 0x80"],
    ["a payload too short for its type", patched(ACK, 7, 7), "ack payload of 8 to 16 bytes, got 7"],
    ["a payload too long for its type", patched(KEEPALIVE, 7, 1), "keepalive payload of 0 to 0 bytes, got 1"],
    [
      "a payload above the limit, before any of it has arrived",
      patched(DATA, 4, 0xff, 0xff, 0xff, 0xff).subarray(0, HEADER_BYTES),
      `data payload of 13 to ${DATA_FIXED_BYTES + CODED_BYTES_MAX} bytes, got 4294967295`,
    ],
    ["a sequence outside DATA", patched(KEEPALIVE, 15, 1), "keepalive sequence 0, got 1"],
    ["DATA without a sequence", patched(DATA, 15, 0), "data sequence from 1 to 9007199254740991, got 0"],
    [
      "a sequence above what is counted exactly",
      patched(DATA, 8, 0, 0x20, 0, 0, 0, 0, 0, 0),
      "data sequence from 1 to 9007199254740991, got 9007199254740992",
    ],
    ["ACK with half a pace", patched(PACED, 7, 12), "ack payload of 8 or 16 bytes, got 12"],
    ["ACK busy for longer than it has been", patched(PACED, 28, 0, 0, 1, 45), "at most 300 ms busy, got 301"],
    ["ACK of nothing", patched(ACK, 23, 0), "ack sequence from 1 to"],
    ["ACK above what is counted exactly", patched(ACK, 16, 0xff), "ack sequence from 1 to"],
    ["HELLO with another magic", patched(HELLO, 16, 0x64), 'hello to begin with "DELTAVEE"'],
    ["HELLO with version 0", patched(HELLO, 25, 0), "begins at 1 or above, got 0 to 1"],
    ["HELLO with an upside-down range", patched(HELLO, 25, 2), "begins at 1 or above, got 2 to 1"],
    ["WELCOME with version 0", patched(WELCOME, 17, 0), "welcome version 1 or above, got 0"],
    ["DATA with entropy codec 0", patched(DATA, 16, 0), "an entropy codec id of 1 or above, got 0"],
    ["DATA of kind 0", patched(DATA, 17, 0), "a kind of payload that is known, got 0"],
    ["DATA of an unknown kind", patched(DATA, 17, 5), "a kind of payload that is known, got 5"],
    ["DATA with a first reserved byte", patched(DATA, 18, 1), "data reserved bytes 0, got 0x100"],
    ["DATA with a last reserved byte", patched(DATA, 19, 1), "data reserved bytes 0, got 0x1"],
    ["DATA of no raw bytes", patched(DATA, 23, 0), "data of 1 to 1048576 raw bytes, got 0"],
    ["DATA of too many raw bytes", patched(DATA, 20, 0, 0x10, 0, 1), "raw bytes, got 1048577"],
    [
      "COMMIT that says neither yes nor no",
      patched({ type: "commit", resume: true }, 16, 2),
      "0 or 1, got 2",
    ],
    ["RESUME with another magic", patched(RESUME, 16, 0x64), 'resume to begin with "DELTAVEE"'],
    ["RESUME with version 0", patched(RESUME, 25, 0), "resume version 1 or above, got 0"],
    ["RESUME of no stage", patched(RESUME, 26, 0), "a resume stage that is known, got 0"],
    ["RESUME with a reserved byte", patched(RESUME, 27, 1), "resume reserved byte 0, got 0x1"],
    ["RESUME of the first connection", patched(RESUME, 31, 1), "resume connection 2 or above, got 1"],
    ["RESUME with too large a count", patched(RESUME, 64, 0xff), "a resume count up to 9007199254740991"],
    ["RESUMED of an unknown stage", patched(RESUMED, 16, 6), "a resumed stage that is known, got 6"],
    ["RESUMED with a first reserved byte", patched(RESUMED, 17, 1), "resumed reserved bytes 0"],
    ["RESUMED with a last reserved byte", patched(RESUMED, 23, 1), "resumed reserved bytes 0"],
    ["RESUMED with too large a sequence", patched(RESUMED, 24, 0xff), "a resumed count up to"],
    [
      "RETURNED of nothing",
      patched({ type: "returned", returnBytes: 1 }, 23, 0),
      "returned bytes 1 or above, got 0",
    ],
    ["VERIFY of too large an offset", patched(VERIFY, HEADER_BYTES, 0xff), "a verify count up to"],
    [
      "VERIFY of an odd size",
      patched(VERIFY, HEADER_BYTES + 11, 1),
      "a size of pieces that is known, got 4097",
    ],
    [
      "VERIFY of small pieces",
      patched(VERIFY, HEADER_BYTES + 10, 8),
      "a size of pieces that is known, got 2048",
    ],
    ["VERIFY of nothing", patched(VERIFY, HEADER_BYTES + 15, 0), "1 to 2048 pieces, got 0"],
    ["VERIFY of too much", patched(VERIFY, HEADER_BYTES + 12, 1), "1 to 2048 pieces, got 16777217"],
    [
      "VERIFY of a name to be seen by nobody",
      patched(VERIFY, HEADER_BYTES + 17, 10),
      "visible ASCII characters",
    ],
    ["half a digest", patched(DIGESTS, 7, 33), "whole digests, got 33 bytes"],
    ["a body that is not JSON", withJson("abort", "{]"), "expected JSON in UTF-8"],
    [
      "a body that is not UTF-8",
      withJson("abort", Buffer.from('{"code":"\xff"}', "latin1")),
      "JSON in UTF-8",
    ],
    ["a body with a byte order mark", withJson("abort", "\ufeff{}"), "JSON in UTF-8"],
    ["a body that is no object", withJson("abort", "[1]"), "a valid JSON body"],
    ["a code that is no code", withJson("refuse", '{"code":"no","message":""}'), "(code: "],
    [
      "a message with an escape sequence",
      withJson("abort", '{"code":"A","message":"\\u001b[2J"}'),
      "(message: ",
    ],
    ["a message with half a character", withJson("abort", '{"code":"A","message":"\\ud800"}'), "(message: "],
    [
      "a message that is too long in UTF-16 units",
      withJson("abort", `{"code":"A","message":"${"\u{1f600}".repeat(513)}"}`),
      "(message: expected at most 1024 characters)",
    ],
    [
      "a message that is too long",
      withJson("abort", `{"code":"A","message":"${"m".repeat(1025)}"}`),
      "(message: ",
    ],
    [
      "a session that is too short",
      withJson("hello", JSON.stringify({ ...HELLO_BODY, session: "00" })),
      "(session: ",
    ],
    [
      "an unknown hypervisor",
      withJson("hello", JSON.stringify({ ...HELLO_BODY, hypervisor: { kind: "xen", version: "4" } })),
      '(hypervisor.kind: expected one of "qemu", "v86")',
    ],
    [
      "no entropy codec",
      withJson("hello", JSON.stringify({ ...HELLO_BODY, entropyCodecs: [] })),
      "(entropyCodecs: ",
    ],
    [
      "entropy codec 0",
      withJson("hello", JSON.stringify({ ...HELLO_BODY, entropyCodecs: [1, 0] })),
      "(entropyCodecs.1: ",
    ],
    [
      "an entropy codec twice",
      withJson("hello", JSON.stringify({ ...HELLO_BODY, entropyCodecs: [1, 1] })),
      "(entropyCodecs: must name each codec once)",
    ],
    [
      "a negative size of RAM",
      withJson("hello", JSON.stringify({ ...HELLO_BODY, guestRamBytes: -1 })),
      "(guestRamBytes: ",
    ],
  ])("refuses %s, saying where and what it expected", (_, invalid, expected) => {
    const { frames, error } = readAll([encoded([KEEPALIVE]), invalid]);
    expect(frames).toEqual([KEEPALIVE]);
    expect(error?.code).toBe("PROTOCOL_INVALID_FRAME");
    expect(error?.message).toContain("Invalid frame at offset 16 of the connection: expected ");
    expect(error?.message).toContain(expected);
  });

  test("does not repeat a peer's bytes in its error", () => {
    const { error } = readAll([withJson("abort", '{"code":"\x1b[2J secret')]);
    expect(error?.message).toMatch(/expected JSON in UTF-8$/);
  });

  test("every frame type is held to both ends of its range of payload lengths", () => {
    for (const [type, { number, payloadBytesMin, payloadBytesMax }] of Object.entries(FRAME_LAYOUTS)) {
      const lengthError = (payloadBytes: number) => {
        const header = new DataView(new ArrayBuffer(HEADER_BYTES));
        header.setUint16(0, 0x4456);
        header.setUint8(2, number);
        header.setUint32(4, payloadBytes);
        header.setUint32(12, type === ("data" satisfies FrameType) ? 1 : 0);
        const payload = new Uint8Array(payloadBytes === payloadBytesMax + 1 ? 0 : payloadBytes);
        const { error } = readAll([Buffer.concat([new Uint8Array(header.buffer), payload])]);
        return error?.message.includes("payload of") === true;
      };
      expect([type, lengthError(payloadBytesMax + 1)]).toEqual([type, true]);
      expect([type, lengthError(payloadBytesMin)]).toEqual([type, false]);
      expect([type, lengthError(payloadBytesMax)]).toEqual([type, false]);
      if (payloadBytesMin > 0) expect([type, lengthError(payloadBytesMin - 1)]).toEqual([type, true]);
    }
  });
});
