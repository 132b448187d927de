// The control of correctness. Stock QEMU under TCG loses pages by itself (7.2 measurably), so that a page that
// differs after a migration says nothing of whose fault it is. Here the stream of a busy guest is captured once and
// played to destinations with and without Deltavee in between: from the same bytes must come the same RAM, every
// byte of it, whatever QEMU had lost before.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { DELTA_CODEC_NAMES } from "../../src/codec/delta/delta-codecs.ts";
import { ENTROPY_CODEC_IDS } from "../../src/codec/entropy/entropy-coder.ts";
import { DestinationEngine } from "../../src/engine/destination.ts";
import type { SourceOptions } from "../../src/engine/source/options.ts";
import { SourceEngine } from "../../src/engine/source.ts";
import { QemuIncoming } from "../../src/hypervisor/qemu/incoming.ts";
import type { KernelMemory } from "../../src/kernel/memory.ts";
import { type Home, makeBatchCoder, makeHome } from "../../src/library/engine-parts.ts";
import { SocketChannel } from "../../src/link/socket-channel.ts";
import { PageCache } from "../../src/memory/page-cache.ts";
import type { RecordEvent } from "../../src/record/schema.ts";
import { RunRecord } from "../../src/record/writer.ts";
import {
  CapturedOutgoing,
  type CapturedStream,
  captureStream,
  openIncoming,
  playInto,
  socketPair,
} from "../support/captured-stream.ts";
import { linuxGuest } from "../support/linux-guest.ts";
import { comparePages, dumpMemory } from "../support/memory.ts";
import { type TempFolder, tempFolder } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { type QemuOptions, type QemuVm, startQemu } from "../support/qemu-vm.ts";
import { eventsOf, HEARTBEATS, startVm, summaryOf } from "./scene.ts";

const MIB = 1024 * 1024;
const PAGE_BYTES = 4096;
/** The whole guest, and a quarter of its working set. */
const LARGE_CACHE_BYTES = 512 * MIB;
const SMALL_CACHE_BYTES = 6 * MIB;
/** As many bytes as the guest dirties in the same time, so that many pages are sent again and again. */
const CAPTURE = { iterations: 4, bytesPerSecond: 24e6 };

/**
 * A stream that is there at once makes looking at pages the brake: on a machine that is slow, or busy, bypass would be tried
 * before the stream is over. For the engine that it goes through no time has passed by then.
 */
const UNHURRIED: Clock = {
  nowMs: () => systemClock.nowMs() / 100,
  after: (delayMs, callback) => systemClock.after(delayMs, callback),
};

/** How the stream goes from one QEMU to the other. */
interface Way {
  codec?: string;
  cacheBytes: number;
}

const WAYS: readonly [string, Way][] = [
  ["direct", { cacheBytes: LARGE_CACHE_BYTES }],
  ["direct, a page cache smaller than the guest", { cacheBytes: SMALL_CACHE_BYTES }],
  ...Object.keys(DELTA_CODEC_NAMES).map((codec): [string, Way] => [
    `tunnel, codec ${codec}`,
    { codec, cacheBytes: LARGE_CACHE_BYTES },
  ]),
  ["tunnel, a page cache smaller than the guest", { codec: "word-mask", cacheBytes: SMALL_CACHE_BYTES }],
];

type Guest = Omit<QemuOptions, "binary">;
const BARE: Guest = { memoryMiB: 64, append: "ws=24576 rate=6000 pattern=sparse fill=random" };
const linux = linuxGuest("ws=24576 rate=6000 pattern=sparse fill=text");
const GUESTS: [string, Guest][] = [["the bare guest", BARE]];
if (linux !== undefined) GUESTS.push(["Linux", { ...linux, memoryMiB: 128 }]);
const SCENES = [...findQemus()].flatMap(([name, binary]) =>
  // What Linux adds to a stream does not depend on the version of QEMU.
  GUESTS.slice(0, name === "7.2" ? 1 : undefined).map(([guest, options]) => ({
    name,
    guest,
    binary,
    options,
  })),
);

