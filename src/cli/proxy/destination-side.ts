// `deltavee proxy` at the destination: waits for the source's proxy, and connects to the QEMU that somebody else has
// started here when there is a VM for it, and only then.

import { CancelledError, DeltaveeError, toError } from "../../base/errors.ts";
import { checkRules } from "../../library/admission.ts";
import { chooseIdentity, isLoopback, PLAINTEXT_NOTICE } from "../../library/identity.ts";
import { managedDestination } from "../../library/managed-guest.ts";
import { takeIn } from "../../library/reception.ts";
import { type SourceQueue, Sources } from "../../library/sources.ts";
import type { Address } from "../../link/address.ts";
import type { Caller } from "../../link/lobby.ts";
import { interruption } from "../common.ts";
import type { ProxyOptions } from "../proxy.ts";
import { openMigration, sayFailure, sayListening, sayNotice } from "./shown.ts";

export interface DestinationOptions extends ProxyOptions {
  connect: Address;
}

export async function serveDestination(options: DestinationOptions): Promise<void> {
  const identity = chooseIdentity(options.listen, "server", options);
  checkRules(options.allow, identity !== undefined);
  const notice = (text: string) => sayNotice(text, options);
  const sources = await Sources.listen(options.listen, { identity, rules: options.allow, notice });
  sayListening(sources.address, options);
  if (identity === undefined && !isLoopback(options.listen)) notice(PLAINTEXT_NOTICE);
  const { signal, release } = interruption();
  try {
    while (!signal.aborted) await takeInFrom(await sources.next(signal), sources, options, signal);
  } catch (thrown) {
    // Told to end while nobody was there.
    if (!(thrown instanceof CancelledError)) throw thrown;
  } finally {
    release();
    sources.close();
  }
}

/** One migration, with a record of its own. A failure is told, and the next may come. */
async function takeInFrom(
  caller: Caller,
  sources: Sources,
  options: DestinationOptions,
  signal: AbortSignal,
): Promise<void> {
  const nothingCame = new DeltaveeError("MIGRATION_FAILED", `${caller.from} has handed nothing over`);
  let wasTaken = false;
  const onlyThisOne: SourceQueue = {
    async next() {
      if (wasTaken) throw nothingCame;
      wasTaken = true;
      return caller;
    },
    giveOthersTo: (offer) => sources.giveOthersTo(offer),
    keepOthers: () => sources.keepOthers(),
    // Others are waited for where this one was.
    close: () => sources.keepOthers(),
  };
  const spec = {
    guest: managedDestination(options.connect),
    paused: false,
    baselineBytesMax: 0,
    reconnectTimeoutMs: options.reconnectTimeout,
    signal,
  };
  try {
    await takeIn(
      spec,
      async () => onlyThisOne,
      (first) => openMigration(options, "destination", first),
    );
  } catch (thrown) {
    if (!wasTaken) caller.channel.destroy();
    // Why not has been said already, as of anybody who has no VM for us.
    if (thrown !== nothingCame) sayFailure(toError(thrown));
  }
}
