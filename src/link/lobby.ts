// Where connections wait that have not said what they want: TLS is made of them, their first frame is read, and whoever
// may not come in is told so. Only then does anybody else hear of them. What they may take is bounded in number, bytes
// and time, so that nobody keeps others from coming in by being slow, silent or many. Format: wire/PROTOCOL.md.

import type { Socket } from "node:net";
import type { Clock } from "../base/clock.ts";
import { ProtocolError, toError } from "../base/errors.ts";
import type { Channel } from "../engine/ports.ts";
import {
  encodeFrame,
  FRAME_LAYOUTS,
  type Frame,
  HEADER_BYTES,
  type HelloFrame,
  PEER_SILENT_MS,
  type ResumeFrame,
} from "../wire/frame.ts";
import { FrameReader } from "../wire/frame-reader.ts";
import { type RefuseCode, refusalFor, refuseFrame } from "../wire/handshake.ts";
import { SocketChannel } from "./socket-channel.ts";
import type { TlsIdentity } from "./tls/identity.ts";
import { type Peer, secureServer } from "./tls/secure.ts";
import { WaitingChannel } from "./waiting-channel.ts";

/** Connections in the lobby. When there are more, the oldest one of the network that has most of them goes. */
export const LOBBY_MAX = 64;
/** From the connection to the end of its first frame, TLS and all. */
const ENTER_MS_MAX = PEER_SILENT_MS;
/** How long a refused connection may take to close. */
const REFUSED_CLOSES_MS = 1000;
/** First byte of a TLS connection: content type "handshake" (RFC 8446, 5.1). */
const TLS_HANDSHAKE = 0x16;

export interface Caller {
  /** From the first byte on. */
  readonly channel: Channel;
  /** For people. */
  readonly from: string;
  readonly frame: HelloFrame | ResumeFrame;
  /** Who it has proved to be, and what it and we alone know. Undefined: plain text. */
  readonly secure: { readonly peer: Peer; readonly binding: string } | undefined;
}

export interface Refusal {
  code: RefuseCode;
  message: string;
}

export interface LobbyOptions {
  clock: Clock;
  /** Undefined: plain text. */
  identity: TlsIdentity | undefined;
  /** Why it may not come in; undefined: it may. */
  refusal: (caller: Omit<Caller, "channel">) => Refusal | undefined;
  enter: (caller: Caller) => void;
  /** For people: who was turned away, and why. */
  turnedAway: (text: string) => void;
}

interface Waiting {
  readonly network: string;
  readonly from: string;
  destroy: () => void;
  cancelTimer: () => void;
}

export class Lobby {
  readonly #options: LobbyOptions;
  /** Oldest first. */
  readonly #waiting = new Set<Waiting>();

  constructor(options: LobbyOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#waiting.size;
  }

  connected(socket: Socket): void {
    const { clock, identity } = this.#options;
    const from = socket.remoteAddress ?? "a local process";
    const waiting: Waiting = {
      network: networkOf(from),
      from,
      destroy: () => socket.destroy(),
      cancelTimer: () => {},
    };
    if (this.#waiting.size === LOBBY_MAX) this.#makeRoom();
    this.#waiting.add(waiting);
    waiting.cancelTimer = clock.after(ENTER_MS_MAX, () => {
      this.#turnAway(waiting, `has not said what it wants within ${ENTER_MS_MAX / 1000} s`);
    });
    // Until there is a channel nobody else hears of it.
    socket.on("error", () => {});
    if (identity === undefined) this.#hear(waiting, socket, undefined);
    else this.#secure(waiting, socket, identity);
  }

  close(): void {
    for (const waiting of [...this.#waiting]) this.#forget(waiting).destroy();
  }

  #secure(waiting: Waiting, socket: Socket, identity: TlsIdentity): void {
    secureServer(socket, identity, ENTER_MS_MAX).then(
      (result) => {
        if (!this.#waiting.has(waiting)) result.socket.destroy();
        else if ("why" in result) {
          waiting.destroy = () => result.socket.destroy();
          const message = `the certificate of the source is not accepted: ${result.why}`;
          this.#refuse(waiting, new SocketChannel(result.socket), { code: "CERTIFICATE", message });
        } else this.#hear(waiting, result.socket, result);
      },
      (error: unknown) => this.#turnAway(waiting, toError(error).message),
    );
  }

  /** Until its first frame is there. */
  #hear(waiting: Waiting, socket: Socket, secure: Caller["secure"]): void {
    const channel = new WaitingChannel(new SocketChannel(socket));
    waiting.destroy = () => channel.destroy();
    const reader = new FrameReader();
    let read = Buffer.alloc(0);
    let isOver = false;
    const gone = (text: string) => {
      if (isOver) return;
      isOver = true;
      this.#turnAway(waiting, text);
    };
    channel.listen({
      data: (bytes) => {
        if (isOver) return;
        read = Buffer.concat([read, bytes]);
        try {
          checkBeginning(read);
          reader.push(bytes);
          const frame = reader.next();
          if (frame === undefined) return;
          // What follows is for whoever it comes in to.
          isOver = true;
          channel.leave(read);
          this.#knock(waiting, channel, checkFirst(frame), secure);
        } catch (thrown) {
          isOver = true;
          const why = thrown instanceof ProtocolError ? thrown : toError(thrown);
          this.#refuseFrame(waiting, channel, encodeFrame(refusalFor(why)), why.message);
        }
      },
      drained: () => {},
      ended: () => gone("closed the connection before it had said what it wants"),
      failed: (error) => gone(error.message),
    });
  }

  #knock(
    waiting: Waiting,
    channel: WaitingChannel,
    frame: HelloFrame | ResumeFrame,
    secure: Caller["secure"],
  ): void {
    const caller = { from: waiting.from, frame, secure };
    const refusal = this.#options.refusal(caller);
    if (refusal !== undefined) {
      channel.listen(deaf);
      this.#refuse(waiting, channel, refusal);
      return;
    }
    this.#forget(waiting);
    this.#options.enter({ ...caller, channel });
  }

  #refuse(waiting: Waiting, channel: Channel, { code, message }: Refusal): void {
    this.#refuseFrame(waiting, channel, encodeFrame(refuseFrame(code, message)), `${code}: ${message}`);
  }

