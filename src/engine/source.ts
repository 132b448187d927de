// The source engine: takes the hypervisor's migration stream, rewrites it against the page cache, sends it
// over a link (direct or tunnel) and sees the VM handed over. All it knows of the world comes through ports:
// it cannot tell a socket from a simulation.
//
// Here is what it takes to hand a guest over and to end: who is told what, in which order, and what is given up when it
// fails. Every step of the state machine (handover.ts) is made here, and nowhere else. Beside it, in source/:
//   pipeline.ts      the way of the stream, from the hypervisor's channel to the link
//   monitor.ts       asks the hypervisor how far it is
//   standstill.ts    how long a guest that stands still may wait
//   verification.ts  compares RAM at both ends (`--verify`)
//   endings.ts       takes the guest back, or leaves it stopped
//   account.ts       what the run record is told

import {
  CancelledError,
  DeltaveeError,
  LinkError,
  ProtocolError,
  toError,
  type VmWhere,
} from "../base/errors.ts";
import { Command, PACKAGE_PING_VALUE, ReturnPathType } from "../stream/format.ts";
import {
  pongValue,
  type ReturnPathMessage,
  ReturnPathReader,
  returnPathMessage,
  shutValue,
} from "../stream/return-path.ts";
import { Handover } from "./handover.ts";
import type { Channel, OutgoingEnd, OutgoingStatus } from "./ports.ts";
import { type Course, SourceAccount } from "./source/account.ts";
import {
  endOf,
  type FailedSource,
  isInPostcopy,
  leaveInPart,
  leaveStopped,
  takeBack,
} from "./source/endings.ts";
import { HypervisorMonitor } from "./source/monitor.ts";
import type { SourceOptions, SourceOutcome } from "./source/options.ts";
import { PageRequests } from "./source/page-requests.ts";
import { SourcePipeline } from "./source/pipeline.ts";
import { StandstillWatch } from "./source/standstill.ts";
import { Verification } from "./source/verification.ts";
import { SwitchoverControl } from "./switchover/switchover-control.ts";
import type { DirectLink } from "./transport/direct-link.ts";
import type { TunnelLink } from "./transport/tunnel-link.ts";

/** In post-copy: what has been read and waits stands before a page that the guest waits for. */
const POSTCOPY_READ_BYTES = 16 * 1024;
/** How long the destination may take from COMMIT to RUNNING. */
const RUNNING_TIMEOUT_MS = 30_000;

