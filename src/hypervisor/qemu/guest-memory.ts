// The RAM of a running QEMU guest, read from outside: through /proc/PID/mem of its process (Linux; root, or whoever may
// trace it), at the addresses that QEMU names (ram-map.ts). The guest goes on and does not notice; nothing is written, and
// pages that QEMU has never touched are not touched by this either (/proc/PID/pagemap tells which).

import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from "node:fs";
import { assert } from "../../base/assert.ts";
import { DeltaveeError, toError, UsageError } from "../../base/errors.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import type { QmpAddress, QmpClient } from "./qmp.ts";
import { askHostAddress, askMonitor, parseHostAddress, parseMemoryTree } from "./ram-map.ts";

export const PAGE_BYTES = 4096;
export const PAGEMAP_ENTRY_BYTES = 8;
/** Entries that one read of a pagemap takes at most, and those that nobody asked for which it takes rather than end there. */
const PAGEMAP_RUN_ENTRIES = 4096;
const PAGEMAP_GAP_ENTRIES = 512;
/** Upper byte of an entry (Documentation/admin-guide/mm/pagemap): bit 63 present, bit 62 swapped out. */
const PRESENT_OR_SWAPPED = 0xc0;

/** A part of guest RAM that lies in one piece in QEMU's address space. */
interface RamRange {
  readonly firstPage: number;
  readonly pageCount: number;
  readonly hostAddress: number;
}

/** Where a guest's RAM is to be found: plain data, which another thread can open. */
export interface GuestMemoryPlace {
  readonly pid: number;
  /** In the order of their pages, at least one. */
  readonly ranges: readonly RamRange[];
}

export interface OpenGuestMemory extends GuestMemory {
  close(): void;
}

/**
 * `pid`: of the QEMU that `qmp` speaks to.
 * @throws DeltaveeError HYPERVISOR_FAILED when QEMU does not say where it is
 */
export async function locateGuestMemory(qmp: QmpClient, pid: number): Promise<GuestMemoryPlace> {
  return { pid, ranges: await ramRanges(qmp) };
}

/** @throws DeltaveeError HYPERVISOR_FAILED when the memory may not be read */
export function openGuestMemory({ pid, ranges }: GuestMemoryPlace): OpenGuestMemory {
  const memory = openProc(pid, "mem");
  let pagemap: number;
  try {
    pagemap = openProc(pid, "pagemap");
  } catch (thrown) {
    closeSync(memory);
    throw thrown;
  }
  const last = ranges.at(-1)!;
  const entries = new Uint8Array(PAGEMAP_RUN_ENTRIES * PAGEMAP_ENTRY_BYTES);
  const addressOf = (page: number): number => {
    // Two at most, of a PC; a closure for each page would be the larger part of this.
    let index = ranges.length - 1;
    while (ranges[index]!.firstPage > page) index--;
    const range = ranges[index]!;
    assert(page < range.firstPage + range.pageCount, "a page of the guest");
    return range.hostAddress + (page - range.firstPage) * PAGE_BYTES;
  };
  return {
    pageBytes: PAGE_BYTES,
    pageCount: last.firstPage + last.pageCount,
    present: (pages) => {
      const hostPages = pages.map((page) => addressOf(page) / PAGE_BYTES);
      const present: number[] = [];
      for (let from = 0; from < pages.length; ) {
        const end = pagemapRunEnd(hostPages, from);
        const first = hostPages[from]!;
        const read = entries.subarray(0, (hostPages[end - 1]! + 1 - first) * PAGEMAP_ENTRY_BYTES);
        readWhole(pid, pagemap, read, first * PAGEMAP_ENTRY_BYTES);
        for (; from < end; from++)
          if (isPresentEntry(read, hostPages[from]! - first)) present.push(pages[from]!);
      }
      return present;
    },
    read: (page, target) => readWhole(pid, memory, target, addressOf(page)),
    close: () => {
      closeSync(memory);
      closeSync(pagemap);
    },
  };
}

