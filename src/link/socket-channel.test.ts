// SocketChannel over real sockets: nothing is lost, byte for byte, whoever owns the room that is read into, and
// however often reading is paused.

import { mkdtempSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { randomBytes } from "../../test/support/arbitrary-stream.ts";
import type { ChannelListener } from "../engine/ports.ts";
import { type Address, connect, type Listener, listen } from "./address.ts";
import { SocketChannel } from "./socket-channel.ts";

const SPACE_BYTES = 64 * 1024;
const CONTENT = Buffer.from(Uint8Array.from({ length: 3_000_017 }, randomBytes(5)));

let folder: string;
let listener: Listener | undefined;
const sockets: Socket[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-channel-"));
});

afterEach(() => {
  listener?.close();
  for (const socket of sockets.splice(0)) socket.destroy();
  rmSync(folder, { recursive: true });
});

/** Both ends of a connection. */
async function connected(pauseOnConnect: boolean, kind: "unix" | "tcp" = "unix"): Promise<[Socket, Socket]> {
  const address: Address =
    kind === "unix" ? { kind, path: join(folder, "socket") } : { kind, host: "127.0.0.1", port: 0 };
  let accept = (_socket: Socket) => {};
  const accepted = new Promise<Socket>((resolve) => {
    accept = resolve;
  });
  const handlers = { onConnection: (socket: Socket) => accept(socket), onError: () => {} };
  listener = await listen(address, handlers, { pauseOnConnect });
  const peer = await connect(listener.address, 5000);
  peer.on("error", () => {});
  const socket = await accepted;
  sockets.push(socket, peer);
  return [socket, peer];
}

class Reader {
  /** Room of its own, if asked for: a new place each time, within one region, as the engine's input has it. */
  readonly region = new Uint8Array(4 * SPACE_BYTES);
  readonly received: Buffer[] = [];
  readonly events: string[] = [];
  spaces = 0;
  foreign = 0;
  calls = 0;
  #place = 0;
  readonly ended: Promise<void>;
  readonly listener: ChannelListener;

