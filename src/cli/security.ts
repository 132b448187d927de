// How a tunnel is secured, as the operator has asked for it: with a folder of certificates, with a paired host, or in
// plain text where that is harmless or was insisted on. Chooses; what TLS is, src/link/tls knows.

import { isIP } from "node:net";
import { type Command, Option } from "commander";
import { UsageError } from "../base/errors.ts";
import { type Address, formatAddress } from "../link/address.ts";
import type { TlsIdentity, TlsSide } from "../link/tls/identity.ts";

export interface SecurityOptions {
  tlsDir?: string;
  keysDir?: string;
  insecurePlaintext?: true;
}

export const KEYS_DIR_HELP =
  "where keys of paired hosts are kept (default: /var/lib/deltavee/keys as root, else deltavee/keys in " +
  "$XDG_STATE_HOME or ~/.local/state)";

export function withSecurityOptions(command: Command): Command {
  return command
    .option(
      "--tls-dir <folder>",
      "certificates for TLS as QEMU lays them out: ca-cert.pem, and server- or client-cert.pem and -key.pem",
    )
    .option("--keys-dir <folder>", KEYS_DIR_HELP)
    .addOption(
      new Option(
        "--insecure-plaintext",
        "send the guest's memory readable and changeable for everybody on the way; both sides must be told",
      ).conflicts(["tlsDir", "keysDir"]),
    );
}

/**
 * Undefined: plain text, for which nothing of TLS is loaded. Rejects with a UsageError when it must be TLS and there is
 * nothing to do it with, with a TlsError when what there is is no good.
 */
export async function chooseIdentity(
  address: Address,
  side: TlsSide,
  { tlsDir, keysDir, insecurePlaintext }: SecurityOptions,
): Promise<TlsIdentity | undefined> {
  if (insecurePlaintext) return undefined;
  if (tlsDir !== undefined) return (await import("../link/tls/identity.ts")).readTlsFolder(tlsDir, side);
  const isLocal = isLoopback(address);
  // Nobody else hears what a host says to itself, unless he was asked for by name.
  if (isLocal && keysDir === undefined) return undefined;
  const { PairedKeys } = await import("./pairing/paired-keys.ts");
  const keys = PairedKeys.find(keysDir);
  const host = side === "client" && address.kind !== "unix" ? address.host : undefined;
  const paired = keys?.identity(host);
  if (paired !== undefined) return paired;
  const whom = host === undefined ? "any other" : `"${host}"`;
  throw new UsageError(
    `${formatAddress(address)} ${isLocal ? "was to be used with" : "is not of this host alone: it needs"} TLS, and ` +
      `this host has not been paired with ${whom}: give certificates (--tls-dir), or pair the hosts first (deltavee ` +
      "pair). Only --insecure-plaintext sends the guest's memory as it is",
  );
}

/** Addresses of which the kernel lets nothing out of the host. */
export function isLoopback(address: Address): boolean {
  if (address.kind === "unix") return true;
  const { host } = address;
  if (isIP(host) === 4) return host.startsWith("127.");
  return host === "::1" || host === "localhost";
}
