// TunnelLink against a peer that decodes its frames: the stream arrives whole and in order, in batches that suit the
// link, and never more is unanswered than the window can keep account of.

import { describe, expect, test, vi } from "vitest";
import { randomBytes } from "../../../test/support/arbitrary-stream.ts";
import { makeHome, makeParts } from "../../../test/support/engine-parts.ts";
import { memoryChannels } from "../../../test/support/memory-channel.ts";
import { VirtualClock } from "../../base/clock.ts";
import { DeltaveeError } from "../../base/errors.ts";
import {
  ENTROPY_CODEC_IDS,
  ENTROPY_LZ4,
  ENTROPY_NONE,
  ENTROPY_ZSTD,
} from "../../codec/entropy/entropy-coder.ts";
import { InlineBatchCoder } from "../../codec/entropy/inline-batch-coder.ts";
import type { Welcome } from "../../wire/bodies.ts";
import type { DataFrame, VersionRange } from "../../wire/frame.ts";
import { answerHello, POSTCOPY_VERSION } from "../../wire/handshake.ts";
import { PAYLOAD_PADDING } from "../../wire/page-batch.ts";
import { ProtocolState } from "../../wire/protocol-state.ts";
import { BatchSink } from "../pages/batch-sink.ts";
import { TunnelLink } from "./tunnel-link.ts";
import { TunnelPeer, type TunnelPeerListener } from "./tunnel-peer.ts";
import { MARKERS_MAX } from "./window.ts";

const OWN: Welcome = {
  deltavee: "0.1.0",
  entropyCodecs: [...ENTROPY_CODEC_IDS],
  hypervisor: { kind: "qemu", version: "10.0.2" },
};

const RESUMPTION = { token: "ffeeddccbbaa99887766554433221100", timeoutMs: 10_000 };

/**
 * `acknowledges` may be switched off and on. Coding takes `codingMs`; 0: it is done at once. `spoken`: by the peer; post-copy
 * is asked for if it does not know it.
 */
function connected(codingMs = 0, spoken?: VersionRange, bytesPerSecond = 1e6, resumes = false) {
  const older = spoken !== undefined && spoken.max < POSTCOPY_VERSION;
  const clock = new VirtualClock();
  const [ours, theirs] = memoryChannels(clock, { delayMs: 5, bytesPerSecond, bufferBytes: 1 << 24 });
  const arrived: Uint8Array[] = [];
  const failures: string[] = [];
  const decode = decoder(clock);
  const peer = {
    acknowledges: true,
    /** Of the time since it began; undefined: it does not say. */
    busyShare: undefined as number | undefined,
    paddings: [] as number[],
    frames: [] as Pick<DataFrame, "entropyCodec" | "rawBytes">[],
    acknowledge: () => {
      if (state.dataSequence === state.ackSequence) return;
      const elapsedMs = Math.floor(clock.nowMs());
      const pace =
        peer.busyShare === undefined
          ? {}
          : { pace: { elapsedMs, busyMs: Math.floor(elapsedMs * peer.busyShare) } };
      end.send({ type: "ack", sequence: state.dataSequence, ...pace });
    },
  };
  const state = new ProtocolState("destination");
  const listener: TunnelPeerListener = {
    frame(frame) {
      if (frame.type === "hello")
        end.send(answerHello(frame, resumes ? { ...OWN, resumption: RESUMPTION } : OWN, spoken));
      if (frame.type === "abort") failures.push(`peer: ${frame.reason.code}`);
      if (frame.type !== "data") return;
      const raw = decode(frame);
      if (frame.payloadKind === PAYLOAD_PADDING) peer.paddings.push(raw.length);
      else arrived.push(raw);
      peer.frames.push({ entropyCodec: frame.entropyCodec, rawBytes: frame.rawBytes });
      if (peer.acknowledges) peer.acknowledge();
    },
    drained: () => {},
    failed: (error) => failures.push(error.message),
  };
  const end = new TunnelPeer("destination", theirs, clock, listener, state);
  const { memory, kernel } = makeHome();
  const coder = new InlineBatchCoder(memory, kernel, {
    slotCount: 6,
    nowMs: () => clock.nowMs(),
    ...(codingMs > 0 ? { defer: (callback) => void clock.after(codingMs, callback) } : {}),
  });
  const sink = new BatchSink(memory, kernel, coder, () => {
    throw new Error("there are no RAMBlocks here");
  });
  const link = new TunnelLink({
    channel: ours,
    clock,
    sink,
    coder,
    memory,
    kernel,
    reconnect: resumes ? { connect: () => new Promise(() => {}), timeoutMs: 10_000 } : undefined,
    listener: {
      welcome: () => void failures.push(...(older ? ["welcome"] : [])),
      returnPath: () => {},
      // As the engine does when the hypervisor has nothing more to say.
      room: () => link.flush(true),
      ended: () => {},
      failed: (error) => failures.push(error.message),
      loaded: () => {},
      running: () => {},
      ready: () => {},
      digests: () => {},
      decision: () => {},
      lost: () => {},
      resumed: () => {},
    },
  });
  link.greet({ ...OWN, session: "00112233445566778899aabbccddeeff", ...(older && { postcopy: true }) });
  clock.advance(100);
  const sent: Uint8Array[] = [];
  const put = (bytes: Uint8Array) => {
    while (sink.isFull) clock.advance(1);
    sent.push(bytes);
    sink.verbatim(bytes, 0, bytes.length);
  };
  const expectAllArrived = () => expect(Buffer.concat(arrived).equals(Buffer.concat(sent))).toBe(true);
  const breakConnection = () => end.destroy();
  return { clock, link, sink, coder, peer, put, failures, expectAllArrived, breakConnection };
}

