// The source engine: takes the hypervisor's migration stream, rewrites it against the page cache, sends it
// over a link (direct or tunnel) and sees the VM handed over. All it knows of the world comes through ports:
// it cannot tell a socket from a simulation.

import type { Clock } from "../base/clock.ts";
import { CancelledError, DeltaveeError, LinkError, toError, type VmWhere } from "../base/errors.ts";
import { ENTROPY_NONE, entropyCoderOf } from "../codec/entropy.ts";
import type { RunRecord } from "../record/writer.ts";
import { Command, ReturnPathType } from "../stream/format.ts";
import { StreamReader } from "../stream/reader.ts";
import {
  type ReturnPathMessage,
  ReturnPathReader,
  returnPathMessage,
  shutValue,
} from "../stream/return-path.ts";
import { OutputBuffer, StreamWriter } from "../stream/writer.ts";
import type { Hello } from "../wire/bodies.ts";
import { DirectLink } from "./direct-link.ts";
import { Handover } from "./handover.ts";
import type { Channel, OutgoingEnd, OutgoingStatus, OutgoingVm } from "./ports.ts";
import { type CacheFactory, StreamRewriter } from "./rewriter.ts";
import type { SourceLink } from "./source-link.ts";
import { SwitchoverControl } from "./switchover-control.ts";
import { TunnelLink } from "./tunnel-link.ts";

export interface SourceOptions {
  vm: OutgoingVm;
  /** Connection to the destination: a stock QEMU (direct) or a destination engine (tunnel). */
  channel: Channel;
  /** Tunnel mode if given: how this side introduces itself. */
  tunnel?: Hello;
  /** Longest time the guest may stand still. */
  downtimeMsMax: number;
  /** Undefined = method `standard`: every page whole. */
  cacheFactory: CacheFactory | undefined;
  clock: Clock;
  record: RunRecord;
  /** Runs `callback` after the events that are already waiting, e.g. setImmediate. */
  defer: (callback: () => void) => void;
  /** CPU time of this process so far, where it is known. */
  cpuMs?: () => number;
}

export interface SourceOutcome {
  outcome: "completed" | "failed" | "cancelled";
  vm: VmWhere;
  error?: DeltaveeError;
}

/** Input is taken in pieces of at most this, so that the window is looked at often enough on a slow link. */
const TURN_BYTES = 16 * 1024;
const SAMPLE_EVERY_MS = 250;
/** A hypervisor that is silent for longer has nothing to hand over; it is not slow. */
const HANDOVER_GAP_MS_MAX = 20;
/** How long the hypervisor may take to say how the migration ended, once both sides have what they need. */
const END_TIMEOUT_MS = 30_000;
/** How long the destination may take from COMMIT to RUNNING. */
const RUNNING_TIMEOUT_MS = 30_000;
/** How long the stopped guest may wait while nothing moves any more and the destination has not loaded it. */
const LOADED_TIMEOUT_MS = 30_000;

export class SourceEngine {
  readonly #options: SourceOptions;
  readonly #handover: Handover;
  readonly #output = new OutputBuffer();
  readonly #writer: StreamWriter;
  readonly #rewriter: StreamRewriter;
  readonly #reader: StreamReader;
  readonly #direct: DirectLink | undefined;
  readonly #tunnel: TunnelLink | undefined;
  readonly #link: SourceLink;
  readonly #returnPath = new ReturnPathReader();
  readonly #startMs: number;
  readonly #result: Promise<SourceOutcome>;
  #resolve!: (outcome: SourceOutcome) => void;
  #vmChannel: Channel | undefined;
  #handedOverBytes = 0;
  /** Time that handing over has taken, our work on it included, and from when on the next may come. */
  #handoverMs = 0;
  #handoverFromMs = 0;
  /** Input that arrived while the link had no room. */
  #pending: Uint8Array | undefined;
  #paused = false;
  #idleAsked = false;
  #opaqueReturnPath = false;
  /** The destination's verdict, withheld from the hypervisor until the destination engine says LOADED. */
  #heldVerdict: Buffer | undefined;
  #destinationLoaded = false;
  /** Its verdict says that it could not load the guest: certain, and the hypervisor here resumes on it. */
  #destinationRefused = false;
  #status: OutgoingStatus = {};
  #iteration = -1;
  #movedBytes = 0;
  #movedMs = 0;
  #sampledMs = Number.NEGATIVE_INFINITY;
  readonly #switchover: SwitchoverControl;
  #stoppedMs: number | undefined;
  #downtimeMs: number | undefined;
  #cancelStatusTimer: () => void = () => {};
  #cancelRunningTimer: () => void = () => {};
  #ending = false;

