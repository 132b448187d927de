// The test hosts: source, destination and client, each a network namespace. Source and destination are joined by the
// link under test; both, and the client, by an Ethernet of their own, over which clients reach the guest: there the guest
// has an address that it keeps when it is moved, as from one port of a switch to another.

import type { LabLink } from "../model.ts";
import { removeLeftoverFolders } from "../ownership.ts";
import {
  addAddress,
  addNamespace,
  addNeighbour,
  removeLeftoverNamespaces,
  removeNamespaces,
  requireNamespaces,
  run,
} from "./namespaces.ts";
import { addVeth, joinByLink, type ShapedLink } from "./shaped-link.ts";

const PREFIX = "deltavee-lab-";
/** Another network for documentation than that of the link. */
const CLIENT_NETWORK = "198.51.100.0/24";
export const CLIENT_ADDRESS = "198.51.100.1";
export const CLIENT_MAC = "52:54:00:4c:41:01";
export const GUEST_ADDRESS = "198.51.100.2";
export const GUEST_MAC = "52:54:00:4c:41:02";
/** For QEMU, at either host: what is sent into it comes out at the client's network. */
export const GUEST_TAP = "guest";
const BRIDGE = "clients";
const UPLINK = "uplink";

export interface TestHosts extends ShapedLink {
  /** Names of their network namespaces. */
  readonly sourceNetns: string;
  readonly destinationNetns: string;
  readonly clientNetns: string;
  /** With everything that runs on them. Idempotent. */
  remove(): Promise<void>;
}

/**
 * Makes them, and first clears away what killed runs have left, test hosts with their QEMUs and temporary folders.
 * @throws UsageError, before anything is done, where they cannot be made
 */
export async function openHosts(link: LabLink): Promise<TestHosts> {
  requireNamespaces();
  await removeLeftovers();
  const made: string[] = [];
  let shaped: ShapedLink | undefined;
  const remove = async () => {
    try {
      await removeNamespaces(made);
    } finally {
      await shaped?.remove();
    }
  };
  const add = (name: string): string => {
    made.push(addNamespace(PREFIX, name));
    return made.at(-1)!;
  };
  try {
    const [sourceNetns, destinationNetns, clientNetns] = [add("source"), add("destination"), add("client")];
    layClientNetwork(clientNetns, [sourceNetns, destinationNetns]);
    shaped = await joinByLink(sourceNetns, destinationNetns, link);
    return { ...shaped, sourceNetns, destinationNetns, clientNetns, remove };
  } catch (thrown) {
    await remove();
    throw thrown;
  }
}

/** What killed runs have left: test hosts with all that runs on them, and temporary folders. */
export async function removeLeftovers(): Promise<void> {
  await removeLeftoverNamespaces(PREFIX);
  removeLeftoverFolders();
}

/** The client host is the switch: a bridge with a port to each host, on which the guest's tap device is bridged. */
function layClientNetwork(clientNetns: string, hosts: readonly string[]): void {
  const ip = (netns: string, ...commandArguments: string[]) => run("ip", "-n", netns, ...commandArguments);
  addBridge(clientNetns);
  ip(clientNetns, "link", "set", BRIDGE, "address", CLIENT_MAC);
  addAddress(clientNetns, BRIDGE, CLIENT_ADDRESS, CLIENT_NETWORK);
  addNeighbour(clientNetns, BRIDGE, GUEST_ADDRESS, GUEST_MAC);
  for (const [index, netns] of hosts.entries()) {
    addBridge(netns);
    ip(netns, "tuntap", "add", GUEST_TAP, "mode", "tap");
    addVeth(UPLINK, netns, `port${index}`, clientNetns);
    for (const device of [GUEST_TAP, UPLINK]) ip(netns, "link", "set", device, "master", BRIDGE, "up");
    ip(clientNetns, "link", "set", `port${index}`, "master", BRIDGE, "up");
  }
}

/** One that forwards from the first frame on. */
function addBridge(netns: string): void {
  const options = ["stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"];
  run("ip", "-n", netns, "link", "add", BRIDGE, "type", "bridge", ...options);
  run("ip", "-n", netns, "link", "set", BRIDGE, "up");
}
