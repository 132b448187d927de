// The source engine: takes the hypervisor's migration stream, rewrites it against the page cache, sends it
// over a link (direct or tunnel) and sees the VM handed over. All it knows of the world comes through ports:
// it cannot tell a socket from a simulation.

import type { Clock } from "../base/clock.ts";
import {
  CancelledError,
  DeltaveeError,
  LinkError,
  ProtocolError,
  toError,
  type VmWhere,
} from "../base/errors.ts";
import { formatMs } from "../base/units.ts";
import type { DeltaCodecId } from "../codec/delta/delta-codec.ts";
import { makeDeltaCodec } from "../codec/delta/delta-codecs.ts";
import type { BatchCoder } from "../codec/entropy/batch-coder.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { KernelMemory } from "../kernel/memory.ts";
import type { PageCache } from "../memory/page-cache.ts";
import type { RunRecord } from "../record/writer.ts";
import { Command, PACKAGE_PING_VALUE, ReturnPathType } from "../stream/format.ts";
import { StreamReader } from "../stream/reader.ts";
import {
  pongValue,
  type ReturnPathMessage,
  ReturnPathReader,
  returnPathMessage,
  shutValue,
} from "../stream/return-path.ts";
import type { PageObserver } from "../trace/format.ts";
import type { Hello } from "../wire/bodies.ts";
import { BatchSink, type PageCoding } from "./batch-sink.ts";
import { BypassJudge } from "./bypass.ts";
import { ContentWindow } from "./content-window.ts";
import type { Promises } from "./convergence.ts";
import { DirectLink } from "./direct-link.ts";
import { Handover } from "./handover.ts";
import { PageRequests } from "./page-requests.ts";
import type { PageSink } from "./page-sink.ts";
import type { Channel, OutgoingEnd, OutgoingStatus, OutgoingVm, StoppedRam } from "./ports.ts";
import { openStoppedRam, RamComparison } from "./ram-digests.ts";
import { type CacheFactory, StreamRewriter } from "./rewriter.ts";
import {
  endOf,
  type FailedSource,
  isInPostcopy,
  leaveInPart,
  leaveStopped,
  takeBack,
} from "./source-endings.ts";
import type { SourceLink } from "./source-link.ts";
import { StreamIntake } from "./stream-intake.ts";
import { StreamSink } from "./stream-sink.ts";
import { SwitchoverControl } from "./switchover-control.ts";
import { type ReconnectOptions, TunnelLink } from "./tunnel-link.ts";

export interface TunnelOptions {
  /** How this side introduces itself. */
  hello: Hello;
  /** Codes batches, in the home memory. The caller closes it. */
  coder: BatchCoder;
  /** How pages that the destination knows are coded. */
  deltaCodec: DeltaCodecId;
  /** How a connection that breaks is resumed. Undefined: it is the end of the migration. */
  reconnect?: ReconnectOptions;
  /**
   * How long the destination may be out of reach while the guest stands still and can be taken back; then it is.
   * Default: as at any other time.
   */
  switchoverTimeoutMs?: number;
}

export interface SourceOptions extends Promises {
  vm: OutgoingVm;
  /** Connection to the destination: a stock QEMU (direct) or a destination engine (tunnel). */
  channel: Channel;
  /** Tunnel mode if given. */
  tunnel?: TunnelOptions;
  /** Undefined = method `standard`: every page whole. */
  cacheFactory: CacheFactory | undefined;
  /** The home memory of this migration, and this thread's kernel in it. */
  memory: KernelMemory;
  kernel: Kernel;
  clock: Clock;
  record: RunRecord;
  /** Runs `callback` after the events that are already waiting, e.g. setImmediate. */
  defer: (callback: () => void) => void;
  /** Is told what became of each page, e.g. a page trace. */
  observer?: PageObserver | undefined;
  /** CPU time of this process so far, where it is known. */
  cpuMs?: () => number;
  /** Time for which cores of this machine were idle, of all together, where it is known (engine/bypass.ts). */
  idleCoreMs?: () => number;
}

export interface SourceOutcome {
  outcome: "completed" | "failed" | "cancelled";
  vm: VmWhere;
  error?: DeltaveeError;
}

/** Whole pages sent last, to which an equal page is a reference: the destination keeps them. */
const WINDOW_BYTES = 32 * 1024 * 1024;
/** In post-copy: what has been read and waits stands before a page that the guest waits for. */
const POSTCOPY_READ_BYTES = 16 * 1024;
const SAMPLE_EVERY_MS = 250;
/** How long the destination may take from COMMIT to RUNNING. */
const RUNNING_TIMEOUT_MS = 30_000;
/** How long the stopped guest may wait while nothing moves any more and the destination has not loaded it. */
const LOADED_TIMEOUT_MS = 30_000;
/** How long the destination may take to read and hash what one question is about: at most some GiB. */
const DIGESTS_TIMEOUT_MS = 120_000;

