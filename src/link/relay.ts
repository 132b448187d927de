// A slow link made of two sockets: whoever connects is passed on to a target at a rate and with a delay, as if a
// long thin line lay between. Needs no privileges, unlike tc(8). Knows nothing of what it carries.
// Like a full-duplex line, each direction has the whole rate, which all connections share. Per direction:
//   read ─▶ queue (a router's, bounded) ─▶ token bucket (the rate) ─▶ in flight (the delay) ─▶ write
// What it is not: nothing is lost or reordered (a byte stream cannot be); a full queue stops the reading, which
// stops the sender. In front of our queue the kernel queues too, in the sender's send buffer and our receive
// buffer, and Node cannot make these smaller. Measured on Linux with a sender that writes all it can: 4 MB over
// loopback TCP (1.6 s at 20 Mbit/s), 0.2 MB over a unix socket. Use unix sockets where that time matters.

import type { Socket } from "node:net";
import { assert } from "../base/assert.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { toError } from "../base/errors.ts";
import { type Address, connect, type Listener, listen } from "./address.ts";
import { TokenBucket } from "./token-bucket.ts";

/** Bytes are carried in slices of this time at the rate: latency jitters by about as much. */
const SLICE_MS = 1;
/** A slice at a very slow rate: about one packet. */
const SLICE_BYTES_MIN = 1400;
/** A slice at a fast rate, or without one: what Node reads at once. */
const SLICE_BYTES_MAX = 64 * 1024;
/** Without a rate there is no queue, but with a delay there are bytes in flight. */
const IN_FLIGHT_BYTES_MAX_UNPACED = 16 * 1024 * 1024;
/** What Node itself may hold for a socket beside our lanes: a read of 64 KiB and its marks of 16 to 64 KiB. */
const SOCKET_BYTES_MAX = 256 * 1024;
const CONNECT_TIMEOUT_MS = 10_000;

export const QUEUE_MS_DEFAULT = 50;
export const CONNECTIONS_MAX_DEFAULT = 64;

/** Bytes, or the news that no more will come: after a clean end or after a broken connection. */
type Payload = Buffer | "end" | "reset";

/** One direction of one connection, as a lane sees it. */
export interface Flow {
  /** At most `bytesMax` of what waits to be sent; undefined if nothing does, or the receiver cannot keep up. */
  take(bytesMax: number): Buffer | undefined;
  deliver(payload: Payload): void;
}

interface Parcel {
  readonly flow: Flow;
  readonly payload: Payload;
  readonly queuedMs: number;
  /** When it arrives; set when it leaves the queue. */
  dueMs: number;
}

export interface LaneOptions {
  /** Without it, as fast as it goes. */
  bytesPerSecond?: number | undefined;
  delayMs: number;
  queueMs: number;
}

/** One direction of the link: queue, rate and delay, shared by its flows, which take turns. */
export class Lane {
  readonly #clock: Clock;
  readonly #bucket: TokenBucket | undefined;
  readonly #delayMs: number;
  readonly #sliceBytes: number;
  readonly #queueBytesMax: number;
  readonly #inFlightBytesMax: number;
  /** Flows that may have something to take. A set iterates in the order of adding: whoever is added again waits. */
  readonly #ready = new Set<Flow>();
  #queue: Parcel[] = [];
  #queueBytes = 0;
  #inFlight: Parcel[] = [];
  #inFlightBytes = 0;
  #deliveredBytes = 0;
  #stalled = false;
  #cancelTimer: () => void = () => undefined;