/** Gives the raw bytes of a frame, or throws. */
function decoder(clock: VirtualClock): (frame: DataFrame) => Uint8Array {
  const { memory, coder } = makeParts(clock);
  const slot = coder.acquire();
  return ({ coded, entropyCodec, rawBytes, rawChecksum }) => {
    let raw: Uint8Array | undefined;
    memory.bytes(coder.slots[slot]!.codedAddress, coded.length).set(coded);
    coder.decode(slot, coded.length, entropyCodec, rawBytes, rawChecksum, (result) => {
      if (result instanceof DeltaveeError) throw result;
      raw = memory.bytes(result.rawAddress, rawBytes).slice();
    });
    return raw!;
  };
}

test("bytes arrive whole and in order, compressible or not, however they were flushed", () => {
  const { clock, link, sink, put, failures, expectAllArrived } = connected();
  const random = randomBytes(3);
  for (let i = 0; i < 300; i++) {
    const length = 1 + random() * (1 + (random() % 200));
    put(Uint8Array.from({ length }, i % 2 === 0 ? random : () => i));
    link.flush(random() < 60);
    clock.advance(random() % 7);
  }
  link.flush(true);
  clock.advance(10_000);
  expectAllArrived();
  expect(failures).toEqual([]);
  expect(link.figures.inFlightBytes).toBe(0);
  expect(sink.waitingBytes).toBe(0);
});

test("what is left over goes out by itself, without another flush", () => {
  const { clock, link, put, expectAllArrived } = connected();
  for (let i = 0; i < 5; i++) {
    put(Uint8Array.of(i));
    link.flush(true);
  }
  clock.advance(100);
  expectAllArrived();
});

describe("bytes that stand for nothing", () => {
  const BYTES = 50_000;

  test("say how long so many take, whatever was thought of the link, and are forgotten after a while", () => {
    const { clock, link, peer, put, failures, expectAllArrived } = connected();
    put(Uint8Array.of(1, 2, 3));
    link.flush(true);
    clock.advance(1000);
    expect(link.figures.proof).toBeUndefined();
    expect(link.rehearse(BYTES)).toBe(true);
    put(Uint8Array.of(4, 5));
    link.flush(true);
    clock.advance(1000);
    expect(peer.paddings).toEqual([BYTES]);
    const { bytes, answeredMs } = link.figures.proof!;
    expect(bytes).toBe(BYTES);
    // A megabyte a second, and 5 ms each way.
    expect(answeredMs).toBeGreaterThan(59);
    expect(answeredMs).toBeLessThan(65);
    clock.advance(4500);
    expect(link.figures.proof).toBeUndefined();
    expectAllArrived();
    expect(failures).toEqual([]);
  });

  test("show nothing any more when the connection has broken: the next one may be another link", () => {
    const { clock, link, breakConnection } = connected(0, undefined, 1e6, true);
    expect(link.rehearse(BYTES)).toBe(true);
    clock.advance(1000);
    expect(link.figures.proof).toBeDefined();
    breakConnection();
    clock.advance(100);
    expect(link.isLost).toBe(true);
    expect(link.figures.proof).toBeUndefined();
    expect(link.rehearse(BYTES)).toBe(false);
    link.destroy();
  });

  test("are not sent while much is on its way, nor to a peer that does not know them, nor without a connection", () => {
    const { clock, link, peer, put, failures } = connected();
    peer.acknowledges = false;
    put(Uint8Array.from({ length: BYTES / 2 }, randomBytes(3)));
    link.flush(true);
    clock.advance(1000);
    expect(link.rehearse(BYTES)).toBe(false);
    peer.acknowledges = true;
    peer.acknowledge();
    clock.advance(1000);
    expect(link.rehearse(BYTES)).toBe(true);
    expect(link.rehearse(BYTES)).toBe(false);
    clock.advance(1000);
    link.end();
    expect(link.rehearse(BYTES)).toBe(false);
    expect(peer.paddings).toEqual([BYTES]);
    expect(failures).toEqual([]);
    const older = connected(0, { min: 3, max: 5 });
    older.clock.advance(1000);
    expect(older.link.rehearse(BYTES)).toBe(false);
  });
});

