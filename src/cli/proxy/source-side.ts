// `deltavee proxy` at the source: takes a stream from a QEMU of which it knows nothing else, and lets the source engine
// carry it. Whatever goes wrong closes QEMU's connection, so that whoever has begun the migration hears of it and the
// guest goes on.

import { randomBytes } from "node:crypto";
import { totalmem } from "node:os";
import { systemClock } from "../../base/clock.ts";
import { CancelledError, DeltaveeError, toError } from "../../base/errors.ts";
import { version } from "../../base/version.ts";
import { DELTA_CODEC_NAMES } from "../../codec/delta/delta-codecs.ts";
import { ENTROPY_CODEC_IDS } from "../../codec/entropy/entropy-coder.ts";
import type { Channel } from "../../engine/ports.ts";
import { SourceEngine } from "../../engine/source.ts";
import { STALL_POLICY_DEFAULT } from "../../engine/stall-policies.ts";
import { MANAGED_QEMU } from "../../hypervisor/stream/identity.ts";
import { StreamOutgoing } from "../../hypervisor/stream/outgoing.ts";
import { makeBatchCoder, makeHome } from "../../library/engine-parts.ts";
import { chooseIdentity, isLoopback, PLAINTEXT_NOTICE } from "../../library/identity.ts";
import { type Address, connect, formatAddress } from "../../link/address.ts";
import { PacedChannel } from "../../link/paced-channel.ts";
import { SocketChannel } from "../../link/socket-channel.ts";
import { SecureDialer } from "../../link/tls/dialer.ts";
import { PageCache } from "../../memory/page-cache.ts";
import type { RunRecord } from "../../record/writer.ts";
import type { WorkerBatchCoder } from "../../worker/worker-batch-coder.ts";
import { onInterrupt } from "../common.ts";
import { exitCodeOf } from "../failure.ts";
import type { ProxyOptions } from "../proxy.ts";
import { type Carried, Doorway } from "./doorway.ts";
import { openMigration, sayFailure, sayListening, sayNotice } from "./shown.ts";

export interface SourceOptions extends ProxyOptions {
  to: Address;
}

const CONNECT_TIMEOUT_MS = 10_000;
const RECONNECT_ATTEMPT_MS = 3000;
const SWITCHOVER_TIMEOUT_MS = 5000;
const DELTA_CODEC = "word-mask";
/** The page cache never takes more than this share of the machine unless it is told to. */
const CACHE_SHARE_MAX = 0.25;

export async function serveSource(options: SourceOptions): Promise<void> {
  const identity = options.to.kind === "deltavee" ? chooseIdentity(options.to, "client", options) : undefined;
  let stop = () => {};
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });
  const doorway = await Doorway.open(options.listen, {
    begin: (channel) => new Carrying(channel, options, newDialer(options, identity)),
    notice: (text) => sayNotice(text, options),
    refused: sayFailure,
    bypassed: (error) => void endAfter(error, doorway.current),
  });
  sayListening(doorway.address, options);
  const release = onInterrupt(stop);
  await stopped;
  doorway.close();
  doorway.current?.refuse(new CancelledError("The proxy was told to end"));
  await doorway.current?.over;
  release();
}

/** Nobody reaches us any more: what is under way is carried to its end, and then there is nothing left to do. */
async function endAfter(error: DeltaveeError, current: Carried | undefined): Promise<void> {
  sayFailure(error);
  await current?.over;
  // Not by returning: Node would remove the file at our path, which is somebody else's by now.
  process.exit(exitCodeOf(error));
}

function newDialer({ to, tlsHostname }: SourceOptions, identity: ReturnType<typeof chooseIdentity>) {
  if (identity === undefined || to.kind === "unix") return undefined;
  return new SecureDialer(to, identity, tlsHostname ?? to.host);
}

/** One migration. */
class Carrying implements Carried {
  readonly over: Promise<void>;
  readonly #options: SourceOptions;
  readonly #dialer: SecureDialer | undefined;
  /** Before there is an engine. */
  #refused: DeltaveeError | undefined;
  #engine: SourceEngine | undefined;

