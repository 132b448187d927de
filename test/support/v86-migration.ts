// A migration from one embedded VM to another, as the program makes it: both engines, real sockets, a relay that
// is the slow link. Everything can be watched from the two run records and disturbed while it goes on.

import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { join } from "node:path";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { parseBytesPerSecond } from "../../src/base/units.ts";
import { DELTA_WORD_MASK } from "../../src/codec/delta/delta-codec.ts";
import { ENTROPY_CODEC_IDS, ENTROPY_NONE } from "../../src/codec/entropy/entropy-coder.ts";
import type { DestinationOutcome } from "../../src/engine/destination/options.ts";
import { DestinationEngine } from "../../src/engine/destination.ts";
import type { IncomingVm } from "../../src/engine/ports.ts";
import { type PrecopyLimits, PrecopyVm } from "../../src/engine/precopy/precopy.ts";
import type { SourceOutcome } from "../../src/engine/source/options.ts";
import { SourceEngine } from "../../src/engine/source.ts";
import type { Promises } from "../../src/engine/switchover/convergence.ts";
import { V86Incoming } from "../../src/hypervisor/v86/incoming.ts";
import { V86Guest } from "../../src/hypervisor/v86/outgoing.ts";
import { makeBatchCoder, makeHome } from "../../src/library/engine-parts.ts";
import { type Address, connect, listen } from "../../src/link/address.ts";
import { Relay } from "../../src/link/relay.ts";
import { SocketChannel } from "../../src/link/socket-channel.ts";
import { PageCache } from "../../src/memory/page-cache.ts";
import type { RecordEvent } from "../../src/record/schema.ts";
import { RunRecord } from "../../src/record/writer.ts";
import type { Hello, HypervisorIdentity } from "../../src/wire/bodies.ts";
import type { WorkerBatchCoder } from "../../src/worker/worker-batch-coder.ts";
import { tempFolder } from "./processes.ts";
import { differingPages, type V86Vm } from "./v86-vm.ts";

export type Method = "standard" | "delta";

export interface V86MigrationOptions {
  source: V86Vm;
  destination: V86Vm;
  method: Method;
  rate?: string;
  delayMs?: number;
  downtimeMsMax?: number;
  /** What else is promised, and what is done when it stalls. */
  promises?: Omit<Promises, "downtimeMsMax">;
  limits?: PrecopyLimits;
  cacheBytes?: number;
  /** The guest is paused at the source and is to stay so. */
  isPaused?: boolean;
  /** How the destination introduces itself, if not truthfully. */
  destinationIdentity?: HypervisorIdentity;
  /** Each event of the source's record, and of the destination's. */
  onSource?: (event: RecordEvent, migration: V86Migration) => void;
  onDestination?: (event: RecordEvent, migration: V86Migration) => void;
  /** After COMMIT, before the guest runs. */
  beforeResume?: (migration: V86Migration) => Promise<void>;
  /** The guest stands still for as long as it takes. */
  comparesMemory?: boolean;
  /** RAM is compared at both ends, by the engines. */
  verify?: boolean;
  /** A connection that breaks is resumed, if that takes no longer. */
  reconnectMs?: number;
  /** Of both engines; the guests and the link have their own. */
  clock?: Clock;
  /** Takes the lines of the source's run record. */
  sourceSink?: (line: string) => void;
  /** What answers at the destination is none of ours: it is given the connection instead. */
  otherPeer?: (socket: Socket, hello: Hello) => void;
}

export interface V86MigrationResult {
  source: SourceOutcome;
  /** Undefined: it was killed, or was never there. */
  destination: DestinationOutcome | undefined;
  sourceEvents: readonly RecordEvent[];
  destinationEvents: readonly RecordEvent[];
  /** Pages that differed when both sides stood still, before the resumption; undefined if not compared. */
  differing: number[] | undefined;
  /** Sent by the source, as the link has counted. */
  linkBytes: number;
}

