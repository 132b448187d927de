// The library's migrate(): what `deltavee migrate` does, for programs. Options in words and numbers become what a
// migration is put together from.

import { STALL_POLICY_DEFAULT } from "../engine/switchover/stall-policies.ts";
import { DOWNTIME_MS_MAX_DEFAULT } from "../engine/switchover/switchover.ts";
import { HISTORY } from "../memory/policy/history.ts";
import { runMigration } from "./migration.ts";
import { aboveZero, notNegative, openRun, qmpOrVm, type RunOptions } from "./options.ts";
import { checkSwitchoverTimeout, parseCodec, parsePolicy, parseStallPolicy } from "./parse.ts";
import { parseDestination, parseQmpAddress } from "./parse-address.ts";
import { qemuSource } from "./qemu-source.ts";
import type { RunResult } from "./run.ts";

/** What `migrate` is told. */
export interface MigrateOptions extends RunOptions {
  /**
   * `tcp:HOST:PORT` or `unix:PATH`: a stock QEMU waits there (direct mode). `deltavee://HOST:PORT`: `receive` waits
   * there (tunnel mode).
   */
  to: string;
  /** Whom the destination's certificate must be for, if not for the host of `to`. */
  tlsHostname?: string | undefined;
  /** Longest time that the guest may stand still, in ms (default: 300). */
  maxDowntimeMs?: number | undefined;
  /** Give up when the guest has not moved by then, in ms (default: never). */
  maxTimeMs?: number | undefined;
  /** Send no more than this, then give up (default: no limit). */
  maxBytes?: number | undefined;
  /** What to do when it makes no progress: wait (default), switchover, throttle, postcopy or abort. */
  onStall?: string | undefined;
  /** Send no faster than this, in bytes per second (default: as the link takes it). */
  maxBytesPerSecond?: number | undefined;
  /** How long a tunnel that broke is tried to be resumed, in ms; 0: not at all (default: 60 000). */
  reconnectTimeoutMs?: number | undefined;
  /** How long the stopped guest may wait for a tunnel that broke, in ms, at least 2000 (default: 5000). */
  switchoverTimeoutMs?: number | undefined;
  /** Memory for the page cache (default: the guest's RAM, at most a quarter of the host's). */
  cacheBytes?: number | undefined;
  /** Which pages are kept when not all can be: docs/page-cache.md. */
  cachePolicy?: string | undefined;
  /** How a page that the destination knows is coded in the tunnel (default: word-mask). */
  codec?: string | undefined;
  /** Send every page whole, as standard pre-copy does: for comparison. */
  standard?: boolean | undefined;
  /** Compare all RAM at both ends before the guest is given away: it stands still longer for that (tunnel only). */
  verify?: boolean | undefined;
  /** Sample the guest's memory, and say soon after the beginning what is to be expected (default: true). */
  forecast?: boolean | undefined;
  /** From when it is aborted on any downtime will do, so that the guest moves at the next best moment. */
  anyDowntime?: AbortSignal | undefined;
}

/**
 * Moves a running VM to another host. Resolves when it has moved.
 * @throws DeltaveeError when it has not: `code` says why (docs/errors.md), `vm` where the guest is. UsageError (code
 * USAGE) for options that make no sense, before anything is connected to; CancelledError (CANCELLED) after `signal`
 */
export async function migrate(options: MigrateOptions): Promise<RunResult> {
  const { codec, cachePolicy, onStall, switchoverTimeoutMs } = options;
  const source = qmpOrVm(options);
  return await runMigration(
    {
      ...options,
      guest: typeof source === "string" ? qemuSource(parseQmpAddress(source)) : source.asSource(),
      to: parseDestination(options.to),
      downtimeMsMax: aboveZero("maxDowntimeMs", options.maxDowntimeMs) ?? DOWNTIME_MS_MAX_DEFAULT,
      timeMsMax: aboveZero("maxTimeMs", options.maxTimeMs),
      wireBytesMax: aboveZero("maxBytes", options.maxBytes),
      linkBytesPerSecondMax: aboveZero("maxBytesPerSecond", options.maxBytesPerSecond),
      reconnectTimeoutMs: notNegative("reconnectTimeoutMs", options.reconnectTimeoutMs),
      switchoverTimeoutMs:
        switchoverTimeoutMs === undefined
          ? undefined
          : checkSwitchoverTimeout(switchoverTimeoutMs, `${switchoverTimeoutMs} ms`),
      cacheBytesMax: notNegative("cacheBytes", options.cacheBytes),
      deltaCodec: codec === undefined ? undefined : parseCodec(codec),
      cachePolicy: cachePolicy === undefined ? HISTORY : parsePolicy(cachePolicy),
      onStall: onStall === undefined ? STALL_POLICY_DEFAULT : parseStallPolicy(onStall),
      isStandard: options.standard,
      isToVerify: options.verify,
      hasForecast: options.forecast ?? true,
    },
    (first) => openRun(options, first),
  );
}
