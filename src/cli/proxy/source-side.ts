// `deltavee proxy` at the source: takes a stream from a QEMU of which it knows nothing else, and has it carried like any
// other migration. Whatever goes wrong closes QEMU's connection, so that whoever has begun the migration hears of it and
// the guest goes on.

import { CancelledError, type DeltaveeError, toError } from "../../base/errors.ts";
import type { Channel } from "../../engine/ports.ts";
import { STALL_POLICY_DEFAULT } from "../../engine/switchover/stall-policies.ts";
import { managedSource } from "../../library/managed-guest.ts";
import { runMigration } from "../../library/migration.ts";
import { SourceLink } from "../../library/source-link.ts";
import type { Address } from "../../link/address.ts";
import { HISTORY } from "../../memory/policy/history.ts";
import { onInterrupt } from "../common.ts";
import { exitCodeOf } from "../failure.ts";
import type { ProxyOptions } from "../proxy.ts";
import { type Carried, Doorway } from "./doorway.ts";
import { openMigration, sayFailure, sayListening, sayNotice } from "./shown.ts";
import { allowedUids } from "./users.ts";

export interface SourceOptions extends ProxyOptions {
  to: Address;
}

export async function serveSource(options: SourceOptions): Promise<void> {
  // What is wrong with the certificates, or missing, is said before anybody comes.
  new SourceLink(options);
  let stop = () => {};
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });
  const doorway = await Doorway.open(options.listen, {
    allowedUids: allowedUids(options.allowUser),
    begin: (channel) => carry(channel, options),
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

/** Begins one migration. */
function carry(channel: Channel, options: SourceOptions): Carried {
  const { to, maxDowntime, maxBandwidth, reconnectTimeout, cacheSize } = options;
  const refusal = new AbortController();
  const migration = runMigration(
    {
      ...options,
      guest: managedSource(channel),
      downtimeMsMax: maxDowntime,
      onStall: STALL_POLICY_DEFAULT,
      linkBytesPerSecondMax: maxBandwidth,
      // It has a default, and a direct link is not resumed.
      reconnectTimeoutMs: to.kind === "deltavee" ? reconnectTimeout : undefined,
      cacheBytesMax: cacheSize,
      cachePolicy: HISTORY,
      hasForecast: false,
      signal: refusal.signal,
    },
    (first) => openMigration(options, "source", first),
  );
  return {
    refuse: (why) => refusal.abort(why),
    over: migration.then(
      () => {},
      (thrown: unknown) => {
        channel.destroy();
        sayFailure(toError(thrown));
      },
    ),
  };
}
