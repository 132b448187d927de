// DestinationEngine fed by hand: batches that must wait for a slow hypervisor, for regions and for slots, and are
// expanded in pieces, come through whole, in order, each acknowledged when it has been taken and not before.

import { describe, expect, test, vi } from "vitest";
import { randomBytes } from "../../test/support/arbitrary-stream.ts";
import { uncodedData } from "../../test/support/data-frame.ts";
import { makeHome } from "../../test/support/engine-parts.ts";
import { FakeIncoming, World } from "../../test/support/fake-hypervisors.ts";
import { load } from "../../test/support/loader.ts";
import { memoryChannels } from "../../test/support/memory-channel.ts";
import { BatchRewriting } from "../../test/support/rewriting.ts";
import { END, PART, StreamBuilder } from "../../test/support/stream-builder.ts";
import { VirtualClock } from "../base/clock.ts";
import { DELTA_WORD_MASK } from "../codec/delta/delta-codec.ts";
import { ENTROPY_CODEC_IDS } from "../codec/entropy/entropy-coder.ts";
import { InlineBatchCoder } from "../codec/entropy/inline-batch-coder.ts";
import { RunRecord } from "../record/writer.ts";
import { type DataFrame, encodeFrame, type Frame } from "../wire/frame.ts";
import { helloFrame } from "../wire/handshake.ts";
import { PAYLOAD_PADDING, PAYLOAD_RAM_LAYOUT } from "../wire/page-batch.ts";
import { DestinationEngine } from "./destination.ts";
import type { Channel } from "./ports.ts";
import { TunnelPeer } from "./transport/tunnel-peer.ts";

const OWN = {
  deltavee: "0.1.0",
  entropyCodecs: [...ENTROPY_CODEC_IDS],
  hypervisor: { kind: "qemu" as const, version: "10.0.2" },
};

/** A guest whose batches become more than one region of records each, and small ones between them. */
function guestStream(): Buffer {
  const long = (letter: string) => letter.repeat(250);
  const blocks = [
    { idstr: long("a"), pages: 6000 },
    { idstr: long("b"), pages: 6000 },
  ];
  const builder = new StreamBuilder().header().start(2, blocks).endSection().section(PART);
  for (let page = 0; page < 6000; page++) builder.zero(0, page).zero(1, page);
  builder.endSection();
  for (let i = 0; i < 6; i++) {
    builder.section(PART);
    for (let page = 0; page < 300; page++) {
      builder.page(i % 2, page, Uint8Array.from({ length: 4096 }, randomBytes(1000 * i + page)));
    }
    builder.endSection().command(11);
  }
  return builder.section(END).zero(0, 0).endSection().device("cpu", Buffer.alloc(5000, 7)).eof().bytes;
}

const STREAM = guestStream();
const LOADED = load(STREAM);
const REWRITING = new BatchRewriting("none", { deltaCodec: DELTA_WORD_MASK, windowPages: 0 });
REWRITING.push(STREAM);
REWRITING.seal();
const FRAMES = REWRITING.batches.map(({ kind }, i) => uncodedData(i + 1, REWRITING.payloads[i]!, kind));

/** What is written at one time arrives as one piece, as from a socket: many frames at once. */
function together(channel: Channel, clock: VirtualClock): Channel {
  let pieces: Uint8Array[] = [];
  return {
    listen: (listener) => channel.listen(listener),
    pause: () => channel.pause(),
    resume: () => channel.resume(),
    end: () => channel.end(),
    destroy: () => channel.destroy(),
    write(bytes, written) {
      if (pieces.length === 0) {
        clock.after(0, () => {
          channel.write(Buffer.concat(pieces));
          pieces = [];
        });
      }
      pieces.push(Uint8Array.from(bytes));
      written?.();
      return true;
    },
  };
}

interface Setup {
  slotCount: number;
  hypervisorBytesPerSecond: number;
  hypervisorBufferBytes: number;
  defers: boolean;
  /** Each DATA comes so long after the one before it; 0: all come at once. */
  everyMs?: number;
  frames?: readonly DataFrame[];
}

