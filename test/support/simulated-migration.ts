// A whole migration on virtual time: source engine, link, destination (an engine, or a stock hypervisor), and
// hypervisors at both ends that play a stream and load it. `disturb` does what a test wants to go wrong.

import { VirtualClock } from "../../src/base/clock.ts";
import { DELTA_WORD_MASK, type DeltaCodecId } from "../../src/codec/delta/delta-codec.ts";
import { ENTROPY_CODEC_IDS } from "../../src/codec/entropy/entropy-coder.ts";
import type { DestinationOutcome } from "../../src/engine/destination/options.ts";
import { DestinationEngine } from "../../src/engine/destination.ts";
import type { SourceOutcome } from "../../src/engine/source/options.ts";
import { SourceEngine } from "../../src/engine/source.ts";
import type { Promises } from "../../src/engine/switchover/convergence.ts";
import { PageCache } from "../../src/memory/page-cache.ts";
import { RunRecord } from "../../src/record/writer.ts";
import { encodeFrame, type Frame } from "../../src/wire/frame.ts";
import { FrameReader } from "../../src/wire/frame-reader.ts";
import { refuseFrame } from "../../src/wire/handshake.ts";
import type { GuestStream } from "./arbitrary-stream.ts";
import { makeParts } from "./engine-parts.ts";
import {
  FakeIncoming,
  FakeOutgoing,
  type IncomingFaults,
  type OutgoingFaults,
  StockDestination,
  World,
} from "./fake-hypervisors.ts";
import type { Loader, ZeroRange } from "./loader.ts";
import { type ChannelConditions, type MemoryChannel, memoryChannels } from "./memory-channel.ts";

export interface MigrationSetup {
  mode: "direct" | "tunnel";
  stream: GuestStream;
  control?: "ack" | "limit";
  link?: Partial<ChannelConditions>;
  hypervisorLink?: Partial<ChannelConditions>;
  outgoing?: OutgoingFaults;
  incoming?: IncomingFaults;
  /** Undefined: method standard. */
  cacheBytes?: number | undefined;
  deltaCodec?: DeltaCodecId;
  downtimeMsMax?: number;
  /** What else is promised, and what is done when it stalls. */
  promises?: Omit<Promises, "downtimeMsMax">;
  /** Another hypervisor at the destination, so that it refuses. */
  refused?: boolean;
  /** Done at the first steps at which `when` is true, once or as often as said. */
  disturb?: {
    when: (migration: Migration) => boolean;
    action: (migration: Migration) => void;
    times?: number;
  };
  /** RAM is to be compared at both ends. */
  verify?: boolean;
  /** RAM that the destination has never touched. */
  untouched?: readonly ZeroRange[];
  /** The destination cannot tell what it has never touched, and says so. */
  isBlind?: boolean;
  /** Connections that break are resumed. */
  resumption?: { sourceTimeoutMs?: number; destinationTimeoutMs?: number; switchoverTimeoutMs?: number };
}

const TOKEN = "ffeeddccbbaa99887766554433221100";
/** How long it takes to find out that the other side cannot be reached. */
const UNREACHABLE_MS = 300;

/** Longer than any time-out of the engines, all of them together. */
const HANG_MS = 10 * 60_000;
/** What is watched after both sides say that it is over. */
const AFTERMATH_MS = 60_000;

export class Migration {
  readonly clock = new VirtualClock();
  readonly world = new World();
  readonly sourceRecord = new RunRecord({ clock: this.clock });
  readonly destinationRecord = new RunRecord({ clock: this.clock });
  readonly outgoing: FakeOutgoing;
  readonly incoming: FakeIncoming | undefined;
  readonly stock: StockDestination | undefined;
  readonly source: SourceEngine;
  readonly destination: DestinationEngine | undefined;
  /** Of the connection that there is, or was at last. */
  sourceEnd!: MemoryChannel;
  destinationEnd!: MemoryChannel;
  connections = 0;
  /** Whoever answers at the destination has never heard of this migration. */
  isForgetful = false;
  /** No connection can be made. */
  isUnreachable = false;
  /** Frames that each side has sent, by type, without KEEPALIVE. */
  readonly sourceFrames: string[] = [];
  readonly destinationFrames: string[] = [];
  /** COMMIT went out before the source hypervisor had completed. */
  committedTooEarly = false;
  /** Length of the world's history when COMMIT went out. */
  committedAt: number | undefined;
  sourceOutcome: SourceOutcome | undefined;
  destinationOutcome: DestinationOutcome | undefined;
  readonly #setup: MigrationSetup;
  #disturbed = 0;

