// Another version of this program at the other end: what versions before have said, recorded by themselves
// (test/fixtures/protocol), is understood by this one, on either side; and one that has no version in common is refused in
// words that name both, with the guest at the source.

import { describe, expect, test } from "vitest";
import type { GuestStream } from "../../test/support/arbitrary-stream.ts";
import { makeParts } from "../../test/support/engine-parts.ts";
import { FakeIncoming, FakeOutgoing, World } from "../../test/support/fake-hypervisors.ts";
import { type MemoryChannel, memoryChannels } from "../../test/support/memory-channel.ts";
import { type Recording, sha256 } from "../../test/support/record-protocol.ts";
import { RECORDINGS_PAGE, readRecordings } from "../../test/support/recordings.ts";
import { VirtualClock } from "../base/clock.ts";
import { DELTA_WORD_MASK } from "../codec/delta/delta-codec.ts";
import { ENTROPY_CODEC_IDS } from "../codec/entropy/entropy-coder.ts";
import { PageCache } from "../memory/page-cache.ts";
import { RunRecord } from "../record/writer.ts";
import type { Hello } from "../wire/bodies.ts";
import { encodeFrame, type Frame, type HelloFrame, type VersionRange } from "../wire/frame.ts";
import { FrameReader } from "../wire/frame-reader.ts";
import { answerHello, helloFrame, PROTOCOL_VERSION, PROTOCOL_VERSIONS } from "../wire/handshake.ts";
import type { DestinationOutcome } from "./destination/options.ts";
import { DestinationEngine } from "./destination.ts";
import type { SourceOutcome } from "./source/options.ts";
import { SourceEngine } from "./source.ts";

const recordings = readRecordings();
const OWN = {
  deltavee: "0.1.0",
  entropyCodecs: [...ENTROPY_CODEC_IDS],
  hypervisor: { kind: "qemu" as const, version: "10.0.2" },
};
const SESSION = "00112233445566778899aabbccddeeff";
const TURNS_MAX = 20_000;

test("there is a recording of every version that is spoken, and a word on each", () => {
  const versions = recordings.map(([, { protocolVersion }]) => protocolVersion).sort();
  const spoken = Array.from(
    { length: PROTOCOL_VERSIONS.max - PROTOCOL_VERSIONS.min + 1 },
    (_, i) => PROTOCOL_VERSIONS.min + i,
  );
  expect(versions).toEqual(spoken);
  for (const [name] of recordings) expect(RECORDINGS_PAGE).toContain(`| \`${name}\` | `);
});

/** One end of the link, on which this test says what it likes and reads what it gets. */
class OtherEnd {
  readonly channel: MemoryChannel;
  readonly heard: Frame[] = [];
  readonly #reader = new FrameReader();

  constructor(channel: MemoryChannel, hears: (frame: Frame) => void = () => {}) {
    this.channel = channel;
    channel.listen({
      data: (bytes) => {
        this.#reader.push(bytes);
        for (let frame = this.#reader.next(); frame !== undefined; frame = this.#reader.next()) {
          if (frame.type === "keepalive") continue;
          this.heard.push(frame.type === "data" ? { ...frame, coded: frame.coded.slice() } : frame);
          hears(frame);
        }
      },
      drained: () => {},
      ended: () => {},
      failed: () => {},
    });
  }

  has(type: Frame["type"]): boolean {
    return this.heard.some((frame) => frame.type === type);
  }
}

/** Until it is so. Virtual time passes only when nothing else can happen. */
async function until(clock: VirtualClock, isSo: () => boolean, what: string): Promise<void> {
  for (let turn = 0; turn < TURNS_MAX; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
    if (isSo()) return;
    const dueMs = clock.nextDueMs();
    if (dueMs !== undefined) clock.advance(dueMs - clock.nowMs());
  }
  throw new Error(`never came: ${what}`);
}

/** What is on its way arrives. */
async function settle(clock: VirtualClock): Promise<void> {
  const endMs = clock.nowMs() + 500;
  clock.after(500, () => {});
  await until(clock, () => clock.nowMs() >= endMs, "half a second");
}

