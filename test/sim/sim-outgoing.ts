// A QEMU that gives its VM away, as far as the engine can see one (facts: QEMU 7.2 and 10.0 through a proxy): it
// iterates by its own count and switches over within its limit, once it has SWITCHOVER_ACK where it waits for one;
// it resumes the guest when its socket ends or it is cancelled before it has its verdict; with SHUT 0 and everything
// written it completes, paused. Told to end as post-copy it stops the guest at once, sends what is missing, what was
// asked for first, and from then on resumes the guest only when it is told to. Written from src/stream/FORMAT.md;
// shares no code with src/stream.

import { DeltaveeError, QmpCommandError, QmpInterruptedError } from "../../src/base/errors.ts";
import type { Channel, OutgoingEnd, OutgoingStatus, OutgoingVm } from "../../src/engine/ports.ts";
import { be16, be32, be64, counted } from "../support/stream-builder.ts";
import type { Random } from "./random.ts";
import type { SimClock } from "./sim-clock.ts";
import { connection, type LineConditions, type SimEnd } from "./sim-connection.ts";
import { PAGE_BYTES, type SimGuest } from "./sim-guest.ts";
import type { PostcopyTraits } from "./sim-postcopy-guest.ts";
import type { World } from "./world.ts";

export interface OutgoingTraits {
  control: "ack" | "limit";
  /** Says COMMAND 11 before the last pass, as machine types of 8.2 and later do. */
  saysSwitchover: boolean;
  /** How long an answer on the monitor takes, at most. */
  monitorMsMax: number;
  /** How much later than it happened its end is told, at most. */
  eventMsMax: number;
  deviceStateBytes: number;
  /** After so many passes it says something that nobody knows: from there on the engine understands nothing. */
  opaqueAfterPasses: number | undefined;
  sectionPages: number;
  /** A guard process holds its connection too (direct mode). */
  isGuarded: boolean;
  socket: LineConditions;
}

export interface OutgoingFaults {
  refusesToBegin: boolean;
  /** refused: it says no. unanswered: it is done, and nobody hears. */
  cancel: "works" | "refused" | "unanswered";
  statusFails: boolean;
  limitFails: boolean;
}

/** interrupted: QEMU's postcopy-paused, from which only its own recovery leads on. */
type State = "idle" | "active" | "completing" | "completed" | "failed" | "cancelled" | "interrupted" | "dead";

const PASS_MS_MIN = 2;
const RETURN_TIMEOUT_MS = 2000;
/** What it gathers before it gives it to its socket. */
const OUTPUT_BYTES = 16 * 1024;
const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

export class SimOutgoing implements OutgoingVm {
  readonly description = "simulated QEMU";
  readonly switchoverControl: "ack" | "limit";
  readonly awaitsDestinationAck = false;
  readonly committed?: () => void;
  readonly startPostcopy?: () => Promise<void>;
  readonly wasRunning: boolean;
  readonly ended: Promise<OutgoingEnd>;
  /** The first byte of device state has gone into the socket. */
  deviceStateIsOut = false;
  isOpaque = false;
  /** Its monitor answers. */
  isReachable = true;
  state: State = "idle";
  /** It has switched over to post-copy, and the guest stands still. */
  isPostcopy = false;
  /** Requests for pages that have come. */
  requests = 0;
  readonly #world: World;
  readonly #clock: SimClock;
  readonly #random: Random;
  readonly #guest: SimGuest;
  readonly #traits: OutgoingTraits;
  readonly #faults: OutgoingFaults;
  readonly #postcopy: PostcopyTraits | undefined;
  readonly firstPassEnded: Promise<void>;
  #resolveEnded!: (end: OutgoingEnd) => void;
  #resolveFirstPass!: () => void;
  #socket: SimEnd | undefined;
  readonly #dirty = new Set<number>();
  /** Of this pass, not sent yet. */
  #remainingPages = 0;
  #syncs = 0;
  #dirtyPagesPerSecond = 0;
  #limitBytes = PAGE_BYTES;
  #acked = false;
  #verdict: number | undefined;
  #returned = Buffer.alloc(0);
  #output: Buffer[] = [];
  #outputBytes = 0;
  #wake: () => void = () => {};
  #blocked = false;
  /** The guard has been told that it must not resume the guest by itself. */
  #isCommitted = false;
  #isPostcopyAsked = false;
  /** Asked for, and not sent yet. */
  #requested: number[] = [];

