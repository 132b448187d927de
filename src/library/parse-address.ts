// What operators and programs name the ends of a migration by, in words: monitors and destinations. Knows nothing of
// what parts a migration is made of (parse.ts), since not everybody who is told an address makes one.

import { UsageError } from "../base/errors.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { type Address, parseAddress } from "../link/address.ts";

/** A monitor's address: a socket's path as it is, or unix:PATH, or tcp:HOST:PORT. @throws UsageError */
export function parseQmpAddress(text: string): QmpAddress {
  // A socket's path is what people have at hand: everything that names no port is taken for one.
  const isPath = !text.startsWith("unix:") && !/:\d+$/.test(text);
  const address = parseAddress(isPath ? `unix:${text}` : text);
  if (address.kind === "deltavee") throw new UsageError(`Not a QMP socket: "${text}"`);
  return address;
}

/** @throws UsageError also for a port that nobody can listen on */
export function parseDestination(text: string): Address {
  const address = parseAddress(text);
  if (address.kind !== "unix" && address.port === 0)
    throw new UsageError(`Port 0 is not a destination: "${text}"`);
  return address;
}