  constructor(channel: Channel, options: SourceOptions, dialer: SecureDialer | undefined) {
    this.#options = options;
    this.#dialer = dialer;
    this.over = this.#carry(channel).catch((thrown: unknown) => {
      channel.destroy();
      sayFailure(toError(thrown));
    });
  }

  refuse(why: DeltaveeError): void {
    if (this.#engine === undefined) this.#refused = why;
    else this.#engine.cancel(why);
  }

  async #carry(channel: Channel): Promise<void> {
    const { to, maxDowntime, maxBandwidth, cacheSize } = this.#options;
    const isTunnel = to.kind === "deltavee";
    const run = await openMigration(this.#options, "source");
    const { record } = run;
    const vm = new StreamOutgoing(channel, systemClock);
    const cacheBytesMax = cacheSize ?? Math.floor(totalmem() * CACHE_SHARE_MAX);
    record.add({
      type: "run",
      version: 1,
      startedAt: new Date().toISOString(),
      deltavee: version,
      side: "source",
      mode: isTunnel ? "tunnel" : "direct",
      method: "delta",
      hypervisor: vm.description,
      destination: formatAddress(to),
      downtimeMsMax: maxDowntime,
      onStall: STALL_POLICY_DEFAULT,
      ...(maxBandwidth === undefined ? {} : { linkBytesPerSecondMax: maxBandwidth }),
      cacheBytesMax,
    });
    if (isTunnel && this.#dialer === undefined && !isLoopback(to))
      record.add({ type: "notice", message: PLAINTEXT_NOTICE });
    const home = makeHome();
    const coder = isTunnel ? makeBatchCoder(home) : undefined;
    try {
      const link = await this.#reach(record);
      const engine = new SourceEngine({
        ...{ ...home, vm, channel: link, record, observer: vm.pages, downtimeMsMax: maxDowntime },
        ...(coder === undefined ? {} : { tunnel: this.#tunnel(coder) }),
        cacheFactory: (pageBytes, memory) => new PageCache({ pageBytes, memory, limitBytes: cacheBytesMax }),
        defer: setImmediate,
        cpuMs,
      });
      this.#engine = engine;
      if (this.#refused !== undefined) engine.cancel(this.#refused);
      const { error } = await engine.run();
      await run.finish();
      if (error !== undefined) sayFailure(error);
    } finally {
      await vm.cancel();
      await coder?.close();
      await run.close();
    }
  }

  /** The destination. If it cannot be reached nothing has begun, and the guest goes on here. */
  async #reach(record: RunRecord): Promise<Channel> {
    try {
      return await this.#openLink(CONNECT_TIMEOUT_MS);
    } catch (thrown) {
      const error = toError(thrown);
      if (error instanceof DeltaveeError) {
        error.vm = "running on source";
        record.add({ type: "error", code: error.code, message: error.message, vm: error.vm });
      }
      throw error;
    }
  }

  async #openLink(timeoutMs: number): Promise<Channel> {
    const { to, maxBandwidth } = this.#options;
    const channel =
      (await this.#dialer?.connect(timeoutMs)) ?? new SocketChannel(await connect(to, timeoutMs));
    return maxBandwidth === undefined ? channel : new PacedChannel(channel, systemClock, maxBandwidth);
  }

  #tunnel(coder: WorkerBatchCoder) {
    const { reconnectTimeout: timeoutMs } = this.#options;
    const reconnect = { connect: () => this.#openLink(RECONNECT_ATTEMPT_MS), timeoutMs };
    return {
      hello: {
        deltavee: version,
        session: this.#dialer?.binding ?? randomBytes(16).toString("hex"),
        hypervisor: MANAGED_QEMU,
        entropyCodecs: [...ENTROPY_CODEC_IDS],
      },
      coder,
      deltaCodec: DELTA_CODEC_NAMES[DELTA_CODEC]!,
      ...(timeoutMs === 0 ? {} : { reconnect }),
      switchoverTimeoutMs: SWITCHOVER_TIMEOUT_MS,
    };
  }
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
