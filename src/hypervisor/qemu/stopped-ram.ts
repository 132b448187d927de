// All RAM of a QEMU whose guest stands still, by RAMBlock, read from outside (/proc/PID/mem): what `--verify` compares.
// Blocks that cannot be found (ram-map.ts) cannot be read either. Nothing is written.

import { closeSync, read as readAt, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { DeltaveeError, toError } from "../../base/errors.ts";
import type { StoppedRam } from "../../engine/ports.ts";
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

/** @throws DeltaveeError VERIFY_UNAVAILABLE when the memory of this QEMU may not be read, or is not on this host */
export async function openStoppedRam(qmp: QmpClient): Promise<StoppedRam> {
  let memory: number | undefined;
  try {
    const pid = processListeningOn(qmp.address);
    memory = openProc(pid, "mem");
    const blocks = await locateBlocks(qmp, readFileSync(`/proc/${pid}/maps`, "latin1"));
    return new QemuStoppedRam(pid, { memory, pagemap: openProc(pid, "pagemap") }, blocks);
  } catch (thrown) {
    if (memory !== undefined) closeSync(memory);
    throw unavailable(toError(thrown));
  }
}

class QemuStoppedRam implements StoppedRam {
  readonly #pid: number;
  readonly #files: { readonly memory: number; readonly pagemap: number };
  readonly #blocks: ReadonlyMap<string, LocatedBlock>;

  constructor(
    pid: number,
    files: { readonly memory: number; readonly pagemap: number },
    blocks: ReadonlyMap<string, LocatedBlock>,
  ) {
    this.#pid = pid;
    this.#files = files;
    this.#blocks = blocks;
  }

  lengthOf(idstr: string): number | undefined {
    return this.#blocks.get(idstr)?.lengthBytes;
  }

  async read(idstr: string, offsetBytes: number, target: Uint8Array): Promise<void> {
    const block = this.#blocks.get(idstr)!;
    const address = block.hostAddress + offsetBytes;
    if (!block.isAnonymous) {
      await this.#fill(this.#files.memory, target, address);
      return;
    }
    const pages = Math.ceil(target.length / PAGE_BYTES);
    const entries = new Uint8Array(pages * PAGEMAP_ENTRY_BYTES);
    await this.#fill(this.#files.pagemap, entries, (address / PAGE_BYTES) * PAGEMAP_ENTRY_BYTES);
    for (let page = 0; page < pages; ) {
      const isPresent = isPresentEntry(entries, page);
      let end = page + 1;
      while (end < pages && isPresentEntry(entries, end) === isPresent) end++;
      const part = target.subarray(page * PAGE_BYTES, end * PAGE_BYTES);
      if (isPresent) await this.#fill(this.#files.memory, part, address + page * PAGE_BYTES);
      else part.fill(0);
      page = end;
    }
  }

  close(): void {
    closeSync(this.#files.memory);
    closeSync(this.#files.pagemap);
  }

  async #fill(file: number, target: Uint8Array, position: number): Promise<void> {
    let bytesRead: number;
    try {
      ({ bytesRead } = await read(file, target, 0, target.length, position));
    } catch (thrown) {
      throw unavailable(toError(thrown));
    }
    if (bytesRead !== target.length)
      throw unavailable(new Error(`process ${this.#pid} has ended, or its memory has moved`));
  }
}

function unavailable(cause: Error): DeltaveeError {
  return new DeltaveeError("VERIFY_UNAVAILABLE", `QEMU's memory cannot be read here: ${cause.message}`);
}
