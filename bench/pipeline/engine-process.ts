// The process that the pipeline section measures: a source or destination engine set up as `deltavee migrate` and
// `deltavee receive` do it, between two unix sockets and with a hypervisor that does nothing but hold its end of
// the stream. Told what to do by a JSON object as its only argument; runs until it is killed.

import { randomBytes } from "node:crypto";
import { systemClock } from "../../src/base/clock.ts";
import { availableEntropyCodecs } from "../../src/codec/entropy.ts";
import { DestinationEngine } from "../../src/engine/destination.ts";
import type { Channel, IncomingVm, OutgoingVm } from "../../src/engine/ports.ts";
import { SourceEngine } from "../../src/engine/source.ts";
import { connect } from "../../src/link/address.ts";
import { SocketChannel } from "../../src/link/socket-channel.ts";
import { PageCache } from "../../src/memory/page-cache.ts";
import { RunRecord } from "../../src/record/writer.ts";

export interface EngineTask {
  side: "source" | "destination";
  /** Sockets to connect to: the hypervisor's end of the stream, and the link. */
  hypervisorPath: string;
  linkPath: string;
  mode: "direct" | "tunnel";
  /** Source: pages as they come, without cache and delta. */
  bypass: boolean;
  cacheBytes: number;
}

const CONNECT_TIMEOUT_MS = 10_000;
const HYPERVISOR = { kind: "qemu" as const, version: "benchmark" };
const never = new Promise<never>(() => {});

const task = JSON.parse(process.argv[2]!) as EngineTask;
const channelTo = async (path: string): Promise<Channel> =>
  new SocketChannel(await connect({ kind: "unix", path }, CONNECT_TIMEOUT_MS));
const record = new RunRecord({ clock: systemClock });
const outcome = await (task.side === "source" ? runSource() : runDestination());
// Nothing here ends by itself: the stream has no end.
console.error(outcome.error ?? outcome);
process.exit(1);

async function runSource() {
  const vm: OutgoingVm = {
    description: HYPERVISOR.version,
    switchoverControl: "limit",
    awaitsDestinationAck: false,
    wasRunning: true,
    ended: never,
    begin: () => channelTo(task.hypervisorPath),
    limitSwitchover: async () => {},
    status: async () => ({ iteration: 0 }),
    cancel: async () => {},
    isRunning: async () => true,
  };
  return new SourceEngine({
    vm,
    channel: await channelTo(task.linkPath),
    ...(task.mode === "direct"
      ? {}
      : {
          tunnel: {
            deltavee: "benchmark",
            session: randomBytes(16).toString("hex"),
            hypervisor: HYPERVISOR,
            entropyCodecs: availableEntropyCodecs(),
          },
        }),
    cacheFactory: task.bypass
      ? undefined
      : (pageBytes) => new PageCache({ pageBytes, limitBytes: task.cacheBytes }),
    downtimeMsMax: 300,
    clock: systemClock,
    record,
    defer: setImmediate,
  }).run();
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
    channel: await channelTo(task.linkPath),
    vm,
    own: { deltavee: "benchmark", entropyCodecs: availableEntropyCodecs(), hypervisor: HYPERVISOR },
    clock: systemClock,
    record,
  }).run();
}
