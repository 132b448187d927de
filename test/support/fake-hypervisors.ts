// Hypervisors at both ends of a migration, as far as the engine can see them: one plays a generated stream and
// keeps its guest until it is told SHUT 0, one loads a stream. A world that both live in sees to it that never
// two guests run.

import type { Clock } from "../../src/base/clock.ts";
import type {
  Channel,
  IncomingVm,
  OutgoingEnd,
  OutgoingStatus,
  OutgoingVm,
  StoppedRam,
  UntouchedRam,
} from "../../src/engine/ports.ts";
import type { GuestStream } from "./arbitrary-stream.ts";
import { Loader, type ZeroRange } from "./loader.ts";
import { type ChannelConditions, type MemoryChannel, memoryChannels } from "./memory-channel.ts";
import { be16, be32, be64, counted } from "./stream-builder.ts";
import { asUntouchedRam } from "./untouched.ts";

/** Where guests run. Throws, and remembers it, as soon as there are two. */
export class World {
  readonly running = new Set<"source" | "destination">();
  /** Who ran, in order. */
  readonly history: string[] = [];
  violated = false;

  set(side: "source" | "destination", runs: boolean): void {
    if (runs === this.running.has(side)) return;
    if (runs) this.running.add(side);
    else this.running.delete(side);
    this.history.push(`${side} ${runs ? "runs" : "stops"}`);
    if (this.running.size > 1) this.violated = true;
  }
}

export interface OutgoingFaults {
  /** `begin` rejects. */
  refuses?: boolean;
  /** The migration fails once this share of the stream is out; 1: once all of it is. */
  failsAt?: number;
  /** Does not react to a cancel, nor to anything else. */
  isStuck?: boolean;
  /** The stream has this byte changed. */
  corruptAt?: number;
  /** How much later it says that the migration has ended. */
  endToldMs?: number;
}

/** What its guest has dirtied, in a migration that can only end as post-copy. */
const BUSY_GUEST: OutgoingStatus = { iteration: 3, remainingBytes: 1e9, dirtyPagesPerSecond: 1e6 };

export class FakeOutgoing implements OutgoingVm {
  readonly description = "fake 1.0";
  readonly switchoverControl: "ack" | "limit";
  readonly awaitsDestinationAck = false;
  readonly wasRunning = true;
  readonly ended: Promise<OutgoingEnd>;
  end: OutgoingEnd | undefined;
  /** vCPUs stand still for the last pass, or for good. */
  stopped = false;
  channel!: MemoryChannel;
  /** Told that it must not resume the guest any more, and that before the destination could run it. */
  committedInTime = false;
  /** Of a stream that has a package: switched over. As QEMU does, it then never resumes the guest by itself. */
  isPostcopy = false;
  isDead = false;
  /** Pages that the destination has asked for. */
  requests = 0;
  readonly startPostcopy?: () => Promise<void>;
  /** For a test to give. */
  openRam?: () => Promise<StoppedRam>;
  readonly #world: World;
  readonly #clock: Clock;
  readonly #faults: OutgoingFaults;
  readonly #bytes: Buffer;
  readonly #stopAt: number;
  readonly #conditions: Partial<ChannelConditions>;
  #resolve!: (end: OutgoingEnd) => void;
  #at = 0;
  #acked = false;
  #blocked = false;
  #verdict: number | undefined;

  constructor(
    world: World,
    clock: Clock,
    stream: GuestStream,
    control: "ack" | "limit",
    conditions: Partial<ChannelConditions>,
    faults: OutgoingFaults = {},
  ) {
    this.#world = world;
    this.#clock = clock;
    this.#faults = faults;
    this.switchoverControl = control;
    this.#conditions = conditions;
    this.#bytes = Buffer.from(stream.bytes);
    if (faults.corruptAt !== undefined) this.#bytes[faults.corruptAt] = 0xdd;
    this.#stopAt = stream.stopsAt;
    if (stream.isPostcopy === true) this.startPostcopy = async () => this.#switchOver();
    this.ended = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    world.set("source", true);
  }