  constructor(options: SourceOptions) {
    this.#options = options;
    this.#startMs = options.clock.nowMs();
    this.#handover = new Handover(options.record);
    this.#switchover = new SwitchoverControl({
      ...options,
      mode: options.tunnel === undefined ? "direct" : "tunnel",
      release: () => this.#vmChannel?.write(returnPathMessage(ReturnPathType.SWITCHOVER_ACK)),
    });
    this.#result = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#writer = new StreamWriter(this.#output);
    this.#rewriter = new StreamRewriter(
      this.#writer,
      {
        ramBlocks: () => {},
        command: (command) => {
          if (command === Command.OPEN_RETURN_PATH) this.#direct?.allowPings();
        },
        stopped: () => this.#stopped(),
        deviceState: () => this.#deviceState(),
        opaque: (reason, offsetBytes) => this.#opaque(reason, offsetBytes),
      },
      options.cacheFactory,
    );
    this.#reader = new StreamReader(this.#rewriter);

    const listener = {
      returnPath: (bytes: Uint8Array) => this.#fromDestination(bytes),
      room: () => this.#pump(),
      ended: () => this.#destinationEnded(),
      failed: (error: Error) => this.#linkFailed(error),
    };
    if (options.tunnel === undefined) {
      this.#direct = new DirectLink(options.channel, options.clock, listener);
      this.#link = this.#direct;
    } else {
      this.#tunnel = new TunnelLink(options.channel, options.clock, {
        ...listener,
        welcome: (frame) => {
          this.#tunnel?.useCoder(entropyCoderOf(frame.body.entropyCodecs[0] ?? ENTROPY_NONE));
          this.#begin();
        },
        loaded: () => {
          this.#destinationLoaded = true;
          void this.#commitTunnel();
        },
        running: () => this.#complete(),
      });
      this.#link = this.#tunnel;
    }
  }

  /** Moves the VM. Resolves when it is over, whichever way, and says where the VM is. Never rejects. */
  run(): Promise<SourceOutcome> {
    if (this.#tunnel !== undefined && this.#options.tunnel !== undefined)
      this.#tunnel.greet(this.#options.tunnel);
    else this.#begin();
    return this.#result;
  }

  /** The operator gives up. Before `committed` the guest goes on here; afterwards it cannot be taken back. */
  cancel(): boolean {
    if (this.#handover.committed || this.#handover.isOver) return false;
    void this.#fail(new CancelledError("Cancelled by the operator"));
    return true;
  }

  #begin(): void {
    const { vm } = this.#options;
    vm.begin().then(
      (channel) => {
        if (this.#ending) {
          channel.destroy();
          return;
        }
        this.#vmChannel = channel;
        channel.listen({
          data: (bytes) => this.#fromSource(bytes),
          drained: () => {},
          ended: () => this.#sourceEnded(),
          failed: () => this.#sourceEnded(),
        });
        this.#handover.enter("iterating");
        this.#pollStatus();
      },
      (error: unknown) => void this.#fail(toError(error)),
    );
    void vm.ended.then((end) => this.#hypervisorEnded(end));
  }

  // ---- the stream, source to destination ----

  #fromSource(bytes: Uint8Array): void {
    if (this.#ending) return;
    const gapMs = this.#options.clock.nowMs() - this.#handoverFromMs;
    if (gapMs <= HANDOVER_GAP_MS_MAX) this.#handoverMs += gapMs;
    this.#handedOverBytes += bytes.length;
    this.#pending = this.#pending === undefined ? bytes : Buffer.concat([this.#pending, bytes]);
    this.#pump();
  }

  /** Takes input while the link has room; otherwise asks the hypervisor's side to wait. */
  #pump(): void {
    const pending = this.#pending;
    if (pending !== undefined) this.#take(pending);
    if (this.#ending) return;
    if (this.#pending !== undefined && !this.#paused) {
      this.#paused = true;
      this.#vmChannel?.pause();
    } else if (this.#pending === undefined && this.#paused) {
      this.#paused = false;
      this.#vmChannel?.resume();
    }
    this.#askIdle();
  }

  #take(pending: Uint8Array): void {
    const startMs = this.#options.clock.nowMs();
    let position = 0;
    try {
      while (position < pending.length && this.#link.hasRoom && !this.#ending) {
        const end = Math.min(position + Math.min(TURN_BYTES, this.#link.turnBytes), pending.length);
        this.#reader.push(pending.subarray(position, end));
        position = end;
        this.#link.flush(this.#writer, false);
      }
    } catch (thrown) {
      void this.#fail(toError(thrown));
      return;
    }
    this.#pending = position < pending.length ? pending.subarray(position) : undefined;
    this.#handoverFromMs = this.#options.clock.nowMs();
    this.#handoverMs += this.#handoverFromMs - startMs;
  }

  /** When nothing more comes at once, what waits for a fuller batch must go: it may be all there is. */
  #askIdle(): void {
    if (this.#idleAsked || this.#output.length === 0) return;
    this.#idleAsked = true;
    this.#options.defer(() => {
      this.#idleAsked = false;
      if (this.#ending || this.#pending !== undefined) return;
      try {
        this.#link.flush(this.#writer, true);
      } catch (thrown) {
        void this.#fail(toError(thrown));
      }
    });
  }

  #stopped(): void {
    if (this.#handover.phase !== "iterating") return;
    this.#stoppedMs = this.#options.clock.nowMs();
    this.#handover.enter("switchover", "the source's vCPUs have stopped");
    this.#link.liftWindow();
  }

  #deviceState(): void {
    this.#options.record.add({ type: "notice", message: "RAM is complete, device state follows" });
    if (this.#direct === undefined) return;
    // A stock destination runs the guest as soon as it has loaded this: there is nobody to ask first.
    this.#direct.forbidPings();
    this.#handover.enter("committed", "device state goes to a destination that starts by itself");
  }

  #opaque(reason: string, offsetBytes: number): void {
    this.#options.record.add({ type: "opaque", reason, offsetBytes });
    this.#direct?.forbidPings();
    this.#opaqueReturnPath = offsetBytes === 0;
  }

  // ---- the return path, destination to source ----

  #fromDestination(bytes: Uint8Array): void {
    if (this.#ending) return;
    if (this.#opaqueReturnPath) {
      this.#vmChannel?.write(new Uint8Array(bytes));
      return;
    }
    for (const message of this.#returnPath.push(bytes)) this.#returnMessage(message);
  }

  #returnMessage(message: ReturnPathMessage): void {
    const verdict = shutValue(message);
    if (verdict === 0 && this.#tunnel !== undefined) {
      this.#heldVerdict = Buffer.from(message.bytes);
      void this.#commitTunnel();
      return;
    }
    if (verdict !== undefined && verdict !== 0) this.#destinationRefused = true;
    if (verdict === 0 && this.#direct !== undefined) {
      // The destination has sent this after starting the guest.
      if (this.#stoppedMs !== undefined) this.#downtimeMs = this.#options.clock.nowMs() - this.#stoppedMs;
      this.#destinationLoaded = true;
    }
    if (message.type === ReturnPathType.SWITCHOVER_ACK && this.#switchover.keepsBackAck()) return;
    this.#vmChannel?.write(Buffer.from(message.bytes));
  }

  // ---- how it ends ----

  /**
   * The destination has everything, paused. The hypervisor here is told so and completes: from then on it
   * will not resume the guest, which is the moment to commit. Only then may the destination let it run.
   */
  async #commitTunnel(): Promise<void> {
    if (!this.#destinationLoaded || this.#ending) return;
    // A return path that cannot be read has given the hypervisor its verdict already.
    if (this.#heldVerdict !== undefined) this.#vmChannel?.write(this.#heldVerdict);
    else if (!this.#opaqueReturnPath) return;
    this.#heldVerdict = undefined;
    const end = await this.#endWithin(END_TIMEOUT_MS);
    if (this.#ending) return;
    if (end?.outcome !== "completed") {
      void this.#fail(
        new DeltaveeError(
          "HYPERVISOR_FAILED",
          `Source hypervisor did not complete: ${end?.reason ?? "no answer"}`,
        ),
      );
      return;
    }
    if (this.#handover.phase === "iterating") this.#handover.enter("switchover");
    this.#handover.enter("committed", "the source hypervisor has completed, the destination has everything");
    this.#tunnel?.commit(this.#options.vm.wasRunning);
    this.#cancelRunningTimer = this.#options.clock.after(RUNNING_TIMEOUT_MS, () => {
      if (!this.#ending)
        this.#linkFailed(new LinkError("LINK_TIMEOUT", "Destination did not confirm COMMIT"));
    });
  }

  async #endWithin(timeoutMs: number): Promise<OutgoingEnd | undefined> {
    return new Promise((resolve) => {
      const cancel = this.#options.clock.after(timeoutMs, () => resolve(undefined));
      void this.#options.vm.ended.then((end) => {
        cancel();
        resolve(end);
      });
    });
  }

  #hypervisorEnded(end: OutgoingEnd): void {
    if (this.#ending) return;
    if (end.outcome === "completed") {
      // In tunnel mode it completes because it was given the verdict: COMMIT and RUNNING follow.
      if (this.#tunnel === undefined) this.#complete();
      return;
    }
    const text = `Source hypervisor ended the migration: ${end.reason}`;
    void this.#fail(
      end.outcome === "cancelled" ? new CancelledError(text) : new DeltaveeError("HYPERVISOR_FAILED", text),
    );
  }

  /** The hypervisor has closed its side; how the migration ended it tells by `ended`. */
  #sourceEnded(): void {}

  #complete(): void {
    if (this.#ending) return;
    if (this.#downtimeMs === undefined && this.#stoppedMs !== undefined) {
      this.#downtimeMs = this.#options.clock.nowMs() - this.#stoppedMs;
    }
    this.#ending = true;
    if (this.#tunnel !== undefined) this.#tunnel.end();
    else this.#options.channel.end();
    if (this.#handover.phase === "iterating") this.#handover.enter("switchover");
    if (this.#handover.phase === "switchover") this.#handover.enter("committed");
    this.#handover.enter("completed");
    void this.#finish(
      "completed",
      this.#options.vm.wasRunning ? "running on destination" : "paused on destination",
    );
  }

  /** A stock destination has closed the connection in good order. */
  #destinationEnded(): void {
    if (this.#ending || this.#destinationLoaded) return;
    const error = new DeltaveeError(
      "MIGRATION_FAILED",
      "Destination closed the connection without having loaded the guest (its own log says why)",
    );
    void this.#fail(error);
  }

  #linkFailed(error: Error): void {
    const isOurs = error instanceof DeltaveeError;
    const text = "Connection to the destination broke";
    void this.#fail(isOurs ? error : new LinkError("LINK_FAILED", text, { cause: error }));
  }

  async #fail(error: Error): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    const { vm, record } = this.#options;
    await this.#settleOpaqueDirect();
    const failure =
      error instanceof DeltaveeError ? error : new DeltaveeError("INTERNAL", error.message, { cause: error });
    const mayRunThere = this.#handover.committed && !this.#destinationRefused;
    let where: VmWhere;
    if (mayRunThere) {
      // The guest may be running there. A verdict of our own makes the hypervisor here complete, paused,
      // instead of resuming the guest when the connection closes: never both.
      if (this.#direct !== undefined) this.#vmChannel?.write(returnPathMessage(ReturnPathType.SHUT, 0));
      await this.#endWithin(END_TIMEOUT_MS);
      where = "unknown";
      const running = await vm.isRunning();
      record.add({
        type: "notice",
        message: running
          ? "The hypervisor here has let the guest run on by itself: if it runs at the destination too, stop one."
          : "The destination may have the guest, so it is not resumed here.",
      });
    } else {
      if (this.#tunnel !== undefined) {
        try {
          this.#tunnel.abort(failure.code, failure.message);
        } catch (thrown) {
          record.add({ type: "notice", message: `Peer could not be told: ${toError(thrown).message}` });
          this.#tunnel.destroy();
        }
      } else this.#link.destroy();
      where = await this.#takeBack();
    }
    this.#vmChannel?.destroy();
    this.#link.destroy();
    failure.vm = where;
    record.add({ type: "error", code: failure.code, message: failure.message, vm: where });
    const outcome = failure instanceof CancelledError ? "cancelled" : "failed";
    this.#handover.enter(this.#handover.committed ? "failed" : outcome);
    await this.#finish(outcome, where, failure);
  }

  /**
   * In a stream that is not interpreted nobody has seen the device state go out. A guest that has been stopped
   * may then have been handed over to a stock destination; one that still runs has not.
   */
  async #settleOpaqueDirect(): Promise<void> {
    const { vm } = this.#options;
    if (this.#direct === undefined || !this.#reader.isOpaque || this.#handover.committed) return;
    this.#link.destroy();
    if (!vm.wasRunning || (await vm.isRunning()) === true) return;
    if (this.#handover.phase === "iterating") this.#handover.enter("switchover");
    this.#handover.enter("committed", "the guest was stopped, and how far its state had got is not known");
  }

  /** Cancels at the hypervisor and finds out whether the guest runs here again. */
  async #takeBack(): Promise<VmWhere> {
    const { vm, record } = this.#options;
    try {
      await vm.cancel();
    } catch (thrown) {
      record.add({ type: "notice", message: `Cancel was not confirmed: ${toError(thrown).message}` });
    }
    this.#vmChannel?.destroy();
    if (this.#vmChannel !== undefined) await this.#endWithin(END_TIMEOUT_MS);
    const running = await vm.isRunning();
    if (running === undefined) return "unknown";
    return running ? "running on source" : "paused on source";
  }

  // ---- what is seen of it ----

  #pollStatus(): void {
    const { clock, vm } = this.#options;
    const again = () => {
      if (this.#ending) return;
      this.#watchLoading();
      if (clock.nowMs() - this.#sampledMs >= SAMPLE_EVERY_MS) this.#sample();
      this.#cancelStatusTimer = clock.after(this.#switchover.lookAgainMs, () => this.#pollStatus());
    };
    vm.status().then(
      (status) => {
        this.#status = status;
        const progress = {
          handedOverBytes: this.#handedOverBytes,
          handoverMs: this.#handoverMs,
          unsentBytes: this.#output.length,
          link: this.#link.figures,
        };
        this.#switchover.look(status, progress, !this.#ending && this.#handover.phase === "iterating");
        again();
      },
      // The hypervisor may be gone or busy: the sample goes out without new figures of its own.
      again,
    );
  }

  /** With the guest stopped and everything sent, a destination that never finishes loading is a failure. */
  #watchLoading(): void {
    // Not the bytes on the wire: a connection on which nothing moves is still kept alive.
    const moved = this.#handedOverBytes - this.#link.figures.inFlightBytes;
    const nowMs = this.#options.clock.nowMs();
    const waiting = this.#tunnel !== undefined && this.#stoppedMs !== undefined && !this.#destinationLoaded;
    if (!waiting || moved !== this.#movedBytes) {
      this.#movedBytes = moved;
      this.#movedMs = nowMs;
    } else if (nowMs - this.#movedMs > LOADED_TIMEOUT_MS) {
      const text = `Destination has not loaded the guest within ${LOADED_TIMEOUT_MS / 1000} s`;
      void this.#fail(new LinkError("LINK_TIMEOUT", text));
    }
  }

  #sample(): void {
    const { record, cpuMs, clock } = this.#options;
    this.#sampledMs = clock.nowMs();
    const { iteration, remainingBytes, dirtyPagesPerSecond } = this.#status;
    const figures = this.#link.figures;
    const known = {
      ...(remainingBytes === undefined ? {} : { remainingBytes }),
      ...(dirtyPagesPerSecond === undefined ? {} : { dirtyPagesPerSecond }),
    };
    if (iteration !== undefined && iteration > this.#iteration) {
      this.#iteration = iteration;
      const { wireBytes } = figures;
      record.add({ type: "iteration", iteration, wireBytes, pages: { ...this.#rewriter.pages }, ...known });
    }
    const cache = this.#rewriter.cache?.stats;
    record.add({
      type: "sample",
      handedOverBytes: this.#handedOverBytes,
      wireBytes: figures.wireBytes,
      inFlightBytes: figures.inFlightBytes,
      windowBytes: figures.windowBytes,
      linkBytesPerSecond: figures.linkBytesPerSecond,
      ...(figures.roundTripMs === undefined ? {} : { roundTripMs: figures.roundTripMs }),
      ...(iteration === undefined ? {} : { iteration }),
      ...known,
      pages: { ...this.#rewriter.pages },
      ...(cache === undefined ? {} : { cache: { ...cache } }),
      ...(cpuMs === undefined ? {} : { cpuMs: cpuMs() }),
    });
  }

  async #finish(outcome: SourceOutcome["outcome"], vm: VmWhere, error?: DeltaveeError): Promise<void> {
    const { record, clock, cpuMs } = this.#options;
    this.#cancelStatusTimer();
    this.#cancelRunningTimer();
    const totalMs = clock.nowMs() - this.#startMs;
    try {
      this.#status = await this.#options.vm.status();
    } catch {
      // Its last figures must do.
    }
    this.#sample();
    const cache = this.#rewriter.cache?.stats;
    const { downtimeMs: downtimeMsReported, iteration } = this.#status;
    record.add({
      type: "summary",
      outcome,
      vm,
      totalMs,
      ...(outcome === "completed" && this.#downtimeMs !== undefined ? { downtimeMs: this.#downtimeMs } : {}),
      ...(outcome === "completed" && downtimeMsReported !== undefined ? { downtimeMsReported } : {}),
      handedOverBytes: this.#handedOverBytes,
      wireBytes: this.#link.figures.wireBytes,
      ...(iteration === undefined ? {} : { iterations: iteration + 1 }),
      pages: { ...this.#rewriter.pages },
      ...(cache === undefined ? {} : { cache: { ...cache } }),
      ...(cpuMs === undefined ? {} : { cpuMs: cpuMs() }),
    });
    this.#resolve({ outcome, vm, ...(error === undefined ? {} : { error }) });
  }
}
