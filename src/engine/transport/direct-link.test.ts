// DirectLink: PINGs as markers of the delivery window, invisible to the source, and what silence means.

import { describe, expect, test } from "vitest";
import { makeHome } from "../../../test/support/engine-parts.ts";
import { Loader } from "../../../test/support/loader.ts";
import { memoryChannels } from "../../../test/support/memory-channel.ts";
import { be32, PART, StreamBuilder } from "../../../test/support/stream-builder.ts";
import { VirtualClock } from "../../base/clock.ts";
import { returnPathMessage } from "../../stream/return-path.ts";
import { StreamSink } from "../pages/stream-sink.ts";
import { DirectLink, SILENT_MS } from "./direct-link.ts";

const BLOCKS = [{ idstr: "pc.ram", pages: 64 }];

/** A link behind which a loader answers after `roundTripMs`; `answers` false: nobody is there. */
function connected({ answers = true, roundTripMs = 10 } = {}) {
  const clock = new VirtualClock();
  const [ours, theirs] = memoryChannels(clock, { delayMs: roundTripMs / 2, bufferBytes: 1 << 24 });
  const heard: string[] = [];
  const loader = new Loader((message) => answers && theirs.write(message));
  theirs.listen({
    data: (bytes) => loader.push(bytes),
    drained: () => {},
    ended: () => {},
    failed: () => {},
  });
  const { memory, kernel } = makeHome();
  const page = memory.allocate(4096);
  memory.bytes(page, 4096).fill(9);
  const sink = new StreamSink(memory, kernel);
  const rooms = { told: 0 };
  const link = new DirectLink(ours, clock, sink, {
    returnPath: (bytes) => heard.push(Buffer.from(bytes).toString("hex")),
    room: () => rooms.told++,
    ended: () => heard.push("ended"),
    failed: (error) => heard.push(error.message),
  });
  const start = new StreamBuilder()
    .header()
    .command(1)
    .command(2, be32(1))
    .start(1, BLOCKS)
    .endSection().bytes;
  sink.verbatim(start, 0, start.length);
  sink.setBlocks(
    BLOCKS.map(({ idstr, pages }) => ({ idstr, lengthBytes: pages * 4096 })),
    4096,
  );
  const send = (pages: number) => {
    sink.ramSection(PART, 1);
    putPages(pages);
    sink.ramSectionEnd();
    link.flush(true);
  };
  const putPages = (pages: number) => {
    for (let i = 0; i < pages; i++) sink.wholePage(0, i, page);
  };
  return { clock, link, sink, loader, heard, theirs, rooms, send, putPages };
}

test("what the source asked for comes back to it, what we asked for does not", () => {
  const { clock, link, loader, heard, send } = connected();
  link.allowPings();
  send(3);
  clock.advance(100);
  expect(loader.pings.map((value) => value >>> 16)).toEqual([0, 0x4456]);
  expect(heard).toEqual(["0002000400000001"]);
  expect(link.figures.inFlightBytes).toBe(0);
  expect(link.figures.roundTripMs).toBeCloseTo(10, 0);
});

test("a PONG that nobody asked for is the source's", () => {
  const { clock, link, heard, theirs } = connected();
  link.allowPings();
  theirs.write(returnPathMessage(2, 0x44560000));
  clock.advance(100);
  expect(heard).toEqual(["0002000444560000"]);
});

test("every turn's bytes carry a PING, and what is left over gets one as soon as nothing is unanswered", () => {
  const { clock, link, loader, send } = connected();
  link.allowPings();
  send(1);
  for (let i = 0; i < 20; i++) {
    send(4);
    // Taken by the connection, and not answered yet.
    clock.advance(6);
  }
  send(1);
  expect(link.figures.inFlightBytes).toBeGreaterThan(4 * 4096);
  clock.advance(1000);
  link.flush(true);
  clock.advance(1000);
  expect(link.figures.inFlightBytes).toBe(0);
  expect(loader.pings.length).toBeGreaterThanOrEqual(21);
});

test("the window closes when nothing comes back, and opens when it does", () => {
  const { clock, link, sink, send } = connected();
  link.allowPings();
  send(4);
  send(16);
  expect(sink.isFull).toBe(false);
  expect(link.hasRoom).toBe(false);
  clock.advance(100);
  expect(link.hasRoom).toBe(true);
});

test("when all regions are with the connection there is no room, and it is said when one has come back", () => {
  const { clock, link, sink, rooms, send } = connected();
  while (!sink.isFull) send(4);
  expect(link.hasRoom).toBe(false);
  link.flush(true);
  expect(rooms.told).toBe(0);
  clock.advance(6);
  expect(rooms.told).toBe(1);
  expect(link.hasRoom).toBe(true);
});

test("before the return path is open, and where no PING may stand, there is nothing to wait for", () => {
  const { link, sink, send, putPages } = connected();
  for (let i = 0; i < 2; i++) send(40);
  expect(link.hasRoom).toBe(true);
  link.allowPings();
  sink.ramStarted(1);
  putPages(20);
  link.flush(true);
  // In START: without this the window would be closed for ever.
  expect(link.hasRoom).toBe(true);
});

test("after the guest has stopped neither a window nor PINGs hold anything up", () => {
  const { clock, link, loader, send } = connected();
  link.allowPings();
  send(4);
  link.liftWindow();
  for (let i = 0; i < 2; i++) send(60);
  expect(link.hasRoom).toBe(true);
  clock.advance(1000);
  expect(loader.pings.length).toBe(2);
});

describe("silence", () => {
  test("is reported once a PING has waited too long, and not before", () => {
    const { clock, link, heard, send } = connected({ answers: false });
    link.allowPings();
    send(4);
    clock.advance(SILENT_MS - 1);
    expect(heard).toEqual([]);
    clock.advance(1);
    expect(heard).toEqual(["Nothing heard from the destination for 30 s"]);
    clock.advance(10 * SILENT_MS);
    expect(heard.length).toBe(1);
  });

  test("of a source with nothing to send is none of the link's", () => {
    const { clock, link, heard, send } = connected();
    link.allowPings();
    send(4);
    clock.advance(100 * SILENT_MS);
    expect(heard).toEqual(["0002000400000001"]);
    expect(clock.nextDueMs()).toBeUndefined();
  });

  test("counts from the last sign of life", () => {
    const { clock, link, heard, send } = connected({ roundTripMs: 20_000 });
    link.allowPings();
    send(1);
    for (let i = 0; i < 8; i++) {
      clock.advance(15_000);
      send(4);
    }
    clock.advance(SILENT_MS);
    expect(heard).toEqual(["0002000400000001"]);
  });

  test("after the guest has stopped is reported too, until a verdict has come", () => {
    for (const verdict of [undefined, 0, 1]) {
      const { clock, link, heard, theirs } = connected();
      link.liftWindow();
      if (verdict !== undefined) theirs.write(returnPathMessage(1, verdict));
      clock.advance(2 * SILENT_MS);
      expect(heard.at(-1)).toMatch(verdict === undefined ? /Nothing heard/ : /^00010004/);
      expect(clock.nextDueMs()).toBeUndefined();
    }
  });

  test("ends with the link", () => {
    const { clock, link, heard } = connected();
    link.liftWindow();
    link.destroy();
    clock.advance(2 * SILENT_MS);
    expect(heard).toEqual([]);
  });
});
