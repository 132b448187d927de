// A QEMU that takes a VM in: loads a stream, answers on the return path, ends when the stream breaks off. Started by
// a destination engine it keeps the guest paused until it is told to let it run; waiting on the link itself, as a
// stock one does in direct mode, it lets the guest run by itself when everything is loaded. In post-copy the guest
// may run as soon as the package is loaded, and a stream that breaks off ends nothing.

import { DeltaveeError, QmpCommandError, QmpInterruptedError } from "../../src/base/errors.ts";
import type { Channel, IncomingVm } from "../../src/engine/ports.ts";
import { LoadError, Loader } from "../support/loader.ts";
import { be16, be32 } from "../support/stream-builder.ts";
import type { Random } from "./random.ts";
import type { SimClock } from "./sim-clock.ts";
import { connection, type LineConditions, type SimEnd } from "./sim-connection.ts";
import { type PostcopyTraits, SimPostcopyGuest } from "./sim-postcopy-guest.ts";
import type { World } from "./world.ts";

export interface IncomingTraits {
  /** Sends SHUT 1 when it cannot load, as QEMU 10 does; 7.2 just ends. */
  saysWhy: boolean;
  /** QEMU's streams have a description behind their end; the embedded hypervisor's do not. */
  hasDescription: boolean;
  monitorMsMax: number;
  eventMsMax: number;
  /** Pauses so long after each piece that it reads. */
  loadMsMax: number;
  socket: LineConditions;
}

export interface IncomingFaults {
  refusesToBegin: boolean;
  /** Fails when so many bytes of the stream have come. */
  failsAfterBytes: number | undefined;
  /** Everything is loaded, and nobody hears of it. */
  isMute: boolean;
  /** refused: it says no. unanswered: it is done, or is not, and nobody hears. */
  resume: "works" | "refused" | "unanswered" | "lost";
  discardFails: boolean;
}

export class SimIncoming implements IncomingVm {
  readonly description = "simulated QEMU";
  isReachable = true;
  loader: Loader | undefined;
  /** Bytes of the stream that it has taken. */
  loadedBytes = 0;
  /** In post-copy, from the package on. */
  postcopyGuest: SimPostcopyGuest | undefined;
  readonly ready?: () => Promise<void>;
  readonly #world: World;
  readonly #clock: SimClock;
  readonly #random: Random;
  readonly #traits: IncomingTraits;
  readonly #faults: IncomingFaults;
  readonly #postcopy: PostcopyTraits | undefined;
  readonly #loaded: Promise<void>;
  readonly #ready: Promise<void>;
  #resolveReady!: () => void;
  #resolveLoaded!: () => void;
  #rejectLoaded!: (error: Error) => void;
  #socket: SimEnd | undefined;
  #ended = false;
  #checkedRecords = 0;

