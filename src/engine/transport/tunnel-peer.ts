// One end of the tunnel: frames over a channel, held to the protocol's rules, kept alive. Both engines use
// it; which frames mean what is theirs to know. Protocol: wire/PROTOCOL.md.

import type { Clock } from "../../base/clock.ts";
import { LinkError, ProtocolError, toError } from "../../base/errors.ts";
import { type DataFrame, encodeFrame, type Frame, KEEPALIVE_MS, PEER_SILENT_MS } from "../../wire/frame.ts";
import { FrameReader, type RoomForCoded } from "../../wire/frame-reader.ts";
import { abortFrame, refusalFor } from "../../wire/handshake.ts";
import { ProtocolState, type Side, type Stage } from "../../wire/protocol-state.ts";
import type { Channel } from "../ports.ts";

/** What one read may bring, where it is not known to be of one frame. */
const READ_BYTES_MAX = 256 * 1024;
/** After a long frame: the beginning of the next one, so that little of it has to be copied. */
const READ_BYTES_MIN = 16 * 1024;
/** Of a long frame, at least: one read more for it costs less than the copy. */
const LONG_FRAME_BYTES = 64 * 1024;

/** Stages without KEEPALIVE. */
const SILENT: ReadonlySet<Stage> = new Set<Stage>(["opening", "lost", "finished", "refused", "aborted"]);
/** Stages in which a destination refuses what it does not understand. */
const REFUSABLE: ReadonlySet<Stage> = new Set<Stage>(["opening", "greeting", "resuming"]);

export interface TunnelPeerListener {
  /** Arrays in the frame are valid during the call; when the call stalls the peer, until `unstall`. */
  frame(frame: Frame): void;
  drained(): void;
  /**
   * Broken, silent or closed early: a LinkError. Against the protocol, or our own mistake: any other. Once; nothing
   * follows.
   */
  failed(error: Error): void;
}

export class TunnelPeer {
  readonly #channel: Channel;
  readonly #clock: Clock;
  readonly #listener: TunnelPeerListener;
  readonly #reader: FrameReader;
  #state: ProtocolState;
  readonly #side: Side;
  #wireBytes = 0;
  #lastSentMs: number;
  #lastReceivedMs: number;
  #cancelTimer: () => void = () => {};
  #silentMsMax = PEER_SILENT_MS;
  #stalled = false;
  /** The last one. */
  #isFrameLong = false;
  #over = false;

  /**
   * `state`: that of a migration whose connection broke, if this one is to take its place. `roomForCoded`: where coded
   * bytes of DATA are wanted.
   */
  constructor(
    side: Side,
    channel: Channel,
    clock: Clock,
    listener: TunnelPeerListener,
    state: ProtocolState = new ProtocolState(side),
    roomForCoded?: RoomForCoded,
  ) {
    this.#reader = new FrameReader(roomForCoded);
    this.#channel = channel;
    this.#clock = clock;
    this.#listener = listener;
    this.#side = side;
    this.#state = state;
    this.#lastSentMs = this.#lastReceivedMs = clock.nowMs();
    const space = new Uint8Array(READ_BYTES_MAX);
    const beginning = space.subarray(0, READ_BYTES_MIN);
    channel.listen({
      // All of it has been read by the time of the next one, or the channel is paused.
      space: () => this.#reader.space ?? (this.#isFrameLong ? beginning : space),
      data: (bytes) => this.#received(bytes),
      drained: () => listener.drained(),
      ended: () => {
        // Who has the last frame of the protocol does not listen any more.
        this.#fail(new LinkError("LINK_CLOSED", `Peer closed the connection while ${this.#stage}`));
      },
      failed: (error) => {
        this.#fail(new LinkError("LINK_FAILED", `Connection broke while ${this.#stage}`, { cause: error }));
      },
    });
    this.#watch();
  }

  /** All bytes sent, headers included. */
  get wireBytes(): number {
    return this.#wireBytes;
  }

  /** Since the last byte of the peer, or since the connection was made. */
  get silentMs(): number {
    return this.#clock.nowMs() - this.#lastReceivedMs;
  }

  /** The connection counts as broken when the peer is silent for so long: less than what the protocol grants. */
  hurry(silentMsMax: number): void {
    this.#silentMsMax = silentMsMax;
  }

