// The link that all methods are measured over: two network namespaces joined by a pair of virtual Ethernet
// devices, each with a token bucket in front. Needs root, the kernel's `tbf` and iproute2. Knows nothing of what
// goes over it.

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { toError } from "../src/base/errors.ts";
import { freePort } from "../test/support/processes.ts";

/** Addresses reserved for documentation (RFC 5737): nobody's, inside namespaces that nobody else is in. */
const SOURCE_ADDRESS = "192.0.2.1";
const DESTINATION_ADDRESS = "192.0.2.2";
const DESTINATION_PORT = 4444;
const DEVICE = "veth0";
const BURST_BYTES_MIN = 64 * 1024;
/** tbf sends in bursts of at least one kernel tick's worth, or it cannot reach its rate. */
const KERNEL_TICKS_PER_SECOND_MIN = 250;
/** What the link queues at most, as time; what comes on top is dropped. */
const QUEUE_MS = 50;
/** The owner's pid is part of the name, so that what a killed run has left can be told from what is in use. */
const NAME = /^deltavee-bench-(\d+)-(?:source|destination)$/;

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
  remove(): void;
}

/** @throws Error where namespaces cannot be made */
export function makeLink(bytesPerSecond: number): BenchLink {
  removeStaleLinks();
  const sourceNetns = `deltavee-bench-${process.pid}-source`;
  const destinationNetns = `deltavee-bench-${process.pid}-destination`;
  const remove = () => {
    for (const netns of [sourceNetns, destinationNetns]) {
      if (namespaces().includes(netns)) run("ip", "netns", "del", netns);
    }
  };
  try {
    run("ip", "netns", "add", sourceNetns);
    run("ip", "netns", "add", destinationNetns);
    const peer = ["peer", "name", DEVICE, "netns", destinationNetns];
    run("ip", "link", "add", DEVICE, "netns", sourceNetns, "type", "veth", ...peer);
    for (const [netns, address] of [
      [sourceNetns, SOURCE_ADDRESS],
      [destinationNetns, DESTINATION_ADDRESS],
    ] as const) {
      run("ip", "-n", netns, "address", "add", `${address}/30`, "dev", DEVICE);
      run("ip", "-n", netns, "link", "set", DEVICE, "up");
      run("tc", "-n", netns, "qdisc", "add", "dev", DEVICE, "root", "tbf", ...shape(bytesPerSecond));
    }
  } catch (thrown) {
    remove();
    throw thrown;
  }
  return {
    sourceNetns,
    destinationNetns,
    destinationAddress: DESTINATION_ADDRESS,
    destinationPort: DESTINATION_PORT,
    sentBytes: () => ({ bySource: sentBytes(sourceNetns), byDestination: sentBytes(destinationNetns) }),
    remove,
  };
}

/** No link at all: both ends on this host, as fast as it is. */
export async function loopback(): Promise<BenchLink> {
  return {
    sourceNetns: undefined,
    destinationNetns: undefined,
    destinationAddress: "127.0.0.1",
    destinationPort: await freePort(),
    sentBytes: () => ({ bySource: 0, byDestination: 0 }),
    remove: () => {},
  };
}

function shape(bytesPerSecond: number): string[] {
  const burstBytes = Math.max(BURST_BYTES_MIN, Math.ceil(bytesPerSecond / KERNEL_TICKS_PER_SECOND_MIN));
  return [
    "rate",
    `${Math.round(bytesPerSecond * 8)}bit`,
    "burst",
    `${burstBytes}`,
    "latency",
    `${QUEUE_MS}ms`,
  ];
}

/** Removes what a killed run has left behind; runs that are alive are not touched. */
function removeStaleLinks(): void {
  for (const netns of namespaces()) {
    const pid = NAME.exec(netns)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) run("ip", "netns", "del", netns);
  }
}

function namespaces(): string[] {
  return run("ip", "netns", "list")
    .split("\n")
    .map((line) => line.split(" ")[0]!);
}

function sentBytes(netns: string): number {
  const [device] = JSON.parse(run("ip", "-n", netns, "-s", "-j", "link", "show", DEVICE)) as [
    { stats64: { tx: { bytes: number } } },
  ];
  return device.stats64.tx.bytes;
}

function run(command: string, ...commandArguments: string[]): string {
  try {
    return execFileSync(command, commandArguments, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (thrown) {
    throw new Error(`${command} ${commandArguments.join(" ")} failed: ${toError(thrown).message}`);
  }
}