test("small batches are gathered, so that their number stays within what pays", () => {
  const { clock, link, peer, put } = connected();
  for (let i = 0; i < 1000; i++) {
    put(Uint8Array.of(i));
    link.flush(true);
    clock.advance(0.1);
  }
  clock.advance(100);
  expect(peer.frames.length).toBeLessThan(80);
});

test("a closed window gathers what comes, says so, and goes on when it is acknowledged", () => {
  const { clock, link, sink, peer, put, expectAllArrived } = connected();
  peer.acknowledges = false;
  const random = randomBytes(5);
  while (link.hasRoom) {
    put(Uint8Array.from({ length: 5000 }, random));
    link.flush(false);
    expect(sink.waitingBytes).toBeLessThan(600_000);
  }
  clock.advance(5000);
  expect(link.hasRoom).toBe(false);
  peer.acknowledges = true;
  peer.acknowledge();
  clock.advance(5000);
  expect(link.hasRoom).toBe(true);
  expectAllArrived();
});

test.each([
  ["at once", 0],
  ["while others are being coded", 10],
])(
  "more batches than the window can keep account of wait (%s), even when the guest has stopped",
  (_when, codingMs) => {
    const { clock, link, peer, put, failures, expectAllArrived } = connected(codingMs);
    peer.acknowledges = false;
    link.liftWindow();
    for (let i = 0; i < MARKERS_MAX + 200; i++) {
      put(Uint8Array.of(i, i >> 8));
      link.flush(true);
      clock.advance(3);
    }
    expect(peer.frames.length).toBe(MARKERS_MAX);
    expect(link.figures.waitingBytes).toBeGreaterThan(0);
    peer.acknowledges = true;
    peer.acknowledge();
    clock.advance(1000);
    expectAllArrived();
    expect(failures).toEqual([]);
  },
);

const random = randomBytes(7);
const PIECE_BYTES = 8000;
/** A coder leaves about half of it. */
const HALF = Uint8Array.from({ length: 3000 * PIECE_BYTES }, (_, i) => (i & 16 ? random() : 0));
const SMALL = new Uint8Array(1500 * PIECE_BYTES);

test("what costs much waits until it keeps nobody from working, which is prepared for slow links", () => {
  for (const { bytesPerSecond, isPrepared } of [
    { bytesPerSecond: 12e6, isPrepared: true },
    { bytesPerSecond: 400e6, isPrepared: false },
  ]) {
    const { clock, link, coder, peer, put, expectAllArrived } = connected(0, undefined, bytesPerSecond);
    let isReady = false;
    Object.defineProperty(coder, "isReady", { get: () => isReady });
    const prepare = vi.spyOn(coder, "prepare");
    const coders = () => {
      const before = peer.frames.length;
      for (let at = 0; at < HALF.length; at += PIECE_BYTES) {
        put(HALF.subarray(at, at + PIECE_BYTES));
        link.flush(false);
        while (!link.hasRoom) clock.advance(0.2);
      }
      clock.advance(100);
      return new Set(peer.frames.slice(before).map(({ entropyCodec }) => entropyCodec));
    };
    expect(coders()).toEqual(new Set([ENTROPY_LZ4]));
    expect(prepare.mock.calls.length > 0).toBe(isPrepared);
    isReady = true;
    if (isPrepared) expect(coders()).toContain(ENTROPY_ZSTD);
    link.flush(true);
    clock.advance(1000);
    expectAllArrived();
  }
});

