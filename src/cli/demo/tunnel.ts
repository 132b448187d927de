// The two engines of a tunnel, put together for the demo as `deltavee migrate` and `deltavee receive` put them
// together for QEMU.

import { randomBytes } from "node:crypto";
import type { DeltaveeError } from "../../base/errors.ts";
import { version } from "../../base/version.ts";
import { DELTA_WORD_MASK } from "../../codec/delta/delta-codec.ts";
import { ENTROPY_CODEC_IDS, ENTROPY_NONE } from "../../codec/entropy/entropy-coder.ts";
import { DestinationEngine } from "../../engine/destination.ts";
import type { IncomingVm, OutgoingVm } from "../../engine/ports.ts";
import { SourceEngine } from "../../engine/source.ts";
import { makeBatchCoder, makeHome } from "../../library/engine-parts.ts";
import { type Address, connect, listen } from "../../link/address.ts";
import { SocketChannel } from "../../link/socket-channel.ts";
import { PageCache } from "../../memory/page-cache.ts";
import type { RunRecord } from "../../record/writer.ts";
import type { HypervisorIdentity } from "../../wire/bodies.ts";
import type { MigrationOrder } from "./messages.ts";

const CONNECT_TIMEOUT_MS = 10_000;
/** Both processes are on this machine, and nobody else is to reach them. */
const ANY_LOCAL_PORT: Address = { kind: "deltavee", host: "127.0.0.1", port: 0 };

export interface End<Vm> {
  readonly vm: Vm;
  readonly identity: HypervisorIdentity;
  readonly record: RunRecord;
}

export async function sendThroughTunnel(
  { vm, identity, record }: End<OutgoingVm>,
  { to, method, downtimeMsMax, cacheBytesMax }: MigrationOrder,
  guestRamBytes: number,
): Promise<DeltaveeError | undefined> {
  const isDelta = method === "delta";
  const home = makeHome();
  const coder = makeBatchCoder(home);
  const engine = new SourceEngine({
    ...home,
    vm,
    channel: new SocketChannel(await connect(to, CONNECT_TIMEOUT_MS)),
    tunnel: {
      hello: {
        deltavee: version,
        session: randomBytes(16).toString("hex"),
        hypervisor: identity,
        // Standard pre-copy sends pages as they are.
        entropyCodecs: isDelta ? [...ENTROPY_CODEC_IDS] : [ENTROPY_NONE],
        guestRamBytes,
      },
      coder,
      deltaCodec: DELTA_WORD_MASK,
    },
    cacheFactory: isDelta
      ? (pageBytes, memory) => new PageCache({ pageBytes, memory, limitBytes: cacheBytesMax })
      : undefined,
    downtimeMsMax,
    // Whoever watches a demonstration wants to see its end. Standard pre-copy has its textbook's limits.
    onStall: isDelta ? "switchover" : "wait",
    record,
    defer: setImmediate,
  });
  const { error } = await engine.run();
  await coder.close();
  return error;
}

/** Takes the first connection that comes. */
export async function receiveThroughTunnel({
  vm,
  identity,
  record,
}: End<IncomingVm>): Promise<{ address: Address; ended: Promise<DeltaveeError | undefined> }> {
  let resolve: (outcome: Promise<{ error?: DeltaveeError }>) => void;
  const outcome = new Promise<{ error?: DeltaveeError }>((taken) => {
    resolve = taken;
  });
  const listener = await listen(ANY_LOCAL_PORT, {
    onConnection: (socket) => {
      listener.close();
      const home = makeHome();
      const coder = makeBatchCoder(home);
      const engine = new DestinationEngine({
        ...home,
        coder,
        channel: new SocketChannel(socket),
        vm,
        own: { deltavee: version, entropyCodecs: [...ENTROPY_CODEC_IDS], hypervisor: identity },
        record,
      });
      resolve(engine.run().finally(() => coder.close()));
    },
    onError: ({ message }) => record.add({ type: "notice", message }),
  });
  return { address: listener.address, ended: outcome.then(({ error }) => error) };
}
