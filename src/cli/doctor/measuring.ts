// What `deltavee doctor --peer` and `deltavee doctor --listen` say to each other to measure a link: lines of text, and
// bytes that nobody reads. Bounded in bytes and time at both ends. It knows nothing of who may connect.
//
//   listener:  DELTAVEE-DOCTOR 1\n                      at once
//   client:    ping\n            listener: pong MS\n     MS: its wall clock, since 1970
//   client:    down N\n          listener: N bytes
//   client:    up N\n, N bytes   listener: got N\n

import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { LinkError, ProtocolError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";

export const GREETING = "DELTAVEE-DOCTOR 1";
/** Of one transfer. */
export const TRANSFER_BYTES_MAX: number = 64 * 1024 * 1024;
/** Of all transfers of a connection, each way. */
const CONNECTION_BYTES_MAX = 4 * TRANSFER_BYTES_MAX;
export const CONNECTION_MS_MAX = 60_000;
const LINE_BYTES_MAX = 64;
const BLOCK_BYTES = 64 * 1024;
const PINGS = 10;
const PINGS_OF_CONNECTION_MAX = 1000;
/** A transfer that takes this long has filled the link and its buffers. */
const LONG_ENOUGH_MS = 500;
const FIRST_BYTES = 64 * 1024;
const GROWTH = 4;

export interface Measurement {
  readonly roundTripMs: number;
  /** How far the listener's wall clock is ahead of ours; off by half the round trip at most. */
  readonly clockAheadMs: number;
  /** From us to the listener, which is the way that a guest goes. */
  readonly upBytesPerSecond: number;
  readonly downBytesPerSecond: number;
}

/** Lines and bytes of a socket, in order. */
export class MeasuringSocket {
  readonly #socket: Socket;
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  /** Whoever waits for room to write into. */
  #wake: () => void = () => {};

  constructor(socket: Socket, timeoutMs: number) {
    this.#socket = socket;
    this.#chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    const timer = setTimeout(() => {
      socket.destroy(new LinkError("LINK_TIMEOUT", `The peer was not done within ${formatMs(timeoutMs)}`));
    }, timeoutMs);
    // Whoever waits hears of it; where nobody does it is of no interest.
    socket.on("error", () => {});
    socket.on("drain", () => this.#wake());
    socket.once("close", () => {
      clearTimeout(timer);
      this.#wake();
    });
  }

  /** Without its end. @throws ProtocolError for one that does not end, LinkError */
  async line(): Promise<string> {
    for (;;) {
      const end = this.#rest.indexOf("\n");
      if (end >= 0 && end <= LINE_BYTES_MAX) {
        const line = this.#rest.toString("latin1", 0, end);
        this.#rest = this.#rest.subarray(end + 1);
        return line;
      }
      if (end > LINE_BYTES_MAX || this.#rest.length > LINE_BYTES_MAX)
        throw notUnderstood("a line without an end");
      this.#rest = Buffer.concat([this.#rest, await this.#next()]);
    }
  }

  /** The first bytes, as they come: whoever speaks first may be somebody else. They are there to be read again. */
  async peek(): Promise<Buffer> {
    if (this.#rest.length === 0) this.#rest = await this.#next();
    return this.#rest;
  }

  async skip(bytes: number): Promise<void> {
    let left = bytes;
    while (left > 0) {
      if (this.#rest.length === 0) this.#rest = await this.#next();
      const taken = Math.min(left, this.#rest.length);
      this.#rest = this.#rest.subarray(taken);
      left -= taken;
    }
  }

  say(line: string): void {
    this.#socket.write(`${line}\n`, "latin1");
  }

  async send(bytes: number): Promise<void> {
    const block = randomBytes(BLOCK_BYTES);
    for (let left = bytes; left > 0; left -= BLOCK_BYTES) {
      const goesOn = this.#socket.write(left < BLOCK_BYTES ? block.subarray(0, left) : block);
      if (!goesOn && !this.#socket.destroyed) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      if (this.#socket.destroyed) throw closed();
    }
  }

  /** @throws LinkError LINK_CLOSED when the peer is gone */
  async #next(): Promise<Buffer> {
    const { done, value } = await this.#chunks.next();
    if (done) throw closed();
    return value;
  }
}

/** The listener's side, until the client has gone. @throws ProtocolError, LinkError */
export async function answer(socket: Socket, wallMs: () => number = Date.now): Promise<void> {
  const peer = new MeasuringSocket(socket, CONNECTION_MS_MAX);
  peer.say(GREETING);
  let leftBytes = CONNECTION_BYTES_MAX;
  let pings = 0;
  const take = (text: string): number => {
    const bytes = Number(text);
    if (bytes < 1 || bytes > TRANSFER_BYTES_MAX || bytes > leftBytes)
      throw notUnderstood(`a transfer of ${text} bytes`);
    leftBytes -= bytes;
    return bytes;
  };
  for (;;) {
    const line = await peer.line();
    const [, word, count] = /^(ping|down|up)(?: (\d{1,9}))?$/.exec(line) ?? [];
    if (word === "ping" && count === undefined && pings++ < PINGS_OF_CONNECTION_MAX)
      peer.say(`pong ${wallMs()}`);
    else if (word === "down" && count !== undefined) await peer.send(take(count));
    else if (word === "up" && count !== undefined) {
      const bytes = take(count);
      await peer.skip(bytes);
      peer.say(`got ${bytes}`);
    } else throw notUnderstood(`"${line.replace(/[^ -~]/g, "?")}"`);
  }
}

/** The client's side, after the greeting. @throws ProtocolError, LinkError */
export async function measure(
  peer: MeasuringSocket,
  { wallMs, monotonicMs }: { wallMs: () => number; monotonicMs: () => number },
): Promise<Measurement> {
  let roundTripMs = Number.POSITIVE_INFINITY;
  let clockAheadMs = 0;
  for (let count = 0; count < PINGS; count++) {
    const startMs = monotonicMs();
    const startWallMs = wallMs();
    peer.say("ping");
    const theirs = Number(expected(await peer.line(), /^pong (\d{1,16}(?:\.\d{1,6})?)$/));
    const tookMs = monotonicMs() - startMs;
    if (tookMs >= roundTripMs) continue;
    roundTripMs = tookMs;
    clockAheadMs = theirs - (startWallMs + tookMs / 2);
  }
  const rate = async (transfer: (bytes: number) => Promise<void>): Promise<number> => {
    for (let bytes = FIRST_BYTES; ; bytes = Math.min(bytes * GROWTH, TRANSFER_BYTES_MAX)) {
      const startMs = monotonicMs();
      await transfer(bytes);
      const tookMs = monotonicMs() - startMs;
      // What is asked and answered takes a round trip that is not the link's rate.
      const carryingMs = Math.max(tookMs - roundTripMs, tookMs / 2, 0.001);
      if (tookMs >= LONG_ENOUGH_MS || bytes === TRANSFER_BYTES_MAX) return bytes / (carryingMs / 1000);
    }
  };
  const downBytesPerSecond = await rate(async (bytes) => {
    peer.say(`down ${bytes}`);
    await peer.skip(bytes);
  });
  const upBytesPerSecond = await rate(async (bytes) => {
    peer.say(`up ${bytes}`);
    await peer.send(bytes);
    expected(await peer.line(), new RegExp(`^(got ${bytes})$`));
  });
  return { roundTripMs, clockAheadMs, upBytesPerSecond, downBytesPerSecond };
}

function expected(line: string, pattern: RegExp): string {
  const found = pattern.exec(line)?.[1];
  if (found !== undefined) return found;
  throw notUnderstood(`"${line.replace(/[^ -~]/g, "?")}"`);
}

function notUnderstood(what: string): ProtocolError {
  return new ProtocolError("PROTOCOL_INVALID_FRAME", `The peer said what is not understood: ${what}`);
}

function closed(): LinkError {
  return new LinkError("LINK_CLOSED", "The peer closed the connection");
}
