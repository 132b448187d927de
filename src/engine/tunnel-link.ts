// Tunnel mode, source side: the rewritten stream in entropy-coded, numbered frames, acknowledged by the
// destination engine once its hypervisor has taken them. Protocol: wire/PROTOCOL.md.

import type { Clock } from "../base/clock.ts";
import { DeltaveeError, type ErrorCode } from "../base/errors.ts";
import type { BatchCoder, EncodedBatch } from "../codec/entropy/batch-coder.ts";
import { ENTROPY_SCRATCH_BYTES, type Kernel } from "../kernel/kernel.ts";
import type { KernelMemory } from "../kernel/memory.ts";
import type { Hello } from "../wire/bodies.ts";
import {
  type CommitFrame,
  type DataFrame,
  type Frame,
  RAW_BYTES_MAX,
  type WelcomeFrame,
} from "../wire/frame.ts";
import { abortFrame, helloFrame, refusalError } from "../wire/handshake.ts";
import { PAGES_HEADER_BYTES } from "../wire/page-batch.ts";
import type { BatchSink, SealedBatch } from "./batch-sink.ts";
import { type BatchClass, EntropyChoice, type EntropyMethod, NO_ENTROPY } from "./entropy-choice.ts";
import type { Channel } from "./ports.ts";
import { SentFrames } from "./sent-frames.ts";
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
/** On a fast link the window is large, and must not be filled with crumbs. */
const FRAMES_PER_WINDOW_MAX = 16;
/** A batch of which at least this much is whole pages is judged by them. */
const WHOLE_SHARE_MIN = 0.5;
/** Looking at less would say little. */
const WHOLE_BYTES_MIN = 16 * 1024;

export interface TunnelLinkListener extends SourceLinkListener {
  welcome(frame: WelcomeFrame): void;
  /** The destination has everything, paused, and waits for COMMIT. */
  loaded(): void;
  /** The guest is the destination's. */
  running(): void;
  /** Another method from here on, and why. */
  decision(choice: string, reason: string): void;
}

export interface TunnelLinkOptions {
  channel: Channel;
  clock: Clock;
  sink: BatchSink;
  coder: BatchCoder;
  memory: KernelMemory;
  kernel: Kernel;
  listener: TunnelLinkListener;
}

export class TunnelLink implements SourceLink {
  readonly #listener: TunnelLinkListener;
  readonly #clock: Clock;
  readonly #sink: BatchSink;
  readonly #coder: BatchCoder;
  readonly #memory: KernelMemory;
  readonly #kernel: Kernel;
  readonly #entropyScratch: number;
  readonly #peer: TunnelPeer;
  readonly #window: DeliveryWindow;
  readonly #sentFrames = new SentFrames();
  readonly #choice: EntropyChoice;
  /** Being coded: raw bytes. */
  #codingBytes = 0;
  #rawBytes = 0;
  #codedBytes = 0;
  #windowLifted = false;
  #bypasses = false;
  #blocked = false;
  #over = false;
  #lastBatchMs = Number.NEGATIVE_INFINITY;
  #cancelSmallFrame: (() => void) | undefined;

