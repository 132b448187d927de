// Tunnel mode, source side: the rewritten stream in entropy-coded, numbered frames, acknowledged by the
// destination engine once its hypervisor has taken them. A connection that breaks is made anew, and what it has lost
// is sent again. Protocol: wire/PROTOCOL.md.

import { randomBytes } from "node:crypto";
import type { Clock } from "../../base/clock.ts";
import { DeltaveeError, type ErrorCode, LinkError, ProtocolError, toError } from "../../base/errors.ts";
import type { BatchCoder, EncodedBatch } from "../../codec/entropy/batch-coder.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import type { Hello } from "../../wire/bodies.ts";
import {
  type CommitFrame,
  type DataFrame,
  type Frame,
  type Pace,
  PEER_SILENT_MS,
  RAW_BYTES_MAX,
  type ResumedFrame,
  type VerifyFrame,
  type WelcomeFrame,
} from "../../wire/frame.ts";
import {
  abortFrame,
  helloFrame,
  PADDING_VERSION,
  POSTCOPY_VERSION,
  refusalError,
  VERIFY_VERSION,
} from "../../wire/handshake.ts";
import { PAYLOAD_PADDING } from "../../wire/page-batch.ts";
import { ProtocolState } from "../../wire/protocol-state.ts";
import type { BatchSink, SealedBatch } from "../pages/batch-sink.ts";
import type { Channel } from "../ports.ts";
import { BatchCoding, type Outlook } from "./batch-coding.ts";
import { Bottleneck, type Limit } from "./bottleneck.ts";
import { NO_ENTROPY } from "./entropy-choice.ts";
import { Reconnector } from "./reconnector.ts";
import { Rehearsal } from "./rehearsal.ts";
import { SentFrames } from "./sent-frames.ts";
import type { LinkFigures, SourceLink, SourceLinkListener } from "./source-link.ts";
import { TunnelPeer } from "./tunnel-peer.ts";
import { DeliveryWindow, MARKERS_MAX } from "./window.ts";

/** Larger batches compress better; smaller ones let the window follow a slow link. */
const BATCH_BYTES_MIN = 8 * 1024;
const BATCH_BYTES_MAX = 512 * 1024;
/**
 * A batch below the minimum waits until the frame before it is this old: deltas come in drops, and each frame
 * costs both sides some 0.1 ms, which is then what limits how fast the hypervisor can hand over its pages.
 */
const SMALL_FRAME_EVERY_MS = 2;
/** Of the window, that a frame fills. The last one may go beyond it. */
const BATCH_SHARE = 0.5;
/** On a fast link the window is large, and must not be filled with crumbs. */
const FRAMES_PER_WINDOW_MAX = 16;
/** The destination keeps what it has sent of the return path until it is told that it has arrived. */
const RETURNED_EVERY_BYTES = 16 * 1024;
/** Two KEEPALIVEs are missing. */
const HURRIED_SILENT_MS = 2500;

/** How a connection that broke is resumed, if the destination can do that too. */
export interface ReconnectOptions {
  /** Makes another connection to the destination; gives up by itself after a while. */
  connect: () => Promise<Channel>;
  /** How long it is tried. */
  timeoutMs: number;
}

export interface TunnelLinkListener extends SourceLinkListener {
  welcome(frame: WelcomeFrame): void;
  /** The connection broke, and is to be resumed. */
  lost(error: LinkError): void;
  /** It is there again. */
  resumed(outage: { outageMs: number; resentBytes: number }): void;
  /** Post-copy: the guest could run at the destination, which waits for COMMIT; RAM is missing. */
  ready(): void;
  /** The destination has everything: paused, and it waits for COMMIT, or in post-copy behind the guest. */
  loaded(): void;
  /** The answer to `verify`. Valid during the call. */
  digests(digests: Uint8Array): void;
  /** The guest is the destination's. Perhaps again, after a connection that broke. */
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
  /** Undefined: a connection that breaks is the end. */
  reconnect?: ReconnectOptions | undefined;
}

