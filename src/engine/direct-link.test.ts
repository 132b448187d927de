// DirectLink: PINGs as markers of the delivery window, invisible to the source, and what silence means.

import { describe, expect, test } from "vitest";
import { Loader } from "../../test/support/loader.ts";
import { memoryChannels } from "../../test/support/memory-channel.ts";
import { be32, PART, StreamBuilder } from "../../test/support/stream-builder.ts";
import { VirtualClock } from "../base/clock.ts";
import { returnPathMessage } from "../stream/return-path.ts";
import { OutputBuffer, StreamWriter } from "../stream/writer.ts";
import { DirectLink, SILENT_MS } from "./direct-link.ts";

const BLOCKS = [{ idstr: "pc.ram", pages: 64 }];
const PAGE = new Uint8Array(4096).fill(9);

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
  const link = new DirectLink(ours, clock, {
    returnPath: (bytes) => heard.push(Buffer.from(bytes).toString("hex")),
    room: () => {},
    ended: () => heard.push("ended"),
    failed: (error) => heard.push(error.message),
  });
  const writer = new StreamWriter(new OutputBuffer());
  const start = new StreamBuilder()
    .header()
    .command(1)
    .command(2, be32(1))
    .start(1, BLOCKS)
    .endSection().bytes;
  writer.verbatim(start, 0, start.length);
  writer.setBlocks(
    BLOCKS.map(({ idstr, pages }) => ({ idstr, lengthBytes: pages * 4096 })),
    4096,
  );
  const send = (pages: number) => {
    writer.ramSection(PART, 1);
    for (let i = 0; i < pages; i++) writer.page(0, i, PAGE, 0);
    writer.ramSectionEnd();
    link.flush(writer);
  };
  return { clock, link, writer, loader, heard, theirs, send };
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
  const { clock, link, writer, loader, send } = connected();
  link.allowPings();
  send(1);
  for (let i = 0; i < 20; i++) send(4);
  send(1);
  expect(link.figures.inFlightBytes).toBeGreaterThan(20 * 4 * 4096);
  clock.advance(1000);
  link.flush(writer);
  clock.advance(1000);
  expect(link.figures.inFlightBytes).toBe(0);
  expect(loader.pings.length).toBeGreaterThanOrEqual(21);
});

test("the window closes when nothing comes back, and opens when it does", () => {
  const { clock, link, send } = connected();
  link.allowPings();
  for (let i = 0; i < 5; i++) send(4);
  expect(link.hasRoom).toBe(false);
  clock.advance(100);
  expect(link.hasRoom).toBe(true);
});

test("before the return path is open, and where no PING may stand, there is nothing to wait for", () => {
  const { link, writer, send } = connected();
  for (let i = 0; i < 20; i++) send(4);
  expect(link.hasRoom).toBe(true);
  link.allowPings();
  writer.ramStarted(1);
  for (let i = 0; i < 20; i++) writer.page(0, i, PAGE, 0);
  link.flush(writer);
  // In START: without this the window would be closed for ever.
  expect(link.hasRoom).toBe(true);
});

test("after the guest has stopped neither a window nor PINGs hold anything up", () => {
  const { clock, link, loader, send } = connected();
  link.allowPings();
  send(4);
  link.liftWindow();
  for (let i = 0; i < 40; i++) send(4);
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