describe("what is carried on as it is", () => {
  const moved = (content: Uint8Array, bytesPerSecond: number, busyShare?: number) => {
    const { clock, link, peer, put, failures, expectAllArrived } = connected(0, undefined, bytesPerSecond);
    peer.busyShare = busyShare;
    link.bypass(true);
    for (let at = 0; at < content.length; clock.advance(0.2)) {
      for (; at < content.length && link.hasRoom; at += PIECE_BYTES) {
        put(content.subarray(at, at + PIECE_BYTES));
        link.flush(false);
      }
    }
    link.flush(true);
    clock.advance(10_000);
    expectAllArrived();
    expect(failures).toEqual([]);
    return peer.frames;
  };

  test("gets smaller at next to no cost while the link has not shown that it is fast", () => {
    const frames = moved(HALF.subarray(0, 40 * PIECE_BYTES), 1e6);
    expect(new Set(frames.map(({ entropyCodec }) => entropyCodec))).toEqual(new Set([ENTROPY_LZ4]));
  });

  test("is coded by what the link gains where that has turned out to be neither slow nor fast", () => {
    const content = HALF.subarray(0, 2000 * PIECE_BYTES);
    const frames = moved(content, 60e6);
    expect(frames.slice(-5).map(({ entropyCodec }) => entropyCodec)).toEqual(Array(5).fill(ENTROPY_ZSTD));
    // What does not get smaller is left alone.
    const incompressible = Uint8Array.from({ length: content.length }, () => random());
    expect(moved(incompressible, 60e6).at(-2)!.entropyCodec).toBe(ENTROPY_NONE);
  });

  test("is left alone where it is the destination that takes no more", () => {
    const content = Buffer.concat([HALF, HALF]);
    const last = (busyShare: number) =>
      moved(content, 60e6, busyShare)
        .slice(-5)
        .map(({ entropyCodec }) => entropyCodec);
    expect(last(1)).toEqual(Array(5).fill(ENTROPY_NONE));
    expect(last(0.4)).toEqual(Array(5).fill(ENTROPY_ZSTD));
  });

  test.each([
    ["it has", HALF, 8.5 * 1024 * 1024],
    ["there was enough of it, however small it got", SMALL, 8.5 * 1024 * 1024],
  ])("is left alone once %s", (_when, content, codedMax) => {
    const frames = moved(content, 400e6);
    const first = frames.findIndex(({ entropyCodec }) => entropyCodec === ENTROPY_NONE);
    const coded = frames.slice(0, first).reduce((sum, { rawBytes }) => sum + rawBytes, 0);
    expect(coded).toBeGreaterThan(0);
    expect(coded).toBeLessThanOrEqual(codedMax);
    expect(frames.slice(first).every(({ entropyCodec }) => entropyCodec === ENTROPY_NONE)).toBe(true);
  });

  test("is left alone when bypass comes back later: whatever the link carries then, we are the brake", () => {
    const { link, clock, peer, put } = connected();
    link.bypass(true);
    link.bypass(false);
    link.bypass(true);
    put(SMALL.subarray(0, PIECE_BYTES));
    link.flush(true);
    clock.advance(1000);
    expect(peer.frames.map(({ entropyCodec }) => entropyCodec)).toEqual([ENTROPY_NONE]);
  });
});

test("a mistake of ours ends the migration, also where nobody is there to catch it", () => {
  for (const codingMs of [0, 10]) {
    const { clock, link, coder, put, failures } = connected(codingMs);
    put(Uint8Array.of(1));
    link.flush(true);
    put(Uint8Array.of(2));
    link.flush(true);
    vi.spyOn(coder, "release").mockImplementation(() => {
      throw new Error("a bug");
    });
    clock.advance(100);
    expect(failures).toEqual(["a bug"]);
  }
});

test("a peer that does not know post-copy is told why nothing begins, before anything is asked of the hypervisor", () => {
  const { clock, failures } = connected(0, { min: 2, max: 3 });
  clock.advance(100);
  expect(failures.slice(0, 2)).toEqual([
    "Destination speaks protocol version 3, which has no post-copy (version 4 has)",
    "peer: PROTOCOL_VERSION",
  ]);
});
