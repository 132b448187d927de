// The process that the pipeline section measures: a source or destination engine set up as `deltavee migrate` and
// `deltavee receive` do it, between two unix sockets and with a hypervisor that does nothing but hold its end of
// the stream. Told what to do by a JSON object as its only argument; runs until it is killed.

import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { DELTA_WORD_MASK } from "../../src/codec/delta/delta-codec.ts";
import type { BatchCoder } from "../../src/codec/entropy/batch-coder.ts";
import { ENTROPY_CODEC_IDS, type EntropyCodecId } from "../../src/codec/entropy/entropy-coder.ts";
import { DestinationEngine } from "../../src/engine/destination.ts";
import type { Channel, IncomingVm, OutgoingVm } from "../../src/engine/ports.ts";
import { SourceEngine } from "../../src/engine/source.ts";
import { makeBatchCoder, makeHome } from "../../src/library/engine-parts.ts";
import { connect, listen } from "../../src/link/address.ts";
import { SocketChannel } from "../../src/link/socket-channel.ts";
import { PageCache } from "../../src/memory/page-cache.ts";
import type { RecordEvent } from "../../src/record/schema.ts";
import { RunRecord } from "../../src/record/writer.ts";
import { carry } from "./carry.ts";
import { acceptLink, connectLink, type TcpLink } from "./tcp-link.ts";

export interface EngineTask {
  side: "source" | "destination";
  /** The hypervisor's end of the stream, and the link. What the engine reads from it listens on, the other it connects to. */
  hypervisorPath: string;
  linkPath: string;
  /** The link is this instead. */
  tcp?: TcpLink;
  /** "none": no engine at all, bytes are carried from one socket to the other. */
  mode: "direct" | "tunnel" | "none";
  /** Source: pages as they come, without cache and delta. */
  standard: boolean;
  /** Source, tunnel: every batch is coded so. Undefined: as the engine chooses. */
  entropy?: { codecId: EntropyCodecId; level: number };
  cacheBytes: number;
}

const CONNECT_TIMEOUT_MS = 10_000;
const HYPERVISOR = { kind: "qemu" as const, version: "benchmark" };
const never = new Promise<never>(() => {});

const task = JSON.parse(process.argv[2]!) as EngineTask;
const channelTo = async (path: string): Promise<Channel> =>
  task.tcp !== undefined && path === task.linkPath
    ? connectLink(task.tcp)
    : new SocketChannel(await connect({ kind: "unix", path }, CONNECT_TIMEOUT_MS));
/** As the hypervisor's and the source's connections are accepted: nothing is read before the engine does. */
const channelFrom = (path: string): Promise<Channel> =>
  new Promise((resolve, reject) => {
    if (task.tcp !== undefined && path === task.linkPath) {
      acceptLink(task.tcp).then(resolve, reject);
      return;
    }
    const handlers = {
      onConnection: (socket: Socket) => resolve(new SocketChannel(socket)),
      onError: reject,
    };
    listen({ kind: "unix", path }, handlers, { connectionsMax: 1, pauseOnConnect: true }).catch(reject);
  });
if (task.mode === "none") {
  carry(...(await Promise.all([channelFrom(task.hypervisorPath), channelTo(task.linkPath)])));
  await never;
}
const home = makeHome();
const record = new RunRecord({ clock: home.clock, listeners: [sayDecision] });
const coder = makeBatchCoder(home);
await coder.start();
const outcome = await (task.side === "source" ? runSource() : runDestination());
// Nothing here ends by itself: the stream has no end.
console.error(outcome.error ?? outcome);
process.exit(1);

function sayDecision(event: RecordEvent): void {
  if (event.type === "decision")
    process.stdout.write(`${event.subject}: ${event.choice} (${event.reason})\n`);
}

async function runSource() {
  const vm: OutgoingVm = {
    description: HYPERVISOR.version,
    switchoverControl: "limit",
    awaitsDestinationAck: false,
    wasRunning: true,
    ended: never,
    begin: () => channelFrom(task.hypervisorPath),
    limitSwitchover: async () => {},
    // Not the first pass: pages are looked at, however fast the link is.
    status: async () => ({ iteration: 1 }),
    cancel: async () => {},
    resume: async () => {},
    isRunning: async () => true,
  };
  return new SourceEngine({
    ...home,
    vm,
    channel: await channelTo(task.linkPath),
    ...(task.mode === "direct"
      ? {}
      : {
          tunnel: {
            hello: {
              deltavee: "benchmark",
              session: randomBytes(16).toString("hex"),
              hypervisor: HYPERVISOR,
              entropyCodecs: [...ENTROPY_CODEC_IDS],
            },
            coder: task.entropy === undefined ? coder : pinned(coder, task.entropy),
            deltaCodec: DELTA_WORD_MASK,
          },
        }),
    cacheFactory: task.standard
      ? undefined
      : (pageBytes, memory) => new PageCache({ pageBytes, memory, limitBytes: task.cacheBytes }),
    downtimeMsMax: 300,
    record,
    defer: setImmediate,
  }).run();
}

/** Codes everything in one way, whatever it is asked for. */
function pinned(coder: BatchCoder, { codecId, level }: NonNullable<EngineTask["entropy"]>): BatchCoder {
  return {
    slots: coder.slots,
    concurrency: coder.concurrency,
    isReady: coder.isReady,
    prepare: () => coder.prepare(),
    acquire: () => coder.acquire(),
    release: (slot) => coder.release(slot),
    encode: (slot, rawBytes, _codecId, _level, done) => coder.encode(slot, rawBytes, codecId, level, done),
    decode: coder.decode.bind(coder),
    close: () => coder.close(),
  };
}

async function runDestination() {
  const vm: IncomingVm = {
    description: HYPERVISOR.version,
    begin: () => channelTo(task.hypervisorPath),
    loaded: () => never,
    resume: async () => {},
    discard: async () => {},
  };
  return new DestinationEngine({
    ...home,
    coder,
    channel: await channelFrom(task.linkPath),
    vm,
    own: { deltavee: "benchmark", entropyCodecs: [...ENTROPY_CODEC_IDS], hypervisor: HYPERVISOR },
    record,
  }).run();
}
