// Two QEMUs of a post-copy that was cut off, each with a part of the guest, go on with each other: QEMU's own recovery,
// on a connection of their own, that Deltavee has no part in but to ask for it and to wait for its end. Each function is
// one side of it. Format of the addresses: QEMU's migration URIs.

import { setTimeout as sleep } from "node:timers/promises";
import { CancelledError, DeltaveeError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";
import type { QmpAddress, QmpClient } from "../../hypervisor/qemu/qmp.ts";
import { formatAddress } from "../../link/address.ts";

/** A person goes from one host to the other meanwhile. */
const SOURCE_TIMEOUT_MS = 600_000;
/** The destination listens already. */
const CONNECT_TIMEOUT_MS = 20_000;
const LOOK_EVERY_MS = 200;

export interface Reconnection {
  readonly address: QmpAddress;
  readonly signal: AbortSignal;
  readonly told: (what: string) => void;
}

/** Resolves when all of the guest is here. @throws DeltaveeError */
export async function goOnWithSource(qmp: QmpClient, reconnection: Reconnection): Promise<void> {
  const { address, told } = reconnection;
  await qmp.execute("migrate-recover", { uri: uriOf(address) });
  told(`QEMU here listens at ${formatAddress(address)}: now, at the source, deltavee recover --to names it`);
  await completed(qmp, reconnection, SOURCE_TIMEOUT_MS, "nobody has come");
  told("The rest of the guest has come");
}

/** Resolves when the destination has all of the guest. @throws DeltaveeError */
export async function goOnWithDestination(qmp: QmpClient, reconnection: Reconnection): Promise<void> {
  const { address, told } = reconnection;
  await qmp.execute("migrate", { uri: uriOf(address), resume: true });
  told(`QEMU here sends the rest of the guest to ${formatAddress(address)}`);
  await completed(qmp, reconnection, CONNECT_TIMEOUT_MS, "QEMU has not reached the destination");
  told("The rest of the guest has been sent");
}

/** Once it has begun it may take as long as it takes: it ends, or breaks again. */
async function completed(
  qmp: QmpClient,
  { signal }: Reconnection,
  beginTimeoutMs: number,
  notBegun: string,
): Promise<void> {
  const deadlineMs = performance.now() + beginTimeoutMs;
  for (let hasBegun = false; ; await sleep(LOOK_EVERY_MS)) {
    if (signal.aborted) throw new CancelledError("Nobody waits any more; the two QEMUs go on as they can");
    const { status, "error-desc": reason } = await qmp.execute("query-migrate");
    switch (status) {
      case "completed":
        return;
      case "postcopy-paused":
        if (hasBegun) throw brokenAgain(reason ?? "the connection broke");
        if (performance.now() > deadlineMs)
          throw brokenAgain(reason ?? `${notBegun} within ${formatMs(beginTimeoutMs)}`);
        break;
      default:
        if (status?.startsWith("postcopy-") !== true) throw brokenAgain(`QEMU's migration is ${status}`);
        hasBegun = true;
    }
  }
}

function brokenAgain(why: string): DeltaveeError {
  const text = `The two QEMUs have not gone on with each other to the end: ${why}. Nothing is lost by it: try again`;
  return new DeltaveeError("POSTCOPY_INTERRUPTED", text);
}

function uriOf(address: QmpAddress): string {
  const text = formatAddress(address);
  return address.kind === "tcp" && !text.startsWith("tcp:") ? `tcp:${text}` : text;
}
