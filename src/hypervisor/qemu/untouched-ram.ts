// RAM of a QEMU that waits for a migration and that it has never touched, as its page tables say (/proc/PID/pagemap): memory
// without a file behind it reads as zeros there. Only of memory that belongs to this process alone; what is shared, lies in
// huge pages or was allocated in advance does not count. Nothing is written, and nothing of the RAM is read.

import { closeSync, read as readAt, readFileSync } from "node:fs";
import { promisify } from "node:util";
import type { UntouchedRam } from "../../engine/ports.ts";
import {
  isPresentEntry,
  openProc,
  PAGE_BYTES,
  PAGEMAP_ENTRY_BYTES,
  processListeningOn,
} from "./guest-memory.ts";
import type { QmpClient } from "./qmp.ts";
import { type LocatedBlock, locateBlocks } from "./ram-map.ts";

const read = promisify(readAt);

/** Smaller blocks are a device's, and not worth a look. */
const BLOCK_BYTES_MIN = 16 * 1024 ** 2;
/** Of larger guests nothing is said: looking at 256 GiB takes about a second. */
const RAM_BYTES_MAX = 256 * 1024 ** 3;
/** Entries that are read at a time: of 512 MiB. */
const ENTRIES_PER_READ = 128 * 1024;
/** Shorter ranges are not worth the words, and of the others so many of the longest are told. */
const RANGE_BYTES_MIN = 1024 ** 2;
const RANGES_MAX = 64;

type Range = UntouchedRam["ranges"][number];

/** @throws DeltaveeError, UsageError when this QEMU's process cannot be looked at from here */
export async function untouchedRam(qmp: QmpClient): Promise<UntouchedRam[]> {
  const pid = processListeningOn(qmp.address);
  const located = await locateBlocks(qmp, readFileSync(`/proc/${pid}/maps`, "latin1"));
  const blocks = [...located].filter(([, block]) => isWorthALook(block));
  if (blocks.reduce((sum, [, { lengthBytes }]) => sum + lengthBytes, 0) > RAM_BYTES_MAX) return [];
  const pagemap = openProc(pid, "pagemap");
  try {
    const found: { idstr: string; range: Range }[] = [];
    for (const [idstr, block] of blocks)
      for (const range of await untouchedRanges(pagemap, block)) found.push({ idstr, range });
    found.sort((a, b) => b.range.lengthBytes - a.range.lengthBytes);
    const told = found.slice(0, RANGES_MAX);
    return blocks
      .map(([idstr]) => ({
        idstr,
        ranges: told
          .filter((one) => one.idstr === idstr)
          .map(({ range }) => range)
          .sort((a, b) => a.offsetBytes - b.offsetBytes),
      }))
      .filter(({ ranges }) => ranges.length > 0);
  } finally {
    closeSync(pagemap);
  }
}

function isWorthALook({ isAnonymous, isNamed, lengthBytes, hostAddress }: LocatedBlock): boolean {
  return isAnonymous && isNamed && lengthBytes >= BLOCK_BYTES_MIN && hostAddress % PAGE_BYTES === 0;
}

async function untouchedRanges(
  pagemap: number,
  { hostAddress, lengthBytes }: LocatedBlock,
): Promise<Range[]> {
  const pageCount = Math.floor(lengthBytes / PAGE_BYTES);
  const entries = new Uint8Array(ENTRIES_PER_READ * PAGEMAP_ENTRY_BYTES);
  const ranges: Range[] = [];
  let from = 0;
  const touchedAt = (page: number) => {
    const length = (page - from) * PAGE_BYTES;
    if (length >= RANGE_BYTES_MIN) ranges.push({ offsetBytes: from * PAGE_BYTES, lengthBytes: length });
    from = page + 1;
  };
  for (let first = 0; first < pageCount; first += ENTRIES_PER_READ) {
    const count = Math.min(ENTRIES_PER_READ, pageCount - first);
    const position = (hostAddress / PAGE_BYTES + first) * PAGEMAP_ENTRY_BYTES;
    const wanted = count * PAGEMAP_ENTRY_BYTES;
    const { bytesRead } = await read(pagemap, entries, 0, wanted, position);
    // Its memory has moved or gone: nothing is known of it.
    if (bytesRead !== wanted) return [];
    for (let page = 0; page < count; page++) if (isPresentEntry(entries, page)) touchedAt(first + page);
  }
  touchedAt(pageCount);
  return ranges;
}
