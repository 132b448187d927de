// Any bytes: frames, or one ProtocolError. No hang, no other error, nothing read past the end; and a whole
// destination (reader, handshake, state) that is fed a damaged connection never errs otherwise either.
// FUZZ_RUNS sets how many; fast-check prints the seed of a failure.

import fc from "fast-check";
import { expect, test } from "vitest";
import { uncodedData } from "../../test/support/data-frame.ts";
import { fuzz, fuzzRuns } from "../../test/support/fuzzing.ts";
import { ProtocolError } from "../base/errors.ts";
import type { Welcome } from "./bodies.ts";
import type { Frame } from "./frame.ts";
import { encodeFrame } from "./frame.ts";
import { FrameReader } from "./frame-reader.ts";
import { abortFrame, answerHello, helloFrame, refuseFrame } from "./handshake.ts";
import { ProtocolState } from "./protocol-state.ts";

const numRuns = fuzzRuns(3000);
const RAW = new Uint8Array(40).fill(7);
const OWN: Welcome = {
  deltavee: "0.1.0",
  entropyCodecs: [1],
  hypervisor: { kind: "qemu", version: "10.0.2" },
  resumption: { token: "00112233445566778899aabbccddeeff", timeoutMs: 60_000 },
};
const SESSION = "00112233445566778899aabbccddeeff";
const RESUME = {
  version: 3,
  stage: "streaming",
  connection: 2,
  session: SESSION,
  token: SESSION,
  returnBytes: 40,
} as const;
const FROM_SOURCE: Frame[] = [
  helloFrame({ ...OWN, session: SESSION }),
  uncodedData(1, RAW),
  { type: "keepalive" },
  uncodedData(2, RAW),
  { type: "returned", returnBytes: 40 },
  { type: "resume", ...RESUME },
  { type: "commit", resume: true },
  { type: "done" },
  { type: "ready" },
  { type: "verify", block: "pc.ram", offsetBytes: 4096, pieceBytes: 4096, pieces: 2 },
];
const FROM_DESTINATION: Frame[] = [
  { type: "welcome", version: 3, body: OWN },
  { type: "ack", sequence: 1 },
  { type: "return", bytes: RAW },
  { type: "resumed", stage: "streaming", dataSequence: 2, ackSequence: 1 },
  { type: "loaded" },
  { type: "running" },
  { type: "digests", digests: new Uint8Array(64).fill(9) },
  refuseFrame("BUSY", "one at a time"),
  abortFrame("CANCELLED", "enough"),
];
const encoded = (frames: Frame[]): Uint8Array => Buffer.concat(frames.map(encodeFrame));
const FROM_SOURCE_BYTES = encoded(FROM_SOURCE);
const ALL_BYTES = encoded([...FROM_SOURCE, ...FROM_DESTINATION]);

const chunkBytes = fc.integer({ min: 1, max: 200 });

/** Shows each frame to `onFrame`; true when it ended in a ProtocolError. */
function read(bytes: Uint8Array, chunkBytes: number, onFrame: (frame: Frame) => void): boolean {
  const reader = new FrameReader();
  try {
    for (let at = 0; at < bytes.length; at += chunkBytes) {
      reader.push(bytes.subarray(at, at + chunkBytes));
      for (let frame = reader.next(); frame !== undefined; frame = reader.next()) onFrame(frame);
    }
  } catch (thrown) {
    if (!(thrown instanceof ProtocolError)) throw thrown;
    expect(thrown.code).toBe("PROTOCOL_INVALID_FRAME");
    return true;
  }
  return false;
}

/** `bytes` with some of them changed, dropped and inserted. */
function damaged(bytes: Uint8Array): fc.Arbitrary<Uint8Array> {
  const edit = fc.record({
    at: fc.nat(bytes.length),
    dropBytes: fc.nat(3),
    insert: fc.uint8Array({ maxLength: 3 }),
  });
  return fc
    .array(edit, { minLength: 1, maxLength: 3 })
    .map((edits) =>
      edits.reduce<Uint8Array>(
        (all, { at, dropBytes, insert }) =>
          Buffer.concat([all.subarray(0, at), insert, all.subarray(at + dropBytes)]),
        bytes,
      ),
    );
}