/**
 * The process that listens on a unix socket.
 * @throws UsageError where that cannot be found out
 */
export function processListeningOn(address: QmpAddress): number {
  if (address.kind !== "unix") throw new UsageError("Whose monitor it is can only be seen of a unix socket");
  const inodes = readFileSync("/proc/net/unix", "latin1")
    .split("\n")
    .map((line) => line.split(/\s+/))
    .filter((fields) => fields[7] === address.path)
    .map((fields) => `socket:[${fields[6]}]`);
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    if (inodes.length > 0 && holdsOne(pid, inodes)) return Number(pid);
  }
  throw new UsageError(`No process that listens on ${address.path} is to be seen here`);
}

function holdsOne(pid: string, links: readonly string[]): boolean {
  let descriptors: string[];
  try {
    descriptors = readdirSync(`/proc/${pid}/fd`);
  } catch {
    // Ended meanwhile, or somebody else's.
    return false;
  }
  return descriptors.some((descriptor) => {
    try {
      return links.includes(readlinkSync(`/proc/${pid}/fd/${descriptor}`));
    } catch {
      // Closed meanwhile.
      return false;
    }
  });
}

async function ramRanges(qmp: QmpClient): Promise<RamRange[]> {
  const ranges: RamRange[] = [];
  let firstPage = 0;
  for (const { start, bytes } of parseMemoryTree(await askMonitor(qmp, "info mtree -f"))) {
    const answer = await askHostAddress(qmp, start);
    const hostAddress = parseHostAddress(answer);
    if (hostAddress === undefined)
      throw new DeltaveeError(
        "HYPERVISOR_FAILED",
        `QEMU does not say where guest RAM lies: "${answer.trim()}"`,
      );
    const pageCount = Math.floor(bytes / PAGE_BYTES);
    ranges.push({ firstPage, pageCount, hostAddress });
    firstPage += pageCount;
  }
  if (ranges.length > 0) return ranges;
  throw new DeltaveeError("HYPERVISOR_FAILED", "QEMU names no guest RAM (info mtree -f)");
}

/** From `from` to there, not included: pages whose entries are read together, since a call costs as much as some hundred. */
export function pagemapRunEnd(hostPages: readonly number[], from: number): number {
  const first = hostPages[from]!;
  let last = first;
  let end = from + 1;
  for (; end < hostPages.length; end++) {
    const next = hostPages[end]!;
    if (next <= last || next - last > PAGEMAP_GAP_ENTRIES || next - first >= PAGEMAP_RUN_ENTRIES) break;
    last = next;
  }
  return end;
}

/** Of entries of a pagemap: whether there is anything in the page. */
export function isPresentEntry(entries: Uint8Array, page: number): boolean {
  return (entries[page * PAGEMAP_ENTRY_BYTES + PAGEMAP_ENTRY_BYTES - 1]! & PRESENT_OR_SWAPPED) !== 0;
}

/** @throws DeltaveeError HYPERVISOR_FAILED when it may not be opened */
export function openProc(pid: number, name: string): number {
  try {
    return openSync(`/proc/${pid}/${name}`, "r");
  } catch (thrown) {
    const why = toError(thrown).message;
    throw new DeltaveeError("HYPERVISOR_FAILED", `The memory of process ${pid} may not be read: ${why}`);
  }
}

function readWhole(pid: number, descriptor: number, target: Uint8Array, position: number): void {
  let bytes: number;
  try {
    bytes = readSync(descriptor, target, 0, target.length, position);
  } catch (thrown) {
    const why = toError(thrown).message;
    throw new DeltaveeError("HYPERVISOR_FAILED", `Reading the memory of process ${pid} failed: ${why}`);
  }
  if (bytes !== target.length)
    throw new DeltaveeError("HYPERVISOR_FAILED", `Process ${pid} has ended, or its memory has moved`);
}