  constructor(
    world: World,
    clock: SimClock,
    random: Random,
    guest: SimGuest,
    traits: OutgoingTraits,
    faults: OutgoingFaults,
    postcopy: PostcopyTraits | undefined,
  ) {
    this.#world = world;
    this.#clock = clock;
    this.#random = random;
    this.#guest = guest;
    this.#traits = traits;
    this.#faults = faults;
    this.#postcopy = postcopy;
    this.switchoverControl = traits.control;
    this.wasRunning = guest.runs;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.firstPassEnded = new Promise((resolve) => {
      this.#resolveFirstPass = resolve;
    });
    if (traits.isGuarded) {
      this.committed = () => {
        this.#isCommitted = true;
      };
    }
    if (postcopy !== undefined) this.startPostcopy = () => this.#startPostcopy();
    guest.onWrite = (page) => this.#dirty.add(page);
    world.set("source", guest.runs ? "running" : "paused");
  }

  /** Whatever befalls the engine, it will not resume the guest by itself. */
  get isGuarded(): boolean {
    return this.#isCommitted;
  }

  begin(): Promise<Channel> {
    return this.#command("migrate", () => {
      if (this.#faults.refusesToBegin) throw new DeltaveeError("HYPERVISOR_FAILED", "migration is blocked");
      const { socket } = this.#traits;
      const [ours, theirs] = connection(this.#clock, this.#random, [socket, socket]);
      this.#socket = ours;
      this.state = "active";
      ours.listen({
        data: (bytes) => this.#received(bytes),
        drained: () => {
          this.#blocked = false;
          this.#wake();
        },
        ended: () => this.#socketEnded("its socket was closed"),
        failed: (error) => this.#socketEnded(error.message),
      });
      void this.#migrate();
      const destroy = theirs.destroy.bind(theirs);
      theirs.destroy = () => {
        if (this.#isCommitted && (this.state === "active" || this.state === "completing"))
          this.#guard(theirs);
        else destroy();
      };
      return theirs;
    });
  }

  /** The guard has the connection to itself: it gives the verdict, and reads whatever is left to be said. */
  #guard(connection: SimEnd): void {
    this.#world.step("guard gives the verdict");
    const nothing = () => {};
    connection.handTo({ data: nothing, drained: nothing, ended: nothing, failed: nothing });
    connection.write(Buffer.concat([be16(1), be16(4), be32(0)]));
  }

