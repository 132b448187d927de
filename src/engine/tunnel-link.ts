// Tunnel mode, source side: the rewritten stream in entropy-coded, numbered frames, acknowledged by the
// destination engine once its hypervisor has taken them. Protocol: wire/PROTOCOL.md.

import type { Clock } from "../base/clock.ts";
import { DeltaveeError, type ErrorCode } from "../base/errors.ts";
import { type EntropyCoder, encodeBatch } from "../codec/entropy.ts";
import type { StreamWriter } from "../stream/writer.ts";
import type { Hello } from "../wire/bodies.ts";
import type { CommitFrame, Frame, WelcomeFrame } from "../wire/frame.ts";
import { dataFrame, RAW_BYTES_MAX } from "../wire/frame.ts";
import { abortFrame, helloFrame, refusalError } from "../wire/handshake.ts";
import { CompressionEffort } from "./effort.ts";
import type { Channel } from "./ports.ts";
import type { LinkFigures, SourceLink, SourceLinkListener } from "./source-link.ts";
import { TunnelPeer } from "./tunnel-peer.ts";
import { DeliveryWindow } from "./window.ts";

/** Larger batches compress better; smaller ones let the window follow a slow link. */
const BATCH_BYTES_MIN = 8 * 1024;
const BATCH_BYTES_MAX = 256 * 1024;
/**
 * A batch below the minimum waits until the frame before it is this old: deltas come in drops, and each frame
 * costs both sides some 0.1 ms, which is then what limits how fast the hypervisor can hand over its pages.
 */
const SMALL_FRAME_EVERY_MS = 2;

export interface TunnelLinkListener extends SourceLinkListener {
  welcome(frame: WelcomeFrame): void;
  /** The destination has everything, paused, and waits for COMMIT. */
  loaded(): void;
  /** The guest is the destination's. */
  running(): void;
}

export class TunnelLink implements SourceLink {
  readonly #listener: TunnelLinkListener;
  readonly #clock: Clock;
  readonly #peer: TunnelPeer;
  readonly #window: DeliveryWindow;
  readonly #effort: CompressionEffort;
  #coder: EntropyCoder | undefined;
  #rawBytes = 0;
  #codedBytes = 0;
  #windowLifted = false;
  #blocked = false;
  /** The writer whose output waits for a fuller batch. */
  #waiting: StreamWriter | undefined;
  #lastBatchMs = Number.NEGATIVE_INFINITY;
  #cancelSmallFrame: (() => void) | undefined;