export class TunnelLink implements SourceLink {
  readonly #listener: TunnelLinkListener;
  readonly #clock: Clock;
  readonly #sink: BatchSink;
  readonly #coder: BatchCoder;
  readonly #memory: KernelMemory;
  /** Of the migration, whichever connection there is. */
  readonly #state = new ProtocolState("source");
  #peer: TunnelPeer;
  readonly #reconnector: Reconnector | undefined;
  readonly #reconnectMsMax: number;
  /** What RESUME has to say of this migration. */
  #session = "";
  #welcome: WelcomeFrame | undefined;
  #connection = 1;
  /** Since when there is no connection. */
  #lostMs: number | undefined;
  /** When the destination was last heard, if there is no connection. */
  #heardMs = 0;
  /** Of connections that were lost. */
  #lostWireBytes = 0;
  #returnBytes = 0;
  #toldReturnBytes = 0;
  #commit: CommitFrame | undefined;
  readonly #window: DeliveryWindow;
  readonly #sentFrames = new SentFrames();
  readonly #coding: BatchCoding;
  readonly #bottleneck = new Bottleneck();
  /** Raw bytes of all DATA up to and with the one of sequence n, at n modulo MARKERS_MAX. */
  readonly #rawBytesUpTo = new Float64Array(MARKERS_MAX);
  /** Being coded: raw bytes. */
  #codingBytes = 0;
  #codingBatches = 0;
  #rawBytes = 0;
  #codedBytes = 0;
  #windowLifted = false;
  /** The guest stands still, or may have to for pages that are on their way. */
  #isUrgent = false;
  /** HELLO has said that it may come to post-copy. */
  #mayPostcopy = false;
  /** HELLO has said that RAM will be compared. */
  #verifies = false;
  #blocked = false;
  #over = false;
  readonly #rehearsal = new Rehearsal();
  #lastBatchMs = Number.NEGATIVE_INFINITY;
  #cancelSmallFrame: (() => void) | undefined;

  constructor(options: TunnelLinkOptions) {
    const { channel, clock, sink, coder, memory, kernel, listener, reconnect } = options;
    this.#listener = listener;
    this.#clock = clock;
    this.#sink = sink;
    this.#coder = coder;
    this.#memory = memory;
    this.#window = new DeliveryWindow(clock);
    this.#coding = new BatchCoding(coder, kernel, memory, (choice, reason) =>
      listener.decision(choice, reason),
    );
    this.#peer = this.#makePeer(channel);
    this.#reconnectMsMax = reconnect?.timeoutMs ?? 0;
    this.#reconnector =
      reconnect &&
      new Reconnector(clock, reconnect.connect, {
        connected: (next) => this.#resume(next),
        gaveUp: (cause) => this.#gaveUp(cause),
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
      wireBytes: this.#lostWireBytes + this.#peer.wireBytes,
      inFlightBytes: this.#window.inFlightBytes,
      waitingBytes: (this.#sink.waitingBytes + this.#codingBytes) * this.#codedShare,
      windowBytes: this.#window.windowBytes,
      shortQueueBytes: this.#window.shortBytes * (1 + BATCH_SHARE),
      linkBytesPerSecond: this.#window.linkBytesPerSecond,
      isLinkKnown: this.#window.isLinkKnown,
      limit: this.#limit,
      proof: this.#rehearsal.proof(this.#clock.nowMs()),
      isLost: this.isLost,
      roundTripMs: this.#window.currentRoundTripMs,
    };
  }

  get #limit(): Limit {
    return this.#bottleneck.limit(this.#window.isLinkKnown);
  }

  rehearse(bytes: number): boolean {
    // With more before it, it is the guest that shows what the link carries, and what stands before it counts as well.
    const isIdle =
      this.#sink.waitingBytes + this.#codingBytes === 0 &&
      this.#window.hasRoom &&
      this.#window.inFlightBytes <= bytes / 4;
    const hasRoom = this.#window.mayMark && this.#sentFrames.hasRoomFor(bytes);
    const isSpoken = this.#state.speaks(PADDING_VERSION) && this.#state.stage === "streaming";
    if (!isIdle || !hasRoom || !isSpoken || this.isLost || this.#over) return false;
    const slot = this.#coder.acquire();
    if (slot === -1) return false;
    // A link that compresses must not make less of it.
    this.#memory.bytes(this.#coder.slots[slot]!.rawAddress, bytes).set(randomBytes(bytes));
    const { codecId, level } = NO_ENTROPY;
    this.#coder.encode(slot, bytes, codecId, level, (result) => {
      if (this.#over) return;
      if (result instanceof DeltaveeError) this.#failed(result);
      else {
        this.#rehearsal.sent(this.#sentFrames.lastSequence + 1, bytes, this.#clock.nowMs());
        this.#safely(() => this.#send({ slot, kind: PAYLOAD_PADDING, rawBytes: bytes }, result));
      }
    });
    return true;
  }

