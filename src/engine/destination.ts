// The destination engine (tunnel mode): frames in, the hypervisor's stream out, its return path back. It
// keeps no copy of the guest's RAM: XBZRLE records are applied by the hypervisor to its own. It lets the
// guest run only after COMMIT, in post-copy with RAM still to come. When the connection breaks it keeps what it has
// and waits for another one of the same source. Protocol: wire/PROTOCOL.md.
//
// Here is who is told what and when, and what becomes of the guest. Beside it, in destination/:
//   delivery.ts    the way of the stream, from DATA to the hypervisor's channel
//   strangers.ts   connections that have not said what they want

import {
  DeltaveeError,
  type ErrorCode,
  LinkError,
  ProtocolError,
  toError,
  type VmWhere,
} from "../base/errors.ts";
import { NO_PAGES } from "../record/schema.ts";
import type { Hello } from "../wire/bodies.ts";
import { type Frame, PACE_MS_MAX, type Pace, type ResumeFrame, type VerifyFrame } from "../wire/frame.ts";
import { abortFrame, answerHello, PACE_VERSION, refusalFor } from "../wire/handshake.ts";
import { PAYLOAD_PAGES, PAYLOAD_STREAM } from "../wire/page-batch.ts";
import { ProtocolState } from "../wire/protocol-state.ts";
import { BusyTime } from "./destination/busy-time.ts";
import { Delivery } from "./destination/delivery.ts";
import type { DestinationOptions, DestinationOutcome } from "./destination/options.ts";
import { inPieces, ReturnLog } from "./destination/return-log.ts";
import { type ResumableSession, Strangers, unknownSession } from "./destination/strangers.ts";
import type { Channel, StoppedRam, UntouchedRam } from "./ports.ts";
import { digestsOf, openStoppedRam } from "./ram-digests.ts";
import { TunnelPeer, type TunnelPeerListener } from "./transport/tunnel-peer.ts";

/** The hypervisor, or the way to it, is gone: nobody can say what it has done. */
const OUT_OF_REACH: ReadonlySet<ErrorCode> = new Set(["QMP_INTERRUPTED", "QMP_UNAVAILABLE"]);

/** Of the return path, kept until the source says that it has it. More is not taken from the hypervisor. */
const RETURN_RETAINED_BYTES = 256 * 1024;
export class DestinationEngine {
  readonly #options: DestinationOptions;
  /** Of the migration, whichever connection there is. */
  readonly #state = new ProtocolState("destination");
  /** The connection of the migration, or the last one that there was. */
  #peer: TunnelPeer;
  readonly #strangers: Strangers;
  /** What RESUME must say, if broken connections are resumed. */
  #resumption: ResumableSession | undefined;
  #connection = 1;
  #lostMs: number | undefined;
  #cancelWait: () => void = () => {};
  readonly #returnLog = new ReturnLog();
  readonly #startMs: number;
  readonly #outcome: Promise<DestinationOutcome>;
  #resolve!: (outcome: DestinationOutcome) => void;
  #vmChannel: Channel | undefined;
  readonly #delivery: Delivery;
  /** Sequence of the last DATA that the hypervisor has taken. */
  #takenSequence = 0;
  #welcomedMs = 0;
  readonly #busy = new BusyTime();
  /** Sequence of the last DATA that gives the hypervisor something to take. */
  #lastToTake = 0;
  /** Post-copy: the guest could run. */
  #ready = false;
  #loaded = false;
  /** READY or LOADED: from then on it is the source that decides. */
  #isTold = false;
  /** COMMIT has been obeyed. */
  #here: VmWhere | undefined;
  /** How it came out, when only the source is to be told. */
  #done: VmWhere | undefined;
  #sourceIsGone = false;
  /** Post-copy: what has gone wrong while the guest was being let run. */
  #interruption: { cause: Error; tell: boolean } | undefined;
  #welcomed = false;
  #over = false;

