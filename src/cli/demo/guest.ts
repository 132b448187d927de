// The demo's guest: the bare-metal kernel of guest/, the workloads it can be given, and how long moving it will
// take about. Knows nothing of hypervisors.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { formatCount } from "../../report/text.ts";

/** From src/cli/demo and from dist/cli/demo the package's root is three folders up. */
const GUEST_KERNEL = new URL("../../../guest/guest.elf", import.meta.url);

export const guestKernelPath = fileURLToPath(GUEST_KERNEL);

export function readGuestKernel(): Buffer {
  return readFileSync(GUEST_KERNEL);
}

/** The guest's default period (guest/README.md). */
export const HEARTBEAT_MS = 10;

/** Standard pre-copy is let run for so many iterations after the full one, then the guest is stopped regardless. */
export const STANDARD_ITERATIONS_MAX = 3;

/** The working set is this part of the guest's memory. */
const WORKING_SET_SHARE = 1 / 4;
const PAGE_BYTES = 4096;

export interface Workload {
  /** One line of help. */
  readonly says: string;
  readonly pagesPerSecond: number;
  /** Part of the working set that is ever written to. */
  readonly hotShare: number;
  readonly pattern: "sparse" | "hot" | "page" | "text";
  readonly fill: "random" | "text";
}

export const WORKLOADS = {
  sparse: {
    says: "a few words change in each of 5000 pages per second",
    pagesPerSecond: 5000,
    hotShare: 1,
    pattern: "sparse",
    fill: "random",
  },
  hot: {
    says: "the same, in a quarter of the working set only",
    pagesPerSecond: 5000,
    hotShare: 1 / 4,
    pattern: "hot",
    fill: "random",
  },
  page: {
    says: "700 pages per second become random bytes: no delta is of use",
    pagesPerSecond: 700,
    hotShare: 1,
    pattern: "page",
    fill: "random",
  },
  text: {
    says: "1000 pages per second become new text: it compresses",
    pagesPerSecond: 1000,
    hotShare: 1,
    pattern: "text",
    fill: "text",
  },
  idle: {
    says: "nothing but heartbeats: both methods do well",
    pagesPerSecond: 0,
    hotShare: 1,
    pattern: "sparse",
    fill: "random",
  },
} as const satisfies Record<string, Workload>;

export type WorkloadName = keyof typeof WORKLOADS;

export function workingSetBytes(memoryBytes: number): number {
  return Math.floor((memoryBytes * WORKING_SET_SHARE) / PAGE_BYTES) * PAGE_BYTES;
}

/** The guest's command line. */
export function guestOptions(workload: Workload, memoryBytes: number): string {
  const setBytes = workingSetBytes(memoryBytes);
  const hotPages = Math.max(1, Math.floor((setBytes / PAGE_BYTES) * workload.hotShare));
  return [
    `ws=${setBytes / 1024}`,
    `rate=${workload.pagesPerSecond}`,
    `pattern=${workload.pattern}`,
    ...(workload.pattern === "hot" ? [`hot=${hotPages}`] : []),
    `fill=${workload.fill}`,
    `hb=${HEARTBEAT_MS}`,
  ].join(" ");
}

/** Starting, watching and verifying, for both runs together. */
const OVERHEAD_MS = 12_000;

/** What to tell somebody who is going to wait: standard pre-copy that never converges, then one good pass. */
export function expectedMs(workload: Workload, memoryBytes: number, linkBytesPerSecond: number): number {
  const passMs = (workingSetBytes(memoryBytes) / linkBytesPerSecond) * 1000;
  const dirtiedShare = workload.pagesPerSecond === 0 ? 0 : workload.hotShare;
  return OVERHEAD_MS + 2 * passMs + STANDARD_ITERATIONS_MAX * dirtiedShare * passMs;
}

export function workloadHelp(): string {
  return Object.entries(WORKLOADS)
    .map(([name, { says }]) => `  ${name.padEnd(8)}${says}`)
    .join("\n");
}

/** "64 MiB RAM, 16 MiB working set" */
export function guestText(memoryBytes: number): string {
  const mib = (bytes: number) => `${formatCount(bytes / 1024 / 1024)} MiB`;
  return `${mib(memoryBytes)} RAM, ${mib(workingSetBytes(memoryBytes))} working set`;
}