  constructor(setup: MigrationSetup) {
    const { clock, world } = this;
    const session = "00112233445566778899aabbccddeeff";
    const own = {
      deltavee: "0.1.0",
      entropyCodecs: [...ENTROPY_CODEC_IDS],
      hypervisor: { kind: "qemu" as const, version: "10.0.2" },
    };
    this.#setup = setup;
    this.#connect();
    const { resumption, hypervisorLink = {} } = setup;
    this.outgoing = new FakeOutgoing(
      world,
      clock,
      setup.stream,
      setup.control ?? "ack",
      hypervisorLink,
      setup.outgoing,
    );
    if (setup.mode === "tunnel") {
      this.incoming = new FakeIncoming(world, clock, hypervisorLink, setup.incoming);
      this.incoming.untouched = setup.untouched ?? [];
      this.incoming.isBlind = setup.isBlind === true;
      const kind = setup.refused === true ? ("v86" as const) : ("qemu" as const);
      this.destination = new DestinationEngine({
        ...makeParts(clock),
        baselineBytesMax: 1 << 30,
        channel: this.destinationEnd,
        vm: this.incoming,
        own: {
          ...own,
          hypervisor: { kind, version: "1" },
          ...(resumption && {
            resumption: { token: TOKEN, timeoutMs: resumption.destinationTimeoutMs ?? 60_000 },
          }),
        },
        clock,
        record: this.destinationRecord,
      });
    } else this.stock = new StockDestination(world, this.destinationEnd, setup.incoming);
    const { cacheBytes, deltaCodec = DELTA_WORD_MASK } = setup;
    const tunnel = {
      hello: {
        ...own,
        session,
        ...(setup.stream.isPostcopy && { postcopy: true }),
        ...(setup.verify && { verify: true }),
      },
      deltaCodec,
      ...(resumption && {
        reconnect: { connect: () => this.#reconnect(), timeoutMs: resumption.sourceTimeoutMs ?? 60_000 },
        switchoverTimeoutMs: resumption.switchoverTimeoutMs ?? 5000,
      }),
    };
    const { coder, ...home } = makeParts(clock);
    this.source = new SourceEngine({
      ...home,
      vm: this.outgoing,
      channel: this.sourceEnd,
      ...(setup.mode === "tunnel" ? { tunnel: { ...tunnel, coder } } : {}),
      downtimeMsMax: setup.downtimeMsMax ?? 60_000,
      ...setup.promises,
      cacheFactory:
        cacheBytes === undefined
          ? undefined
          : (pageBytes, memory) => new PageCache({ pageBytes, memory, limitBytes: cacheBytes }),
      clock,
      record: this.sourceRecord,
      defer: (callback) => void clock.after(0, callback),
    });
  }

  /** No connection for so long, after which one can be made again. */
  breakFor(ms: number, how: "cut" | "blackOut" | "close" = "cut"): void {
    this.sourceEnd[how]();
    this.isUnreachable = true;
    this.clock.after(ms, () => {
      this.isUnreachable = false;
    });
  }

  /** A connection to the destination from somebody else. */
  stranger(): MemoryChannel {
    const [ours, theirs] = memoryChannels(this.clock);
    this.destination!.offer(theirs, "a stranger");
    return ours;
  }

  async #reconnect(): Promise<MemoryChannel> {
    if (this.isUnreachable) {
      await new Promise<void>((resolve) => {
        this.clock.after(UNREACHABLE_MS, resolve);
      });
      throw new Error("unreachable");
    }
    this.#connect();
    if (this.isForgetful) refuseAll(this.destinationEnd);
    else this.destination!.offer(this.destinationEnd, "the source");
    return this.sourceEnd;
  }

  #connect(): void {
    const { clock, world } = this;
    [this.sourceEnd, this.destinationEnd] = memoryChannels(clock, {
      bufferBytes: 1 << 20,
      ...this.#setup.link,
    });
    this.connections++;
    if (this.#setup.mode === "direct") return;
    tap(this.sourceEnd, (frame) => {
      this.sourceFrames.push(frame.type);
      if (frame.type !== "commit") return;
      this.committedAt ??= world.history.length;
      this.committedTooEarly ||= this.outgoing.end?.outcome !== "completed" && !this.outgoing.isPostcopy;
    });
    tap(this.destinationEnd, (frame) => this.destinationFrames.push(frame.type));
  }

  get loader(): Loader | undefined {
    return (this.incoming ?? this.stock)?.side?.loader;
  }

  /** Everything has arrived at the destination hypervisor. */
  get isLoaded(): boolean {
    return (this.incoming ?? this.stock)?.side?.complete === true;
  }

  get phase(): string {
    const phases = this.sourceRecord.events.filter((event) => event.type === "phase");
    return phases.at(-1)?.phase ?? "";
  }

  /** Runs until both sides are done, and a while longer. @throws Error when that never happens */
  async run(): Promise<this> {
    void this.source.run().then((outcome) => {
      this.sourceOutcome = outcome;
    });
    void this.destination?.run().then((outcome) => {
      this.destinationOutcome = outcome;
    });
    const isOver = () =>
      this.sourceOutcome !== undefined &&
      (this.destination === undefined || this.destinationOutcome !== undefined);
    await this.#runUntil(isOver, HANG_MS);
    if (!isOver()) {
      throw new Error(
        `nothing happens any more: source ${this.sourceOutcome?.outcome ?? this.phase}, destination ` +
          `${this.destinationOutcome?.outcome}, ${this.sourceFrames.join(" ")} / ${this.destinationFrames.join(" ")}`,
      );
    }
    await this.#runUntil(() => false, AFTERMATH_MS);
    return this;
  }

  async #runUntil(isOver: () => boolean, ms: number): Promise<void> {
    const endMs = this.clock.nowMs() + ms;
    for (;;) {
      // Whatever waits for a promise goes first.
      await new Promise((resolve) => setImmediate(resolve));
      const { disturb } = this.#setup;
      if (disturb !== undefined && this.#disturbed < (disturb.times ?? 1) && disturb.when(this)) {
        this.#disturbed++;
        disturb.action(this);
        continue;
      }
      if (isOver()) return;
      const dueMs = this.clock.nextDueMs();
      if (dueMs === undefined || dueMs > endMs) return;
      this.clock.advance(dueMs - this.clock.nowMs());
    }
  }
}

function refuseAll(channel: MemoryChannel): void {
  const nothing = () => {};
  channel.listen({
    data: () => channel.write(encodeFrame(refuseFrame("SESSION", "no such migration"))),
    drained: nothing,
    ended: nothing,
    failed: nothing,
  });
}

function tap(channel: MemoryChannel, see: (frame: Frame) => void): void {
  const reader = new FrameReader();
  channel.onWrite = (bytes) => {
    reader.push(bytes);
    for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
      if (frame.type !== "keepalive") see(frame);
    }
  };
}
