// Any bytes: frames, or one ProtocolError. No hang, no other error, nothing read past the end; and a whole
// destination (reader, handshake, state) that is fed a damaged connection never errs otherwise either.
// FUZZ_RUNS sets how many.

import { expect, test } from "vitest";
import { uncodedData } from "../../test/support/data-frame.ts";
import { fuzz, fuzzRuns, must, outcomeOf, pieceBytes } from "../../test/support/fuzzing.ts";
import { ProtocolError } from "../base/errors.ts";
import type { Welcome } from "./bodies.ts";
import type { Frame } from "./frame.ts";
import { encodeFrame } from "./frame.ts";
import { FrameReader } from "./frame-reader.ts";
import { abortFrame, answerHello, helloFrame, refuseFrame } from "./handshake.ts";
import { ProtocolState } from "./protocol-state.ts";

const runs = fuzzRuns(5000);
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
const WORDS = ["{", "}", "[", "]", '"', ",", ":", "null", "1e999", "-1", '"\\ud800"', '"__proto__":{}'];
const encoded = (frames: Frame[]): Uint8Array => Buffer.concat(frames.map(encodeFrame));
const FROM_SOURCE_BYTES = encoded(FROM_SOURCE);
const ALL_BYTES = encoded([...FROM_SOURCE, ...FROM_DESTINATION]);

/** Where headers begin. */
function beginnings(frames: Frame[]): number[] {
  let at = 0;
  return frames.map((frame) => {
    at += encodeFrame(frame).length;
    return at;
  });
}

/** Shows each frame to `onFrame`; the message of the ProtocolError in which it ended. */
function read(bytes: Uint8Array, chunkBytes: number, onFrame: (frame: Frame) => void): string | undefined {
  const reader = new FrameReader();
  try {
    for (let at = 0; at < bytes.length; at += chunkBytes) {
      reader.push(bytes.subarray(at, at + chunkBytes));
      for (let frame = reader.next(); frame !== undefined; frame = reader.next()) onFrame(frame);
    }
  } catch (thrown) {
    if (!(thrown instanceof ProtocolError)) throw thrown;
    must(thrown.code === "PROTOCOL_INVALID_FRAME", "it is refused as a frame");
    return thrown.message;
  }
  return undefined;
}

test("any bytes, and damaged connections and frames, are frames or a ProtocolError", () => {
  let failed = 0;
  const frames = [...FROM_SOURCE, ...FROM_DESTINATION];
  // Every frame by itself, too, so that damage to it is not lost among the others.
  const seeds = [ALL_BYTES, ...frames.map((frame) => encodeFrame(frame))];
  const places = [beginnings(frames), ...frames.map(() => [0, 8, 16])];
  fuzz("frames", { seeds, places, runs, words: WORDS }, (bytes, random) => {
    let kinds = "";
    const error = read(bytes, pieceBytes(random, 800), ({ type }) => {
      kinds += type[0]! + type.length;
    });
    if (error === undefined) return kinds;
    failed++;
    return outcomeOf(error);
  });
  // The fuzzer reaches the checks at all: many edits break something.
  expect(failed).toBeGreaterThan(runs / 4);
});

test("a destination that is fed a damaged connection commits only when its checks have passed", () => {
  let committed = 0;
  const options = { seeds: [FROM_SOURCE_BYTES], places: [beginnings(FROM_SOURCE)], runs, words: WORDS };
  fuzz("destination", options, (bytes, random) => {
    const state = new ProtocolState("destination");
    const heard: Frame["type"][] = [];
    const say = (frame: Frame) => state.sending(frame);
    const error = read(bytes, pieceBytes(random, 800), (frame) => {
      // Each RESUME comes on a connection of its own.
      if (frame.type === "resume" && state.stage === "streaming") state.lost();
      if (!state.received(frame)) return;
      heard.push(frame.type);
      if (frame.type === "resume") say({ type: "resumed", stage: state.reached, ...sequences(state) });
      if (frame.type === "hello") say(answerHello(frame, OWN));
      if (frame.type === "data") say({ type: "ack", sequence: frame.sequence });
      if (frame.type === "resume") say({ type: "loaded" });
      if (frame.type === "commit") say({ type: "running" });
    });
    if (state.committed) {
      committed++;
      // Whole frames may have been cut out: of what has no number, or was the last of its kind, nobody can miss one.
      const types = heard.filter((type) => type !== "keepalive");
      // DONE says nothing that it has not said before: it may come again.
      const isStep = (type: Frame["type"], i: number) =>
        type !== "data" && type !== "returned" && !(type === "done" && types.indexOf(type) < i);
      const steps = types.filter(isStep);
      const expected = ["hello", "resume", "commit", "done"].slice(0, steps.length);
      must(steps.length > 2 && steps.join() === expected.join(), "steps are taken in their order");
      must(types.includes("data"), "there was something to commit");
    }
    return outcomeOf(`${error ?? ""} ${heard.join()}`);
  });
  // Some damage is harmless: in a name, in the coded bytes (which their checksum guards), after the end.
  expect(committed).toBeGreaterThan(0);
});

test("a connection cut off anywhere is a prefix of its frames, without an error", () => {
  for (let end = 0; end <= ALL_BYTES.length; end++) {
    const frames: Frame[] = [];
    expect(read(ALL_BYTES.subarray(0, end), 50, (frame) => frames.push(frame))).toBeUndefined();
    const all = [...FROM_SOURCE, ...FROM_DESTINATION];
    expect(frames.map((frame) => frame.type)).toEqual(all.slice(0, frames.length).map((frame) => frame.type));
    expect(frames.length === all.length).toBe(end === ALL_BYTES.length);
  }
});

function sequences({ dataSequence, ackSequence }: ProtocolState) {
  return { dataSequence, ackSequence };
}
