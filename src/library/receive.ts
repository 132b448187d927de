// The library's receive(): what `deltavee receive` does, for programs.

import { formatAddress, parseAddress } from "../link/address.ts";
import { type AllowRule, parseAllow } from "./admission.ts";
import { notNegative, openRun, qmpOrVm, type RunOptions } from "./options.ts";
import { parseQmpAddress } from "./parse-address.ts";
import { qemuDestination } from "./qemu-destination.ts";
import { runReception } from "./reception.ts";
import { RECONNECT_MS_DEFAULT, type RunResult } from "./run.ts";

/** What `receive` is told. A QEMU must have been started with `-incoming defer`. */
export interface ReceiveOptions extends RunOptions {
  /** Where the source connects to: `HOST:PORT`, or `unix:PATH`. With port 0 a free one is chosen. */
  listen: string;
  /** Called once a source can connect, with the address as `to` of `migrate` takes it. */
  onListening?: ((address: string) => void) | undefined;
  /**
   * Who may hand over which VM: `PEER` or `PEER=VM` each, where PEER is a name in the certificate,
   * `sha256:FINGERPRINT` or `*`, and VM a name or UUID (default: any VM of whoever is trusted).
   */
  allow?: readonly string[] | undefined;
  /** Leave the guest paused on arrival, also when it was running at the source. */
  paused?: boolean | undefined;
  /** Memory for pages of the source, which its codecs xbrle and zstd-dictionary need here (default: none). */
  baselineBytes?: number | undefined;
  /** How long to wait for a source whose connection broke, in ms; 0: not at all (default: 60 000). */
  reconnectTimeoutMs?: number | undefined;
}

/**
 * Takes one VM in from `migrate`, or from `deltavee migrate`. Resolves when it is here. Whoever connects and has no VM
 * for it is dismissed, and the next one waited for.
 * @throws DeltaveeError when no VM has come, or not whole: `code` says why (docs/errors.md), `vm` where the guest is
 */
export async function receive(options: ReceiveOptions): Promise<RunResult> {
  const { onListening } = options;
  const vm = qmpOrVm(options);
  return await runReception(
    {
      ...options,
      guest: typeof vm === "string" ? qemuDestination(parseQmpAddress(vm)) : vm.asDestination(),
      listen: parseAddress(options.listen),
      listening: (address) =>
        onListening?.(formatAddress(address.kind === "unix" ? address : { ...address, kind: "deltavee" })),
      allow: (options.allow ?? []).reduce<AllowRule[]>((rules, rule) => parseAllow(rule, rules), []),
      paused: options.paused ?? false,
      baselineBytesMax: notNegative("baselineBytes", options.baselineBytes) ?? 0,
      reconnectTimeoutMs:
        notNegative("reconnectTimeoutMs", options.reconnectTimeoutMs) ?? RECONNECT_MS_DEFAULT,
    },
    (first) => openRun(options, first),
  );
}
