// The link that all methods are measured over: two network namespaces joined by one of the lab's links. Needs root, the
// kernel's `tbf` and iproute2. Knows nothing of what goes over it.

import {
  addNamespace,
  removeLeftoverNamespaces,
  removeNamespaces,
  requireNamespaces,
} from "../src/lab/hosts/namespaces.ts";
import { joinByLink } from "../src/lab/hosts/shaped-link.ts";
import { freePort } from "../test/support/processes.ts";

const PREFIX = "deltavee-bench-";
export interface BenchLink {
  /** Undefined: this host's own network. */
  readonly sourceNetns: string | undefined;
  readonly destinationNetns: string | undefined;
  /** Address of the destination host, as the source sees it, and a port that is free there. */
  readonly destinationAddress: string;
  readonly destinationPort: number;
  /** Sent so far from either end, Ethernet, IP and TCP headers included; 0 where that is not known. */
  sentBytes(): { bySource: number; byDestination: number };
  /** Idempotent. */
  remove(): Promise<void>;
}

/** @throws Error where namespaces cannot be made */
export async function makeLink(bytesPerSecond: number): Promise<BenchLink> {
  requireNamespaces();
  await removeLeftoverNamespaces(PREFIX);
  const made: string[] = [];
  const remove = () => removeNamespaces(made);
  try {
    const add = (side: string): string => {
      made.push(addNamespace(PREFIX, side));
      return made.at(-1)!;
    };
    const [sourceNetns, destinationNetns] = [add("source"), add("destination")];
    const link = { bytesPerSecond, roundTripMs: 0, lossShare: 0 };
    const shaped = await joinByLink(sourceNetns, destinationNetns, link);
    return { ...shaped, sourceNetns, destinationNetns, remove };
  } catch (thrown) {
    await remove();
    throw thrown;
  }
}

/** No link at all: both ends on this host, as fast as it is. */
export async function loopback(): Promise<BenchLink> {
  return {
    sourceNetns: undefined,
    destinationNetns: undefined,
    destinationAddress: "127.0.0.1",
    destinationPort: await freePort(),
    sentBytes: () => ({ bySource: 0, byDestination: 0 }),
    remove: async () => {},
  };
}