  constructor(
    world: World,
    clock: SimClock,
    random: Random,
    traits: IncomingTraits,
    faults: IncomingFaults,
    postcopy: PostcopyTraits | undefined,
  ) {
    this.#world = world;
    this.#clock = clock;
    this.#random = random;
    this.#traits = traits;
    this.#faults = faults;
    this.#postcopy = postcopy;
    this.#ready = new Promise((resolve) => {
      this.#resolveReady = resolve;
    });
    if (postcopy?.destinationHasIt === true) this.ready = () => this.#ready;
    this.#loaded = new Promise((resolve, reject) => {
      this.#resolveLoaded = resolve;
      this.#rejectLoaded = reject;
    });
    this.#loaded.catch(() => {});
  }

  /** Our end of the connection to the engine; for taps. */
  get engineSide(): SimEnd | undefined {
    return this.#socket?.peer;
  }

  /** Direct mode: waits on the link itself. */
  waitOn(link: SimEnd): void {
    this.#load(link, true);
  }

  begin(): Promise<Channel> {
    return this.#command("migrate-incoming", () => {
      if (this.#faults.refusesToBegin) throw new DeltaveeError("HYPERVISOR_FAILED", "no memory");
      const { socket } = this.#traits;
      const [ours, theirs] = connection(this.#clock, this.#random, [socket, socket]);
      this.#load(ours, false);
      return theirs;
    });
  }

  loaded(): Promise<void> {
    return this.#loaded;
  }

  resume(): Promise<void> {
    const { resume } = this.#faults;
    return this.#command("cont", () => {
      if (resume === "refused") throw new QmpCommandError("cont", "GenericError", "no such device");
      if (resume !== "lost") this.#run();
      if (resume !== "works") throw new QmpInterruptedError("cont", "no answer");
    });
  }

  discard(): Promise<void> {
    return this.#command("quit", () => {
      if (this.#faults.discardFails) throw new QmpInterruptedError("quit", "no answer");
      this.#end("discarded");
    });
  }

  crash(): void {
    if (this.#ended) return;
    this.#world.crashedHypervisors.add("destination");
    this.#end("crashed");
  }

  async #command<Result>(name: string, work: () => Result): Promise<Result> {
    const { monitorMsMax } = this.#traits;
    await this.#clock.sleep(this.#random.real(0, monitorMsMax / 2));
    if (!this.isReachable) throw new QmpInterruptedError(name, "the monitor is gone");
    const result = work();
    await this.#clock.sleep(this.#random.real(0, monitorMsMax / 2));
    return result;
  }

  #load(socket: SimEnd, startsByItself: boolean): void {
    this.#socket = socket;
    this.#world.set("destination", "incomplete");
    const { hasDescription, loadMsMax } = this.#traits;
    const loader = new Loader((message) => socket.write(message), { hasDescription });
    this.loader = loader;
    const { failsAfterBytes } = this.#faults;
    let pausedByUs = false;
    socket.listen({
      data: (bytes) => {
        if (this.#ended) return;
        this.loadedBytes += bytes.length;
        try {
          loader.push(bytes);
          if (failsAfterBytes !== undefined && (this.loadedBytes >= failsAfterBytes || loader.complete))
            throw new Error("state of a device that is not there");
        } catch (thrown) {
          // In direct mode a stream may be altered on its way.
          if (thrown instanceof LoadError && !startsByItself)
            this.#world.violated(`a stream that cannot be loaded: ${thrown.message}`);
          // A guest that runs there, or is about to, dies with it.
          if (this.postcopyGuest !== undefined) this.#world.crashedHypervisors.add("destination");
          this.#cannotLoad(loader, String(thrown));
          return;
        }
        this.#follow(loader);
        if (loader.complete) {
          this.#isLoaded(loader, startsByItself);
          return;
        }
        if (loadMsMax > 0 && !pausedByUs) {
          pausedByUs = true;
          socket.pause();
          this.#clock.after(this.#random.real(0, loadMsMax), () => {
            pausedByUs = false;
            if (!this.#ended) socket.resume();
          });
        }
      },
      drained: () => {},
      ended: () => this.#streamEnded(loader, "the stream ended early"),
      failed: (error) => this.#streamEnded(loader, error.message),
    });
    // Asked for with the return path, whether or not the source waits for it.
    socket.write(Buffer.concat([be16(7), be16(0)]));
  }

  /** Post-copy: what has come with the last piece. */
  #follow(loader: Loader): void {
    if (!loader.isPostcopy) {
      this.#checkedRecords = loader.records.length;
      return;
    }
    const { stoppedRam } = this.#world;
    if (this.postcopyGuest === undefined) {
      if (stoppedRam === undefined) {
        this.#world.violated("a package of a guest that never stopped");
        return;
      }
      const send = (message: Buffer) => void this.#socket?.write(message);
      const block = loader.blocks[0]!;
      this.postcopyGuest = new SimPostcopyGuest(
        ...([this.#world, this.#clock, this.#random.fork(), block, stoppedRam, send] as const),
      );
      this.#checkedRecords = loader.records.length;
      this.#loadPackage();
      return;
    }
    for (const { page } of loader.records.slice(this.#checkedRecords)) this.postcopyGuest.arrived(page);
    this.#checkedRecords = loader.records.length;
  }

  #loadPackage(): void {
    this.postcopyGuest!.need(this.#postcopy?.packageNeeds ?? 0, () => {
      this.#clock.after(this.#random.real(0, 5), () => {
        if (this.#ended) return;
        this.#socket?.write(Buffer.concat([be16(2), be16(4), be32(3)]));
        this.#world.set("destination", "paused");
        this.#world.step("destination could run the guest");
        this.#clock.after(this.#random.real(0, this.#traits.eventMsMax), () => this.#resolveReady());
      });
    });
  }

  #isLoaded(loader: Loader, startsByItself: boolean): void {
    const inPostcopy = this.postcopyGuest !== undefined;
    if (!inPostcopy) this.#world.set("destination", "paused");
    this.#world.step("destination has loaded everything");
    const wasRunning = loader.devices[0]?.[0] === 1;
    const { eventMsMax } = this.#traits;
    this.#clock.after(this.#random.real(0, 5), () => {
      if (this.#ended) return;
      if (startsByItself && wasRunning) this.#run();
      if (this.#faults.isMute) return;
      // The verdict on the return path and the event on the monitor: either may be noticed first.
      loader.shut(0);
      if (startsByItself) this.#socket?.end();
      this.#clock.after(this.#random.real(0, eventMsMax), () => {
        if (inPostcopy) void this.#ready.then(this.#resolveLoaded);
        else this.#resolveLoaded();
      });
    });
  }

  #run(): void {
    if (this.#world.presence.destination !== "paused") throw new Error("a guest that is not there is run");
    this.#world.set("destination", "running");
    this.#world.step("destination runs the guest");
    this.postcopyGuest?.run(this.#postcopy?.vcpus ?? 1);
  }

  #cannotLoad(loader: Loader, reason: string): void {
    if (this.#traits.saysWhy) loader.shut(1);
    this.#socket?.end();
    this.#end(reason);
  }

  #streamEnded(loader: Loader, reason: string): void {
    if (loader.complete || this.#ended) return;
    // It keeps what it has, and runs on until it needs what it has not.
    if (this.postcopyGuest !== undefined) this.#world.step("destination's post-copy is interrupted");
    else this.#end(reason);
  }

  #end(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.isReachable = false;
    this.#world.set("destination", "gone");
    this.#world.step(`destination hypervisor ends: ${reason}`);
    if (reason === "crashed") this.#socket?.destroy();
    else this.#socket?.end();
    this.#clock.after(this.#random.real(0, this.#traits.eventMsMax), () =>
      this.#rejectLoaded(new DeltaveeError("HYPERVISOR_FAILED", `QEMU could not load: ${reason}`)),
    );
  }
}