  constructor(options: DestinationOptions) {
    this.#options = options;
    this.#startMs = options.clock.nowMs();
    this.#strangers = new Strangers(options.clock, options.record);
    this.#outcome = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#delivery = new Delivery(options, {
      taken: (sequence) => this.#acknowledge(sequence),
      room: () => this.#stallIfNeeded(),
      failed: (error) => void this.#fail(error, true),
    });
    this.#peer = this.#makePeer(options.channel, this.#state);
  }

  /** Resolves when the migration is over, whichever way. Never rejects. */
  run(): Promise<DestinationOutcome> {
    return this.#outcome;
  }

  /** The operator gives up. Once the source has been told READY or LOADED it is the source's to decide. */
  cancel(): void {
    // The guest is here; it is only the source that is waited for.
    if (this.#done !== undefined) this.#sourceKnows();
    if (this.#isTold) return;
    void this.#fail(new DeltaveeError("CANCELLED", "Cancelled at the destination"), true);
  }

  /** Somebody else has connected: perhaps the source, whose connection broke. `from`: for people. */
  offer(channel: Channel, from: string): void {
    if (this.#over) {
      channel.destroy();
      return;
    }
    this.#strangers.add(this.#makePeer(channel, new ProtocolState("destination")), from);
  }

  #makePeer(channel: Channel, state: ProtocolState): TunnelPeer {
    const listener: TunnelPeerListener = {
      frame: (frame) => {
        if (peer === this.#peer) this.#frame(frame);
        else {
          const resume = this.#strangers.frame(peer, frame, this.#resumption, this.#connection);
          if (resume !== undefined) this.#resume(peer, resume);
        }
      },
      drained: () => {},
      failed: (error) => {
        if (peer !== this.#peer) this.#strangers.failed(peer, error);
        else if (this.#resumption !== undefined && error instanceof LinkError) this.#lost(error);
        else this.#ended(error);
      },
    };
    // Nobody else is to write into what the migration's connection is putting together.
    const roomForCoded = (codedBytes: number) =>
      peer === this.#peer ? this.#delivery.roomForCoded(codedBytes) : undefined;
    const { clock } = this.#options;
    const peer: TunnelPeer = new TunnelPeer("destination", channel, clock, listener, state, roomForCoded);
    return peer;
  }

  // ---- connections that come and go ----

  /** The hypervisor is not told: it waits for bytes, as it would on a slow link. */
  #lost(error: LinkError): void {
    const { clock, record } = this.#options;
    this.#lostMs = clock.nowMs();
    this.#peer.destroy();
    this.#state.lost();
    record.add({ type: "link", state: "lost", reason: error.message });
    this.#cancelWait = clock.after(this.#resumption!.timeoutMs, () => this.#gaveUp(error));
  }

  #gaveUp(cause: LinkError): void {
    const seconds = Math.round(this.#resumption!.timeoutMs / 1000);
    const text = `The connection of the source broke, and it has not come back within ${seconds} s`;
    this.#ended(new LinkError("LINK_LOST", text, { cause }));
  }

  /** There is no source any more that could be told anything. */
  #ended(error: Error): void {
    if (!this.#state.committed) {
      void this.#fail(error, false);
      return;
    }
    this.#options.record.add({
      type: "notice",
      message: `Source may not have heard of the end: ${error.message}`,
    });
    this.#resumption = undefined;
    if (this.#done !== undefined) this.#sourceKnows();
    else if (this.#lacksRam) this.#interrupted(error, false);
    // The guest is about to be let run, or could not be, which will be the end.
    else this.#sourceIsGone = true;
  }

  #resume(peer: TunnelPeer, frame: ResumeFrame): void {
    const { clock, record } = this.#options;
    // The source knows better than this side that the connection before is of no use any more.
    if (this.#lostMs === undefined)
      this.#lost(new LinkError("LINK_FAILED", "Source has made another connection"));
    this.#cancelWait();
    this.#peer = peer;
    this.#connection = frame.connection;
    const outageMs = clock.nowMs() - this.#lostMs!;
    this.#lostMs = undefined;
    this.#state.received(frame);
    peer.adopt(this.#state);
    peer.send({
      type: "resumed",
      stage: this.#state.reached,
      dataSequence: this.#state.dataSequence,
      ackSequence: this.#takenSequence,
    });
    this.#releaseReturn(frame.returnBytes);
    const resentBytes = this.#returnLog.retainedBytes;
    this.#sendReturn(this.#returnLog.from(frame.returnBytes));
    record.add({ type: "link", state: "resumed", outageMs, resentBytes });
    this.#tell();
    this.#stallIfNeeded();
  }

  #sendReturn(pieces: readonly Uint8Array[]): void {
    for (const bytes of pieces) this.#peer.send({ type: "return", bytes });
  }

  #releaseReturn(returnBytes: number): void {
    const wasFull = this.#returnLog.retainedBytes >= RETURN_RETAINED_BYTES;
    if (!this.#returnLog.release(returnBytes)) {
      const text = `Source has ${returnBytes} bytes of the return path, of which there are ${this.#returnLog.end}`;
      throw new ProtocolError("PROTOCOL_INVALID_FRAME", text);
    }
    if (wasFull && this.#returnLog.retainedBytes < RETURN_RETAINED_BYTES) this.#vmChannel?.resume();
  }

  #frame(frame: Frame): void {
    switch (frame.type) {
      case "hello": {
        const answer = answerHello(frame, this.#options.own);
        if (answer.type === "refuse") {
          this.#peer.send(answer);
          const { code, message } = answer.reason;
          void this.#fail(
            new DeltaveeError("PROTOCOL_REFUSED", `Refused the source (${code}): ${message}`),
            true,
          );
          return;
        }
        // No DATA may come before the hypervisor is there to take it: WELCOME is the permission to send.
        this.#prepare(frame.body).then(
          (untouchedRam) => {
            if (this.#over) return;
            this.#welcomed = true;
            this.#welcomedMs = this.#options.clock.nowMs();
            if (untouchedRam.length > 0) answer.body.untouchedRam = untouchedRam;
            const { resumption } = answer.body;
            if (resumption !== undefined) {
              this.#resumption = { ...resumption, session: frame.body.session, version: answer.version };
            }
            this.#peer.send(answer);
            this.#options.record.add({ type: "phase", phase: "iterating" });
            this.#options.welcomed?.({ session: frame.body.session, name: frame.body.name });
          },
          (error: unknown) => {
            if (!this.#over) this.#peer.send(refusalFor(toError(error)));
            void this.#fail(toError(error), true);
          },
        );
        return;
      }
      case "data":
        if (frame.payloadKind === PAYLOAD_STREAM || frame.payloadKind === PAYLOAD_PAGES) {
          this.#lastToTake = frame.sequence;
          this.#busy.begin(this.#options.clock.nowMs());
        }
        this.#delivery.data(frame);
        return;
      case "done":
        this.#sourceKnows();
        return;
      case "returned":
        this.#releaseReturn(frame.returnBytes);
        return;
      case "resume":
        // The first connection, and nothing to resume.
        this.#peer.send(unknownSession());
        void this.#fail(
          new DeltaveeError("PROTOCOL_REFUSED", "Refused a source that resumes another migration"),
          true,
        );
        return;
      case "verify":
        void this.#verify(frame);
        return;
      case "commit":
        void this.#takeOver(frame.resume && this.#options.paused !== true);
        return;
      case "abort": {
        const { code, message } = frame.reason;
        const text = `Source gave up (${code}): ${message}`;
        void this.#fail(
          new DeltaveeError(code === "CANCELLED" ? "CANCELLED" : "MIGRATION_FAILED", text),
          false,
          true,
        );
        return;
      }
      default:
        return;
    }
  }

  /** @returns RAM of which the source need not send zeros */
  async #prepare({ postcopy: mayPostcopy = false, verify = false }: Hello): Promise<UntouchedRam[]> {
    const { vm, record } = this.#options;
    record.add({ type: "phase", phase: "setup" });
    // Found out now, and not when the guest stands still.
    if (verify) (await openStoppedRam(vm)).close();
    if (mayPostcopy && vm.ready === undefined)
      throw new DeltaveeError("HYPERVISOR_INCOMPATIBLE", `${vm.description} has no post-copy`);
    const channel = await vm.begin(mayPostcopy);
    // The source went meanwhile. The hypervisor has taken nothing, and waits for another one.
    if (this.#over) return [];
    this.#vmChannel = channel;
    this.#delivery.to(channel);
    channel.listen({
      data: (bytes) => {
        // A source that was told the end is done with it.
        if (this.#over || this.#state.stage === "finished") return;
        if (this.#lostMs === undefined) this.#sendReturn(inPieces(bytes));
        if (this.#resumption === undefined) return;
        this.#returnLog.append(bytes);
        if (this.#returnLog.retainedBytes >= RETURN_RETAINED_BYTES) channel.pause();
      },
      drained: () => {
        this.#delivery.drained();
      },
      // It closes when it has loaded everything, or when loading failed: `loaded` tells which.
      ended: () => {},
      failed: (error) => {
        if (this.#loaded) return;
        const text = "The hypervisor dropped the incoming migration";
        void this.#fail(new DeltaveeError("HYPERVISOR_FAILED", text, { cause: error }), true);
      },
    });
    vm.loaded().then(
      () => {
        if (this.#over) return;
        this.#loaded = true;
        // In post-copy it has come to that already.
        if (!this.#ready) this.#enterSwitchover("everything is loaded");
        else if (this.#here !== undefined) this.#complete();
        this.#tell();
      },
      (error: unknown) => void this.#fail(toError(error), true),
    );
    if (mayPostcopy) {
      vm.ready?.().then(
        () => {
          if (this.#over || this.#loaded) return;
          this.#ready = true;
          this.#enterSwitchover("the guest could run here, part of its RAM is to come");
          this.#tell();
        },
        // The stream was not loaded: that is for `loaded` to tell.
        () => {},
      );
      // There the hypervisor asks the source for each page that it was not sent.
      return [];
    }
    return this.#untouchedRam();
  }

  async #untouchedRam(): Promise<UntouchedRam[]> {
    const { vm, record } = this.#options;
    try {
      return (await vm.untouchedRam?.()) ?? [];
    } catch (thrown) {
      const why = toError(thrown).message;
      record.add({ type: "notice", message: `What is zero here already is not known, and is sent: ${why}` });
      return [];
    }
  }

  /** What is loaded is compared with what the source has. */
  async #verify(frame: VerifyFrame): Promise<void> {
    const peer = this.#peer;
    // Asked on a connection that broke: the source asks again.
    const isWanted = () => !this.#over && peer === this.#peer && this.#lostMs === undefined;
    let ram: StoppedRam | undefined;
    try {
      ram = await openStoppedRam(this.#options.vm);
      const digests = await digestsOf(ram, frame, isWanted);
      if (digests !== undefined && isWanted()) peer.send({ type: "digests", digests });
    } catch (thrown) {
      // There is no COMMIT before the answer: the source keeps the guest.
      if (isWanted()) void this.#fail(toError(thrown), true, true);
    } finally {
      ram?.close();
    }
  }

  #enterSwitchover(reason: string): void {
    this.#options.record.add({ type: "phase", phase: "switchover", reason });
  }

  /** Takes frames from the link only while there is a slot for the next, and a hypervisor that keeps up. */
  #stallIfNeeded(): void {
    if (this.#delivery.hasRoom) this.#peer.unstall();
    else this.#peer.stall();
  }

  #acknowledge(sequence: number): void {
    this.#takenSequence = sequence;
    const nowMs = this.#options.clock.nowMs();
    if (sequence >= this.#lastToTake) this.#busy.end(nowMs);
    if (this.#lostMs === undefined) {
      const pace = this.#state.speaks(PACE_VERSION) ? { pace: this.#pace(nowMs) } : {};
      this.#peer.send({ type: "ack", sequence, ...pace });
    }
    this.#tell();
  }

  #pace(nowMs: number): Pace {
    const elapsedMs = Math.min(PACE_MS_MAX, Math.floor(nowMs - this.#welcomedMs));
    return { elapsedMs, busyMs: Math.min(elapsedMs, Math.floor(this.#busy.totalMs(nowMs))) };
  }

  /**
   * What the source is to know by now, each when it is the turn of it, and again if the source turns out not to have
   * received it. Everything must be loaded and acknowledged for LOADED: the two are noticed in either order.
   */
  #tell(): void {
    if (this.#lostMs !== undefined || this.#over) return;
    const { dataSequence } = this.#state;
    // A hypervisor that claims to have loaded a guest of which nothing has come is heard when something has.
    const hasAll = this.#loaded && dataSequence > 0 && this.#takenSequence === dataSequence;
    if (this.#state.stage === "streaming" && (hasAll || this.#ready)) {
      this.#isTold = true;
      this.#peer.send({ type: this.#ready ? "ready" : "loaded" });
    }
    const mayRun = this.#state.stage === "committed" || this.#state.stage === "given";
    if (mayRun && this.#here !== undefined) this.#peer.send({ type: "running" });
    if (this.#state.stage === "fetching" && hasAll) this.#peer.send({ type: "loaded" });
    // One that could come back and ask says when it knows.
    if (this.#state.stage === "finished" && this.#resumption === undefined) this.#sourceKnows();
  }

  /** COMMIT has come: from here on the guest is ours, and nothing gives it back. */
  async #takeOver(resume: boolean): Promise<void> {
    const { vm, record } = this.#options;
    record.add({ type: "phase", phase: "committed" });
    try {
      if (resume) await vm.resume();
    } catch (thrown) {
      const error = toError(thrown);
      if (this.#over) return;
      const outOfReach = error instanceof DeltaveeError && OUT_OF_REACH.has(error.code);
      const where: VmWhere = outOfReach ? "unknown" : "paused on destination";
      if (this.#lacksRam) {
        this.#endInPart(error, true, where);
        return;
      }
      if (this.#lostMs === undefined) this.#peer.send(abortFrame("HYPERVISOR_FAILED", error.message));
      this.#peer.end();
      record.add({ type: "phase", phase: "failed" });
      this.#finish("failed", where, error);
      return;
    }
    if (this.#over) return;
    if (vm.isManaged === true) this.#here = "with the destination";
    else this.#here = resume ? "running on destination" : "paused on destination";
    if (this.#lacksRam && this.#interruption !== undefined) {
      this.#endInPart(this.#interruption.cause, this.#interruption.tell, this.#here);
      return;
    }
    if (!this.#lacksRam) this.#complete();
    this.#tell();
    const isAlone = this.#sourceIsGone || this.#interruption !== undefined;
    if (isAlone && !this.#over) this.#sourceKnows();
  }

  /** Post-copy is under way: a part of the guest is at the source only. */
  get #lacksRam(): boolean {
    return this.#ready && !this.#loaded;
  }

  #complete(): void {
    this.#done = this.#here;
    this.#options.record.add({ type: "phase", phase: "completed" });
  }

  /** Post-copy, after COMMIT. Where the guest is nobody knows before it has been let run, or could not be. */
  #interrupted(cause: Error, tell: boolean): void {
    if (this.#here !== undefined) this.#endInPart(cause, tell, this.#here);
    else this.#interruption ??= { cause, tell };
  }

  /** Each hypervisor has a part of the guest, and keeps it, for a person to go on with. */
  #endInPart(cause: Error, tell: boolean, where: VmWhere): void {
    const error = cause instanceof DeltaveeError ? cause : undefined;
    if (tell && this.#lostMs === undefined)
      this.#peer.send(abortFrame(error?.code ?? "INTERNAL", cause.message));
    this.#peer.end();
    this.#vmChannel?.destroy();
    this.#options.record.add({ type: "phase", phase: "failed" });
    const text = `Post-copy was interrupted: ${cause.message}. Part of the guest's RAM is only at the source: end neither QEMU`;
    this.#finish("failed", where, new DeltaveeError("POSTCOPY_INTERRUPTED", text, { cause }));
  }

  /** Nothing is left to be said. */
  #sourceKnows(): void {
    if (this.#over) return;
    this.#peer.end();
    this.#finish("completed", this.#done!);
  }

  /**
   * Before COMMIT: the copy of the guest here must never run. `tell`: the source does not know yet.
   * `sourceKept`: the source has said that it keeps the guest.
   */
  async #fail(error: Error, tell: boolean, sourceKept = false): Promise<void> {
    if (this.#over) return;
    if (this.#state.committed) {
      if (this.#lacksRam) this.#interrupted(error, tell);
      return;
    }
    this.#over = true;
    this.#delivery.end();
    const { vm } = this.#options;
    const code = error instanceof DeltaveeError ? error.code : "INTERNAL";
    try {
      if (tell) this.#peer.send(abortFrame(code, error.message));
    } catch {
      // Nothing can be said before HELLO or after REFUSE: the closed connection says it.
    }
    if (tell) this.#peer.end();
    else this.#strangers.close(this.#peer, error);
    // Once the source knows of a loaded copy it may have given the guest up, with COMMIT lost on the way: then
    // the copy may be all that is left of the VM, and stays, paused, unless the source says that it keeps it. In
    // post-copy it is a part, with which the source's hypervisor can go on.
    const keep = this.#isTold && !sourceKept;
    const where: VmWhere = keep ? "paused on destination" : "running on source";
    if (!keep && this.#vmChannel !== undefined) {
      this.#vmChannel.destroy();
      try {
        await vm.discard();
      } catch (thrown) {
        this.#options.record.add({ type: "notice", message: toError(thrown).message });
      }
    }
    const outcome = code === "CANCELLED" ? "cancelled" : "failed";
    if (this.#welcomed) this.#options.record.add({ type: "phase", phase: outcome });
    this.#finish(outcome, where, error);
  }

  #finish(outcome: DestinationOutcome["outcome"], vm: VmWhere, error?: Error): void {
    this.#over = true;
    this.#delivery.end();
    this.#cancelWait();
    this.#strangers.end();
    const { record, clock } = this.#options;
    const failure =
      error === undefined || error instanceof DeltaveeError
        ? error
        : new DeltaveeError("INTERNAL", error.message, { cause: error });
    if (failure !== undefined) {
      failure.vm = vm;
      if (this.#welcomed) record.add({ type: "error", code: failure.code, message: failure.message, vm });
    }
    this.#resolve({
      outcome,
      vm,
      welcomed: this.#welcomed,
      ...(failure === undefined ? {} : { error: failure }),
    });
    if (!this.#welcomed) return;
    const nowMs = clock.nowMs();
    record.add({
      type: "summary",
      outcome,
      vm,
      totalMs: nowMs - this.#startMs,
      handedOverBytes: this.#delivery.rawBytes,
      wireBytes: this.#delivery.codedBytes,
      pages: NO_PAGES,
    });
  }
}