  async begin(): Promise<Channel> {
    if (this.#faults.refuses === true) throw new Error("migration is blocked");
    const [ours, theirs] = memoryChannels(this.#clock, this.#conditions);
    this.channel = ours;
    ours.listen({
      data: (bytes) => this.#returned(Buffer.from(bytes)),
      drained: () => {
        this.#blocked = false;
        this.#play();
      },
      ended: () => this.#finish({ outcome: "failed", reason: "connection closed" }),
      failed: () => this.#finish({ outcome: "failed", reason: "connection broke" }),
    });
    this.#clock.after(1, () => this.#play());
    return theirs;
  }

  committed(): void {
    this.committedInTime = !this.#world.history.includes("destination runs");
  }

  async limitSwitchover(): Promise<void> {
    if (this.switchoverControl === "ack") return;
    this.#acked = true;
    this.#play();
  }

  async status(): Promise<OutgoingStatus> {
    if (this.startPostcopy !== undefined && this.#at === this.#stopAt) return BUSY_GUEST;
    return {
      iteration: this.#at < this.#stopAt ? 0 : 1,
      remainingBytes: 0,
      ...(this.isPostcopy ? { isPostcopy: true } : {}),
      ...(this.stopped ? { isStopped: true } : {}),
    };
  }

  #switchOver(): void {
    this.isPostcopy = true;
    this.#acked = true;
    this.#play();
  }

  async cancel(): Promise<void> {
    if (this.#faults.isStuck === true) throw new Error("monitor does not answer");
    if (this.isPostcopy) throw new Error("Postcopy migration in progress, cannot cancel");
    this.#finish({ outcome: "cancelled", reason: "cancelled" });
  }

  /** What cannot happen any more once it has completed. */
  fail(reason: string): void {
    this.#finish({ outcome: "failed", reason });
  }

  /** Its process ends, and the guest with it. */
  die(): void {
    this.isDead = true;
    this.#finish({ outcome: "failed", reason: "connection to its monitor lost" });
    this.#world.set("source", false);
  }

  async resume(): Promise<void> {
    if (this.end?.outcome !== "completed") throw new Error("Migration is not finalized yet");
    this.#world.set("source", true);
  }

  async isRunning(): Promise<boolean | undefined> {
    return this.#faults.isStuck === true || this.isDead ? undefined : this.#world.running.has("source");
  }

  #returned(message: Buffer): void {
    // Pieces on this channel are whole messages, or the test has chosen its chunks badly.
    for (let at = 0; at < message.length; at += 4 + message.readUInt16BE(at + 2)) {
      const type = message.readUInt16BE(at);
      if (type === 7) {
        this.#acked = true;
        this.#play();
      }
      if (type === 3 || type === 4) this.requests++;
      if (type === 1 && this.#faults.isStuck !== true) {
        const verdict = message.readUInt32BE(at + 4);
        if (this.isPostcopy && verdict === 0) {
          this.#verdict = verdict;
          this.#play();
          return;
        }
        const complete = this.#at === this.#bytes.length && verdict === 0;
        this.#finish(complete ? { outcome: "completed" } : { outcome: "failed", reason: `SHUT ${verdict}` });
      }
    }
  }

  #play(): void {
    const { failsAt } = this.#faults;
    while (this.end === undefined && !this.#blocked && this.#at < this.#bytes.length) {
      if (this.#at === this.#stopAt) {
        if (!this.#acked) return;
        this.stopped = true;
        this.#world.set("source", false);
      }
      const limit = this.#at < this.#stopAt ? this.#stopAt : this.#bytes.length;
      const next = Math.min(limit, this.#at + 1500);
      this.#blocked = !this.channel.write(Buffer.from(this.#bytes.subarray(this.#at, next)));
      this.#at = next;
      if (failsAt !== undefined && this.#at >= failsAt * this.#bytes.length) {
        this.#finish({ outcome: "failed", reason: "the disk is full" });
      }
    }
    // In post-copy it goes by the verdict when it has got rid of everything, whatever has become of that.
    if (this.#verdict === 0 && this.#at === this.#bytes.length) this.#finish({ outcome: "completed" });
  }

  /** Only a completed migration leaves the guest stopped, and one that was post-copy. */
  #finish(end: OutgoingEnd): void {
    if (this.end !== undefined) return;
    this.end = end;
    this.channel?.destroy();
    if (end.outcome !== "completed" && !this.isPostcopy && !this.isDead) this.#world.set("source", true);
    const { endToldMs } = this.#faults;
    if (endToldMs === undefined) this.#resolve(end);
    else this.#clock.after(endToldMs, () => this.#resolve(end));
  }
}

export interface IncomingFaults {
  refuses?: boolean;
  /** Loading fails when all but this many bytes of the stream have come, for whatever reason. */
  failsToLoad?: boolean;
  /** How a failure to load shows: the connection is closed, or a verdict is sent first. */
  saysWhy?: boolean;
  failsToResume?: boolean;
  /** Everything is loaded, but nobody hears of it. */
  isMute?: boolean;
  /** Takes so many bytes of whatever comes for a guest. */
  loadsAnything?: number;
  /** Sends its SWITCHOVER_ACK, as a QEMU does that has the capability on. */
  acksSwitchover?: boolean;
}

/** As a destination asks for pages of a RAMBlock, the first time. */
export function requestForPages(idstr: string, offsetBytes: number, lengthBytes: number): Buffer {
  const name = counted(idstr);
  return Buffer.concat([be16(3), be16(12 + name.length), be64(offsetBytes), be32(lengthBytes), name]);
}

/** What both kinds of destination have in common: a loader behind a channel. */
class LoadingSide {
  readonly loader: Loader;
  complete = false;
  failed = false;

  constructor(
    channel: Channel,
    faults: IncomingFaults,
    complete: () => void,
    failed: (error: Error) => void,
    /** Post-copy: the guest could run. */
    ready: () => void,
    untouched: readonly ZeroRange[] = [],
  ) {
    this.loader = new Loader((message) => channel.write(message), { untouched });
    let takenBytes = 0;
    let isReady = false;
    const fail = (error: Error) => {
      if (this.failed || this.complete) return;
      this.failed = true;
      if (faults.saysWhy === true) this.loader.shut(1);
      channel.end();
      failed(error);
    };
    channel.listen({
      data: (bytes) => {
        if (this.failed) return;
        takenBytes += bytes.length;
        try {
          if (faults.loadsAnything === undefined) this.loader.push(bytes);
          else this.loader.complete = takenBytes === faults.loadsAnything;
          if (this.loader.isPostcopy && !isReady) {
            isReady = true;
            // What the package ends with, and what the guest, or a device, finds missing.
            channel.write(Buffer.concat([be16(2), be16(4), be32(3)]));
            channel.write(requestForPages(this.loader.blocks[0]!.idstr, 0, 4096));
            ready();
          }
          if (this.loader.complete && faults.failsToLoad === true) throw new Error("device state is wrong");
        } catch (thrown) {
          fail(thrown as Error);
          return;
        }
        if (!this.loader.complete) return;
        this.complete = true;
        complete();
      },
      drained: () => {},
      ended: () => fail(new Error("the stream ended early")),
      failed: (error) => fail(error),
    });
  }
}

/** A hypervisor that waits for a migration on the link itself, and lets the guest run when it is loaded. */
export class StockDestination {
  readonly side: LoadingSide;

  constructor(world: World, channel: Channel, faults: IncomingFaults = {}) {
    this.side = new LoadingSide(
      channel,
      faults,
      () => {
        world.set("destination", true);
        if (faults.isMute === true) return;
        this.side.loader.shut(0);
        channel.end();
      },
      () => {},
      () => world.set("destination", true),
    );
    channel.write(Buffer.concat([be16(7), be16(0)]));
  }
}

export class FakeIncoming implements IncomingVm {
  readonly description = "fake 1.0";
  side: LoadingSide | undefined;
  discarded = false;
  mayPostcopy = false;
  /** For a test to give. */
  openRam?: () => Promise<StoppedRam>;
  /** Zero before the migration. */
  untouched: readonly ZeroRange[] = [];
  /** It cannot be told what is. */
  isBlind = false;
  readonly #world: World;
  readonly #clock: Clock;
  readonly #conditions: Partial<ChannelConditions>;
  readonly #faults: IncomingFaults;
  readonly #loaded: Promise<void>;
  readonly #ready: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: Error) => void;
  #isReady!: () => void;

  constructor(
    world: World,
    clock: Clock,
    conditions: Partial<ChannelConditions>,
    faults: IncomingFaults = {},
  ) {
    this.#world = world;
    this.#clock = clock;
    this.#conditions = conditions;
    this.#faults = faults;
    this.#loaded = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#loaded.catch(() => {});
    this.#ready = new Promise((resolve) => {
      this.#isReady = resolve;
    });
  }

  async begin(mayPostcopy: boolean): Promise<Channel> {
    this.mayPostcopy = mayPostcopy;
    if (this.#faults.refuses === true) throw new Error("no memory");
    const [ours, theirs] = memoryChannels(this.#clock, this.#conditions);
    if (this.#faults.acksSwitchover === true) ours.write(Buffer.concat([be16(7), be16(0)]));
    this.side = new LoadingSide(
      ours,
      this.#faults,
      () => {
        if (this.#faults.isMute === true) return;
        this.side?.loader.shut(0);
        this.#resolve();
      },
      (error) => this.#reject(error),
      () => this.#isReady(),
      this.untouched,
    );
    return theirs;
  }

  /** It turns out that it cannot load what has come. */
  failNow(reason: string): void {
    this.#reject(new Error(reason));
  }

  async untouchedRam(): Promise<UntouchedRam[]> {
    if (this.isBlind) throw new Error("not on this host");
    return asUntouchedRam(this.untouched);
  }

  ready(): Promise<void> {
    return this.#ready;
  }

  loaded(): Promise<void> {
    return this.#loaded;
  }

  async resume(): Promise<void> {
    if (this.#faults.failsToResume === true) throw new Error("no such device");
    if (this.discarded) throw new Error("resumed what was discarded");
    this.#world.set("destination", true);
  }

  async discard(): Promise<void> {
    this.discarded = true;
    this.#world.set("destination", false);
  }
}
