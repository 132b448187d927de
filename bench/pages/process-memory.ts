// Memory of a running process, seen through /proc (Linux; the process is a child of this one, or this one is
// root): a copy of everything that it can write to privately, made while it stands still.

import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { PAGE_BYTES, PairCollector } from "./page-set.ts";

/** A mapping is read in pieces, since one read of /proc/PID/mem ends at the first page it cannot give. */
const READ_BYTES = 1024 * 1024;
const STOPPED_TIMEOUT_MS = 5_000;

interface Region {
  startAddress: number;
  bytes: Uint8Array;
}

/** Pages that were changed between two snapshots so many milliseconds apart, for each of `gapsMs`. */
export async function changedPagesOf(pid: number, gapsMs: readonly number[]): Promise<PairCollector> {
  const collector = new PairCollector();
  for (const gapMs of gapsMs) {
    const before = await snapshot(pid);
    await sleep(gapMs);
    const now = await snapshot(pid);
    for (const region of now) {
      const old = pagesAt(before, region);
      collector.add(region.bytes.length / PAGE_BYTES, (page) => {
        const oldPage = old(page);
        if (oldPage === undefined) return undefined;
        return [oldPage, region.bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)];
      });
    }
  }
  return collector;
}

/** The pages of a region as they were before; a mapping may have grown, or be new. */
function pagesAt(before: readonly Region[], region: Region): (page: number) => Uint8Array | undefined {
  const overlapping = before.filter(
    ({ startAddress, bytes }) =>
      startAddress < region.startAddress + region.bytes.length &&
      startAddress + bytes.length > region.startAddress,
  );
  return (page) => {
    const address = region.startAddress + page * PAGE_BYTES;
    for (const { startAddress, bytes } of overlapping) {
      const offset = address - startAddress;
      if (offset >= 0 && offset < bytes.length) return bytes.subarray(offset, offset + PAGE_BYTES);
    }
    return undefined;
  };
}

async function snapshot(pid: number): Promise<Region[]> {
  process.kill(pid, "SIGSTOP");
  try {
    await stopped(pid);
    const memory = openSync(`/proc/${pid}/mem`, "r");
    try {
      return writableMappings(pid).map(({ start, end }) => {
        const bytes = new Uint8Array(end - start);
        for (let at = 0; at < bytes.length; at += READ_BYTES) readPiece(memory, bytes, at, start);
        return { startAddress: start, bytes };
      });
    } finally {
      closeSync(memory);
    }
  } finally {
    process.kill(pid, "SIGCONT");
  }
}

/** What cannot be read stays zero, in every snapshot alike. */
function readPiece(memory: number, bytes: Uint8Array, at: number, startAddress: number): void {
  try {
    readSync(memory, bytes, at, Math.min(READ_BYTES, bytes.length - at), startAddress + at);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== "EIO") throw thrown;
  }
}

async function stopped(pid: number): Promise<void> {
  const deadlineMs = performance.now() + STOPPED_TIMEOUT_MS;
  while (!/^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, "latin1"))) {
    if (performance.now() > deadlineMs) throw new Error(`Process ${pid} does not stop`);
    await sleep(1);
  }
}

function writableMappings(pid: number): { start: number; end: number }[] {
  return readFileSync(`/proc/${pid}/maps`, "latin1")
    .split("\n")
    .map((line) => /^([0-9a-f]+)-([0-9a-f]+) rw-p .*?(\S*)$/.exec(line))
    .filter((match) => match !== null && !match[3]!.startsWith("[v"))
    .map((match) => ({ start: Number.parseInt(match![1]!, 16), end: Number.parseInt(match![2]!, 16) }));
}
