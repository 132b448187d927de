import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleepMs } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, it } from "vitest";
import { type Clock, VirtualClock } from "../base/clock.ts";
import { type Address, connect, type Listener, listen } from "./address.ts";
import { type Flow, Lane, type LaneOptions, Relay, type RelayOptions } from "./relay.ts";

const MEGABYTE = 1_000_000;
const BACKLOG_ATTEMPTS_MAX = 20;

/** A flow with a backlog, that notes what arrives when. */
class BacklogFlow implements Flow {
  readonly arrivals: { atMs: number; payload: Buffer | string }[] = [];
  readonly #clock: Clock;
  #backlog: Buffer;
  blocked = false;

  constructor(clock: Clock, backlog: Buffer) {
    this.#clock = clock;
    this.#backlog = backlog;
  }

  take(bytesMax: number): Buffer | undefined {
    if (this.blocked || this.#backlog.length === 0) return undefined;
    const bytes = this.#backlog.subarray(0, bytesMax);
    this.#backlog = this.#backlog.subarray(bytes.length);
    return bytes;
  }

  deliver(payload: Buffer | string): void {
    this.arrivals.push({ atMs: this.#clock.nowMs(), payload });
  }

  get arrivedBytes(): number {
    return this.arrivals.reduce(
      (sum, { payload }) => sum + (typeof payload === "string" ? 0 : payload.length),
      0,
    );
  }
}

/** Timers that fire late, as on a busy machine. */
class LateClock implements Clock {
  readonly virtual = new VirtualClock();
  readonly #latenessMs: number;

  constructor(latenessMs: number) {
    this.#latenessMs = latenessMs;
  }

  nowMs(): number {
    return this.virtual.nowMs();
  }

  after(delayMs: number, callback: () => void): () => void {
    return this.virtual.after(delayMs + this.#latenessMs, callback);
  }
}

describe("Lane", () => {
  const options: LaneOptions = { bytesPerSecond: MEGABYTE, delayMs: 20, queueMs: 50 };

  it("delivers at the rate, after the delay, in order", () => {
    const clock = new VirtualClock();
    const sent = randomBytes(MEGABYTE);
    const flow = new BacklogFlow(clock, sent);
    const lane = new Lane(clock, options);
    lane.offer(flow);
    clock.advance(2000);
    expect(flow.arrivals[0]?.atMs).toBe(20);
    let bytes = 0;
    for (const { atMs, payload } of flow.arrivals) {
      bytes += payload.length;
      // Bytes per millisecond, and a slice of about one packet at the start.
      expect(bytes).toBeLessThanOrEqual((atMs - 20) * 1000 + 1401);
      expect(bytes).toBeGreaterThanOrEqual((atMs - 20) * 1000 - 1);
    }
    expect(Buffer.concat(flow.arrivals.map(({ payload }) => payload as Buffer)).equals(sent)).toBe(true);
    expect(lane.deliveredBytes).toBe(MEGABYTE);
    expect(lane.heldBytes).toBe(0);
    expect(clock.nextDueMs()).toBeUndefined();
  });

  it("loses nothing of the rate to timers that fire late", () => {
    const clock = new LateClock(15);
    const flow = new BacklogFlow(clock, Buffer.alloc(MEGABYTE));
    new Lane(clock, options).offer(flow);
    clock.virtual.advance(500);
    expect(flow.arrivedBytes).toBeGreaterThan(450_000);
    expect(flow.arrivedBytes).toBeLessThanOrEqual(480_000 + 1400);
  });

  it("grants no burst after a pause, unlike a plain token bucket", () => {
    const clock = new VirtualClock();
    const lane = new Lane(clock, { ...options, delayMs: 0 });
    clock.advance(10_000);
    const flow = new BacklogFlow(clock, Buffer.alloc(MEGABYTE));
    lane.offer(flow);
    clock.advance(100);
    expect(flow.arrivedBytes).toBeLessThanOrEqual(100_000 + 1400);
  });

  it("lets its flows take turns", () => {
    const clock = new VirtualClock();
    const flows = [1, 2, 3, 4].map(() => new BacklogFlow(clock, Buffer.alloc(MEGABYTE)));
    const lane = new Lane(clock, options);
    for (const flow of flows) lane.offer(flow);
    // The first found the queue empty and filled it: 50 ms and the delay later the turns can be seen.
    clock.advance(70);
    const before = flows.map((flow) => flow.arrivedBytes);
    clock.advance(1000);
    for (const [i, flow] of flows.entries()) {
      expect(flow.arrivedBytes - before[i]!).toBeGreaterThan(245_000);
      expect(flow.arrivedBytes - before[i]!).toBeLessThan(255_000);
    }
  });

  it("queues no more than asked: a newcomer waits for the full queue and no longer", () => {
    const clock = new VirtualClock();
    const lane = new Lane(clock, options);
    lane.offer(new BacklogFlow(clock, Buffer.alloc(MEGABYTE)));
    clock.advance(300);
    const newcomer = new BacklogFlow(clock, Buffer.alloc(1));
    lane.offer(newcomer);
    clock.advance(100);
    const waitedMs = newcomer.arrivals[0]!.atMs - 300;
    expect(waitedMs).toBeGreaterThan(20 + 45);
    // A queue, the delay, and two slices: one that is being sent and one in whose place it has to get.
    expect(waitedMs).toBeLessThanOrEqual(20 + 50 + 3);
  });

  it("holds no more than it says", () => {
    for (const bytesPerSecond of [100_000, MEGABYTE, 125 * MEGABYTE, undefined]) {
      const clock = new VirtualClock();
      const lane = new Lane(clock, { ...options, bytesPerSecond });
      lane.offer(new BacklogFlow(clock, Buffer.alloc(40 * MEGABYTE)));
      let heldBytesPeak = 0;
      for (let i = 0; i < 200; i++) {
        heldBytesPeak = Math.max(heldBytesPeak, lane.heldBytes);
        clock.advance(0.5);
      }
      expect(heldBytesPeak).toBeGreaterThan(0);
      expect(heldBytesPeak).toBeLessThanOrEqual(lane.heldBytesMax);
    }
  });

  it("brings the news of an end behind the bytes, with the same delay", () => {
    const clock = new VirtualClock();
    const flow = new BacklogFlow(clock, Buffer.alloc(10_000));
    const lane = new Lane(clock, options);
    lane.offer(flow);
    lane.finish(flow, "end");
    clock.advance(100);
    expect(flow.arrivals.at(-1)?.payload).toBe("end");
    expect(flow.arrivals.at(-1)?.atMs).toBeGreaterThanOrEqual(20 + 8);
    expect(flow.arrivedBytes).toBe(10_000);
  });

  it("stops the time of everything under way while it is stalled", () => {
    const clock = new VirtualClock();
    const sent = randomBytes(100_000);
    const flow = new BacklogFlow(clock, sent);
    const lane = new Lane(clock, options);
    lane.offer(flow);
    clock.advance(50);
    lane.stall();
    const before = flow.arrivedBytes;
    clock.advance(10_000);
    lane.offer(flow);
    clock.advance(10_000);
    expect(flow.arrivedBytes).toBe(before);
    expect(clock.nextDueMs()).toBeUndefined();
    lane.resume();
    clock.advance(1000);
    expect(Buffer.concat(flow.arrivals.map(({ payload }) => payload as Buffer)).equals(sent)).toBe(true);
  });

  it("forgets everything under way when it is cleared", () => {
    const clock = new VirtualClock();
    const flow = new BacklogFlow(clock, Buffer.alloc(MEGABYTE));
    const lane = new Lane(clock, options);
    lane.offer(flow);
    clock.advance(100);
    const before = flow.arrivedBytes;
    lane.clear();
    expect(lane.heldBytes).toBe(0);
    clock.advance(1000);
    expect(flow.arrivedBytes).toBe(before);
    expect(clock.nextDueMs()).toBeUndefined();
  });

  it("asks a flow again that could take no delivery, when it is offered again", () => {
    const clock = new VirtualClock();
    const flow = new BacklogFlow(clock, Buffer.alloc(1000));
    const lane = new Lane(clock, options);
    flow.blocked = true;
    lane.offer(flow);
    clock.advance(100);
    expect(flow.arrivedBytes).toBe(0);
    flow.blocked = false;
    lane.offer(flow);
    clock.advance(100);
    expect(flow.arrivedBytes).toBe(1000);
  });
});

describe("Relay", () => {
  const LOOPBACK: Address = { kind: "tcp", host: "127.0.0.1", port: 0 };
  const cleanups: (() => Promise<void> | void)[] = [];

  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  async function serve(onConnection: (socket: net.Socket) => void, address = LOOPBACK): Promise<Listener> {
    const listener = await listen(
      address,
      {
        onConnection: (socket) => {
          cleanups.push(() => void socket.destroy());
          socket.on("error", () => undefined);
          onConnection(socket);
        },
        onError: () => undefined,
      },
      { allowHalfOpen: true },
    );
    cleanups.push(() => listener.close());
    return listener;
  }

  async function relayTo(to: Address, options: Partial<RelayOptions> = {}): Promise<Relay> {
    const relay = await Relay.start({ listen: LOOPBACK, to, ...options });
    cleanups.push(() => relay.close());
    return relay;
  }

  async function open(relay: Relay): Promise<net.Socket> {
    const socket = await connect(relay.address, 5000, { allowHalfOpen: true });
    socket.on("error", () => undefined);
    cleanups.push(() => void socket.destroy());
    return socket;
  }

  /** A relay, one connection through it, and both ends of that. */
  async function pair(options: Partial<RelayOptions> = {}, to = LOOPBACK) {
    let onConnection: (socket: net.Socket) => void = () => undefined;
    const accepted = new Promise<net.Socket>((resolve) => {
      onConnection = resolve;
    });
    const listener = await serve((socket) => onConnection(socket), to);
    const relay = await relayTo(listener.address, options);
    const source = await open(relay);
    return { relay, source, target: await accepted };
  }

  /** An address whose backlog is full: attempts to connect to it neither succeed nor fail. */
  async function neverAccepting(): Promise<Address> {
    const blocked = `
      const { parentPort } = require("node:worker_threads");
      const server = require("node:net").createServer().listen({ port: 0, host: "127.0.0.1", backlog: 1 }, () => {
        parentPort.postMessage(server.address().port);
        setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0));
      });`;
    const worker = new Worker(blocked, { eval: true });
    cleanups.push(async () => void (await worker.terminate()));
    const [port] = await once(worker, "message");
    const address: Address = { kind: "tcp", host: "127.0.0.1", port };
    for (let i = 0; i < BACKLOG_ATTEMPTS_MAX; i++) {
      try {
        const socket = await connect(address, 300);
        cleanups.push(() => void socket.on("error", () => undefined).destroy());
      } catch {
        return address;
      }
    }
    throw new Error("the backlog does not fill up");
  }

  async function readAll(socket: net.Socket): Promise<Buffer> {
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => void chunks.push(chunk));
    await once(socket, "end");
    return Buffer.concat(chunks);
  }

  /**
   * "end" for a clean end, else the code of the error; bytes before it are dropped. Call it before the end
   * comes: where a reset meets bytes that are still unread, libuv reads them and then reports an end.
   */
  function howItEnds(socket: net.Socket): Promise<string> {
    return new Promise((resolve) => {
      socket.once("end", () => resolve("end"));
      socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
      socket.resume();
    });
  }

  async function writeInPieces(socket: net.Socket, bytes: Buffer): Promise<void> {
    for (let offset = 0, i = 0; offset < bytes.length; i++) {
      const length = [1, 7, 1000, 3, 20_000, 65_536][i % 6]!;
      if (!socket.write(bytes.subarray(offset, offset + length))) await once(socket, "drain");
      offset += length;
    }
    socket.end();
  }

  it.each<[string, Partial<RelayOptions>]>([
    ["at once", {}],
    ["at a rate and with a delay", { bytesPerSecond: 2 * MEGABYTE, delayMs: 10, queueMs: 5 }],
    ["in the smallest slices", { bytesPerSecond: MEGABYTE, queueMs: 0 }],
  ])("brings every byte in order, both ways at once, %s", async (_, options) => {
    const { relay, source, target } = await pair(options);
    const forward = randomBytes(600_000);
    const backward = randomBytes(500_000);
    const [atTarget, atSource] = await Promise.all([
      readAll(target),
      readAll(source),
      writeInPieces(source, forward),
      writeInPieces(target, backward),
    ]);
    expect(atTarget.equals(forward)).toBe(true);
    expect(atSource.equals(backward)).toBe(true);
    expect(relay.bytesForward).toBe(forward.length);
    expect(relay.bytesBackward).toBe(backward.length);
    await expect.poll(() => relay.heldBytes).toBe(0);
  });

  it("passes between unix sockets", async () => {
    const folder = mkdtempSync(join(tmpdir(), "deltavee-"));
    cleanups.push(() => rmSync(folder, { recursive: true }));
    const listen: Address = { kind: "unix", path: join(folder, "link") };
    const { source, target } = await pair({ listen }, { kind: "unix", path: join(folder, "target") });
    source.end("there");
    target.end("and back");
    expect(String(await readAll(target))).toBe("there");
    expect(String(await readAll(source))).toBe("and back");
  });

  it("keeps to the rate in each direction, whatever the other carries", async () => {
    const bytesPerSecond = 2 * MEGABYTE;
    const enough = 1.5 * MEGABYTE;
    const startMs = performance.now();
    // Beside one that carries nothing back: a machine that is busy slows them both.
    const [both, forward] = [await pair({ bytesPerSecond }), await pair({ bytesPerSecond })];
    const ends = [both.target, both.source, forward.target];
    const received = ends.map(() => 0);
    for (const [i, end] of ends.entries()) {
      end.on("data", (chunk: Buffer) => {
        received[i]! += chunk.length;
      });
    }
    for (const end of [both.source, both.target, forward.source]) end.write(Buffer.alloc(4 * MEGABYTE));
    await expect.poll(() => received[2]!).toBeGreaterThan(enough);
    const allowed = ((performance.now() - startMs) / 1000) * bytesPerSecond;
    for (const bytes of received) {
      expect(bytes).toBeLessThan(1.15 * allowed);
      // Half of it, if the directions had one rate together.
      expect(bytes).toBeGreaterThan(0.6 * enough);
    }
  });

  it("shares the rate among all connections", async () => {
    const bytesPerSecond = 2 * MEGABYTE;
    const received: number[] = [];
    const listener = await serve((socket) => {
      const index = received.push(0) - 1;
      socket.on("data", (chunk: Buffer) => {
        received[index]! += chunk.length;
      });
    });
    const relay = await relayTo(listener.address, { bytesPerSecond });
    const sources = await Promise.all(Array.from({ length: 8 }, () => open(relay)));
    // On a machine that is busy a connection may still wait for the relay to take it when others send already.
    await expect.poll(() => received.length).toBe(8);
    const startMs = performance.now();
    for (const source of sources) source.write(Buffer.alloc(2 * MEGABYTE));
    const total = () => received.reduce((sum, bytes) => sum + bytes, 0);
    await expect.poll(total).toBeGreaterThan(2 * MEGABYTE);
    const allowed = ((performance.now() - startMs) / 1000) * bytesPerSecond;
    expect(total()).toBeLessThan(1.15 * allowed);
    expect(Math.min(...received)).toBeGreaterThan(total() / 8 / 2);
    expect(relay.connectionsTotal).toBe(8);
  });

  it("delays each way by at least what was asked", async () => {
    const { source, target } = await pair({ delayMs: 30 });
    target.pipe(target);
    for (let i = 0; i < 5; i++) {
      const startMs = performance.now();
      source.write("ping");
      await once(source, "data");
      expect(performance.now() - startMs).toBeGreaterThanOrEqual(60);
    }
  });

  it.each<[string, Partial<RelayOptions>]>([
    ["with a rate and a delay", { bytesPerSecond: 100 * MEGABYTE, delayMs: 5, queueMs: 5 }],
    ["with neither", {}],
  ])("makes the sender wait and holds little when the receiver does not read, %s", async (_, options) => {
    const { relay, source, target } = await pair({ ...options, connectionsMax: 1 });
    // More than the limit and the kernel's buffers together: a relay that reads on would have to hold it.
    const bytes = Buffer.alloc(100 * MEGABYTE);
    let acceptedAll = false;
    source.end(bytes, () => {
      acceptedAll = true;
    });
    let carriedBytes = -1;
    let heldBytesPeak = 0;
    while (relay.bytesForward !== carriedBytes || carriedBytes === 0) {
      carriedBytes = relay.bytesForward;
      for (let i = 0; i < 100; i++) {
        heldBytesPeak = Math.max(heldBytesPeak, relay.heldBytes);
        await sleepMs(2);
      }
    }
    expect(acceptedAll).toBe(false);
    expect(heldBytesPeak).toBeGreaterThan(0);
    expect(heldBytesPeak).toBeLessThanOrEqual(relay.heldBytesMax);
    expect(relay.heldBytesMax).toBeLessThan(50 * MEGABYTE);
    expect((await readAll(target)).length).toBe(bytes.length);
  });

  it("does not let a receiver that does not read hold up other connections", async () => {
    const sockets: net.Socket[] = [];
    const listener = await serve((socket) => void sockets.push(socket));
    const relay = await relayTo(listener.address, { bytesPerSecond: 100 * MEGABYTE, queueMs: 5 });
    (await open(relay)).write(Buffer.alloc(50 * MEGABYTE));
    await sleepMs(300);
    (await open(relay)).end("hello");
    await expect.poll(() => sockets.length).toBe(2);
    expect(String(await readAll(sockets[1]!))).toBe("hello");
  });

  it("passes on the end of one direction and carries the other on", async () => {
    const { source, target } = await pair({ delayMs: 5 });
    source.end("question");
    expect(String(await readAll(target))).toBe("question");
    await sleepMs(20);
    target.end("answer");
    expect(String(await readAll(source))).toBe("answer");
    await Promise.all([source, target].map((socket) => socket.closed || once(socket, "close")));
  });

  it("passes on an end that came before the target was reached", async () => {
    const listener = await serve((socket) => socket.resume().on("end", () => socket.end("bye")));
    const relay = await relayTo(listener.address);
    const { port } = relay.address as { port: number };
    for (let i = 0; i < 20; i++) {
      const source = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true }).end();
      expect(String(await readAll(source))).toBe("bye");
      await (source.closed || once(source, "close"));
    }
  });

  it.each(["source", "target"] as const)("passes on a reset by the %s, with the delay", async (by) => {
    const ends = await pair({ delayMs: 20 });
    const [breaks, other] = by === "source" ? [ends.source, ends.target] : [ends.target, ends.source];
    breaks.write("last words");
    expect(String((await once(other, "data"))[0])).toBe("last words");
    const startMs = performance.now();
    breaks.resetAndDestroy();
    expect(await howItEnds(other)).toBe("ECONNRESET");
    expect(performance.now() - startMs).toBeGreaterThanOrEqual(20);
  });

  it("breaks every connection when it is cut, with bytes under way, and takes new ones", async () => {
    const sockets: net.Socket[] = [];
    const listener = await serve((socket) => void sockets.push(socket));
    const relay = await relayTo(listener.address, { bytesPerSecond: MEGABYTE, delayMs: 50 });
    const sources = [await open(relay), await open(relay)];
    await expect.poll(() => sockets.length).toBe(2);
    const ends = [...sources, ...sockets].map(howItEnds);
    for (const socket of [...sources, ...sockets]) socket.write(Buffer.alloc(MEGABYTE));
    // Ends that wait behind unwritten or undelivered bytes must not turn a cut into a clean end.
    sources[0]!.end();
    sockets[1]!.end();
    await sleepMs(100);
    // Stalled, so that the peers have read what had arrived.
    relay.stall();
    await sleepMs(50);
    relay.cut();
    relay.resume();
    expect(await Promise.all(ends)).toEqual(["ECONNRESET", "ECONNRESET", "ECONNRESET", "ECONNRESET"]);
    await expect.poll(() => relay.heldBytes).toBe(0);
    (await open(relay)).end("hello again");
    await expect.poll(() => sockets.length).toBe(3);
    expect(String(await readAll(sockets[2]!))).toBe("hello again");
  });

  it("breaks a connection at once whose receiver does not read, when it is cut", async () => {
    const { relay, source } = await pair();
    source.end(Buffer.alloc(30 * MEGABYTE));
    await sleepMs(200);
    relay.cut();
    expect(await howItEnds(source)).toBe("ECONNRESET");
    await expect.poll(() => relay.heldBytes).toBe(0);
  });

  it("carries nothing while stalled and everything afterwards", async () => {
    const { relay, source, target } = await pair({ delayMs: 5 });
    target.resume();
    source.write("before");
    await expect.poll(() => relay.bytesForward).toBe(6);
    relay.stall();
    source.write("held back");
    const answer = Buffer.from("answer");
    target.write(answer);
    await sleepMs(100);
    expect([relay.bytesForward, relay.bytesBackward]).toEqual([6, 0]);
    relay.resume();
    expect((await once(source, "data"))[0]).toEqual(answer);
    await expect.poll(() => relay.bytesForward).toBe(15);
  });

  it("resets whoever connects while the target refuses, says why, and goes on", async () => {
    const listener = await serve((socket) => socket.end("here"));
    const errors: Error[] = [];
    const relay = await relayTo(listener.address, { onError: (error) => void errors.push(error) });
    listener.close();
    expect(await howItEnds(await open(relay))).toBe("ECONNRESET");
    expect(errors).toMatchObject([{ code: "LINK_FAILED", cause: { code: "ECONNREFUSED" } }]);
    await serve((socket) => socket.end("here"), listener.address);
    expect(String(await readAll(await open(relay)))).toBe("here");
  });

  it("refuses connections above the limit and keeps those it has", async () => {
    const errors: Error[] = [];
    const { relay, source, target } = await pair({ connectionsMax: 1, onError: (e) => void errors.push(e) });
    const second = await open(relay);
    await howItEnds(second);
    expect(errors).toMatchObject([{ code: "LINK_FAILED" }]);
    source.end("still here");
    expect(String(await readAll(target))).toBe("still here");
  });

  it("closes in the very moment in which it passes on an end", async () => {
    const { relay, source, target } = await pair();
    source.resume().end();
    await once(target.resume(), "end");
    // The bell rings right behind the end: Node is still ending a socket then, and refuses to reset it.
    const closed = new Promise<void>((resolve) => {
      void serve((bell) => bell.once("data", () => resolve(relay.close()))).then(async ({ address }) => {
        const rope = await connect(address, 5000);
        cleanups.push(() => void rope.destroy());
        target.end(() => rope.write("ring"));
      });
    });
    await closed;
  });

  it("gives up reaching a target for somebody who has left, without a word", async () => {
    const address = await neverAccepting();
    const errors: Error[] = [];
    const relay = await relayTo(address, { onError: (error) => void errors.push(error) });
    const source = await open(relay);
    await expect.poll(() => relay.connectionsTotal).toBe(1);
    source.resetAndDestroy();
    await once(source, "close");
    await open(relay);
    await expect.poll(() => relay.connectionsTotal).toBe(2);
    await relay.close();
    expect(errors).toEqual([]);
  });

  it("breaks every connection and frees its port when it is closed, also while stalled", async () => {
    const { relay, source, target } = await pair({ bytesPerSecond: MEGABYTE });
    source.write(Buffer.alloc(MEGABYTE));
    await once(target, "readable");
    relay.stall();
    const ends = [howItEnds(source), howItEnds(target)];
    await relay.close();
    expect(await Promise.all(ends)).toEqual(["ECONNRESET", "ECONNRESET"]);
    await expect(open(relay)).rejects.toMatchObject({ code: "LINK_FAILED" });
    await serve(() => undefined, relay.address);
  });
});