export class SourceEngine {
  readonly #options: SourceOptions;
  readonly #handover: Handover;
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
  readonly #intake: StreamIntake;
  #opaqueReturnPath = false;
  /** The destination's verdict, withheld from the hypervisor until the destination engine says LOADED. */
  #heldVerdict: Buffer | undefined;
  /** Tunnel, post-copy: the guest could run there, but RAM is missing. */
  #destinationReady = false;
  #destinationLoaded = false;
  #verdictGiven = false;
  /** RAM was found equal at both ends, where that was asked for. */
  #isVerified = false;
  #comparison: RamComparison | undefined;
  /** The hypervisor has completed with its verdict: only COMMIT is missing. */
  #hasCompleted = false;
  #commitSaid = false;
  #returnPathOpen = false;
  /** Direct: its verdict says that it could not load the guest. Certain, and the hypervisor here resumes on it. */
  #destinationRefused = false;
  /** Post-copy: since when, whether the guest runs there, and what it had to ask for. */
  #postcopySinceMs: number | undefined;
  #runsThere = false;
  #requestedBytes = 0;
  #pageRequests = new PageRequests([]);
  #status: OutgoingStatus = {};
  #iteration = -1;
  #movedBytes = 0;
  #movedMs = 0;
  #sampledMs = Number.NEGATIVE_INFINITY;
  readonly #switchover: SwitchoverControl;
  #stoppedMs: number | undefined;
  /** The same; in a stream that is not understood since it was seen, which is too late for a figure of the downtime. */
  #stillSinceMs: number | undefined;
  #cancelDigestsTimer: () => void = () => {};
  #downtimeMs: number | undefined;
  #forecastDowntimeMs: number | undefined;
  #cancelStatusTimer: () => void = () => {};
  #isPolling = false;
  #looksAtOnce = false;
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
      giveUp: (error) => {
        if (!this.#handover.committed) void this.#fail(error);
      },
    });
    this.#result = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    const { memory, kernel, cacheFactory } = options;
    const decision = (choice: string, reason: string) =>
      options.record.add({ type: "decision", subject: "method", choice, reason });
    const listener = {
      returnPath: (bytes: Uint8Array) => this.#fromDestination(bytes),
      room: () => this.#intake.pump(),
      ended: () => this.#destinationEnded(),
      failed: (error: Error) => this.#linkFailed(error),
    };
    let sink: PageSink;
    if (options.tunnel === undefined) {
      const streamSink = new StreamSink(memory, kernel);
      this.#direct = new DirectLink(options.channel, options.clock, streamSink, listener);
      this.#link = this.#direct;
      sink = streamSink;
    } else {
      const { coder, deltaCodec } = options.tunnel;
      const batchSink = new BatchSink(memory, kernel, coder, (_blocks, pageBytes) =>
        pageCoding(options, deltaCodec, pageBytes, this.#rewriter.cache),
      );
      sink = batchSink;
      this.#tunnel = new TunnelLink({
        channel: options.channel,
        clock: options.clock,
        sink: batchSink,
        coder,
        memory,
        kernel,
        reconnect: options.tunnel.reconnect,
        listener: {
          ...listener,
          welcome: () => this.#begin(),
          lost: (error) => this.#linkLost(error),
          resumed: (outage) => this.#linkResumed(outage),
          decision,
          ready: () => void this.#ready(),
          digests: (digests) => {
            this.#cancelDigestsTimer();
            this.#comparison?.answered(digests);
          },
          loaded: () => {
            this.#destinationLoaded = true;
            void (this.#runsThere ? this.#endPostcopy() : this.#commitTunnel());
          },
          running: () => this.#running(),
        },
      });
      this.#link = this.#tunnel;
    }
    this.#rewriter = new StreamRewriter({
      sink,
      memory,
      kernel,
      listener: {
        command: (command) => this.#command(command),
        ramBlocks: (blocks) => {
          this.#pageRequests = new PageRequests(blocks);
        },
        stopped: () => this.#stopped(),
        package: () => this.#postcopy(),
        packageEnd: () => {
          this.#direct?.beginPostcopy();
          this.#tunnel?.beginPostcopy();
        },
        deviceState: () => this.#deviceState(),
        opaque: (reason, offsetBytes) => this.#opaque(reason, offsetBytes),
      },
      cacheFactory,
      observer: options.observer,
    });
    this.#reader = new StreamReader(this.#rewriter, options.vm.pageBytes);
    const { clock, defer } = options;
    this.#intake = new StreamIntake({
      ...{ memory, clock, defer, reader: this.#reader, link: this.#link },
      // Method `standard` does not look at pages anyway.
      bypassJudge: cacheFactory === undefined ? undefined : new BypassJudge(decision, options.idleCoreMs),
      bypass: (wanted) => this.#bypass(wanted),
      pass: () => this.#whichPass(),
      failed: (error) => void this.#fail(error),
    });
  }

  /** Moves the VM. Resolves when it is over, whichever way, and says where the VM is. Never rejects. */
  run(): Promise<SourceOutcome> {
    if (this.#tunnel !== undefined && this.#options.tunnel !== undefined)
      this.#tunnel.greet(this.#options.tunnel.hello);
    else this.#begin();
    return this.#result;
  }

  /** The operator wants it to end: the guest is stopped at the next best moment, whatever the goal for its downtime. */
  allowAnyDowntime(): void {
    this.#switchover.allowAnyDowntime();
  }

  /** The operator gives up. Before `committed` the guest goes on here; afterwards it cannot be taken back. */
  cancel(why: DeltaveeError = new CancelledError("Cancelled by the operator")): boolean {
    if (this.#handover.committed || this.#handover.isOver) return false;
    void this.#fail(why);
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
        this.#intake.from(channel);
        this.#handover.enter("iterating");
        this.#pollStatus();
      },
      (error: unknown) => void this.#fail(toError(error)),
    );
    void vm.ended.then((end) => this.#hypervisorEnded(end));
    void vm.firstPassEnded?.then(() => this.#firstPassEnded());
  }

  // ---- the stream, source to destination ----

  #bypass(wanted: boolean): void {
    this.#rewriter.bypass(wanted);
    this.#link.bypass(wanted);
  }

  #whichPass(): "first" | "later" | undefined {
    if (this.#handover.phase !== "iterating") return undefined;
    return (this.#status.iteration ?? 0) < 1 ? "first" : "later";
  }

  #stopped(): void {
    if (this.#handover.phase !== "iterating") return;
    this.#stoppedMs = this.#options.clock.nowMs();
    this.#watchReturnPath();
    if (this.#ending) return;
    this.#forecastDowntimeMs = this.#switchover.expectation.forecastDowntimeMs;
    this.#handover.enter("switchover", "the source's vCPUs have stopped");
    this.#standsStill();
  }

  /** Whatever it waits for from here on, it does not wait without end. */
  #standsStill(): void {
    if (this.#stillSinceMs !== undefined) return;
    this.#stillSinceMs = this.#options.clock.nowMs();
    this.#switchover.guestStopped();
    this.#link.liftWindow();
  }

  #command(command: number): void {
    if (command === Command.OPEN_RETURN_PATH) {
      this.#returnPathOpen = true;
      this.#direct?.allowPings();
    }
    // What it takes to end one, or to take one back, has to be asked of the hypervisor.
    if (command === Command.POSTCOPY_ADVISE) this.#refuseIfManaged("the migration may end as post-copy");
  }

  /** Not everything can be carried without a word to the hypervisor. Nothing is lost: the guest goes on here. */
  #refuseIfManaged(why: string): void {
    if (this.#options.vm.isManaged !== true) return;
    const text = `Cannot carry this migration without QEMU's monitor: ${why}`;
    void this.#fail(new DeltaveeError("HYPERVISOR_INCOMPATIBLE", text));
  }

  /** A hypervisor that hears of no verdict lets go of the guest as soon as it has got rid of it. */
  #watchReturnPath(): void {
    const hasBegun = this.#status.iteration !== undefined || this.#stoppedMs !== undefined;
    if (hasBegun && !this.#returnPathOpen && !this.#reader.isOpaque)
      this.#refuseIfManaged("its capability return-path is off, so that nobody would hear of a failure");
  }

  /** The package goes out. In direct mode the destination lets the guest run when it has loaded it. */
  #postcopy(): void {
    this.#postcopySinceMs = this.#options.clock.nowMs();
    this.#intake.limitReads(POSTCOPY_READ_BYTES);
    // A destination engine asks first.
    if (this.#direct === undefined) return;
    // No guard is needed (vm.committed): in post-copy QEMU does not resume the guest when its connection closes. And
    // a verdict of the guard's would end the migration with pages missing.
    if (!this.#handover.committed)
      this.#handover.enter("committed", "post-copy: the destination runs the guest, and fetches the rest");
  }

  #deviceState(): void {
    if (this.#postcopySinceMs !== undefined) {
      this.#options.record.add({
        type: "notice",
        message: "RAM is complete: the source is not needed any more",
      });
      this.#direct?.forbidPings();
      this.#link.liftWindow();
      return;
    }
    this.#options.record.add({ type: "notice", message: "RAM is complete, device state follows" });
    if (this.#direct === undefined) return;
    this.#direct.forbidPings();
    if (this.#options.vm.isManaged === true) return;
    // A stock destination runs the guest as soon as it has loaded this: there is nobody to ask first.
    this.#options.vm.committed?.();
    this.#handover.enter("committed", "device state goes to a destination that starts by itself");
  }

  #opaque(reason: string, offsetBytes: number): void {
    this.#options.record.add({ type: "opaque", reason, offsetBytes });
    this.#direct?.forbidPings();
    this.#switchover.forbidPostcopy();
    this.#opaqueReturnPath = offsetBytes === 0;
    if (this.#opaqueReturnPath) this.#refuseIfManaged(reason);
    // How far such a hypervisor is, is told from its stream.
    else if (this.#options.vm.isManaged === true) this.#switchover.letGo();
  }

  // ---- the return path, destination to source ----

  #fromDestination(bytes: Uint8Array): void {
    if (this.#ending) return;
    if (this.#opaqueReturnPath) {
      this.#vmChannel?.write(new Uint8Array(bytes));
      return;
    }
    try {
      for (const message of this.#returnPath.push(bytes)) this.#returnMessage(message);
    } catch (thrown) {
      void this.#fail(toError(thrown));
    }
  }

  #returnMessage(message: ReturnPathMessage): void {
    const verdict = shutValue(message);
    if (verdict === 0 && this.#tunnel !== undefined) {
      this.#heldVerdict = Buffer.from(message.bytes);
      if (!this.#runsThere) void this.#commitTunnel();
      return;
    }
    // Whoever has the guest does not give it back, and a hypervisor in post-copy that is told of a failure never lets it
    // go on: the destination's engine says what has become of it.
    const isLast = this.#handover.committed || this.#postcopySinceMs !== undefined;
    if (verdict !== undefined && this.#tunnel !== undefined && isLast) return;
    // Only the first verdict is one: whoever has taken the guest does not give it back by another.
    if (verdict !== undefined && verdict !== 0 && this.#direct !== undefined && !this.#destinationLoaded)
      this.#destinationRefused = true;
    // A hypervisor whose stream is not understood looks at it itself.
    if (!this.#reader.isOpaque)
      this.#requestedBytes += this.#pageRequests.take(message, this.#postcopySinceMs !== undefined);
    // Device state is loaded, and the command to run the guest is the next thing that the destination reads.
    const isPackagePong = pongValue(message) === PACKAGE_PING_VALUE;
    if (this.#direct !== undefined && this.#postcopySinceMs !== undefined && isPackagePong) this.#runs();
    if (verdict === 0 && this.#direct !== undefined) {
      // The destination has sent this after starting the guest.
      if (this.#postcopySinceMs === undefined && this.#stoppedMs !== undefined)
        this.#downtimeMs = this.#options.clock.nowMs() - this.#stoppedMs;
      this.#destinationLoaded = true;
      if (this.#options.vm.isManaged === true && !this.#giveAway()) return;
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
    if (this.#verdictGiven) {
      this.#commitOnLink();
      return;
    }
    // COMMIT could not follow, and the guest is taken back more easily before.
    if (this.#tunnel?.isLost) return;
    // A return path that cannot be read has given the hypervisor its verdict already.
    if (this.#heldVerdict === undefined && !this.#opaqueReturnPath) return;
    if (this.#options.tunnel?.hello.verify === true && !this.#isVerified) {
      await this.#verify();
      return;
    }
    if (this.#options.vm.isManaged === true && !this.#giveAway()) return;
    if (this.#heldVerdict !== undefined) this.#vmChannel?.write(this.#heldVerdict);
    this.#heldVerdict = undefined;
    this.#verdictGiven = true;
    const end = await endOf(this.#options);
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
    this.#hasCompleted = true;
    this.#commitOnLink();
  }

  /** Both sides stand still, and neither has been told more. A connection that breaks meanwhile has it begun anew. */
  async #verify(): Promise<void> {
    const { vm, clock, record } = this.#options;
    if (this.#comparison !== undefined) return;
    const startMs = clock.nowMs();
    let ram: StoppedRam | undefined;
    const comparison = new RamComparison(
      { lengthOf: (idstr) => ram?.lengthOf(idstr), read: (...piece) => ram!.read(...piece), close: () => {} },
      (pieces) => {
        this.#awaitDigests();
        this.#tunnel!.verify(pieces);
      },
    );
    this.#comparison = comparison;
    try {
      ram = await openStoppedRam(vm);
      const verification = await comparison.run(this.#rewriter.blocks);
      if (verification === undefined || this.#ending || this.#comparison !== comparison) return;
      record.add({ type: "verified", ...verification, verifyMs: clock.nowMs() - startMs });
      this.#isVerified = true;
    } catch (thrown) {
      if (this.#comparison === comparison) void this.#fail(toError(thrown));
      return;
    } finally {
      ram?.close();
      if (this.#comparison === comparison) this.#comparison = undefined;
    }
    void this.#commitTunnel();
  }

  #awaitDigests(): void {
    this.#cancelDigestsTimer = this.#options.clock.after(DIGESTS_TIMEOUT_MS, () => {
      const text = `Destination has not said within ${DIGESTS_TIMEOUT_MS / 1000} s what its RAM is`;
      void this.#fail(new LinkError("LINK_TIMEOUT", text));
    });
  }

  #stopComparing(): void {
    this.#cancelDigestsTimer();
    const comparison = this.#comparison;
    this.#comparison = undefined;
    comparison?.stop();
  }

  /**
   * With the verdict that follows, whoever manages both hypervisors lets the guest run at the destination. False: it is
   * no verdict to pass on.
   */
  #giveAway(): boolean {
    if (this.#handover.committed) return true;
    if (this.#handover.phase === "iterating") {
      if (!this.#reader.isOpaque) {
        const text = "Destination says that it has loaded the guest, which still runs here";
        void this.#fail(new ProtocolError("PROTOCOL_INVALID_FRAME", text));
        return false;
      }
      this.#handover.enter("switchover");
    }
    this.#handover.enter("committed", "the destination has everything, and the source hypervisor is told so");
    return true;
  }

  /** Post-copy: the destination could run the guest. Not if it still runs here: COMMIT would make it run twice. */
  async #ready(): Promise<void> {
    try {
      // In a stream that is not understood nobody has seen the package go out: the hypervisor knows.
      if (this.#reader.isOpaque && this.#switchover.postcopyAsked) {
        const { isPostcopy } = await this.#options.vm.status();
        if (this.#ending) return;
        if (isPostcopy === true) this.#postcopySinceMs ??= this.#options.clock.nowMs();
      }
    } catch (thrown) {
      const text =
        "READY from the destination, and the hypervisor here does not say whether the guest was stopped";
      void this.#fail(new DeltaveeError("HYPERVISOR_FAILED", text, { cause: thrown }));
      return;
    }
    if (this.#postcopySinceMs === undefined) {
      const text =
        "READY from the destination, although it has been sent nothing that it could be ready with";
      void this.#fail(new ProtocolError("PROTOCOL_INVALID_FRAME", text));
      return;
    }
    this.#destinationReady = true;
    this.#commitOnLink();
  }

  /** Only with a connection to say COMMIT on: as long as it has not gone out, the guest can still be taken back. */
  #commitOnLink(): void {
    if (this.#ending || this.#commitSaid || !this.#tunnel?.mayCommit) return;
    if (!this.#hasCompleted && !this.#destinationReady) return;
    this.#commitSaid = true;
    if (this.#handover.phase === "iterating") this.#handover.enter("switchover");
    // A hypervisor in post-copy does not resume the guest by itself, whatever happens to its connection.
    const reason = this.#hasCompleted
      ? "the source hypervisor has completed, the destination has everything"
      : "post-copy: the guest could run at the destination, which fetches the rest";
    if (!this.#handover.committed) this.#handover.enter("committed", reason);
    this.#tunnel?.commit(this.#options.vm.wasRunning);
    this.#awaitRunning();
  }

  /** RUNNING, from now on. While there is no link, it is the link that is waited for. */
  #awaitRunning(): void {
    this.#cancelRunningTimer = this.#options.clock.after(RUNNING_TIMEOUT_MS, () => {
      if (!this.#ending)
        this.#linkFailed(new LinkError("LINK_TIMEOUT", "Destination did not confirm COMMIT"));
    });
  }

  #linkLost(error: LinkError): void {
    this.#options.record.add({ type: "link", state: "lost", reason: error.message });
    this.#stopComparing();
    this.#cancelRunningTimer();
  }

  #linkResumed(outage: { outageMs: number; resentBytes: number }): void {
    this.#options.record.add({ type: "link", state: "resumed", ...outage });
    if (this.#commitSaid) this.#awaitRunning();
    else void this.#commitTunnel();
  }

  #running(): void {
    if (this.#ending) return;
    this.#cancelRunningTimer();
    if (this.#destinationReady) this.#runs();
    else this.#complete();
  }

  /** Post-copy: from here on the guest is there, and a part of its RAM here. */
  #runs(): void {
    if (this.#runsThere) return;
    this.#runsThere = true;
    if (this.#stoppedMs !== undefined) this.#downtimeMs = this.#options.clock.nowMs() - this.#stoppedMs;
  }

  /** Nothing is missing at the destination any more, whose engine has no more to say. */
  async #endPostcopy(): Promise<void> {
    this.#tunnel?.end();
    const verdict = this.#heldVerdict ?? returnPathMessage(ReturnPathType.SHUT, 0);
    if (!this.#opaqueReturnPath) this.#vmChannel?.write(verdict);
    const end = await endOf(this.#options);
    if (end?.outcome !== "completed") {
      const message = `The destination has all of the guest, but the hypervisor here did not complete: ${end?.reason ?? "no answer"}`;
      this.#options.record.add({ type: "notice", message });
    }
    this.#complete();
  }

  #hypervisorEnded(end: OutgoingEnd): void {
    if (this.#ending) return;
    if (end.outcome === "completed") {
      // In tunnel mode it completes because it was given the verdict: COMMIT and RUNNING follow.
      if (this.#tunnel === undefined) this.#complete();
      return;
    }
    // Nobody needs it any more.
    if (this.#tunnel !== undefined && this.#runsThere && this.#destinationLoaded) return;
    const text = `Source hypervisor ended the migration: ${end.reason}`;
    void this.#fail(
      end.outcome === "cancelled" ? new CancelledError(text) : new DeltaveeError("HYPERVISOR_FAILED", text),
    );
  }

  #complete(): void {
    if (this.#ending) return;
    if (this.#downtimeMs === undefined && this.#stoppedMs !== undefined) {
      this.#downtimeMs = this.#options.clock.nowMs() - this.#stoppedMs;
    }
    this.#end();
    if (this.#tunnel !== undefined) this.#tunnel.end();
    else this.#options.channel.end();
    if (this.#handover.phase === "iterating") this.#handover.enter("switchover");
    if (this.#handover.phase === "switchover") this.#handover.enter("committed");
    this.#handover.enter("completed");
    void this.#finish(
      "completed",
      this.#options.vm.wasRunning ? "with the destination" : "paused on destination",
    );
  }

  /** A stock destination has closed the connection in good order. */
  #destinationEnded(): void {
    if (this.#ending || this.#destinationLoaded) return;
    const error = new DeltaveeError(
      "MIGRATION_FAILED",
      `Destination closed the connection without having loaded the guest (its own log says why)${this.#postcopyHint}`,
    );
    void this.#fail(error);
  }

  /** A destination that was not told of post-copy drops the connection before it has loaded anything. */
  get #postcopyHint(): string {
    const isUnanswered = this.#link.figures.roundTripMs === undefined;
    if (this.#options.vm.startPostcopy === undefined || !isUnanswered) return "";
    return "; is its capability postcopy-ram on?";
  }

  #linkFailed(error: Error): void {
    if (this.#options.vm.isManaged === true && this.#handover.committed) {
      void this.#endWithoutLink(error);
      return;
    }
    // What a tunnel's connection does it names: anything else is a mistake of ours.
    const isNamed = error instanceof DeltaveeError || this.#tunnel !== undefined;
    const text = `Connection to the destination broke (if QEMU there has ended, its own log says why)${this.#postcopyHint}`;
    void this.#fail(isNamed ? error : new LinkError("LINK_FAILED", text, { cause: error }));
  }

  /** The guest is not ours to give any more: with its verdict the hypervisor completes, and who manages both goes by it. */
  async #endWithoutLink(error: Error): Promise<void> {
    const message = `The connection to the destination broke after it had everything: ${error.message}`;
    this.#options.record.add({ type: "notice", message });
    const end = await endOf(this.#options);
    if (end?.outcome === "completed") this.#complete();
    else void this.#fail(error);
  }

  /** Whichever way: nothing that is heard from here on changes it. */
  #end(): void {
    this.#ending = true;
    this.#intake.end();
  }

  async #fail(error: Error): Promise<void> {
    if (this.#ending) return;
    this.#end();
    this.#stopComparing();
    const { record } = this.#options;
    await this.#settleOpaqueDirect();
    let failure =
      error instanceof DeltaveeError ? error : new DeltaveeError("INTERNAL", error.message, { cause: error });
    // In post-copy it may also fail later on.
    const mayRunThere = this.#handover.committed && (this.#runsThere || !this.#destinationRefused);
    let where: VmWhere;
    // What is sent in post-copy before COMMIT is a copy.
    const isSplit = this.#direct === undefined ? this.#destinationReady : this.#postcopySinceMs !== undefined;
    if (mayRunThere && isSplit) {
      this.#link.destroy();
      await leaveInPart(this.#failedSource);
      where = this.#runsThere ? "with the destination" : "unknown";
      const text = `Post-copy was interrupted: ${failure.message}. Part of the guest's RAM is only here: end neither QEMU`;
      failure = new DeltaveeError("POSTCOPY_INTERRUPTED", text, { cause: failure });
    } else if (mayRunThere) {
      await leaveStopped(
        this.#failedSource,
        this.#direct !== undefined && this.#options.vm.isManaged !== true,
      );
      where = "unknown";
    } else {
      // Whoever is told that it is kept here ends a copy that may be whole, and the last one.
      const isWhole = this.#stillSinceMs !== undefined && !this.#destinationReady;
      const mayBeLast = this.#tunnel !== undefined && isWhole;
      if (!mayBeLast) this.#sayItIsKept(failure);
      where = await takeBack(this.#failedSource, this.#switchover.postcopyAsked);
      if (mayBeLast && where !== "unknown") this.#sayItIsKept(failure);
    }
    this.#vmChannel?.destroy();
    this.#link.destroy();
    failure.vm = where;
    record.add({ type: "error", code: failure.code, message: failure.message, vm: where });
    const outcome = failure instanceof CancelledError ? "cancelled" : "failed";
    this.#handover.enter(this.#handover.committed ? "failed" : outcome);
    await this.#finish(outcome, where, failure);
  }

  #sayItIsKept({ code, message }: DeltaveeError): void {
    if (this.#tunnel === undefined) {
      this.#link.destroy();
      return;
    }
    try {
      this.#tunnel.abort(code, message);
    } catch (thrown) {
      const text = `Peer could not be told: ${toError(thrown).message}`;
      this.#options.record.add({ type: "notice", message: text });
      this.#tunnel.destroy();
    }
  }

  /**
   * In a stream that is not interpreted nobody has seen the device state go out. A guest that has been stopped
   * may then have been handed over to a stock destination; one that still runs has not.
   */
  async #settleOpaqueDirect(): Promise<void> {
    const { vm } = this.#options;
    if (this.#direct === undefined || !this.#reader.isOpaque || this.#handover.committed) return;
    this.#link.destroy();
    if (vm.isManaged === true) return;
    if (!vm.wasRunning || (await vm.isRunning()) === true) return;
    // Nor the package. A verdict of our own would end the post-copy with pages missing.
    if (this.#switchover.postcopyAsked && (await isInPostcopy(this.#failedSource)))
      this.#postcopySinceMs ??= this.#options.clock.nowMs();
    if (this.#handover.phase === "iterating") this.#handover.enter("switchover");
    this.#handover.enter("committed", "the guest was stopped, and how far its state had got is not known");
  }

  get #failedSource(): FailedSource {
    return { ...this.#options, channel: this.#vmChannel };
  }

  // ---- what is seen of it ----

  /** The end of the first pass decides much: it is not to be found out by the way. */
  #firstPassEnded(): void {
    this.#looksAtOnce = true;
    if (this.#isPolling || this.#ending) return;
    this.#cancelStatusTimer();
    this.#pollStatus();
  }

  #pollStatus(): void {
    const { clock, vm } = this.#options;
    this.#isPolling = true;
    this.#looksAtOnce = false;
    const again = () => {
      this.#isPolling = false;
      if (this.#ending) return;
      if (this.#reader.isOpaque && this.#status.isStopped === true) this.#standsStill();
      this.#watchLoading();
      this.#watchLink();
      this.#watchReturnPath();
      if (this.#ending) return;
      // What the guest writes to begins to show with its second pass, and a migration may be over soon after.
      const isSecondPass = this.#iteration < 1 && (this.#status.iteration ?? 0) >= 1;
      if (isSecondPass || clock.nowMs() - this.#sampledMs >= SAMPLE_EVERY_MS) this.#sample();
      const waitMs = this.#looksAtOnce ? 0 : this.#switchover.lookAgainMs;
      this.#cancelStatusTimer = clock.after(waitMs, () => this.#pollStatus());
    };
    vm.status()
      .then(
        (status) => {
          this.#status = status;
          const progress = {
            handedOverBytes: this.#intake.handedOverBytes,
            handoverMs: this.#intake.handoverMs,
            link: this.#link.figures,
          };
          this.#switchover.look(status, progress, !this.#ending && this.#handover.phase === "iterating");
          again();
        },
        // The hypervisor may be gone or busy: the sample goes out without new figures of its own.
        again,
      )
      // A bug of ours: the migration fails with it, the process does not.
      .catch((error: unknown) => void this.#fail(toError(error)));
  }

  /** With the guest stopped and everything sent, a destination that never finishes loading is a failure. */
  #watchLoading(): void {
    // Not the bytes on the wire: a connection on which nothing moves is still kept alive.
    const moved = this.#intake.handedOverBytes - this.#link.figures.inFlightBytes;
    const nowMs = this.#options.clock.nowMs();
    const waiting =
      this.#tunnel !== undefined && this.#stillSinceMs !== undefined && !this.#destinationLoaded;
    if (!waiting || moved !== this.#movedBytes || this.#tunnel?.isLost) {
      this.#movedBytes = moved;
      this.#movedMs = nowMs;
    } else if (nowMs - this.#movedMs > LOADED_TIMEOUT_MS) {
      const text = `Destination has not loaded the guest within ${LOADED_TIMEOUT_MS / 1000} s`;
      void this.#fail(new LinkError("LINK_TIMEOUT", text));
    }
  }

  /** A guest that stands still does not wait for a link for long, as long as it can be taken back. */
  #watchLink(): void {
    const timeoutMs = this.#options.tunnel?.switchoverTimeoutMs;
    if (timeoutMs === undefined || this.#tunnel === undefined) return;
    if (this.#stillSinceMs === undefined || this.#handover.committed) return;
    // Nor was it silent for the guest before it stood still.
    const silentMs = Math.min(this.#tunnel.silentMs, this.#options.clock.nowMs() - this.#stillSinceMs);
    if (silentMs < timeoutMs) return;
    const text = `Destination was out of reach for ${formatMs(silentMs)} while the guest stood still`;
    void this.#fail(new LinkError("LINK_LOST", text));
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
      this.#rewriter.iterationBegan(iteration);
      const { wireBytes } = figures;
      record.add({ type: "iteration", iteration, wireBytes, pages: { ...this.#rewriter.pages }, ...known });
    }
    const cache = this.#rewriter.cache?.stats;
    record.add({
      type: "sample",
      handedOverBytes: this.#intake.handedOverBytes,
      wireBytes: figures.wireBytes,
      inFlightBytes: figures.inFlightBytes,
      windowBytes: figures.windowBytes,
      linkBytesPerSecond: figures.linkBytesPerSecond,
      ...(figures.roundTripMs === undefined ? {} : { roundTripMs: figures.roundTripMs }),
      ...(iteration === undefined ? {} : { iteration }),
      ...known,
      ...this.#switchover.expectation,
      ...(this.#postcopySinceMs === undefined ? {} : { requestedBytes: this.#requestedBytes }),
      pages: { ...this.#rewriter.pages },
      ...(cache === undefined ? {} : { cache: { ...cache } }),
      ...(cpuMs === undefined ? {} : { cpuMs: cpuMs() }),
    });
  }

  async #finish(outcome: SourceOutcome["outcome"], vm: VmWhere, error?: DeltaveeError): Promise<void> {
    const { record, clock, cpuMs } = this.#options;
    this.#cancelStatusTimer();
    this.#cancelRunningTimer();
    this.#switchover.end();
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
      // Of pre-copy, which was left because it was too long.
      ...(outcome === "completed" &&
      this.#postcopySinceMs === undefined &&
      this.#forecastDowntimeMs !== undefined
        ? { forecastDowntimeMs: this.#forecastDowntimeMs }
        : {}),
      ...(outcome === "completed" && downtimeMsReported !== undefined ? { downtimeMsReported } : {}),
      ...(this.#postcopySinceMs === undefined
        ? {}
        : { postcopyMs: clock.nowMs() - this.#postcopySinceMs, requestedBytes: this.#requestedBytes }),
      handedOverBytes: this.#intake.handedOverBytes,
      wireBytes: this.#link.figures.wireBytes,
      ...(iteration === undefined ? {} : { iterations: iteration + 1 }),
      pages: { ...this.#rewriter.pages },
      ...(cache === undefined ? {} : { cache: { ...cache } }),
      ...(cpuMs === undefined ? {} : { cpuMs: cpuMs() }),
    });
    this.#resolve({ outcome, vm, ...(error === undefined ? {} : { error }) });
  }
}

/** What the destination is told of how pages are coded, and what codes them. Method `standard` has neither. */
function pageCoding(
  { memory, kernel }: SourceOptions,
  deltaCodec: DeltaCodecId,
  pageBytes: number,
  cache: PageCache | undefined,
): PageCoding {
  if (cache === undefined) return { delta: undefined, window: undefined, windowPages: 0, baselinePages: 0 };
  const windowPages = WINDOW_BYTES / pageBytes;
  return {
    delta: makeDeltaCodec(deltaCodec, memory, kernel, pageBytes),
    window: new ContentWindow(kernel, cache, pageBytes, windowPages),
    windowPages,
    baselinePages: cache.slotCount,
  };
}