export class V86Migration {
  readonly relay: Relay;
  readonly sourceEngine: SourceEngine;
  readonly #sourceCoder: WorkerBatchCoder;
  readonly #options: V86MigrationOptions;
  readonly #events: { source: RecordEvent[]; destination: RecordEvent[] };
  readonly #sourceSocket: Socket;
  readonly #destinationSocket: Promise<Socket>;
  readonly #destinationAddress: Address;
  #destinationEngine: DestinationEngine | undefined;
  readonly #result: Promise<V86MigrationResult>;
  #killDestinationOutcome: () => void = () => {};
  #isSourceDead = false;
  #isDestinationDead = false;
  /** Of those that have connected later. */
  readonly #laterSockets: Socket[] = [];

  static async start(options: V86MigrationOptions): Promise<V86Migration> {
    const folder = tempFolder();
    // Unix sockets, since the kernel queues 4 MB in those of TCP (see relay.ts).
    const address = (name: string): Address => ({ kind: "unix", path: join(folder.path, name) });
    let accepted: (socket: Socket) => void = () => {};
    const destinationSocket = new Promise<Socket>((resolve) => {
      accepted = resolve;
    });
    let migration: V86Migration | undefined;
    let connections = 0;
    const onConnection = (socket: Socket) => {
      if (connections++ === 0) accepted(socket);
      else migration!.#connectedLater(socket);
    };
    const onError = () => {};
    const listener = await listen(address("destination"), { onConnection, onError });
    const relay = await Relay.start({
      listen: address("link"),
      to: address("destination"),
      bytesPerSecond: parseBytesPerSecond(options.rate ?? "50mbit"),
      delayMs: options.delayMs ?? 1,
    });
    const socket = await connect(address("link"), 10_000);
    migration = new V86Migration(options, relay, socket, destinationSocket, address("destination"));
    void migration.#result.then(async () => {
      listener.close();
      await relay.close();
      folder.remove();
    });
    return migration;
  }

  private constructor(
    options: V86MigrationOptions,
    relay: Relay,
    socket: Socket,
    destinationSocket: Promise<Socket>,
    destinationAddress: Address,
  ) {
    this.#options = options;
    this.relay = relay;
    this.#sourceSocket = socket;
    this.#destinationAddress = destinationAddress;
    this.#destinationSocket = destinationSocket;
    const { source, method, limits, isPaused = false, cacheBytes = 1024 ** 3 } = options;
    const events = { source: [] as RecordEvent[], destination: [] as RecordEvent[] };
    this.#events = events;
    const { clock = systemClock, reconnectMs } = options;
    const record = new RunRecord({
      clock,
      sink: options.sourceSink,
      listeners: [
        (event) => events.source.push(event),
        // Whoever is told meets the engine between two events, as an operator would.
        (event) => setImmediate(() => options.onSource?.(event, this)),
      ],
    });
    const isDelta = method === "delta";
    const hello: Hello = {
      deltavee: "test",
      session: randomBytes(16).toString("hex"),
      hypervisor: identityOf(source),
      entropyCodecs: isDelta ? [...ENTROPY_CODEC_IDS] : [ENTROPY_NONE],
      guestRamBytes: source.host.memoryBytes,
      ...(options.verify ? { verify: true } : {}),
    };
    const home = makeHome();
    this.#sourceCoder = makeBatchCoder(home);
    this.sourceEngine = new SourceEngine({
      ...home,
      clock,
      vm: new PrecopyVm({
        guest: new V86Guest(source.host, { isRunning: !isPaused, version: "0.5.462" }),
        clock,
        ...(limits === undefined ? {} : { limits }),
        decision: (choice, reason) => record.add({ type: "decision", subject: "switchover", choice, reason }),
      }),
      channel: new SocketChannel(socket),
      tunnel: {
        hello,
        coder: this.#sourceCoder,
        deltaCodec: DELTA_WORD_MASK,
        ...(reconnectMs === undefined
          ? {}
          : { reconnect: { connect: () => this.#reconnect(), timeoutMs: reconnectMs } }),
      },
      downtimeMsMax: options.downtimeMsMax ?? 60,
      ...options.promises,
      cacheFactory: isDelta
        ? (pageBytes, memory) => new PageCache({ pageBytes, memory, limitBytes: cacheBytes })
        : undefined,
      record,
      defer: setImmediate,
    });
    this.#result = this.#run(hello);
  }

  get events(): { source: readonly RecordEvent[]; destination: readonly RecordEvent[] } {
    return this.#events;
  }

  /** Resolves when both sides have ended, whichever way. */
  result(): Promise<V86MigrationResult> {
    return this.#result;
  }

  /** What is left of the source when its process is killed, with the guest in it: a broken connection. */
  async killSource(): Promise<void> {
    this.#isSourceDead = true;
    // With an error, so that the engine here, which does not count any more, comes to its end at once.
    this.#sourceSocket.destroy(new Error("killed"));
    await this.#options.source.die();
  }

  /** As at the source. */
  async killDestination(): Promise<void> {
    this.#isDestinationDead = true;
    this.#killDestinationOutcome();
    (await this.#destinationSocket).destroy();
    for (const socket of this.#laterSockets) socket.destroy();
    await this.#options.destination.die();
  }

  async cancelAtDestination(): Promise<void> {
    await this.#destinationSocket;
    this.#destinationEngine?.cancel();
  }

  /** Somebody connects to where the source is expected, and says this. */
  async strangerSays(bytes: Uint8Array): Promise<void> {
    // The source is the first.
    await this.#destinationSocket;
    const socket = await connect(this.#destinationAddress, 10_000);
    socket.on("error", () => {
      // He is not to be let in.
    });
    socket.resume();
    socket.write(bytes);
  }

  #connectedLater(socket: Socket): void {
    this.#laterSockets.push(socket);
    if (this.#isDestinationDead || this.#destinationEngine === undefined) socket.destroy();
    else this.#destinationEngine.offer(new SocketChannel(socket), "somebody");
  }

  async #reconnect(): Promise<SocketChannel> {
    if (this.#isSourceDead) throw new Error("The dead do not connect");
    return new SocketChannel(await connect(this.relay.address, 1000));
  }

  async #run(hello: Hello): Promise<V86MigrationResult> {
    const { source, destination } = this.#options;
    let differing: number[] | undefined;
    const killed = new Promise<undefined>((resolve) => {
      this.#killDestinationOutcome = () => resolve(undefined);
    });
    const { clock = systemClock, otherPeer, reconnectMs } = this.#options;
    const record = new RunRecord({
      clock,
      listeners: [
        (event) => this.#events.destination.push(event),
        (event) => setImmediate(() => this.#options.onDestination?.(event, this)),
      ],
    });
    const atDestination = this.#destinationSocket.then(async (socket) => {
      if (otherPeer !== undefined) {
        otherPeer(socket, hello);
        return undefined;
      }
      const incoming = new V86Incoming(destination.host, { version: "0.5.462" });
      const vm: IncomingVm = {
        description: incoming.description,
        begin: () => incoming.begin(),
        loaded: () => incoming.loaded(),
        discard: () => incoming.discard(),
        openRam: () => incoming.openRam(),
        resume: async () => {
          if (this.#options.comparesMemory !== false)
            differing = await differingPages(source.host, destination.host);
          await this.#options.beforeResume?.(this);
          await incoming.resume();
        },
      };
      const home = makeHome();
      const coder = makeBatchCoder(home);
      this.#destinationEngine = new DestinationEngine({
        ...home,
        clock,
        coder,
        channel: new SocketChannel(socket),
        vm,
        own: {
          deltavee: "test",
          hypervisor: this.#options.destinationIdentity ?? identityOf(destination),
          entropyCodecs: [...ENTROPY_CODEC_IDS],
          ...(reconnectMs === undefined
            ? {}
            : { resumption: { token: randomBytes(16).toString("hex"), timeoutMs: reconnectMs } }),
        },
        record,
      });
      return this.#destinationEngine.run().finally(() => coder.close());
    });
    const [sourceOutcome, destinationOutcome] = await Promise.all([
      this.sourceEngine.run().finally(() => this.#sourceCoder.close()),
      Promise.race([atDestination, killed]),
    ]);
    return {
      source: sourceOutcome,
      destination: destinationOutcome,
      sourceEvents: this.#events.source,
      destinationEvents: this.#events.destination,
      differing,
      linkBytes: this.relay.bytesForward,
    };
  }
}

function identityOf(vm: V86Vm): HypervisorIdentity {
  return { kind: "v86", version: "0.5.462", compatibility: vm.host.compatibility };
}
