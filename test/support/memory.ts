// Guest memory as files, and whether two of them are equal: the proof that a migration lost nothing.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import type { QemuVm } from "./qemu-vm.ts";

const PAGE_BYTES = 4096;
const BLOCK_BYTES = 256 * PAGE_BYTES;
const LISTED_PAGES_MAX = 16;
const DUMP_TIMEOUT_MS = 120_000;
/** Above this the "pc" machine moves part of the RAM beyond 4 GiB, and physical addresses are no longer offsets. */
const MEMORY_BYTES_MAX = 3 * 1024 ** 3;

/** All of the RAM to a file (absolute path) that QEMU creates. The guest must be paused on the side it is in. */
export async function dumpMemory(vm: QemuVm, file: string): Promise<void> {
  if (vm.memoryBytes > MEMORY_BYTES_MAX) throw new Error(`Cannot dump ${vm.memoryBytes} bytes in one piece`);
  const { running } = await vm.qmp.execute("query-status");
  if (running) throw new Error("The memory of a running guest cannot be compared with anything");
  await vm.qmp.execute(
    "pmemsave",
    { val: 0, size: vm.memoryBytes, filename: file },
    { timeoutMs: DUMP_TIMEOUT_MS },
  );
}

export interface PageComparison {
  pages: number;
  differingPages: number;
  /** Numbers of the first few that differ. */
  firstDiffering: number[];
}

/** Page by page, in bounded memory. @throws Error for files of different length */
export function comparePages(fileA: string, fileB: string): PageComparison {
  const a = openSync(fileA, "r");
  const b = openSync(fileB, "r");
  try {
    const lengthBytes = fstatSync(a).size;
    if (lengthBytes !== fstatSync(b).size) {
      throw new Error(`Memory of different sizes: ${lengthBytes} and ${fstatSync(b).size} bytes`);
    }
    const [blockA, blockB] = [Buffer.alloc(BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES)];
    const firstDiffering: number[] = [];
    let differingPages = 0;
    for (let offset = 0; offset < lengthBytes; offset += BLOCK_BYTES) {
      const bytes = Math.min(BLOCK_BYTES, lengthBytes - offset);
      readBlock(a, blockA, bytes, offset);
      readBlock(b, blockB, bytes, offset);
      if (blockA.compare(blockB, 0, bytes, 0, bytes) === 0) continue;
      for (let start = 0; start < bytes; start += PAGE_BYTES) {
        const end = Math.min(start + PAGE_BYTES, bytes);
        if (blockA.compare(blockB, start, end, start, end) === 0) continue;
        differingPages++;
        if (firstDiffering.length < LISTED_PAGES_MAX) firstDiffering.push((offset + start) / PAGE_BYTES);
      }
    }
    return { pages: Math.ceil(lengthBytes / PAGE_BYTES), differingPages, firstDiffering };
  } finally {
    closeSync(a);
    closeSync(b);
  }
}

function readBlock(file: number, block: Buffer, bytes: number, offset: number): void {
  for (let done = 0; done < bytes; ) {
    const read = readSync(file, block, done, bytes - done, offset + done);
    if (read === 0) throw new Error("The file became shorter while it was compared");
    done += read;
  }
}
