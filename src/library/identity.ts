// How a tunnel is secured, as the operator has asked for it: with a folder of certificates, with a paired host, or in
// plain text where that is harmless or was insisted on. Chooses; what TLS is, src/link/tls knows.

import { isIP } from "node:net";
import { UsageError } from "../base/errors.ts";
import { type Address, formatAddress } from "../link/address.ts";
import { readTlsFolder, type TlsIdentity, type TlsSide } from "../link/tls/identity.ts";
import { PairedKeys } from "./paired-keys.ts";

export const PLAINTEXT_NOTICE =
  "INSECURE: without TLS everybody on the way can read and change the guest's memory (--insecure-plaintext)";

/** How a tunnel is secured. With none of these: by keys of paired hosts; on loopback in plain text. */
export interface SecurityOptions {
  /** Folder of certificates as QEMU lays them out. */
  tlsDir?: string | undefined;
  /** Folder of the keys of paired hosts (default: this host's own). */
  keysDir?: string | undefined;
  /** Everybody on the way can read and change the guest's memory. Both sides must be told. */
  insecurePlaintext?: true | undefined;
}

/** Undefined: plain text. @throws UsageError when it must be TLS and there is nothing to do it with; TlsError */
export function chooseIdentity(
  address: Address,
  side: TlsSide,
  { tlsDir, keysDir, insecurePlaintext }: SecurityOptions,
): TlsIdentity | undefined {
  if (insecurePlaintext) return undefined;
  if (tlsDir !== undefined) return readTlsFolder(tlsDir, side);
  const isLocal = isLoopback(address);
  // Nobody else hears what a host says to itself, unless he was asked for by name.
  if (isLocal && keysDir === undefined) return undefined;
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