  constructor(hasSpace: boolean, seen: () => void = () => {}) {
    let end = () => {};
    this.ended = new Promise((resolve) => {
      end = resolve;
    });
    this.listener = {
      ...(hasSpace ? { space: () => this.#space() } : {}),
      data: (bytes) => {
        this.calls++;
        if (bytes.buffer !== this.region.buffer) this.foreign++;
        this.received.push(Buffer.from(bytes));
        seen();
      },
      drained: () => this.events.push("drained"),
      ended: () => {
        this.events.push("ended");
        end();
      },
      failed: (error) => {
        this.events.push(error.message);
        end();
      },
    };
  }

  get bytes(): Buffer {
    return Buffer.concat(this.received);
  }

  #space(): Uint8Array {
    this.spaces++;
    this.#place = (this.#place + 1) % 4;
    return this.region.subarray(this.#place * SPACE_BYTES, (this.#place + 1) * SPACE_BYTES);
  }
}

describe.each(["unix", "tcp"] as const)("over %s", (kind) => {
  test("an accepted socket that was not read yet is read into the listener's room", async () => {
    const [accepted, peer] = await connected(true, kind);
    const reader = new Reader(true);
    new SocketChannel(accepted).listen(reader.listener);
    peer.end(CONTENT);
    await reader.ended;
    expect(reader.bytes.equals(CONTENT)).toBe(true);
    expect(reader.foreign).toBe(0);
    expect(reader.spaces).toBeGreaterThanOrEqual(CONTENT.length / SPACE_BYTES);
    expect(reader.events).toEqual(["ended"]);
  });

  test.each([true, false])("pausing loses nothing and holds, with room of its own: %s", async (hasSpace) => {
    const [accepted, peer] = await connected(hasSpace, kind);
    const channel = new SocketChannel(accepted);
    let isPaused = false;
    let whilePaused = 0;
    const reader = new Reader(hasSpace, () => {
      if (isPaused) whilePaused++;
      if (reader.calls % 3 !== 0) return;
      isPaused = true;
      channel.pause();
      // Sometimes at once, sometimes when more has long arrived.
      const resume = () => {
        isPaused = false;
        channel.resume();
      };
      if (reader.calls % 2 === 0) setImmediate(resume);
      else setTimeout(resume, 5);
    });
    channel.listen(reader.listener);
    peer.end(CONTENT);
    await reader.ended;
    expect(reader.bytes.equals(CONTENT)).toBe(true);
    expect(reader.foreign === 0).toBe(hasSpace);
    expect(whilePaused).toBe(0);
    expect(reader.calls).toBeGreaterThan(10);
  });
});

test("paused before anything came, nothing comes until it is resumed", async () => {
  for (const pauseOnConnect of [true, false]) {
    const [accepted, peer] = await connected(pauseOnConnect);
    const reader = new Reader(true);
    const channel = new SocketChannel(accepted);
    channel.pause();
    channel.listen(reader.listener);
    peer.end("early");
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(reader.calls).toBe(0);
    channel.resume();
    await reader.ended;
    expect(reader.bytes.toString()).toBe("early");
    listener!.close();
    for (const socket of sockets.splice(0)) socket.destroy();
  }
});

test("what came before anybody listened is not lost", async () => {
  for (const pauseOnConnect of [true, false]) {
    const [accepted, peer] = await connected(pauseOnConnect);
    const channel = new SocketChannel(accepted);
    peer.end(CONTENT.subarray(0, 100_000));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const reader = new Reader(true);
    channel.listen(reader.listener);
    await reader.ended;
    expect(reader.bytes.equals(CONTENT.subarray(0, 100_000))).toBe(true);
    listener!.close();
    for (const socket of sockets.splice(0)) socket.destroy();
  }
});

test("a socket that is being read, or was written to, stays as it is: bytes come in buffers of Node's", async () => {
  const [accepted, peer] = await connected(true);
  const reading = new Reader(true);
  new SocketChannel(peer).listen(reading.listener);
  accepted.write(CONTENT.subarray(0, 50_000));
  await expect.poll(() => reading.bytes.length).toBe(50_000);
  expect(reading.foreign).toBe(reading.calls);
  const writing = new Reader(true);
  new SocketChannel(accepted).listen(writing.listener);
  peer.end(CONTENT.subarray(0, 50_000));
  await writing.ended;
  expect(writing.bytes.equals(CONTENT.subarray(0, 50_000))).toBe(true);
  expect(writing.foreign).toBe(writing.calls);
});

test("the moved connection is written to, ended and torn down like any other", async () => {
  const [accepted, peer] = await connected(true);
  const channel = new SocketChannel(accepted);
  const reader = new Reader(true);
  channel.listen(reader.listener);
  const other = new Reader(false);
  const otherChannel = new SocketChannel(peer);
  otherChannel.listen(other.listener);
  const written: string[] = [];
  expect(channel.write(Buffer.from("first"), () => written.push("first"))).toBe(true);
  otherChannel.pause();
  // More than the operating system takes: it says so, and says when it takes more.
  expect(channel.write(CONTENT, () => written.push("content"))).toBe(false);
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(written).toEqual(["first"]);
  expect(reader.events).toEqual([]);
  otherChannel.resume();
  await expect.poll(() => reader.events).toEqual(["drained"]);
  expect(written).toEqual(["first", "content"]);
  channel.end();
  await other.ended;
  expect(other.bytes.equals(Buffer.concat([Buffer.from("first"), CONTENT]))).toBe(true);
});

test("a connection that is ended while it is paused closes, whatever the peer was still sending", async () => {
  for (const hasSpace of [true, false]) {
    const [accepted, peer] = await connected(true);
    const channel = new SocketChannel(accepted);
    const reader: Reader = new Reader(hasSpace, () => {
      if (reader.calls === 1) channel.pause();
    });
    channel.listen(reader.listener);
    const closed = new Promise((resolve) => peer.once("close", resolve));
    peer.resume();
    peer.write(CONTENT);
    await expect.poll(() => reader.calls).toBe(1);
    channel.end();
    await closed;
    listener!.close();
  }
});

test("a connection that is reset is reported once, one that was destroyed here never", async () => {
  const [accepted, peer] = await connected(true, "tcp");
  const reader = new Reader(true);
  new SocketChannel(accepted).listen(reader.listener);
  peer.write("x");
  await expect.poll(() => reader.calls).toBe(1);
  peer.resetAndDestroy();
  await reader.ended;
  expect(reader.events).toEqual([expect.stringContaining("ECONNRESET")]);

  listener!.close();
  const [second, otherPeer] = await connected(true, "unix");
  const quiet = new Reader(true);
  const channel = new SocketChannel(second);
  channel.listen(quiet.listener);
  channel.destroy();
  otherPeer.end("nobody");
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect([quiet.events, quiet.calls]).toEqual([[], 0]);
  expect(channel.write(Buffer.from("x"))).toBe(false);
});