  constructor(channel: Channel, clock: Clock, listener: TunnelLinkListener) {
    this.#listener = listener;
    this.#clock = clock;
    this.#window = new DeliveryWindow(clock);
    this.#effort = new CompressionEffort();
    this.#peer = new TunnelPeer("source", channel, clock, {
      frame: (frame) => this.#frame(frame),
      drained: () => {
        this.#blocked = false;
        this.#continue();
      },
      failed: (error) => listener.failed(error),
    });
  }

  get hasRoom(): boolean {
    if (this.#blocked) return false;
    return this.#open || (this.#waiting?.output.length ?? 0) < this.#batchBytes;
  }

  get turnBytes(): number {
    return this.#window.turnBytes;
  }

  get figures(): LinkFigures {
    return {
      wireBytes: this.#peer.wireBytes,
      inFlightBytes: this.#window.inFlightBytes,
      windowBytes: this.#window.windowBytes,
      linkBytesPerSecond: this.#window.linkBytesPerSecond,
      roundTripMs: this.#window.currentRoundTripMs,
    };
  }

  /** Introduces this side; `welcome` or `failed` answers. */
  greet(body: Hello): void {
    this.#peer.send(helloFrame(body));
  }

  /** Chosen by the handshake. */
  useCoder(coder: EntropyCoder): void {
    this.#coder = coder;
  }

  flush(writer: StreamWriter, idle: boolean): void {
    this.#waiting = writer;
    while (writer.output.length > 0 && !this.#blocked) {
      // A full window gathers a fuller batch; an open one wants the link kept busy.
      const full = writer.output.length >= this.#batchBytes;
      const hungry = this.#window.inFlightBytes < this.#window.windowBytes / 2;
      if (!this.#open || !(full || idle || hungry)) return;
      if (writer.output.length < BATCH_BYTES_MIN && this.#waitsForMore()) return;
      this.#sendBatch(writer);
    }
  }

  /** Whether it is too early for a small frame; if so, a timer is set. */
  #waitsForMore(): boolean {
    const waitMs = this.#lastBatchMs + SMALL_FRAME_EVERY_MS - this.#clock.nowMs();
    if (waitMs <= 0) return false;
    this.#cancelSmallFrame ??= this.#clock.after(waitMs, () => {
      this.#cancelSmallFrame = undefined;
      if (this.#waiting !== undefined) this.flush(this.#waiting, true);
    });
    return true;
  }

  liftWindow(): void {
    this.#windowLifted = true;
  }

  /** After this the source must never let the guest run again. */
  commit(resume: boolean): void {
    const frame: CommitFrame = { type: "commit", resume };
    this.#peer.send(frame);
  }

  abort(code: ErrorCode, message: string): void {
    this.#peer.send(abortFrame(code, message));
    this.end();
  }

  end(): void {
    this.#cancelSmallFrame?.();
    this.#peer.end();
  }

  destroy(): void {
    this.#cancelSmallFrame?.();
    this.#peer.destroy();
  }

  /** May a batch go out now? Every one is a marker, and there are only so many of them. */
  get #open(): boolean {
    return this.#window.mayMark && (this.#windowLifted || this.#window.hasRoom);
  }

  /** Raw bytes of a batch that will make a frame of about half a window. */
  get #batchBytes(): number {
    const ratio = this.#codedBytes === 0 ? 1 : this.#rawBytes / this.#codedBytes;
    return Math.min(BATCH_BYTES_MAX, Math.max(BATCH_BYTES_MIN, (this.#window.windowBytes / 2) * ratio));
  }

  #sendBatch(writer: StreamWriter): void {
    const { output } = writer;
    const rawBytes = Math.min(output.length, BATCH_BYTES_MAX, RAW_BYTES_MAX);
    const raw = output.bytes.subarray(0, rawBytes);
    const startMs = this.#clock.nowMs();
    this.#lastBatchMs = startMs;
    const coded = encodeBatch(raw, this.#coder!, this.#effort.level);
    // Incompressible bytes come back as they are: the channel keeps what it is given, the writer's buffer is reused.
    if (coded.bytes.buffer === raw.buffer) coded.bytes = raw.slice();
    const encodeMs = this.#clock.nowMs() - startMs;
    this.#effort.observe(rawBytes, coded.bytes.length, encodeMs, this.#window.linkBytesPerSecond);
    const before = this.#peer.wireBytes;
    const frame = dataFrame(this.#peer.dataSequence + 1, coded.codecId, raw, coded.bytes);
    this.#blocked = !this.#peer.send(frame);
    output.drop(rawBytes);
    this.#rawBytes += rawBytes;
    this.#codedBytes += coded.bytes.length;
    this.#window.sent(this.#peer.wireBytes - before);
    this.#window.marked(this.#blocked);
  }

  #frame(frame: Frame): void {
    switch (frame.type) {
      case "welcome":
        this.#listener.welcome(frame);
        return;
      case "refuse":
        this.#peer.destroy();
        this.#listener.failed(refusalError(frame));
        return;
      case "ack": {
        const answered = this.#window.unansweredMarkers - (this.#peer.dataSequence - frame.sequence);
        if (answered > 0) this.#window.acknowledged(answered);
        this.#continue();
        return;
      }
      case "return":
        this.#listener.returnPath(frame.bytes);
        return;
      case "loaded":
        this.#listener.loaded();
        return;
      case "running":
        this.#listener.running();
        return;
      case "abort":
        this.#peer.destroy();
        this.#listener.failed(
          new DeltaveeError(
            "MIGRATION_FAILED",
            `Destination gave up (${frame.reason.code}): ${frame.reason.message}`,
          ),
        );
        return;
      default:
        // HELLO, DATA, COMMIT and KEEPALIVE never get here: the protocol's rules have refused or used them.
        return;
    }
  }

  #continue(): void {
    if (this.#waiting !== undefined) this.flush(this.#waiting, true);
    this.#listener.room();
  }
}