  constructor(clock: Clock, options: LaneOptions) {
    const { bytesPerSecond, delayMs, queueMs } = options;
    assert(delayMs >= 0 && queueMs >= 0, "delay and queue of a link not below zero");
    this.#clock = clock;
    this.#delayMs = delayMs;
    if (bytesPerSecond === undefined) {
      this.#sliceBytes = SLICE_BYTES_MAX;
      this.#queueBytesMax = SLICE_BYTES_MAX;
      this.#inFlightBytesMax = IN_FLIGHT_BYTES_MAX_UNPACED;
    } else {
      const bytesPerMs = bytesPerSecond / 1000;
      this.#sliceBytes = Math.ceil(
        Math.min(SLICE_BYTES_MAX, Math.max(SLICE_BYTES_MIN, bytesPerMs * SLICE_MS)),
      );
      this.#queueBytesMax = Math.max(this.#sliceBytes, bytesPerMs * queueMs);
      // When a timer fires late, all that was queued may leave at once.
      this.#inFlightBytesMax = bytesPerMs * delayMs + this.#queueBytesMax + this.#sliceBytes;
      this.#bucket = new TokenBucket(clock, bytesPerSecond, this.#sliceBytes);
    }
  }

  get deliveredBytes(): number {
    return this.#deliveredBytes;
  }

  get heldBytes(): number {
    return this.#queueBytes + this.#inFlightBytes;
  }

  get heldBytesMax(): number {
    return this.#queueBytesMax + this.#inFlightBytesMax;
  }

  /** The flow may have something to take, or can take delivery again. */
  offer(flow: Flow): void {
    this.#ready.add(flow);
    this.#carry();
  }

  /** No more will come from the flow. The news travels behind its bytes. */
  finish(flow: Flow, how: "end" | "reset"): void {
    this.#ready.delete(flow);
    this.#queue.push({ flow, payload: how, queuedMs: this.#clock.nowMs(), dueMs: 0 });
    this.#carry();
  }

  /** Time stands still on the link: nothing is taken, nothing arrives. */
  stall(): void {
    this.#stalled = true;
    this.#cancelTimer();
  }

  resume(): void {
    this.#stalled = false;
    this.#carry();
  }

  /** Drops what is queued and in flight. */
  clear(): void {
    this.#ready.clear();
    this.#queue = [];
    this.#queueBytes = 0;
    this.#inFlight = [];
    this.#inFlightBytes = 0;
    this.#cancelTimer();
  }

  /** Moves everything as far as it can go now, and comes back when more can. */
  #carry(): void {
    if (this.#stalled) return;
    this.#cancelTimer();
    const nowMs = this.#clock.nowMs();
    let sendAgainMs: number;
    this.#deliver(nowMs);
    do {
      sendAgainMs = this.#send(nowMs);
      this.#deliver(nowMs);
    } while (this.#admit(nowMs));
    const arrivesMs = (this.#inFlight[0]?.dueMs ?? Number.POSITIVE_INFINITY) - nowMs;
    const waitMs = Math.min(sendAgainMs, arrivesMs);
    if (waitMs < Number.POSITIVE_INFINITY) this.#cancelTimer = this.#clock.after(waitMs, () => this.#carry());
  }

  /** Flows to queue. True if there was anything. */
  #admit(nowMs: number): boolean {
    let admitted = false;
    for (const flow of this.#ready) {
      if (this.#queueBytes + this.#sliceBytes > this.#queueBytesMax) break;
      this.#ready.delete(flow);
      const bytes = flow.take(this.#sliceBytes);
      if (bytes === undefined) continue;
      this.#ready.add(flow);
      this.#queue.push({ flow, payload: bytes, queuedMs: nowMs, dueMs: 0 });
      this.#queueBytes += bytes.length;
      admitted = true;
    }
    return admitted;
  }

  /** Queue to flight, at the rate. Returns how long to wait before the next may go. */
  #send(nowMs: number): number {
    for (;;) {
      const parcel = this.#queue[0];
      if (parcel === undefined) return Number.POSITIVE_INFINITY;
      const bytes = payloadBytes(parcel.payload);
      // Arrivals make room, and for them there is a timer already. With a rate there is always room.
      if (this.#inFlightBytes + bytes > this.#inFlightBytesMax) return Number.POSITIVE_INFINITY;
      const waitMs = this.#bucket?.take(bytes, parcel.queuedMs) ?? 0;
      if (waitMs > 0) return waitMs;
      this.#queue.shift();
      this.#queueBytes -= bytes;
      parcel.dueMs = nowMs + this.#delayMs;
      this.#inFlight.push(parcel);
      this.#inFlightBytes += bytes;
    }
  }

  /** Flight to receiver, when the time has come. */
  #deliver(nowMs: number): void {
    for (;;) {
      const parcel = this.#inFlight[0];
      if (parcel === undefined || parcel.dueMs > nowMs) return;
      this.#inFlight.shift();
      const bytes = payloadBytes(parcel.payload);
      this.#inFlightBytes -= bytes;
      this.#deliveredBytes += bytes;
      parcel.flow.deliver(parcel.payload);
    }
  }
}

function payloadBytes(payload: Payload): number {
  return typeof payload === "string" ? 0 : payload.length;
}

/** From one socket to another. */
class SocketFlow implements Flow {
  readonly #from: Socket;
  readonly #to: Socket;

  constructor(from: Socket, to: Socket, lane: Lane) {
    this.#from = from;
    this.#to = to;
    from.on("readable", () => lane.offer(this));
    // An end without bytes before it is announced without being asked for: it may have come already.
    if (from.readableEnded) lane.finish(this, "end");
    else from.on("end", () => lane.finish(this, "end"));
    from.on("close", () => {
      if (!from.readableEnded || !from.writableFinished) lane.finish(this, "reset");
    });
    to.on("drain", () => lane.offer(this));
  }

  take(bytesMax: number): Buffer | undefined {
    // The receiver's window is full. A destroyed receiver needs no drain: bytes for it go on into the void.
    if (this.#to.writableNeedDrain) return undefined;
    const waitingBytes = this.#from.readableLength;
    // A read that finds nothing is what makes Node tell us of the end.
    return this.#from.read(waitingBytes === 0 ? undefined : Math.min(waitingBytes, bytesMax)) ?? undefined;
  }

  deliver(payload: Payload): void {
    if (this.#to.destroyed) return;
    if (payload === "reset") abort(this.#to);
    else if (payload === "end") endWhenWritten(this.#to);
    else this.#to.write(payload);
  }
}

/**
 * While an end waits behind unwritten bytes Node can send no reset: cut then, the connection would seem to have
 * ended cleanly, with its last bytes missing. So the end is asked for when nothing is unwritten.
 */
function endWhenWritten(socket: Socket): void {
  socket.write("", () => {
    if (!socket.destroyed) socket.end();
  });
}

/** The peer sees a broken connection, not a clean end, where the kind of socket can tell the two apart. */
function abort(socket: Socket): void {
  // Unix sockets have no reset (and no remote address): there it is an end that comes early.
  const isTcp = socket.remoteAddress !== undefined;
  const isEnding = socket.writableEnded && !socket.writableFinished;
  if (isTcp && !isEnding) socket.resetAndDestroy();
  else socket.destroy();
}

export interface RelayOptions {
  listen: Address;
  to: Address;
  /** Of each direction, shared by all connections. Without it, as fast as it goes. */
  bytesPerSecond?: number | undefined;
  /** One way, as in tc-netem(8): a round trip takes twice as long. Making a connection is not delayed. */
  delayMs?: number | undefined;
  /** Most that waits for the link, in time at the rate; without a rate nothing waits. */
  queueMs?: number | undefined;
  connectionsMax?: number | undefined;
  /** A connection could not be made or accepted. The relay goes on. */
  onError?: (error: Error) => void;
}

export class Relay {
  readonly #options: RelayOptions;
  readonly #forward: Lane;
  readonly #backward: Lane;
  readonly #sockets = new Set<Socket>();
  #listener: Listener | undefined;
  #connectionsTotal = 0;

  private constructor(options: RelayOptions) {
    const { bytesPerSecond, delayMs = 0, queueMs = QUEUE_MS_DEFAULT } = options;
    this.#options = options;
    this.#forward = new Lane(systemClock, { bytesPerSecond, delayMs, queueMs });
    this.#backward = new Lane(systemClock, { bytesPerSecond, delayMs, queueMs });
  }

  /** @throws LinkError if it cannot listen. The target is not tried before somebody connects. */
  static async start(options: RelayOptions): Promise<Relay> {
    const relay = new Relay(options);
    relay.#listener = await listen(
      options.listen,
      {
        onConnection: (source) => void relay.#accept(source),
        onError: (error) => options.onError?.(error),
      },
      { allowHalfOpen: true, connectionsMax: options.connectionsMax ?? CONNECTIONS_MAX_DEFAULT },
    );
    return relay;
  }

  /** Where it listens, with the port that the kernel chose if 0 was asked for. */
  get address(): Address {
    assert(this.#listener !== undefined, "a relay listens from its start");
    return this.#listener.address;
  }

  /** Bytes carried from those who connected to the target. */
  get bytesForward(): number {
    return this.#forward.deliveredBytes;
  }

  /** Bytes carried from the target to those who connected. */
  get bytesBackward(): number {
    return this.#backward.deliveredBytes;
  }

  get connectionsTotal(): number {
    return this.#connectionsTotal;
  }

  /** Bytes that are in the relay now, in both directions; not what the kernel holds. */
  get heldBytes(): number {
    let bytes = this.#forward.heldBytes + this.#backward.heldBytes;
    for (const socket of this.#sockets) bytes += socket.readableLength + socket.writableLength;
    return bytes;
  }

  /** heldBytes is never more: a receiver that does not read can hold up a whole lane, for each connection. */
  get heldBytesMax(): number {
    const connectionsMax = this.#options.connectionsMax ?? CONNECTIONS_MAX_DEFAULT;
    const perConnectionBytes =
      this.#forward.heldBytesMax + this.#backward.heldBytesMax + 2 * SOCKET_BYTES_MAX;
    return connectionsMax * perConnectionBytes;
  }

  /** Breaks every connection; what was under way is lost. New connections are welcome. */
  cut(): void {
    for (const socket of this.#sockets) abort(socket);
    this.#forward.clear();
    this.#backward.clear();
  }

  /** Carries nothing until resume(), as if the line were dead: neither bytes nor the end of a connection. */
  stall(): void {
    this.#forward.stall();
    this.#backward.stall();
  }

  resume(): void {
    this.#forward.resume();
    this.#backward.resume();
  }

  /** Stops listening and breaks every connection. */
  async close(): Promise<void> {
    this.#listener?.close();
    // A stalled lane sets no timers: nothing of the relay stays behind.
    this.stall();
    this.cut();
    const closed = [...this.#sockets].map(
      (socket) => new Promise((resolve) => socket.once("close", resolve)),
    );
    await Promise.all(closed);
  }

  async #accept(source: Socket): Promise<void> {
    this.#connectionsTotal++;
    this.#adopt(source);
    const abandoned = new AbortController();
    source.once("close", () => abandoned.abort());
    let target: Socket;
    try {
      const { signal } = abandoned;
      target = await connect(this.#options.to, CONNECT_TIMEOUT_MS, { allowHalfOpen: true, signal });
    } catch (thrown) {
      abort(source);
      if (!abandoned.signal.aborted) this.#options.onError?.(toError(thrown));
      return;
    }
    this.#adopt(target);
    if (source.destroyed) abort(target);
    new SocketFlow(source, target, this.#forward);
    new SocketFlow(target, source, this.#backward);
  }

  #adopt(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    // "close" follows every error, and is what passes it on to the other side.
    socket.on("error", () => undefined);
  }
}