  throttle(percentage: number): Promise<void> {
    return this.#command("migrate-set-parameters", () => {
      this.#guest.throttlePercentage = percentage;
    });
  }

  limitSwitchover(remainingBytesMax: number): Promise<void> {
    return this.#command("migrate-set-parameters", () => {
      if (this.#faults.limitFails)
        throw new QmpCommandError("migrate-set-parameters", "GenericError", "not now");
      this.#limitBytes = Math.max(PAGE_BYTES, remainingBytesMax);
      this.#wake();
    });
  }

  status(): Promise<OutgoingStatus> {
    return this.#command("query-migrate", () => {
      if (this.#faults.statusFails) throw new QmpInterruptedError("query-migrate", "no answer");
      this.#guest.work();
      return {
        iteration: Math.max(0, this.#syncs - 1),
        remainingBytes: (this.#remainingPages + this.#dirty.size) * PAGE_BYTES,
        dirtyPagesPerSecond: this.#dirtyPagesPerSecond,
        isPostcopy: this.isPostcopy,
      };
    });
  }

  cancel(): Promise<void> {
    return this.#command("migrate_cancel", () => {
      if (this.#faults.cancel === "refused")
        throw new QmpCommandError("migrate_cancel", "GenericError", "no");
      if (this.isPostcopy && this.#postcopy?.cancels !== true)
        throw new QmpCommandError(
          "migrate_cancel",
          "GenericError",
          "Postcopy migration in progress, cannot cancel",
        );
      this.cancelled();
      if (this.#faults.cancel === "unanswered") throw new QmpInterruptedError("migrate_cancel", "no answer");
    });
  }

  resume(): Promise<void> {
    return this.#command("cont", () => {
      const isOver = this.state === "completed" || (this.state === "cancelled" && this.isPostcopy);
      if (!isOver) throw new QmpCommandError("cont", "GenericError", "not finalized yet");
      this.#world.sourceMayResume = true;
      this.#guest.runs = true;
      this.#world.set("source", "running");
    });
  }

  async isRunning(): Promise<boolean | undefined> {
    const deadlineMs = this.#clock.nowMs() + RETURN_TIMEOUT_MS;
    try {
      for (;;) {
        const runs = await this.#command("query-status", () => this.#guest.runs);
        if (runs || !this.wasRunning || this.#clock.nowMs() > deadlineMs) return runs;
        await this.#clock.sleep(20);
      }
    } catch {
      return undefined;
    }
  }

  /** Whoever did it: Deltavee, or a person at the monitor. */
  cancelled(): void {
    if (this.isPostcopy && this.#postcopy?.cancels !== true) return;
    if (this.state === "active" || this.state === "completing") this.#keepGuest("cancelled", "cancelled");
  }

  /** The connection to the monitor is lost; everything else goes on. */
  loseMonitor(): void {
    this.isReachable = false;
    this.#resolveEnded({ outcome: "failed", reason: "the monitor is gone" });
  }

  crash(): void {
    if (this.state === "dead") return;
    this.state = "dead";
    this.isReachable = false;
    this.#guest.runs = false;
    this.#world.crashedHypervisors.add("source");
    this.#world.sourceMayResume = false;
    this.#world.set("source", "gone");
    this.#socket?.destroy();
    this.#wake();
    this.#resolveEnded({ outcome: "failed", reason: "the monitor is gone" });
  }

  async #command<Result>(name: string, work: () => Result): Promise<Result> {
    const { monitorMsMax } = this.#traits;
    await this.#clock.sleep(this.#random.real(0, monitorMsMax / 2));
    if (!this.isReachable) throw new QmpInterruptedError(name, "the monitor is gone");
    const result = work();
    await this.#clock.sleep(this.#random.real(0, monitorMsMax / 2));
    if (!this.isReachable) throw new QmpInterruptedError(name, "the monitor is gone");
    return result;
  }

  // ---- the migration thread ----

  async #migrate(): Promise<void> {
    const { sectionPages, saysSwitchover, deviceStateBytes, opaqueAfterPasses, control } = this.#traits;
    const guest = this.#guest;
    this.#put(Buffer.concat([be32(0x5145564d), be32(3), Buffer.of(7), be32(3), Buffer.from("sim")]));
    this.#put(Buffer.concat([Buffer.of(8), be16(1), be16(0), Buffer.of(8), be16(2), be16(4), be32(1)]));
    this.#put(Buffer.concat([Buffer.of(1), be32(2), counted("ram"), be32(0), be32(4)]));
    this.#put(Buffer.concat([be64(guest.ram.length + 4), counted("pc.ram"), be64(guest.ram.length)]));
    this.#endSection();
    for (let page = 0; page < guest.pageCount; page++) this.#dirty.add(page);
    let syncedMs = this.#clock.nowMs();
    for (;;) {
      guest.work();
      const pages = [...this.#dirty].sort((a, b) => a - b);
      this.#dirty.clear();
      const elapsedMs = this.#clock.nowMs() - syncedMs;
      if (elapsedMs > 0) this.#dirtyPagesPerSecond = (pages.length / elapsedMs) * 1000;
      syncedMs = this.#clock.nowMs();
      this.#remainingPages = pages.length;
      if (this.#syncs === opaqueAfterPasses) {
        this.isOpaque = true;
        this.#put(Buffer.concat([Buffer.of(8), be16(99), be16(0)]));
      }
      const mayStop = this.#syncs > 0 && (control === "limit" || this.#acked);
      this.#syncs++;
      if (this.#syncs === 2)
        this.#clock.after(this.#random.real(0, this.#traits.eventMsMax), this.#resolveFirstPass);
      if (mayStop && pages.length * PAGE_BYTES <= this.#limitBytes) {
        for (const page of pages) this.#dirty.add(page);
        break;
      }
      for (let start = 0; start < pages.length; start += sectionPages) {
        this.#put(Buffer.concat([Buffer.of(2), be32(2)]));
        for (const page of pages.slice(start, start + sectionPages)) this.#putPage(page);
        this.#endSection();
        this.#remainingPages = Math.max(0, pages.length - start - sectionPages);
        await this.#flush();
        if (this.state !== "active") return;
        if (!this.#maySwitchToPostcopy) continue;
        for (const page of pages.slice(start + sectionPages)) this.#dirty.add(page);
        return this.#goPostcopy();
      }
      if (this.#maySwitchToPostcopy) return this.#goPostcopy();
      // One that has nothing to send looks again at once; every look would be an event.
      await this.#clock.sleep(PASS_MS_MIN + this.#random.real(0, pages.length === 0 ? 60 : 10));
      if (this.state !== "active") return;
    }
    this.#stopGuest();
    await this.#clock.sleep(this.#random.real(0, 3));
    if (this.state !== "active") return;
    if (saysSwitchover) this.#put(Buffer.concat([Buffer.of(8), be16(11), be16(0)]));
    this.#put(Buffer.concat([Buffer.of(3), be32(2)]));
    for (const page of [...this.#dirty].sort((a, b) => a - b)) {
      this.#putPage(page);
      this.#remainingPages--;
    }
    this.#endSection();
    await this.#flush();
    if (this.state !== "active") return;
    this.#world.step("source hands over device state");
    this.deviceStateIsOut = true;
    const state = Buffer.alloc(deviceStateBytes, 0x5d);
    state[0] = this.wasRunning ? 1 : 0;
    this.#put(Buffer.concat([Buffer.of(4), be32(77), counted("cpu"), be32(0), be32(1)]));
    this.#put(Buffer.concat([be32(state.length), state, Buffer.of(0x7e), be32(77), Buffer.of(0)]));
    await this.#flush();
    if (this.state !== "active") return;
    this.#put(Buffer.concat([Buffer.of(6), be32(2), Buffer.from("{}")]));
    await this.#flush();
    this.#hasHandedOver();
  }

  #stopGuest(): void {
    this.#guest.runs = false;
    this.#world.stoppedRam = Buffer.from(this.#guest.ram);
    this.#world.set("source", "paused");
    this.#world.step("source stops the guest");
  }

  #hasHandedOver(): void {
    if (this.state !== "active") return;
    this.#world.step("source has handed over everything");
    this.state = "completing";
    this.#complete();
  }

  // ---- post-copy ----

  #startPostcopy(): Promise<void> {
    return this.#command("migrate-start-postcopy", () => {
      if (this.state === "idle")
        throw new QmpCommandError("migrate-start-postcopy", "GenericError", "no migration is under way");
      this.#isPostcopyAsked = true;
      this.#world.step("source is told to go on as post-copy");
    });
  }

  get #maySwitchToPostcopy(): boolean {
    return this.#isPostcopyAsked && (this.#traits.control === "limit" || this.#acked);
  }

  async #goPostcopy(): Promise<void> {
    const { sectionPages, deviceStateBytes } = this.#traits;
    this.isPostcopy = true;
    this.#world.sourceMayResume = false;
    this.#stopGuest();
    await this.#clock.sleep(this.#random.real(0, 3));
    if (this.state !== "active") return;
    if (this.#postcopy?.isOpaque === true) {
      this.isOpaque = true;
      this.#put(Buffer.concat([Buffer.of(8), be16(99), be16(0)]));
    }
    const pages = [...this.#dirty].sort((a, b) => a - b);
    const ranges = Buffer.concat(
      pages.map((page) => Buffer.concat([be64(page * PAGE_BYTES), be64(PAGE_BYTES)])),
    );
    const discard = Buffer.concat([Buffer.of(0), counted("pc.ram"), Buffer.of(0), ranges]);
    if (pages.length > 0) this.#put(Buffer.concat([Buffer.of(8), be16(6), be16(discard.length), discard]));
    this.#world.step("source hands over the package");
    const state = Buffer.alloc(deviceStateBytes, 0x5d);
    state[0] = this.wasRunning ? 1 : 0;
    this.#put(Buffer.concat([Buffer.of(8), be16(7), be16(4), be32(state.length), state]));
    await this.#flush();
    const missing = new Set(pages);
    while (missing.size > 0 && this.state === "active") {
      this.#put(Buffer.concat([Buffer.of(2), be32(2)]));
      const wanted = [...this.#requested.splice(0), ...missing].filter((page) => missing.has(page));
      for (const page of new Set(wanted.slice(0, sectionPages))) {
        this.#putPage(page);
        missing.delete(page);
      }
      this.#endSection();
      this.#remainingPages = missing.size;
      await this.#flush();
      // Its own rate, so that requests come while there is something left to be asked for.
      await this.#clock.sleep(this.#random.real(0, 3));
    }
    if (this.state !== "active") return;
    this.#put(Buffer.concat([Buffer.of(3), be32(2)]));
    this.#endSection();
    this.#put(Buffer.of(0));
    await this.#flush();
    this.#hasHandedOver();
  }

  #gotRequest(type: number, body: Buffer): void {
    this.requests++;
    this.#world.step("source is asked for a page");
    const [at, lengthBytes] = [Number(body.readBigUInt64BE(0)), body.readUInt32BE(8)];
    const name = type === 3 ? body.toString("latin1", 13) : "pc.ram";
    const isSound = name === "pc.ram" && at % PAGE_BYTES === 0 && lengthBytes === PAGE_BYTES;
    if (!isSound || at >= this.#guest.ram.length || !this.isPostcopy)
      this.#world.violated(`a request for ${lengthBytes} bytes at ${at} of ${name}`);
    this.#requested.push(at / PAGE_BYTES);
  }

  #putPage(page: number): void {
    const bytes = this.#guest.page(page);
    const isZero = bytes.equals(ZERO_PAGE);
    // Its name, or CONTINUE: one block is all there is.
    this.#put(Buffer.concat([be64(page * PAGE_BYTES + (isZero ? 0x02 : 0x08)), counted("pc.ram")]));
    this.#put(isZero ? Buffer.of(0) : Buffer.from(bytes));
  }

  #endSection(): void {
    this.#put(Buffer.concat([be64(0x10), Buffer.of(0x7e), be32(2)]));
  }

  #put(bytes: Buffer): void {
    this.#output.push(bytes);
    this.#outputBytes += bytes.length;
  }

  /** Writes what has gathered, piece by piece; waits while the reader is behind. */
  async #flush(): Promise<void> {
    const output = Buffer.concat(this.#output, this.#outputBytes);
    this.#output = [];
    this.#outputBytes = 0;
    for (let at = 0; at < output.length && this.state === "active"; at += OUTPUT_BYTES) {
      while (this.#blocked && this.state === "active") {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      if (this.state !== "active") return;
      this.#blocked = !this.#socket!.write(output.subarray(at, at + OUTPUT_BYTES));
    }
    while (this.#blocked && this.state === "active") {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  // ---- the return path, and the end ----

  #received(bytes: Uint8Array): void {
    this.#returned = Buffer.concat([this.#returned, bytes]);
    for (;;) {
      const input = this.#returned;
      if (input.length < 4 || input.length < 4 + input.readUInt16BE(2)) return;
      this.#returned = input.subarray(4 + input.readUInt16BE(2));
      const type = input.readUInt16BE(0);
      if (type === 3 || type === 4) this.#gotRequest(type, input.subarray(4, 4 + input.readUInt16BE(2)));
      if (type === 7) {
        this.#world.step("source gets SWITCHOVER_ACK");
        this.#acked = true;
      }
      if (type === 1) this.#gotVerdict(input.readUInt32BE(4));
    }
  }

  #gotVerdict(verdict: number): void {
    if (this.#verdict !== undefined) return;
    this.#world.step(`source gets SHUT ${verdict}`);
    if (verdict !== 0) {
      this.#keepGuest("failed", `SHUT ${verdict}`);
      return;
    }
    this.#verdict = verdict;
    this.#complete();
  }

  #complete(): void {
    if (this.#verdict !== 0 || this.state !== "completing") return;
    this.#clock.after(this.#random.real(0, 5), () => {
      if (this.state !== "completing") return;
      this.state = "completed";
      this.#world.sourceMayResume = false;
      this.#world.step("source completes");
      this.#socket?.destroy();
      this.#tellEnd({ outcome: "completed" });
    });
  }

  #socketEnded(reason: string): void {
    // With its verdict and everything written it needs the socket no more.
    if (this.#verdict === 0 && this.state === "completing") return;
    if (this.state === "active" || this.state === "completing") this.#keepGuest("failed", reason);
  }

  /** Only a completed migration leaves the guest stopped, and one that was post-copy. */
  #keepGuest(outcome: "failed" | "cancelled", reason: string): void {
    this.state = this.isPostcopy && outcome === "failed" ? "interrupted" : outcome;
    this.#world.step(`source ends its migration: ${outcome}, ${reason}`);
    this.#socket?.destroy();
    this.#wake();
    this.#clock.after(this.#random.real(0, 5), () => {
      if (this.state === "dead") return;
      const resumes = this.wasRunning && !this.isPostcopy;
      if (resumes) this.#guest.runs = true;
      this.#world.set("source", resumes ? "running" : "paused");
      this.#tellEnd({ outcome, reason });
    });
  }

  #tellEnd(end: OutgoingEnd): void {
    this.#clock.after(this.#random.real(0, this.#traits.eventMsMax), () => {
      if (this.isReachable) this.#resolveEnded(end);
    });
  }
}