  worked(pace: Pace): void {
    this.#bottleneck.sourcePaced(pace, this.#window.isLinkKnown);
  }

  get isLost(): boolean {
    return this.#lostMs !== undefined;
  }

  /** How long nothing has been heard of the destination. */
  get silentMs(): number {
    return this.isLost ? this.#clock.nowMs() - this.#heardMs : this.#peer.silentMs;
  }

  /** Introduces this side; `welcome` or `failed` answers. */
  greet(body: Hello): void {
    this.#session = body.session;
    this.#mayPostcopy = body.postcopy === true;
    this.#verifies = body.verify === true;
    this.#peer.send(helloFrame(body));
  }

  flush(idle: boolean): void {
    const sink = this.#sink;
    while (!this.#blocked && this.#open) {
      if (!sink.hasSealed) {
        const bytes = sink.pendingBytes;
        // A full window gathers a fuller batch, and so do encoders that are behind; an open one wants the link kept busy.
        const hungry =
          this.#codingBatches <= this.#coder.concurrency &&
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
      this.#safely(() => this.flush(true));
    });
    return true;
  }

  /** Called by nobody who could catch a mistake of ours: the migration fails with it, the process does not. */
  #safely(action: () => void): void {
    try {
      action();
    } catch (thrown) {
      if (!this.#over) this.#failed(toError(thrown));
    }
  }

  shortenQueue(): void {
    this.#window.shorten();
  }

  liftWindow(): void {
    this.#windowLifted = true;
    this.#isUrgent = true;
    this.#hurry();
  }

  /** The device state is out. What the guest waits for is to have little before it again. */
  beginPostcopy(): void {
    this.#windowLifted = false;
  }

  /** While the guest stands still, another connection is better than patience. */
  #hurry(): void {
    if (this.#isUrgent && this.#welcome?.body.resumption !== undefined && this.#reconnector !== undefined)
      this.#peer.hurry(HURRIED_SILENT_MS);
  }

  bypass(wanted: boolean): void {
    this.#coding.bypass(wanted);
  }

  /** COMMIT would go out at once. */
  get mayCommit(): boolean {
    return !this.isLost && this.#awaitsCommit;
  }

  /** Asks about RAM of the destination's, which holds all of it. `digests` answers, unless the connection breaks. */
  verify(pieces: Omit<VerifyFrame, "type">): void {
    this.#peer.send({ type: "verify", ...pieces });
  }

  /** After this the source must never let the guest run again. */
  commit(resume: boolean): void {
    this.#commit = { type: "commit", resume };
    this.#sendCommit();
  }

  /** COMMIT, if it is wanted and the destination does not have it. */
  #sendCommit(): void {
    if (this.#commit !== undefined && this.#awaitsCommit) this.#peer.send(this.#commit);
  }