async function run(setup: Setup) {
  const {
    slotCount,
    hypervisorBytesPerSecond,
    hypervisorBufferBytes,
    defers,
    everyMs = 0,
    frames = FRAMES,
  } = setup;
  const clock = new VirtualClock();
  const world = new World();
  const vm = new FakeIncoming(world, clock, {
    bytesPerSecond: hypervisorBytesPerSecond,
    bufferBytes: hypervisorBufferBytes,
  });
  const [ours, theirs] = memoryChannels(clock, { bufferBytes: 1 << 26, chunkBytes: 1 << 25 });
  const { memory, kernel } = makeHome();
  const coder = new InlineBatchCoder(memory, kernel, {
    slotCount,
    nowMs: () => clock.nowMs(),
    ...(defers ? { defer: (callback) => void clock.after(1, callback) } : {}),
  });
  const engine = new DestinationEngine({
    channel: theirs,
    vm,
    own: OWN,
    memory,
    kernel,
    coder,
    clock,
    record: new RunRecord({ clock }),
  });
  const received: Frame[] = [];
  const source = new TunnelPeer("source", together(ours, clock), clock, {
    frame(frame) {
      received.push(structuredClone(frame));
      // All at once: whatever cannot be taken has to wait in the link.
      if (frame.type === "welcome")
        for (const [i, data] of frames.entries()) clock.after(i * everyMs, () => source.send(data));
      if (frame.type === "loaded") source.send({ type: "commit", resume: true });
      if (frame.type === "running") source.destroy();
    },
    drained: () => {},
    failed: (error) => received.push({ type: "abort", reason: { code: "FAILED", message: error.message } }),
  });
  source.send(helloFrame({ ...OWN, session: "00112233445566778899aabbccddeeff" }));
  let outcome: Awaited<ReturnType<DestinationEngine["run"]>> | undefined;
  void engine.run().then((ended) => {
    outcome = ended;
  });
  const isOver = () => outcome !== undefined && received.some(({ type }) => type === "running");
  while (!isOver()) {
    await new Promise((resolve) => setImmediate(resolve));
    const dueMs = clock.nextDueMs();
    if (dueMs === undefined || dueMs > 600_000) throw new Error("nothing happens any more");
    clock.advance(dueMs - clock.nowMs());
  }
  return { outcome, received, loader: vm.side!.loader, world, durationMs: clock.nowMs() };
}

describe.each([
  { slotCount: 2, hypervisorBytesPerSecond: 20e6, hypervisorBufferBytes: 1, defers: false },
  { slotCount: 2, hypervisorBytesPerSecond: 20e6, hypervisorBufferBytes: 1, defers: true },
  { slotCount: 3, hypervisorBytesPerSecond: 20e6, hypervisorBufferBytes: 1 << 26, defers: false },
  { slotCount: 6, hypervisorBytesPerSecond: 20e6, hypervisorBufferBytes: 1 << 26, defers: true },
  { slotCount: 1, hypervisorBytesPerSecond: 1e9, hypervisorBufferBytes: 3 << 20, defers: false },
])(
  "with $slotCount slots and a hypervisor of $hypervisorBytesPerSecond B/s ($hypervisorBufferBytes, $defers)",
  (setup) => {
    test("the stream arrives whole and in order, in pieces, and is acknowledged as it is taken", async () => {
      const { outcome, received, loader, world } = await run(setup);
      expect(outcome).toMatchObject({ outcome: "completed", vm: "running on destination" });
      expect(world.history).toEqual(["destination runs"]);
      expect(loader.records).toEqual(LOADED.records);
      expect(loader.images.every((image, i) => image.equals(LOADED.images[i]!))).toBe(true);
      // More PART sections than batches of pages: those that did not fit into a region have been split.
      const parts = loader.sections.filter((type) => type === PART).length;
      const batches = FRAMES.filter(({ payloadKind }) => payloadKind === 3).length;
      expect(parts).toBeGreaterThan(batches);
      const acks = received.flatMap((frame) => (frame.type === "ack" ? [frame.sequence] : []));
      const layout = FRAMES.findIndex(({ payloadKind }) => payloadKind === PAYLOAD_RAM_LAYOUT) + 1;
      // One for each, but for the layout's, which comes with what follows it.
      expect(acks).toEqual(FRAMES.map(({ sequence }) => sequence).filter((sequence) => sequence !== layout));
      const flow = new Set(["ack", "return", "keepalive"]);
      const types = received.map(({ type }) => type).filter((type) => !flow.has(type));
      expect(types).toEqual(["welcome", "loaded", "running"]);
    });
  },
);

test("nothing is acknowledged that the hypervisor has not taken", async () => {
  const { received, durationMs } = await run({
    slotCount: 4,
    hypervisorBytesPerSecond: 1e6,
    hypervisorBufferBytes: 1,
    defers: false,
  });
  expect(received.some(({ type }) => type === "ack")).toBe(true);
  // At a megabyte a second it cannot have been faster.
  expect(durationMs).toBeGreaterThan((STREAM.length / 1e6) * 1000);
});