  constructor(options: TunnelLinkOptions) {
    const { channel, clock, sink, coder, memory, kernel, listener } = options;
    this.#listener = listener;
    this.#clock = clock;
    this.#sink = sink;
    this.#coder = coder;
    this.#memory = memory;
    this.#kernel = kernel;
    this.#entropyScratch = memory.allocate(ENTROPY_SCRATCH_BYTES);
    this.#window = new DeliveryWindow(clock);
    this.#choice = new EntropyChoice(coder.concurrency, (choice, reason) =>
      listener.decision(choice, reason),
    );
    this.#peer = new TunnelPeer("source", channel, clock, {
      frame: (frame) => this.#frame(frame),
      drained: () => {
        this.#blocked = false;
        this.#continue();
      },
      failed: (error) => this.#failed(error),
    });
  }

  get hasRoom(): boolean {
    if (this.#blocked || this.#sink.isFull || this.#sink.hasSealed) return false;
    return this.#open || this.#sink.pendingBytes < this.#batchBytes;
  }

  get turnBytes(): number {
    return this.#window.turnBytes;
  }

  get figures(): LinkFigures {
    return {
      wireBytes: this.#peer.wireBytes,
      inFlightBytes: this.#window.inFlightBytes,
      waitingBytes: (this.#sink.waitingBytes + this.#codingBytes) * this.#codedShare,
      windowBytes: this.#window.windowBytes,
      linkBytesPerSecond: this.#window.linkBytesPerSecond,
      roundTripMs: this.#window.currentRoundTripMs,
    };
  }

  /** Introduces this side; `welcome` or `failed` answers. */
  greet(body: Hello): void {
    this.#peer.send(helloFrame(body));
  }

  flush(idle: boolean): void {
    const sink = this.#sink;
    while (!this.#blocked && this.#open) {
      if (!sink.hasSealed) {
        const bytes = sink.pendingBytes;
        // A full window gathers a fuller batch; an open one wants the link kept busy.
        const hungry =
          this.#underWayBytes < this.#window.windowBytes / 2 &&
          bytes >= Math.min(this.#batchBytes, this.#window.windowBytes / FRAMES_PER_WINDOW_MAX);
        if (bytes === 0 || !(bytes >= this.#batchBytes || idle || hungry)) return;
        if (sink.isFull || (bytes < BATCH_BYTES_MIN && this.#waitsForMore())) return;
        sink.seal();
      }
      this.#encode(sink.takeSealed()!);
    }
  }

  /** Whether it is too early for a small frame; if so, a timer is set. */
  #waitsForMore(): boolean {
    const waitMs = this.#lastBatchMs + SMALL_FRAME_EVERY_MS - this.#clock.nowMs();
    if (waitMs <= 0) return false;
    this.#cancelSmallFrame ??= this.#clock.after(waitMs, () => {
      this.#cancelSmallFrame = undefined;
      this.flush(true);
    });
    return true;
  }

  liftWindow(): void {
    this.#windowLifted = true;
  }

  bypass(wanted: boolean): void {
    this.#bypasses = wanted;
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
    this.#over = true;
    this.#cancelSmallFrame?.();
    this.#peer.end();
  }

  destroy(): void {
    this.#over = true;
    this.#cancelSmallFrame?.();
    this.#peer.destroy();
  }

  /** May a batch go out now? Every one is a marker and is kept, and there is only so much room for them. */
  get #open(): boolean {
    if (!this.#window.mayMark || !this.#sentFrames.hasRoomFor(this.#codingBytes + RAW_BYTES_MAX))
      return false;
    return this.#windowLifted || this.#underWayBytes < this.#window.windowBytes;
  }

  /** On the link, or about to be. */
  get #underWayBytes(): number {
    return this.#window.inFlightBytes + this.#codingBytes * this.#codedShare;
  }

  /** What coding has left of the bytes so far. */
  get #codedShare(): number {
    return this.#rawBytes === 0 ? 1 : this.#codedBytes / this.#rawBytes;
  }

  /** Raw bytes of a batch that will make a frame of about half a window. */
  get #batchBytes(): number {
    const bytes = this.#window.windowBytes / 2 / Math.max(this.#codedShare, 1 / 256);
    return Math.min(BATCH_BYTES_MAX, Math.max(BATCH_BYTES_MIN, bytes));
  }

  #encode(batch: SealedBatch): void {
    const { slot, rawBytes, wholeBytes } = batch;
    const batchClass: BatchClass = wholeBytes >= WHOLE_SHARE_MIN * rawBytes ? "pages" : "deltas";
    const method = this.#bypasses ? NO_ENTROPY : this.#choose(batch, batchClass);
    this.#lastBatchMs = this.#clock.nowMs();
    this.#codingBytes += rawBytes;
    let isAtOnce = true;
    this.#coder.encode(slot, rawBytes, method.codecId, method.level, (result) => {
      if (this.#over) return;
      this.#codingBytes -= rawBytes;
      if (result instanceof DeltaveeError) {
        this.#failed(result);
        return;
      }
      const { codedBytes, encodeMs } = result;
      this.#choice.observe(batchClass, method.name, rawBytes, codedBytes, encodeMs);
      this.#rawBytes += rawBytes;
      this.#codedBytes += codedBytes;
      const wasFull = this.#sink.isFull;
      this.#send(batch, result);
      // When it was coded at once, whoever has put it in sees for himself that there is room.
      if (wasFull && !isAtOnce) this.#continue();
    });
    isAtOnce = false;
  }

  #choose({ slot, rawBytes, wholeBytes }: SealedBatch, batchClass: BatchClass): EntropyMethod {
    const isMostlyPages = wholeBytes >= Math.max(WHOLE_BYTES_MIN, WHOLE_SHARE_MIN * rawBytes);
    return this.#choice.choose(
      batchClass,
      rawBytes,
      isMostlyPages ? this.#randomnessOf(slot, wholeBytes) : undefined,
      this.#window.linkBytesPerSecond,
    );
  }

  #randomnessOf(slot: number, wholeBytes: number): number {
    const address = this.#coder.slots[slot]!.rawAddress + PAGES_HEADER_BYTES;
    return this.#kernel.sampledEntropy(address, wholeBytes, this.#entropyScratch);
  }

  #send({ slot, kind, rawBytes }: SealedBatch, result: EncodedBatch): void {
    const { codecId, codedAddress, codedBytes, rawChecksum } = result;
    const frame: DataFrame = {
      type: "data",
      sequence: this.#peer.dataSequence + 1,
      entropyCodec: codecId,
      payloadKind: kind,
      rawBytes,
      rawChecksum,
      coded: this.#memory.bytes(codedAddress, codedBytes),
    };
    const bytes = this.#sentFrames.put(frame);
    this.#blocked = !this.#peer.sendData(frame, bytes);
    this.#window.sent(bytes.length);
    this.#window.marked(this.#blocked);
    this.#coder.release(slot);
    this.#sink.slotFreed();
  }

  #failed(error: Error): void {
    this.#over = true;
    this.#listener.failed(error);
  }

  #frame(frame: Frame): void {
    switch (frame.type) {
      case "welcome":
        this.#choice.allow(frame.body.entropyCodecs);
        this.#listener.welcome(frame);
        return;
      case "refuse":
        this.#peer.destroy();
        this.#failed(refusalError(frame));
        return;
      case "ack": {
        const answered = this.#window.unansweredMarkers - (this.#peer.dataSequence - frame.sequence);
        if (answered > 0) this.#window.acknowledged(answered);
        this.#sentFrames.release(frame.sequence);
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
        this.#failed(
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
    this.flush(true);
    this.#listener.room();
  }
}