describe.each(SCENES)("a stream of QEMU $name with $guest", ({ name, guest, binary, options }) => {
  const destinationOptions = { binary, ...options, incoming: "defer", paused: true };
  let folder: TempFolder;
  let captured: CapturedStream;
  /** RAM of a destination that was given the captured bytes themselves. */
  let expected: string;
  let lostPages: number;

  beforeAll(async () => {
    folder = tempFolder();
    const source = await startQemu({ binary, ...options });
    const plain = await startQemu(destinationOptions);
    try {
      await source.waitForReady();
      await source.waitForHeartbeats(HEARTBEATS);
      captured = await captureStream(source, CAPTURE);
      await playInto(plain, captured.bytes);
      expected = join(folder.path, "expected");
      const sent = join(folder.path, "sent");
      await dumpMemory(plain, expected);
      await dumpMemory(source, sent);
      lostPages = comparePages(sent, expected).differingPages;
    } finally {
      await Promise.all([source.stop(), plain.stop()]);
    }
    console.log(
      `QEMU ${name}, ${guest}: ${captured.bytes.length} bytes in ${captured.iterations} iterations; ` +
        `pages that QEMU has lost by itself: ${lostPages}`,
    );
  });
  afterAll(() => folder.remove());

  test.each(WAYS)("%s: leaves the same RAM as without Deltavee, byte for byte", async (_way, way) => {
    const { destination, events } = await replay(captured.bytes, way);
    expect(await differing(destination)).toEqual([]);
    // Else nothing would have been shown.
    const { pages, cache } = summaryOf(events);
    expect(pages.deltaPages).toBeGreaterThan(500);
    if (way.cacheBytes === SMALL_CACHE_BYTES) expect(cache!.evictions).toBeGreaterThan(500);
    expect(eventsOf(events, "opaque")).toEqual([]);
  });

  test("one byte that changes on the way is found", async () => {
    const damaged = Buffer.from(captured.bytes);
    const { page, offsetBytes } = lastWordOn(damaged, expected);
    damaged[offsetBytes]! ^= 1;
    const { destination } = await replay(damaged, { codec: "word-mask", cacheBytes: LARGE_CACHE_BYTES });
    expect(await differing(destination)).toEqual([page]);
  });

  /** Through the engines into a fresh QEMU, which stands still afterwards. */
  async function replay(stream: Buffer, way: Way): Promise<{ destination: QemuVm; events: RecordEvent[] }> {
    const destination = await startVm(destinationOptions);
    const events: RecordEvent[] = [];
    const record = new RunRecord({ clock: systemClock, listeners: [(event) => events.push(event)] });
    const common = {
      ...makeHome(),
      clock: UNHURRIED,
      vm: new CapturedOutgoing(stream),
      cacheFactory: (pageBytes: number, memory: KernelMemory) =>
        new PageCache({ pageBytes, memory, limitBytes: way.cacheBytes }),
      downtimeMsMax: 300,
      record,
      defer: setImmediate,
    };
    if (way.codec === undefined) await replayDirect(common, destination);
    else await replayThroughTunnel(common, destination, way.codec);
    return { destination, events };
  }

  async function differing(destination: QemuVm): Promise<number[]> {
    const file = join(folder.path, "replayed");
    await dumpMemory(destination, file);
    return comparePages(expected, file).firstDiffering;
  }
});

type Source = Omit<SourceOptions, "channel" | "tunnel"> & Home;

async function replayDirect(source: Source, destination: QemuVm): Promise<void> {
  const { socket, loaded } = await openIncoming(destination);
  const { error } = await new SourceEngine({ ...source, channel: new SocketChannel(socket) }).run();
  expect(error).toBeUndefined();
  await loaded;
}

async function replayThroughTunnel(source: Source, destination: QemuVm, codec: string): Promise<void> {
  const { sockets, close } = await socketPair();
  const [sourceChannel, destinationChannel] = [new SocketChannel(sockets[0]), new SocketChannel(sockets[1])];
  const vm = await QemuIncoming.open(destination.toolQmp, (message) => expect.fail(message));
  const home = makeHome();
  const [sourceCoder, destinationCoder] = [makeBatchCoder(source), makeBatchCoder(home)];
  onTestFinished(async () => {
    await Promise.all([sourceCoder.close(), destinationCoder.close(), vm.close()]);
    close();
  });
  const hypervisor = { kind: "qemu", version: vm.version } as const;
  const entropyCodecs = [...ENTROPY_CODEC_IDS];
  const arriving = new DestinationEngine({
    ...home,
    coder: destinationCoder,
    channel: destinationChannel,
    vm,
    own: { deltavee: "test", hypervisor, entropyCodecs },
    baselineBytesMax: LARGE_CACHE_BYTES,
    record: new RunRecord({ clock: systemClock }),
    paused: true,
  }).run();
  const session = "0".repeat(32);
  const hello = {
    deltavee: "test",
    session,
    hypervisor,
    entropyCodecs,
    guestRamBytes: destination.memoryBytes,
  };
  const leaving = new SourceEngine({
    ...source,
    channel: sourceChannel,
    tunnel: { hello, coder: sourceCoder, deltaCodec: DELTA_CODEC_NAMES[codec]! },
  }).run();
  const outcomes = await Promise.all([leaving, arriving]);
  expect(outcomes.map(({ outcome, error }) => ({ outcome, error }))).toEqual(
    Array(2).fill({ outcome: "completed", error: undefined }),
  );
}

/** A page and where the stream holds it as it is in the end: nothing that follows changes it any more. */
function lastWordOn(stream: Buffer, memoryFile: string): { page: number; offsetBytes: number } {
  const memory = readFileSync(memoryFile);
  // The end of the RAM is the guest's working set, or free.
  for (let page = memory.length / PAGE_BYTES - 1; page >= 0; page--) {
    const content = memory.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    if (content[0] === 0) continue;
    const offsetBytes = stream.lastIndexOf(content);
    if (offsetBytes !== -1 && stream.indexOf(content) === offsetBytes) return { page, offsetBytes };
  }
  throw new Error("No page of the memory is in the stream as it is");
}
