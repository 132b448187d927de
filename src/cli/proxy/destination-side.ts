// `deltavee proxy` at the destination: waits for the source's proxy, and connects to the QEMU that somebody else has
// started here when there is a VM for it, and only then.

import { randomBytes } from "node:crypto";
import { systemClock } from "../../base/clock.ts";
import { CancelledError, toError } from "../../base/errors.ts";
import { version } from "../../base/version.ts";
import { ENTROPY_CODEC_IDS } from "../../codec/entropy/entropy-coder.ts";
import { DestinationEngine } from "../../engine/destination.ts";
import { MANAGED_QEMU } from "../../hypervisor/stream/identity.ts";
import { StreamIncoming } from "../../hypervisor/stream/incoming.ts";
import { checkRules } from "../../library/admission.ts";
import { makeBatchCoder, makeHome } from "../../library/engine-parts.ts";
import { chooseIdentity, isLoopback, PLAINTEXT_NOTICE } from "../../library/identity.ts";
import { Sources } from "../../library/sources.ts";
import { type Address, connect } from "../../link/address.ts";
import type { Caller } from "../../link/lobby.ts";
import { SocketChannel } from "../../link/socket-channel.ts";
import type { Welcome } from "../../wire/bodies.ts";
import { onInterrupt } from "../common.ts";
import type { ProxyOptions } from "../proxy.ts";
import { openMigration, sayFailure, sayListening, sayNotice } from "./shown.ts";

export interface DestinationOptions extends ProxyOptions {
  connect: Address;
}

const CONNECT_TIMEOUT_MS = 5000;

export async function serveDestination(options: DestinationOptions): Promise<void> {
  const identity = chooseIdentity(options.listen, "server", options);
  checkRules(options.allow, identity !== undefined);
  const notice = (text: string) => sayNotice(text, options);
  const sources = await Sources.listen(options.listen, { identity, rules: options.allow, notice });
  sayListening(sources.address, options);
  if (identity === undefined && !isLoopback(options.listen)) notice(PLAINTEXT_NOTICE);
  let engine: DestinationEngine | undefined;
  let isStopping = false;
  const release = onInterrupt(() => {
    isStopping = true;
    engine?.cancel();
  });
  try {
    while (!isStopping) {
      const caller = await sources.next();
      await takeIn(caller, sources, options, (begun) => {
        engine = begun;
        if (isStopping) engine.cancel();
      });
      engine = undefined;
    }
  } catch (thrown) {
    // Told to end while nobody was there.
    if (!(thrown instanceof CancelledError)) throw thrown;
  } finally {
    release();
    sources.close();
  }
}

/** One migration. A failure is told, and the next may come. */
async function takeIn(
  { channel, from }: Caller,
  sources: Sources,
  options: DestinationOptions,
  begun: (engine: DestinationEngine) => void,
): Promise<void> {
  const run = await openMigration(options, "destination");
  const { record } = run;
  const vm = new StreamIncoming(
    async () => new SocketChannel(await connect(options.connect, CONNECT_TIMEOUT_MS)),
  );
  record.add({
    type: "run",
    version: 1,
    startedAt: new Date().toISOString(),
    deltavee: version,
    side: "destination",
    mode: "tunnel",
    method: "delta",
    hypervisor: vm.description,
  });
  const own: Welcome = {
    deltavee: version,
    entropyCodecs: [...ENTROPY_CODEC_IDS],
    hypervisor: MANAGED_QEMU,
  };
  const timeoutMs = Math.round(options.reconnectTimeout);
  if (timeoutMs >= 1) own.resumption = { token: randomBytes(16).toString("hex"), timeoutMs };
  const home = makeHome();
  const coder = makeBatchCoder(home);
  try {
    const engine = new DestinationEngine({ ...home, coder, channel, vm, own, record, clock: systemClock });
    sources.giveOthersTo((other, of) => engine.offer(other, of));
    begun(engine);
    const { error, welcomed } = await engine.run();
    sources.keepOthers();
    await run.finish();
    if (error !== undefined && welcomed) sayFailure(error);
    else if (error !== undefined) sayNotice(`${from} has handed nothing over: ${error.message}`, options);
  } catch (thrown) {
    sayFailure(toError(thrown));
  } finally {
    await coder.close();
    await run.close();
  }
}