  /** It is told why, and counts until it is gone. */
  #refuseFrame(waiting: Waiting, channel: Channel, frame: Uint8Array, why: string): void {
    this.#options.turnedAway(`${waiting.from} was refused: ${why}`);
    waiting.cancelTimer();
    waiting.cancelTimer = this.#options.clock.after(REFUSED_CLOSES_MS, () => this.#forget(waiting).destroy());
    channel.write(frame);
    channel.end();
  }

  #turnAway(waiting: Waiting, why: string): void {
    if (!this.#waiting.has(waiting)) return;
    this.#forget(waiting).destroy();
    this.#options.turnedAway(`${waiting.from}: ${why}`);
  }

  #forget(waiting: Waiting): Waiting {
    waiting.cancelTimer();
    this.#waiting.delete(waiting);
    return waiting;
  }

  #makeRoom(): void {
    const counts = new Map<string, number>();
    for (const { network } of this.#waiting) counts.set(network, (counts.get(network) ?? 0) + 1);
    const most = Math.max(...counts.values());
    const oldest = [...this.#waiting].find(({ network }) => counts.get(network) === most)!;
    this.#turnAway(oldest, `has not said what it wants, and others are waiting (${most} of its address)`);
  }
}

/** What one host has for itself: an IPv4 address, or the 64 bits of an IPv6 network, of which it may use any address. */
export function networkOf(address: string): string {
  const isWhole = !address.includes(":") || /^::ffff:\d+\.\d+\.\d+\.\d+$/i.test(address);
  // A network that all hosts of a link have in common.
  if (isWhole || /^fe80:/i.test(address)) return address;
  const [head = "", tail] = address.split("::");
  const groups = head === "" ? [] : head.split(":");
  // What "::" stands for is zeros, up to the groups behind it.
  const behind = tail === undefined || tail === "" ? [] : tail.split(":");
  while (groups.length + behind.length < 8) groups.push("0");
  return [...groups, ...behind].slice(0, 4).join(":");
}

const deaf = { data: () => {}, drained: () => {}, ended: () => {}, failed: () => {} };

/** Before more is waited for, or held, than a first frame can have. @throws ProtocolError */
function checkBeginning(read: Uint8Array): void {
  if (read[0] === TLS_HANDSHAKE) {
    throw new ProtocolError("PROTOCOL_INVALID_FRAME", "TLS is spoken, where plain text is expected");
  }
  const type = read[2];
  if (read.length < HEADER_BYTES) return;
  if (type !== FRAME_LAYOUTS.hello.number && type !== FRAME_LAYOUTS.resume.number) throw notFirst();
}

function checkFirst(frame: Frame): HelloFrame | ResumeFrame {
  if (frame.type === "hello" || frame.type === "resume") return frame;
  throw notFirst();
}

function notFirst(): ProtocolError {
  return new ProtocolError("PROTOCOL_INVALID_FRAME", "Expected HELLO or RESUME as the first frame");
}