function destinationOf(clock: VirtualClock) {
  const world = new World();
  const incoming = new FakeIncoming(world, clock, {});
  const [theirs, ours] = memoryChannels(clock, { bufferBytes: 1 << 20 });
  const engine = new DestinationEngine({
    ...makeParts(clock),
    channel: ours,
    vm: incoming,
    own: { ...OWN, resumption: { token: SESSION, timeoutMs: 60_000 } },
    clock,
    record: new RunRecord({ clock }),
  });
  const end: { outcome?: DestinationOutcome } = {};
  void engine.run().then((outcome) => {
    end.outcome = outcome;
  });
  return { world, incoming, theirs, end };
}

function sourceOf(clock: VirtualClock, stream: GuestStream, hello: Partial<Hello> = {}) {
  const world = new World();
  const outgoing = new FakeOutgoing(world, clock, stream, "ack", {});
  const [ours, theirs] = memoryChannels(clock, { bufferBytes: 1 << 20 });
  const { coder, ...home } = makeParts(clock);
  const engine = new SourceEngine({
    ...home,
    vm: outgoing,
    channel: ours,
    tunnel: { hello: { ...OWN, session: SESSION, ...hello }, deltaCodec: DELTA_WORD_MASK, coder },
    downtimeMsMax: 60_000,
    cacheFactory: (pageBytes, memory) => new PageCache({ pageBytes, memory, limitBytes: 1 << 20 }),
    clock,
    record: new RunRecord({ clock }),
    defer: (callback) => void clock.after(0, callback),
  });
  const end: { outcome?: SourceOutcome } = {};
  const begin = () => {
    void engine.run().then((outcome) => {
      end.outcome = outcome;
    });
  };
  return { world, outgoing, theirs, end, begin };
}

/** As far as the hypervisor needs it. */
function streamOf({ stream, stopsAt }: Recording): GuestStream {
  return { bytes: Buffer.from(stream, "base64"), stopsAt } as GuestStream;
}

function framesOf(recording: Recording, side: "source" | "destination"): Frame[] {
  const reader = new FrameReader();
  const own = recording.said.filter(([who]) => who === side).map(([, bytes]) => Buffer.from(bytes, "base64"));
  reader.push(Buffer.concat(own));
  const frames: Frame[] = [];
  for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
    if (frame.type !== "keepalive")
      frames.push(frame.type === "return" ? { ...frame, bytes: frame.bytes.slice() } : frame);
  }
  return frames;
}

describe.each(recordings)("%s", (_name, recording) => {
  const { protocolVersion } = recording;

  test("its source hands its guest over to this version", async () => {
    const clock = new VirtualClock();
    const { world, incoming, theirs, end } = destinationOf(clock);
    const other = new OtherEnd(theirs);
    /** What that version waited for before it went on. */
    const steps = new Set<Frame["type"]>(["welcome", "loaded", "running"]);
    for (const [side, bytes] of recording.said) {
      const written = Buffer.from(bytes, "base64");
      if (side === "source") {
        theirs.write(written);
        continue;
      }
      const reader = new FrameReader();
      reader.push(written);
      const type = reader.next()?.type;
      if (type !== undefined && steps.has(type))
        await until(clock, () => other.has(type) || end.outcome !== undefined, type);
    }
    await until(clock, () => end.outcome !== undefined, "the end");
    await settle(clock);
    expect(end.outcome).toEqual({ outcome: "completed", vm: "running on destination", welcomed: true });
    expect(other.heard[0]).toMatchObject({ type: "welcome", version: protocolVersion });
    expect(world.running.has("destination")).toBe(true);
    const ram = incoming.side!.loader.blocks.map(({ idstr, bytes }) => [idstr, sha256(bytes)]);
    expect(Object.fromEntries(ram)).toEqual(recording.ram);
  });

  test("its destination takes a guest in from this version", async () => {
    const clock = new VirtualClock();
    const { outgoing, theirs, end, begin, world } = sourceOf(clock, streamOf(recording));
    const said = framesOf(recording, "destination");
    const say = (type: Frame["type"]) =>
      said.filter((frame) => frame.type === type).forEach((frame) => void theirs.write(encodeFrame(frame)));
    let sequence = 0;
    const other = new OtherEnd(theirs, (frame) => {
      if (frame.type === "hello") say("welcome");
      if (frame.type === "data") theirs.write(encodeFrame({ type: "ack", sequence: ++sequence }));
      if (frame.type === "commit") say("running");
    });
    begin();
    await until(clock, () => outgoing.stopped, "the guest's stop");
    await settle(clock);
    say("return");
    say("loaded");
    await until(clock, () => end.outcome !== undefined, "the end");
    await settle(clock);
    expect(end.outcome).toEqual({ outcome: "completed", vm: "with the destination" });
    expect(other.heard[0]).toMatchObject({ type: "hello", versions: PROTOCOL_VERSIONS });
    expect(other.has("commit")).toBe(true);
    expect(other.heard.at(-1)?.type).toBe("done");
    expect(world.running.size).toBe(0);
  });

  test("its destination refuses a later source in words that name both versions", async () => {
    const clock = new VirtualClock();
    const { theirs, end, begin, world } = sourceOf(clock, streamOf(recording));
    new OtherEnd(theirs, (frame) => {
      if (frame.type === "hello") theirs.write(Buffer.from(recording.refusal, "base64"));
    });
    begin();
    await until(clock, () => end.outcome !== undefined, "the end");
    await settle(clock);
    expect(end.outcome).toMatchObject({ vm: "running on source", error: { code: "PROTOCOL_VERSION" } });
    // The lowest one that it spoke is its own affair.
    const both = new RegExp(`versions ${protocolVersion + 1}, destination (\\d to )?${protocolVersion} \\(`);
    expect(end.outcome?.error?.message).toMatch(both);
    expect([...world.running]).toEqual(["source"]);
  });
});

