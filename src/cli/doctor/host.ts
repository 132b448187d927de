// What a migration needs of this host itself: Node, memory, clocks, TCP. Everything is given as arguments, so that a host
// can be made up.

import { setTimeout as sleep } from "node:timers/promises";
import { formatBytes, formatBytesPerSecond, formatMs } from "../../base/units.ts";
import { CACHE_SHARE_MAX } from "../../library/run.ts";
import { payloadBytesPerSecond } from "../../planner/link-model.ts";
import type { Finding } from "./finding.ts";

/** As package.json says ("engines"). */
const NODE_MIN = [20, 19] as const;
/** Less than this for a page cache is little for any guest. */
const CACHE_BYTES_LOW = 256 * 1024 * 1024;
const CLOCK_LOOKS = 20;
const CLOCK_EVERY_MS = 10;
/** Wall clocks are slewed by parts in a thousand; what is more is a step. */
const CLOCK_STEP_MS = 50;

export function checkNode(nodeVersion: string): Finding {
  const [major = 0, minor = 0] = nodeVersion.split(".").map(Number);
  const values = { version: nodeVersion };
  if (major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])) {
    return { check: "node", level: "ok", says: `Node ${nodeVersion}`, values };
  }
  return {
    check: "node",
    level: "problem",
    says: `Node ${nodeVersion} is older than ${NODE_MIN.join(".")}`,
    means: "Deltavee is not tested with it, and parts of it will not start",
    advice: `Install Node ${NODE_MIN.join(".")} or newer`,
    values,
  };
}

/** `guestRamBytes`: of the VM that is to move, where it is known. */
export function checkMemory(host: {
  totalBytes: number;
  availableBytes: number;
  guestRamBytes?: number | undefined;
}): Finding {
  const { totalBytes, availableBytes, guestRamBytes } = host;
  const wantedBytes = Math.min(totalBytes * CACHE_SHARE_MAX, guestRamBytes ?? Number.POSITIVE_INFINITY);
  const values = { totalBytes, availableBytes, cacheBytesMax: Math.floor(wantedBytes) };
  const says = `${formatBytes(availableBytes)} of ${formatBytes(totalBytes)} are available`;
  if (availableBytes < Math.min(wantedBytes, CACHE_BYTES_LOW)) {
    return {
      check: "memory",
      level: "problem",
      says: `only ${says}`,
      means: "A page cache that finds no memory ends the migration, or drives the host into swapping",
      advice: "Free memory, or give the page cache less of it (--cache-size)",
      values,
    };
  }
  if (availableBytes < wantedBytes) {
    return {
      check: "memory",
      level: "warning",
      says,
      means: `The page cache may take ${formatBytes(wantedBytes)} on this host, and that is not there`,
      advice: `Give it less: --cache-size ${Math.floor(availableBytes / 2 / 2 ** 20)}MiB`,
      values,
    };
  }
  const cache = `the page cache may take ${formatBytes(wantedBytes)} of it`;
  return { check: "memory", level: "ok", says: `${says}, ${cache}`, values };
}

/** A way through which much is lost, as those of radio and of long distances are. */
const LOSSY_WAYS = [20, 100].map((roundTripMs) => ({
  ...{ bytesPerSecond: Number.POSITIVE_INFINITY, roundTripMs, lossShare: 0.001 },
}));

/** `control`: of TCP connections on this host, by its name in Linux, and those that it knows. */
export function checkCongestionControl(control: string, known: readonly string[]): Finding {
  const [check, values] = ["tcp", { control, known }];
  if (control === "bbr") return { check, level: "ok", says: "TCP's congestion control is bbr", values };
  const [near, far] = LOSSY_WAYS.map((way) => formatBytesPerSecond(payloadBytesPerSecond(way)));
  const load = known.includes("bbr") ? "" : "modprobe tcp_bbr, then ";
  return {
    check,
    // Most ways lose next to nothing.
    level: "ok",
    says: `TCP's congestion control is ${control}`,
    means: `A way that loses one packet in a thousand carries ${near} at most then at a round trip of 20 ms, ${far} at 100 ms`,
    advice: `Over such a way let BBR have the connections to the peer: ${load}ip route replace PEER via GATEWAY congctl bbr`,
    values,
  };
}

/** With this much both ends of a connection to a hypervisor are at work most of the time. */
const SOCKET_BUFFER_BYTES_ENOUGH = 1024 * 1024;

/** `bufferBytes`: what a new Unix socket holds (Linux: net.core.wmem_default). */
export function checkSocketBuffers(bufferBytes: number): Finding {
  const [check, values] = ["sockets", { bufferBytes }];
  const says = `Unix sockets hold ${formatBytes(bufferBytes)}`;
  if (bufferBytes >= SOCKET_BUFFER_BYTES_ENOUGH) return { check, level: "ok", says, values };
  return {
    check,
    // Links of up to a gigabit are slower than either end.
    level: "ok",
    says,
    means:
      "QEMU and Deltavee wait for each other that often: on a link of several Gbit/s it takes a quarter longer or more",
    advice:
      "For such links let them hold more, for connections from then on: sysctl -w net.core.wmem_default=4194304",
    values,
  };
}

export interface Clocks {
  monotonicMs(): number;
  wallMs(): number;
}

export const HOST_CLOCKS: Clocks = { monotonicMs: () => performance.now(), wallMs: () => Date.now() };

/** Looks at both for a fifth of a second: whether one runs backwards, and whether they run alike. */
export async function checkClock(
  clocks: Clocks,
  wait: (ms: number) => Promise<unknown> = sleep,
): Promise<Finding> {
  const startMs = clocks.monotonicMs();
  const startWallMs = clocks.wallMs();
  let beforeMs = startMs;
  let worstStepMs = 0;
  for (let look = 0; look < CLOCK_LOOKS; look++) {
    await wait(CLOCK_EVERY_MS);
    const nowMs = clocks.monotonicMs();
    if (nowMs < beforeMs) {
      return {
        check: "clock",
        level: "problem",
        says: `the monotonic clock ran backwards by ${formatMs(beforeMs - nowMs)}`,
        means: "Downtimes and link rates are measured with it: promises cannot be kept",
        advice: "Look at the host's clock source (Linux: /sys/devices/system/clocksource)",
      };
    }
    beforeMs = nowMs;
    const stepMs = Math.abs(clocks.wallMs() - startWallMs - (nowMs - startMs));
    worstStepMs = Math.max(worstStepMs, stepMs);
  }
  const values = { stepMs: worstStepMs };
  if (worstStepMs > CLOCK_STEP_MS) {
    return {
      check: "clock",
      level: "warning",
      says: `the wall clock was set by ${formatMs(worstStepMs)} while it was looked at`,
      means: "Certificates are judged by it, and records of both sides cannot be put side by side",
      advice: "See what sets it: a time service should slew it, not step it",
      values,
    };
  }
  return { check: "clock", level: "ok", says: "monotonic and wall clock run alike", values };
}