export class SourceEngine {
  readonly #options: SourceOptions;
  readonly #handover: Handover;
  readonly #switchover: SwitchoverControl;
  readonly #pipeline: SourcePipeline;
  readonly #monitor: HypervisorMonitor;
  readonly #standstill = new StandstillWatch();
  readonly #verification: Verification | undefined;
  readonly #account: SourceAccount;
  readonly #returnPath = new ReturnPathReader();
  readonly #result: Promise<SourceOutcome>;
  #resolve!: (outcome: SourceOutcome) => void;
  #vmChannel: Channel | undefined;
  #opaqueReturnPath = false;
  /** The destination's verdict, withheld from the hypervisor until the destination engine says LOADED. */
  #heldVerdict: Buffer | undefined;
  /** Tunnel, post-copy: the guest could run there, but RAM is missing. */
  #destinationReady = false;
  #destinationLoaded = false;
  #verdictGiven = false;
  /** The hypervisor has completed with its verdict: only COMMIT is missing. */
  #hasCompleted = false;
  #commitSaid = false;
  #returnPathOpen = false;
  /** Direct: its verdict says that it could not load the guest. Certain, and the hypervisor here resumes on it. */
  #destinationRefused = false;
  /** Post-copy: whether the guest runs there. */
  #runsThere = false;
  #pageRequests = new PageRequests([]);
  readonly #course: Course = {
    downtimeMs: undefined,
    forecastDowntimeMs: undefined,
    postcopySinceMs: undefined,
    requestedBytes: 0,
  };
  #stoppedMs: number | undefined;
  /** The same; in a stream that is not understood since it was seen, which is too late for a figure of the downtime. */
  #stillSinceMs: number | undefined;
  #cancelRunningTimer: () => void = () => {};
  #ending = false;

  constructor(options: SourceOptions) {
    this.#options = options;
    this.#handover = new Handover(options.record);
    this.#switchover = new SwitchoverControl({
      ...options,
      mode: options.tunnel === undefined ? "direct" : "tunnel",
      shortenQueue: () => this.#pipeline.link.shortenQueue(),
      rehearse: (bytes) => this.#pipeline.link.rehearse(bytes),
      release: () => this.#vmChannel?.write(returnPathMessage(ReturnPathType.SWITCHOVER_ACK)),
      giveUp: (error) => {
        if (!this.#handover.committed) void this.#fail(error);
      },
    });
    this.#result = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#pipeline = new SourcePipeline(options, {
      command: (command) => this.#command(command),
      ramBlocks: (blocks) => {
        this.#pageRequests = new PageRequests(blocks);
      },
      stopped: () => this.#stopped(),
      package: () => this.#postcopy(),
      deviceState: () => this.#deviceState(),
      opaque: (reason, offsetBytes) => this.#opaque(reason, offsetBytes),
      pass: () => this.#passes(),
      broken: (error) => void this.#fail(error),
      returnPath: (bytes) => this.#fromDestination(bytes),
      ended: () => this.#destinationEnded(),
      failed: (error) => this.#linkFailed(error),
      welcome: () => this.#begin(),
      lost: (error) => this.#linkLost(error),
      resumed: (outage) => this.#linkResumed(outage),
      ready: () => void this.#ready(),
      digests: (digests) => this.#verification?.answered(digests),
      loaded: () => {
        this.#destinationLoaded = true;
        void (this.#runsThere ? this.#endPostcopy() : this.#commitTunnel());
      },
      running: () => this.#running(),
    });
    const { vm, clock, record } = options;
    const failed = (error: Error) => void this.#fail(error);
    this.#monitor = new HypervisorMonitor({
      ...{ vm, clock, failed },
      answered: (status) => this.#answered(status),
      looked: () => this.#looked(),
      lookAgainMs: () => this.#switchover.lookAgainMs,
    });
    const tunnel = this.#tunnel;
    this.#verification =
      tunnel === undefined ? undefined : new Verification({ vm, clock, record, tunnel, failed });
    this.#account = new SourceAccount(options, this.#pipeline);
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
        this.#pipeline.intake.from(channel);
        this.#handover.enter("iterating");
        this.#monitor.begin();
      },
      (error: unknown) => void this.#fail(toError(error)),
    );
    void vm.ended.then((end) => this.#hypervisorEnded(end));
    // The end of the first pass decides much.
    void vm.firstPassEnded?.then(() => this.#monitor.lookNow());
  }

  get #direct(): DirectLink | undefined {
    return this.#pipeline.direct;
  }

  get #tunnel(): TunnelLink | undefined {
    return this.#pipeline.tunnel;
  }

  /** The hypervisor's stream is not understood, from somewhere on. */
  get #isOpaque(): boolean {
    return this.#pipeline.reader.isOpaque;
  }

  // ---- the stream, source to destination ----

  #passes(): number | undefined {
    return this.#handover.phase === "iterating" ? (this.#monitor.status.iteration ?? 0) : undefined;
  }

  #stopped(): void {
    if (this.#handover.phase !== "iterating") return;
    this.#stoppedMs = this.#options.clock.nowMs();
    this.#watchReturnPath();
    if (this.#ending) return;
    this.#course.forecastDowntimeMs = this.#switchover.expectation.forecastDowntimeMs;
    this.#handover.enter("switchover", "the source's vCPUs have stopped");
    this.#standsStill();
  }

  /** Whatever it waits for from here on, it does not wait without end. */
  #standsStill(): void {
    if (this.#stillSinceMs !== undefined) return;
    this.#stillSinceMs = this.#options.clock.nowMs();
    this.#switchover.guestStopped();
    this.#pipeline.link.liftWindow();
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
    const hasBegun = this.#monitor.status.iteration !== undefined || this.#stoppedMs !== undefined;
    if (hasBegun && !this.#returnPathOpen && !this.#isOpaque)
      this.#refuseIfManaged("its capability return-path is off, so that nobody would hear of a failure");
  }

  /** The package goes out. In direct mode the destination lets the guest run when it has loaded it. */
  #postcopy(): void {
    this.#course.postcopySinceMs = this.#options.clock.nowMs();
    this.#pipeline.intake.limitReads(POSTCOPY_READ_BYTES);
    // A destination engine asks first.
    if (this.#direct === undefined) return;
    // No guard is needed (vm.committed): in post-copy QEMU does not resume the guest when its connection closes. And
    // a verdict of the guard's would end the migration with pages missing.
    if (!this.#handover.committed)
      this.#handover.enter("committed", "post-copy: the destination runs the guest, and fetches the rest");
  }

  #deviceState(): void {
    if (this.#course.postcopySinceMs !== undefined) {
      this.#options.record.add({
        type: "notice",
        message: "RAM is complete: the source is not needed any more",
      });
      this.#direct?.forbidPings();
      this.#pipeline.link.liftWindow();
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
    const isLast = this.#handover.committed || this.#course.postcopySinceMs !== undefined;
    if (verdict !== undefined && this.#tunnel !== undefined && isLast) return;
    // Only the first verdict is one: whoever has taken the guest does not give it back by another.
    if (verdict !== undefined && verdict !== 0 && this.#direct !== undefined && !this.#destinationLoaded)
      this.#destinationRefused = true;
    // A hypervisor whose stream is not understood looks at it itself.
    if (!this.#isOpaque)
      this.#course.requestedBytes += this.#pageRequests.take(
        message,
        this.#course.postcopySinceMs !== undefined,
      );
    // Device state is loaded, and the command to run the guest is the next thing that the destination reads.
    const isPackagePong = pongValue(message) === PACKAGE_PING_VALUE;
    if (this.#direct !== undefined && this.#course.postcopySinceMs !== undefined && isPackagePong)
      this.#runs();
    if (verdict === 0 && this.#direct !== undefined) {
      // The destination has sent this after starting the guest.
      if (this.#course.postcopySinceMs === undefined && this.#stoppedMs !== undefined)
        this.#course.downtimeMs = this.#options.clock.nowMs() - this.#stoppedMs;
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
    if (this.#options.tunnel?.hello.verify === true && !this.#verification!.isDone) {
      // Both sides stand still, and neither has been told more.
      if (await this.#verification!.run(this.#pipeline.rewriter.blocks)) void this.#commitTunnel();
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

  /**
   * With the verdict that follows, whoever manages both hypervisors lets the guest run at the destination. False: it is
   * no verdict to pass on.
   */
  #giveAway(): boolean {
    if (this.#handover.committed) return true;
    if (this.#handover.phase === "iterating") {
      if (!this.#isOpaque) {
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
      if (this.#isOpaque && this.#switchover.postcopyAsked) {
        const { isPostcopy } = await this.#options.vm.status();
        if (this.#ending) return;
        if (isPostcopy === true) this.#course.postcopySinceMs ??= this.#options.clock.nowMs();
      }
    } catch (thrown) {
      const text =
        "READY from the destination, and the hypervisor here does not say whether the guest was stopped";
      void this.#fail(new DeltaveeError("HYPERVISOR_FAILED", text, { cause: thrown }));
      return;
    }
    if (this.#course.postcopySinceMs === undefined) {
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
    this.#verification?.stop();
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
    if (this.#stoppedMs !== undefined)
      this.#course.downtimeMs = this.#options.clock.nowMs() - this.#stoppedMs;
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
    if (this.#course.downtimeMs === undefined && this.#stoppedMs !== undefined) {
      this.#course.downtimeMs = this.#options.clock.nowMs() - this.#stoppedMs;
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
    const isUnanswered = this.#pipeline.link.figures.roundTripMs === undefined;
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
    this.#pipeline.intake.end();
    this.#monitor.end();
  }

  async #fail(error: Error): Promise<void> {
    if (this.#ending) return;
    this.#end();
    this.#verification?.stop();
    const { record } = this.#options;
    await this.#settleOpaqueDirect();
    let failure =
      error instanceof DeltaveeError ? error : new DeltaveeError("INTERNAL", error.message, { cause: error });
    // In post-copy it may also fail later on.
    const mayRunThere = this.#handover.committed && (this.#runsThere || !this.#destinationRefused);
    let where: VmWhere;
    // What is sent in post-copy before COMMIT is a copy.
    const isSplit =
      this.#direct === undefined ? this.#destinationReady : this.#course.postcopySinceMs !== undefined;
    if (mayRunThere && isSplit) {
      this.#pipeline.link.destroy();
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
      this.#pipeline.intake.drop();
      where = await takeBack(this.#failedSource, this.#switchover.postcopyAsked);
      if (mayBeLast && where !== "unknown") this.#sayItIsKept(failure);
    }
    this.#vmChannel?.destroy();
    this.#pipeline.link.destroy();
    failure.phase = this.#handover.phase;
    failure.vm = where;
    record.add({ type: "error", code: failure.code, message: failure.message, vm: where });
    const outcome = failure instanceof CancelledError ? "cancelled" : "failed";
    this.#handover.enter(this.#handover.committed ? "failed" : outcome);
    await this.#finish(outcome, where, failure);
  }

  #sayItIsKept({ code, message }: DeltaveeError): void {
    if (this.#tunnel === undefined) {
      this.#pipeline.link.destroy();
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
    if (this.#direct === undefined || !this.#isOpaque || this.#handover.committed) return;
    this.#pipeline.link.destroy();
    if (vm.isManaged === true) return;
    if (!vm.wasRunning || (await vm.isRunning()) === true) return;
    // Nor the package. A verdict of our own would end the post-copy with pages missing.
    if (this.#switchover.postcopyAsked && (await isInPostcopy(this.#failedSource)))
      this.#course.postcopySinceMs ??= this.#options.clock.nowMs();
    if (this.#handover.phase === "iterating") this.#handover.enter("switchover");
    this.#handover.enter("committed", "the guest was stopped, and how far its state had got is not known");
  }

  get #failedSource(): FailedSource {
    return { ...this.#options, channel: this.#vmChannel };
  }

  // ---- what is seen of it ----

  #answered(status: OutgoingStatus): void {
    const { intake, link } = this.#pipeline;
    const { handedOverBytes, handoverMs } = intake;
    const progress = { handedOverBytes, handoverMs, link: link.figures };
    this.#switchover.look(status, progress, !this.#ending && this.#handover.phase === "iterating");
  }

  #looked(): void {
    if (this.#ending) return;
    const { status } = this.#monitor;
    if (this.#isOpaque && status.isStopped === true) this.#standsStill();
    this.#watchStandstill();
    this.#watchReturnPath();
    if (!this.#ending) this.#account.sampleIfDue(status, this.#switchover.expectation, this.#course);
  }

  #watchStandstill(): void {
    const stillSinceMs = this.#stillSinceMs;
    const tunnel = this.#tunnel;
    if (tunnel === undefined) return;
    const nowMs = this.#options.clock.nowMs();
    const { intake, link } = this.#pipeline;
    const movedBytes = intake.handedOverBytes - link.figures.inFlightBytes;
    const isWaiting = stillSinceMs !== undefined && !this.#destinationLoaded && !tunnel.isLost;
    let error = this.#standstill.loading(isWaiting, movedBytes, nowMs);
    const timeoutMs = this.#options.tunnel?.switchoverTimeoutMs;
    if (timeoutMs !== undefined && stillSinceMs !== undefined && !this.#handover.committed)
      error ??= this.#standstill.outOfReach(tunnel.silentMs, nowMs - stillSinceMs, timeoutMs);
    if (error !== undefined) void this.#fail(error);
  }

  async #finish(outcome: SourceOutcome["outcome"], vm: VmWhere, error?: DeltaveeError): Promise<void> {
    this.#cancelRunningTimer();
    this.#switchover.end();
    const totalMs = this.#account.elapsedMs;
    const status = await this.#monitor.lastStatus();
    this.#account.sample(status, this.#switchover.expectation, this.#course);
    this.#account.summary(outcome, vm, totalMs, status, this.#course);
    this.#resolve({ outcome, vm, ...(error === undefined ? {} : { error }) });
  }
}