describe("without a version in common", () => {
  const older: VersionRange = { min: 1, max: PROTOCOL_VERSIONS.min - 1 };
  const newer: VersionRange = { min: PROTOCOL_VERSION + 1, max: PROTOCOL_VERSION + 2 };
  const [, newest] = recordings.at(-1)!;
  const words = ({ min, max }: VersionRange) => (min === max ? `${min}` : `${min} to ${max}`);

  test.each([
    ["older", older],
    ["newer", newer],
  ])("a source of an %s version is refused, and the VM not touched", async (_name, versions) => {
    const clock = new VirtualClock();
    const { incoming, theirs, end, world } = destinationOf(clock);
    const other = new OtherEnd(theirs);
    const hello: HelloFrame = { ...helloFrame({ ...OWN, session: SESSION }), versions };
    theirs.write(encodeFrame(hello));
    await until(clock, () => end.outcome !== undefined, "the end");
    await settle(clock);
    expect(end.outcome).toMatchObject({ welcomed: false, error: { code: "PROTOCOL_REFUSED" } });
    const both = `source speaks protocol versions ${words(versions)}, destination ${words(PROTOCOL_VERSIONS)}`;
    expect(end.outcome?.error?.message).toContain(both);
    expect(other.heard).toMatchObject([{ type: "refuse", reason: { code: "VERSION" } }]);
    expect(incoming.side).toBeUndefined();
    expect(world.history).toEqual([]);
  });

  test.each([
    ["older", older],
    ["newer", newer],
  ])("a destination of an %s version ends it with the guest at the source", async (_name, versions) => {
    const clock = new VirtualClock();
    const { theirs, end, begin, world } = sourceOf(clock, streamOf(newest));
    new OtherEnd(theirs, (frame) => {
      if (frame.type === "hello") theirs.write(encodeFrame(answerHello(frame, OWN, versions)));
    });
    begin();
    await until(clock, () => end.outcome !== undefined, "the end");
    await settle(clock);
    expect(end.outcome).toMatchObject({ vm: "running on source", error: { code: "PROTOCOL_VERSION" } });
    const both = `source speaks protocol versions ${words(PROTOCOL_VERSIONS)}, destination ${words(versions)}`;
    expect(end.outcome?.error?.message).toContain(both);
    expect([...world.running]).toEqual(["source"]);
  });

  test("a comparison of RAM is not left out because the destination is older", async () => {
    const clock = new VirtualClock();
    const { theirs, end, begin, world } = sourceOf(clock, streamOf(newest), { verify: true });
    const other = new OtherEnd(theirs, (frame) => {
      const before = { min: 3, max: 4 };
      if (frame.type === "hello") theirs.write(encodeFrame(answerHello(frame, OWN, before)));
    });
    begin();
    await until(clock, () => end.outcome !== undefined, "the end");
    await settle(clock);
    expect(end.outcome).toMatchObject({ vm: "running on source", error: { code: "PROTOCOL_VERSION" } });
    expect(end.outcome?.error?.message).toContain("version 4, which cannot compare RAM (version 5 can)");
    expect(other.has("data")).toBe(false);
    expect([...world.running]).toEqual(["source"]);
  });
});