  /** This connection, whose first frame was RESUME, is of that migration. */
  adopt(state: ProtocolState): void {
    this.#state = state;
  }

  get #stage(): Stage {
    return this.#state.stage;
  }

  /** False when the peer is behind: wait for `drained`. A frame after the connection's end is dropped. */
  send(frame: Frame): boolean {
    if (this.#over) return false;
    this.#state.sending(frame);
    return this.#write(encodeFrame(frame));
  }

  /** The same for DATA that has been encoded. `bytes` must not change before the peer has acknowledged it. */
  sendData(frame: DataFrame, bytes: Uint8Array): boolean {
    if (this.#over) return false;
    this.#state.sending(frame);
    return this.#write(bytes);
  }

  /** DATA that was sent before, on a connection that broke. */
  sendAgain(sequence: number, bytes: Uint8Array): boolean {
    if (this.#over) return false;
    this.#state.sendingAgain(sequence);
    return this.#write(bytes);
  }

  #write(bytes: Uint8Array): boolean {
    this.#wireBytes += bytes.length;
    this.#lastSentMs = this.#clock.nowMs();
    return this.#channel.write(bytes);
  }

  /** Takes no more frames until `unstall`: the one being handled is the last one for now. */
  stall(): void {
    // One that has ended is read to the peer's own end.
    if (this.#stalled || this.#over) return;
    this.#stalled = true;
    this.#channel.pause();
  }

  unstall(): void {
    if (!this.#stalled) return;
    this.#stalled = false;
    this.#lastReceivedMs = this.#clock.nowMs();
    this.#handleFrames();
    if (!this.#stalled && !this.#over) this.#channel.resume();
  }

  /** Ends in good order: all that was sent is delivered. */
  end(): void {
    if (this.#over) return;
    this.#stop();
    this.#channel.end();
  }

  destroy(): void {
    this.#stop();
    this.#channel.destroy();
  }

  #received(bytes: Uint8Array): void {
    if (this.#over) return;
    this.#lastReceivedMs = this.#clock.nowMs();
    this.#reader.push(bytes);
    this.#handleFrames();
  }

  #handleFrames(): void {
    while (!this.#stalled && !this.#over) {
      try {
        const frame = this.#reader.next();
        if (frame === undefined) return;
        this.#isFrameLong = frame.type === "data" && frame.coded.length >= LONG_FRAME_BYTES;
        if (!this.#state.received(frame)) continue;
        if (frame.type !== "keepalive") this.#listener.frame(frame);
      } catch (thrown) {
        if (thrown instanceof ProtocolError) this.#violated(thrown);
        // A bug of ours: the migration fails with it, the process does not.
        else this.#fail(toError(thrown));
        return;
      }
    }
  }

  #watch(): void {
    this.#cancelTimer = this.#clock.after(KEEPALIVE_MS / 2, () => {
      const nowMs = this.#clock.nowMs();
      // A stalled peer is one that we do not listen to.
      if (!this.#stalled && nowMs - this.#lastReceivedMs > this.#silentMsMax) {
        const text = `Nothing heard from the peer for ${this.#silentMsMax / 1000} s while ${this.#stage}`;
        this.#fail(new LinkError("LINK_TIMEOUT", text));
        return;
      }
      const silentMs = nowMs - this.#lastSentMs;
      if (!SILENT.has(this.#stage) && silentMs >= KEEPALIVE_MS / 2) this.send({ type: "keepalive" });
      this.#watch();
    });
  }

  /** The peer is told what it did wrong before the connection ends: its own record should say so too. */
  #violated(error: Error): void {
    if (this.#over) return;
    const greeting = REFUSABLE.has(this.#stage);
    try {
      if (this.#side === "destination" && greeting) this.send(refusalFor(error));
      else this.send(abortFrame("PROTOCOL_INVALID_FRAME", error.message));
    } catch {
      // Not every stage has a frame to say it with: the closed connection says it then.
    }
    this.#channel.end();
    this.#fail(error);
  }

  #fail(error: Error): void {
    if (this.#over) return;
    this.#stop();
    this.#listener.failed(error);
  }

  #stop(): void {
    this.#over = true;
    this.#cancelTimer();
  }
}