  get #awaitsCommit(): boolean {
    return this.#state.stage === "loaded" || this.#state.stage === "ready";
  }

  /** Without a connection nobody can be told. */
  abort(code: ErrorCode, message: string): void {
    this.#peer.send(abortFrame(code, message));
    this.end();
  }

  end(): void {
    this.#stop();
    this.#peer.end();
  }

  destroy(): void {
    this.#stop();
    this.#peer.destroy();
  }

  #stop(): void {
    this.#over = true;
    this.#cancelSmallFrame?.();
    this.#reconnector?.stop();
  }

  /** May a batch go out now? Every one will be a marker and be kept, and there is only so much room for them. */
  get #open(): boolean {
    if (this.isLost || this.#window.unansweredMarkers + this.#codingBatches >= MARKERS_MAX) return false;
    if (!this.#sentFrames.hasRoomFor(this.#codingBytes + RAW_BYTES_MAX)) return false;
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

  /** Raw bytes of a batch that will make a frame of about `BATCH_SHARE`. */
  get #batchBytes(): number {
    const bytes = (this.#window.windowBytes * BATCH_SHARE) / Math.max(this.#codedShare, 1 / 256);
    return Math.min(BATCH_BYTES_MAX, Math.max(BATCH_BYTES_MIN, bytes));
  }

  #encode(batch: SealedBatch): void {
    const { slot, rawBytes } = batch;
    const method = this.#coding.methodFor(batch, this.#outlook);
    this.#lastBatchMs = this.#clock.nowMs();
    this.#codingBytes += rawBytes;
    this.#codingBatches++;
    let isAtOnce = true;
    const encoded = (result: EncodedBatch) => {
      this.#coding.coded(method, rawBytes, result);
      this.#rawBytes += rawBytes;
      this.#codedBytes += result.codedBytes;
      const wasFull = this.#sink.isFull;
      this.#send(batch, result);
      // When it was coded at once, whoever has put it in sees for himself that there is room.
      if (isAtOnce) return;
      if (wasFull) this.#continue();
      else this.flush(false);
    };
    this.#coder.encode(slot, rawBytes, method.codecId, method.level, (result) => {
      if (this.#over) return;
      this.#codingBytes -= rawBytes;
      this.#codingBatches--;
      if (result instanceof DeltaveeError) this.#failed(result);
      else this.#safely(() => encoded(result));
    });
    isAtOnce = false;
  }

  get #outlook(): Outlook {
    const { linkBytesPerSecond, isLinkKnown } = this.#window;
    const link = this.#bottleneck.link(this.#clock.nowMs(), linkBytesPerSecond, isLinkKnown);
    return {
      linkBytesPerSecond: link.bytesPerSecond,
      isLinkKnown: link.isKnown,
      limit: this.#limit,
      destinationBytesPerSecond: this.#bottleneck.destinationBytesPerSecond,
      isBehind: this.#codingBatches > this.#coder.concurrency,
    };
  }

  #send({ slot, kind, rawBytes }: Omit<SealedBatch, "wholeBytes">, result: EncodedBatch): void {
    const { codecId, codedAddress, codedBytes, rawChecksum } = result;
    const frame: DataFrame = {
      type: "data",
      sequence: this.#sentFrames.lastSequence + 1,
      entropyCodec: codecId,
      payloadKind: kind,
      rawBytes,
      rawChecksum,
      coded: this.#memory.bytes(codedAddress, codedBytes),
    };
    const bytes = this.#sentFrames.put(frame);
    this.#rawBytesUpTo[frame.sequence % MARKERS_MAX] = this.#rawBytes;
    // What was still being coded when the connection broke waits for the next one.
    if (!this.isLost) this.#blocked = !this.#peer.sendData(frame, bytes);
    this.#window.sent(bytes.length);
    this.#window.marked(this.#blocked);
    this.#coder.release(slot);
    this.#sink.slotFreed();
  }

  #makePeer(channel: Channel): TunnelPeer {
    const peer: TunnelPeer = new TunnelPeer(
      "source",
      channel,
      this.#clock,
      {
        frame: (frame) => this.#frame(frame),
        drained: () => {
          this.#blocked = false;
          this.#safely(() => this.#continue());
        },
        failed: (error) => this.#broke(peer, error),
      },
      this.#state,
    );
    return peer;
  }

  #broke(peer: TunnelPeer, error: Error): void {
    const resumption = this.#welcome?.body.resumption;
    if (!(error instanceof LinkError) || this.#reconnector === undefined || resumption === undefined) {
      this.#failed(error);
      return;
    }
    const isFirst = this.#lostMs === undefined;
    if (isFirst) {
      this.#lostMs = this.#clock.nowMs();
      this.#heardMs = this.#lostMs - peer.silentMs;
    }
    peer.destroy();
    this.#state.lost();
    this.#rehearsal.forget();
    if (!isFirst) {
      this.#reconnector.failed(error);
      return;
    }
    // The destination may notice later than this side that the connection broke, and waits from then on.
    const timeoutMs = Math.min(this.#reconnectMsMax, resumption.timeoutMs + PEER_SILENT_MS);
    this.#reconnector.begin(error, timeoutMs);
    this.#listener.lost(error);
  }

  #gaveUp(cause: Error): void {
    const seconds = Math.round((this.#clock.nowMs() - this.#lostMs!) / 1000);
    const text = `The connection to the destination broke and could not be resumed within ${seconds} s`;
    this.#peer.destroy();
    this.#failed(new LinkError("LINK_LOST", text, { cause }));
  }

  /** A connection was made: asks for the migration to go on with it. RESUMED or REFUSE answers. */
  #resume(channel: Channel): void {
    const { version, body } = this.#welcome!;
    this.#lostWireBytes += this.#peer.wireBytes;
    this.#peer = this.#makePeer(channel);
    this.#hurry();
    this.#peer.send({
      type: "resume",
      version,
      stage: this.#state.reached,
      connection: ++this.#connection,
      session: this.#session,
      token: body.resumption!.token,
      returnBytes: this.#returnBytes,
    });
  }

  #resumed({ dataSequence }: ResumedFrame): void {
    const outageMs = this.#clock.nowMs() - this.#lostMs!;
    this.#lostMs = undefined;
    this.#reconnector?.stop();
    // What the destination has is as good as delivered: its ACK would say nothing about the link.
    this.#window.resumed(this.#unansweredUpTo(dataSequence));
    this.#sentFrames.release(dataSequence);
    let resentBytes = 0;
    this.#blocked = false;
    this.#sentFrames.after(dataSequence, (sequence, bytes) => {
      this.#blocked = !this.#peer.sendAgain(sequence, bytes);
      resentBytes += bytes.length;
    });
    this.#toldReturnBytes = this.#returnBytes;
    this.#sendCommit();
    this.#listener.resumed({ outageMs, resentBytes });
    this.#continue();
  }

  /** Markers, one for each DATA, that are unanswered and not behind this one. */
  #unansweredUpTo(sequence: number): number {
    const behind = this.#sentFrames.lastSequence - sequence;
    return Math.max(0, this.#window.unansweredMarkers - behind);
  }

  #returned(bytes: Uint8Array): void {
    this.#returnBytes += bytes.length;
    const isDue = this.#returnBytes - this.#toldReturnBytes >= RETURNED_EVERY_BYTES;
    if (isDue && this.#welcome?.body.resumption !== undefined) {
      this.#toldReturnBytes = this.#returnBytes;
      this.#peer.send({ type: "returned", returnBytes: this.#returnBytes });
    }
    this.#listener.returnPath(bytes);
  }

  #failed(error: Error): void {
    this.#stop();
    this.#listener.failed(error);
  }

  #frame(frame: Frame): void {
    switch (frame.type) {
      case "welcome":
        if (this.#mayPostcopy && frame.version < POSTCOPY_VERSION) {
          this.#tooOld(`which has no post-copy (version ${POSTCOPY_VERSION} has)`, frame);
          return;
        }
        if (this.#verifies && frame.version < VERIFY_VERSION) {
          this.#tooOld(`which cannot compare RAM (version ${VERIFY_VERSION} can)`, frame);
          return;
        }
        this.#welcome = frame;
        this.#coding.allow(frame.body.entropyCodecs);
        this.#listener.welcome(frame);
        return;
      case "refuse":
        this.#peer.destroy();
        this.#failed(refusalError(frame));
        return;
      case "ack": {
        const answered = this.#unansweredUpTo(frame.sequence);
        if (answered > 0) this.#window.acknowledged(answered);
        this.#rehearsal.answered(frame.sequence, this.#clock.nowMs());
        if (frame.pace !== undefined) {
          const takenBytes = this.#rawBytesUpTo[frame.sequence % MARKERS_MAX]!;
          this.#bottleneck.destinationPaced(frame.pace, this.#window.isLinkKnown, takenBytes);
        }
        this.#sentFrames.release(frame.sequence);
        this.#continue();
        return;
      }
      case "resumed":
        this.#resumed(frame);
        return;
      case "return":
        this.#returned(frame.bytes);
        return;
      case "ready":
        this.#listener.ready();
        return;
      case "digests":
        this.#listener.digests(frame.digests);
        return;
      case "loaded":
        this.#sayDone();
        this.#listener.loaded();
        return;
      case "running":
        this.#sayDone();
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
        // What only the source sends, and KEEPALIVE, get here: the protocol's rules have refused or used it.
        return;
    }
  }

  #tooOld(why: string, { version }: WelcomeFrame): void {
    const text = `Destination speaks protocol version ${version}, ${why}`;
    this.abort("PROTOCOL_VERSION", text);
    this.#failed(new ProtocolError("PROTOCOL_VERSION", text));
  }

  /** When there is nothing more that the destination could have to say. */
  #sayDone(): void {
    const isOver = this.#state.stage === "finished";
    if (isOver && this.#welcome?.body.resumption !== undefined) this.#peer.send({ type: "done" });
  }

  #continue(): void {
    this.flush(false);
    this.#listener.room();
  }
}
