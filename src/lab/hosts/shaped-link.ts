// A link between two namespaces: as fast as it is told to be (a token bucket, `tbf`, in front of either end), as long and
// as lossy (lab/tools/delay-line.c; without both, a plain pair of virtual Ethernet devices). Knows nothing of what goes
// over it.

import { assert } from "../../base/assert.ts";
import { type Subprocess, startProcess } from "../host-process.ts";
import { LineLog } from "../line-log.ts";
import type { LabLink } from "../model.ts";
import { hostTool } from "../tools.ts";
import { addAddress, addNeighbour, run } from "./namespaces.ts";

const BURST_BYTES_MIN = 64 * 1024;
/** tbf sends in bursts of at least one kernel tick's worth, or it cannot reach its rate. */
const KERNEL_TICKS_PER_SECOND_MIN = 250;
/** What the link queues at most, as time; what comes on top is dropped. */
const QUEUE_MS = 50;
/** A delay line that has to wait for the processor must not lose what it has not read yet. */
const TAP_QUEUE_FRAMES = 10_000;
/** The same losses in each run, as far as the packets are the same. */
const LOSS_SEED = 1;
const READY_TIMEOUT_MS = 10_000;

/** Addresses reserved for documentation (RFC 5737): nobody's, inside namespaces that nobody else is in. */
const NETWORK = "192.0.2.0/30";
const SOURCE = { address: "192.0.2.1", mac: "52:54:00:4c:41:11" } as const;
const DESTINATION = { address: "192.0.2.2", mac: "52:54:00:4c:41:12" } as const;
const DEVICE = "migration";
/** Nobody listens there but what a method of migration starts. */
const DESTINATION_PORT = 4444;

export interface ShapedLink {
  /** Address of the destination host, as the source sees it, and a port that is free there. */
  readonly destinationAddress: string;
  readonly destinationPort: number;
  /** Sent so far by either end, Ethernet, IP and TCP headers included; what is lost on the way too. */
  sentBytes(): { bySource: number; byDestination: number };
  /** Idempotent. It ends with its namespaces as well. */
  remove(): Promise<void>;
}

/** Of two namespaces. @throws Error where it cannot be made */
export async function joinByLink(source: string, destination: string, link: LabLink): Promise<ShapedLink> {
  const isPlain = link.roundTripMs === 0 && link.lossShare === 0;
  const line = isPlain ? undefined : await startDelayLine(link, source, destination);
  if (isPlain) addVeth(DEVICE, source, DEVICE, destination);
  for (const [netns, own, other] of [
    [source, SOURCE, DESTINATION],
    [destination, DESTINATION, SOURCE],
  ] as const) {
    const queue = isPlain ? [] : ["txqueuelen", `${TAP_QUEUE_FRAMES}`];
    run("ip", "-n", netns, "link", "set", DEVICE, "address", own.mac, ...queue, "up");
    addAddress(netns, DEVICE, own.address, NETWORK, link.congestion);
    addNeighbour(netns, DEVICE, other.address, other.mac);
    run("tc", "-n", netns, "qdisc", "add", "dev", DEVICE, "root", "tbf", ...shape(link.bytesPerSecond));
  }
  return {
    destinationAddress: DESTINATION.address,
    destinationPort: DESTINATION_PORT,
    sentBytes: () => ({ bySource: sentBytes(source), byDestination: sentBytes(destination) }),
    remove: async () => {
      await line?.stop();
    },
  };
}

export function addVeth(device: string, netns: string, peerDevice: string, peerNetns: string): void {
  const peer = ["peer", "name", peerDevice, "netns", peerNetns];
  run("ip", "link", "add", device, "netns", netns, "type", "veth", ...peer);
}

/** Parameters of tbf. */
export function shape(bytesPerSecond: number): string[] {
  assert(bytesPerSecond > 0, `a link of ${bytesPerSecond} bytes per second`);
  const burstBytes = Math.max(BURST_BYTES_MIN, Math.ceil(bytesPerSecond / KERNEL_TICKS_PER_SECOND_MIN));
  const rate = ["rate", `${Math.round(bytesPerSecond * 8)}bit`];
  return [...rate, "burst", `${burstBytes}`, "latency", `${QUEUE_MS}ms`];
}

async function startDelayLine(
  { roundTripMs, lossShare }: LabLink,
  source: string,
  destination: string,
): Promise<Subprocess> {
  const [delayUs, lossPerMillion] = [(roundTripMs / 2) * 1000, lossShare * 1e6].map(Math.round);
  const ends = [source, DEVICE, destination, DEVICE];
  const output = new LineLog();
  const line = await startProcess(
    await hostTool("delay-line"),
    [...ends, `${delayUs}`, `${lossPerMillion}`, `${LOSS_SEED}`],
    { onStdout: (chunk) => output.push(chunk) },
  );
  void line.exited.then(() => output.end(new Error(`The delay line ended: ${line.stderrTail()}`)));
  try {
    await output.waitFor(({ text }) => text === "ready", "delay line", { timeoutMs: READY_TIMEOUT_MS });
  } catch (thrown) {
    await line.stop();
    throw thrown;
  }
  return line;
}

/** As the token bucket counts: of a bunch of segments that cross together each has its headers. */
function sentBytes(netns: string): number {
  const [qdisc] = JSON.parse(run("tc", "-n", netns, "-s", "-j", "qdisc", "show", "dev", DEVICE)) as [
    { bytes: number },
  ];
  return qdisc.bytes;
}