test("any bytes are frames or a ProtocolError", () => {
  fuzz(
    fc.property(fc.uint8Array({ maxLength: 400, size: "max" }), chunkBytes, (bytes, chunkBytes) => {
      read(bytes, chunkBytes, () => {});
    }),
    { numRuns },
  );
});

test("any bytes behind a valid header are frames or a ProtocolError", () => {
  const header = fc.record({
    type: fc.integer({ min: 0, max: 16 }),
    sequence: fc.integer({ min: 0, max: 2 }),
    payload: fc.oneof(
      fc.uint8Array({ maxLength: 60, size: "max" }),
      fc.json().map((text) => Buffer.from(text)),
    ),
  });
  fuzz(
    fc.property(fc.array(header, { maxLength: 6, size: "max" }), chunkBytes, (parts, chunkBytes) => {
      const frames = parts.map(({ type, sequence, payload }) => {
        const bytes = new Uint8Array(16 + payload.length);
        const view = new DataView(bytes.buffer);
        view.setUint16(0, 0x4456);
        view.setUint8(2, type);
        view.setUint32(4, payload.length);
        view.setUint32(12, sequence);
        bytes.set(payload, 16);
        return bytes;
      });
      read(Buffer.concat(frames), chunkBytes, () => {});
    }),
    { numRuns },
  );
});

test("a damaged connection is frames or a ProtocolError", () => {
  let failed = 0;
  fuzz(
    fc.property(damaged(ALL_BYTES), chunkBytes, (bytes, chunkBytes) => {
      if (read(bytes, chunkBytes, () => {})) failed++;
    }),
    { numRuns },
  );
  // The fuzzer reaches the checks at all: many edits break something.
  expect(failed).toBeGreaterThan(numRuns / 4);
});

test("a destination that is fed a damaged connection commits only when its checks have passed", () => {
  let committed = 0;
  fuzz(
    fc.property(damaged(FROM_SOURCE_BYTES), chunkBytes, (bytes, chunkBytes) => {
      const state = new ProtocolState("destination");
      const heard: Frame[] = [];
      const say = (frame: Frame) => state.sending(frame);
      read(bytes, chunkBytes, (frame) => {
        // Each RESUME comes on a connection of its own.
        if (frame.type === "resume" && state.stage === "streaming") state.lost();
        if (!state.received(frame)) return;
        heard.push(frame);
        if (frame.type === "resume") say({ type: "resumed", stage: state.reached, ...sequences(state) });
        if (frame.type === "hello") say(answerHello(frame, OWN));
        if (frame.type === "data") say({ type: "ack", sequence: frame.sequence });
        if (frame.type === "resume") say({ type: "loaded" });
        if (frame.type === "commit") say({ type: "running" });
      });
      const types = heard.map((frame) => frame.type).filter((type) => type !== "keepalive");
      if (state.committed) {
        committed++;
        // Whole frames may have been cut out: of what has no number, or was the last of its kind, nobody can miss one.
        const steps = types.filter((type) => type !== "data" && type !== "returned");
        expect(steps).toEqual(["hello", "resume", "commit", "done"].slice(0, steps.length));
        expect(steps.length).toBeGreaterThan(2);
        expect(types).toContain("data");
      }
    }),
    { numRuns },
  );
  // Some damage is harmless: in a name, in the coded bytes (which their checksum guards), after the end.
  expect(committed).toBeGreaterThan(0);
});

test("a connection cut off anywhere is a prefix of its frames, without an error", () => {
  for (let end = 0; end <= ALL_BYTES.length; end++) {
    const frames: Frame[] = [];
    expect(read(ALL_BYTES.subarray(0, end), 50, (frame) => frames.push(frame))).toBe(false);
    const all = [...FROM_SOURCE, ...FROM_DESTINATION];
    expect(frames.map((frame) => frame.type)).toEqual(all.slice(0, frames.length).map((frame) => frame.type));
    expect(frames.length === all.length).toBe(end === ALL_BYTES.length);
  }
});

function sequences({ dataSequence, ackSequence }: ProtocolState) {
  return { dataSequence, ackSequence };
}