test.each([
  ["is still being taken", 0],
  ["has been taken", 1000],
])(
  "padding gives the hypervisor nothing, and is acknowledged behind what came before it: that %s",
  async (_what, everyMs) => {
    // Behind each frame but the last, behind which nothing may come.
    const padded = FRAMES.flatMap((frame) => [
      frame,
      uncodedData(1, Uint8Array.from({ length: 5000 }, randomBytes(9)), PAYLOAD_PADDING),
    ]);
    const frames = padded.slice(0, -1).map((frame, i) => ({ ...frame, sequence: i + 1 }));
    const { outcome, received, loader } = await run({
      ...{ slotCount: 4, hypervisorBytesPerSecond: 20e6, hypervisorBufferBytes: 1, defers: true },
      ...{ everyMs, frames },
    });
    expect(outcome).toMatchObject({ outcome: "completed", vm: "running on destination" });
    expect(loader.images.every((image, i) => image.equals(LOADED.images[i]!))).toBe(true);
    const acks = received.flatMap((frame) => (frame.type === "ack" ? [frame.sequence] : []));
    expect(acks).toEqual([...new Set(acks)].sort((a, b) => a - b));
    expect(acks.at(-1)).toBe(frames.length);
    const isPadding = (sequence: number) => frames[sequence - 1]!.payloadKind === PAYLOAD_PADDING;
    expect(acks.filter(isPadding).length).toBeGreaterThan(frames.length / 4);
    // Where the hypervisor had nothing left to take, each by itself.
    const layout = frames.find(({ payloadKind }) => payloadKind === PAYLOAD_RAM_LAYOUT)!.sequence;
    if (everyMs > 0)
      expect(acks).toEqual(frames.map(({ sequence }) => sequence).filter((sequence) => sequence !== layout));
  },
);

test("an acknowledgement says how much of the time there was something for the hypervisor to take", async () => {
  const paces = async (everyMs: number) => {
    const home = { slotCount: 6, hypervisorBufferBytes: 1, defers: false };
    const { received } = await run({ ...home, hypervisorBytesPerSecond: 20e6, everyMs });
    return received.flatMap((frame) => (frame.type === "ack" ? [frame.pace!] : []));
  };
  const [behind, waiting] = [await paces(0), await paces(1000)];
  expect(behind.length).toBeGreaterThan(5);
  // From the first to the last of them it never waits for anything.
  const [first, last] = [behind[0]!, behind.at(-1)!];
  expect(last.busyMs).toBeGreaterThan(300);
  expect(last.elapsedMs - first.elapsedMs - (last.busyMs - first.busyMs)).toBeLessThanOrEqual(2);
  // It takes as long for it, and as much longer as nothing has come.
  expect(waiting.at(-1)!.elapsedMs).toBeGreaterThanOrEqual((FRAMES.length - 1) * 1000);
  expect(waiting.at(-1)!.busyMs).toBeLessThan(2 * behind.at(-1)!.busyMs);
});

test("what the hypervisor has begun for a source that is gone by then is left for the next one", async () => {
  const clock = new VirtualClock();
  const vm = new FakeIncoming(new World(), clock, {});
  const { memory, kernel } = makeHome();
  const coder = new InlineBatchCoder(memory, kernel, { slotCount: 2, nowMs: () => clock.nowMs() });
  const [ours, theirs] = memoryChannels(clock);
  const [toVm] = memoryChannels(clock);
  const listened = vi.spyOn(toVm, "listen");
  let begun = () => {};
  vi.spyOn(vm, "begin").mockReturnValue(
    new Promise((resolve) => {
      begun = () => resolve(toVm);
    }),
  );
  const parts = { memory, kernel, coder, clock, record: new RunRecord({ clock }) };
  const engine = new DestinationEngine({ ...parts, channel: theirs, vm, own: OWN });
  ours.write(encodeFrame(helloFrame({ ...OWN, session: "00112233445566778899aabbccddeeff" })));
  clock.advance(1);
  expect(vm.begin).toHaveBeenCalledOnce();
  ours.destroy();
  clock.advance(1);
  expect(await engine.run()).toMatchObject({ outcome: "failed", welcomed: false });
  begun();
  await new Promise((resolve) => setImmediate(resolve));
  expect(listened).not.toHaveBeenCalled();
  expect(vm.discarded).toBe(false);
});
