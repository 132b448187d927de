// All RAM of a QEMU whose guest stands still, by RAMBlock, read from outside (/proc/PID/mem): what `--verify` compares.
// QEMU says what blocks there are (HMP `info ramblock`), and where one lies through a guest address that leads to it
// (`info mtree -f`, `gpa2hva`; QEMU 7.2 to 10.x): blocks that no address leads to, such as the ROM of a network card,
// cannot be found. Nothing is written.

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

const read = promisify(readAt);

/** One piece of a RAMBlock in the guest's address space, by the last part of the block's name. */
export interface MappedPiece {
  readonly name: string;
  readonly guestAddress: number;
  readonly offsetBytes: number;
}

export interface LocatedBlock {
  readonly lengthBytes: number;
  readonly hostAddress: number;
  /** Pages that QEMU has never touched are zeros, and are not to be touched. */
  readonly isAnonymous: boolean;
  /** It is found by its own name, not by that of the device that it is of. */
  readonly isNamed: boolean;
}

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

/** RAMBlocks that a guest address leads to, by name. `maps`: of QEMU's process. */
export async function locateBlocks(qmp: QmpClient, maps: string): Promise<Map<string, LocatedBlock>> {
  const ask = (line: string) => qmp.execute("human-monitor-command", { "command-line": line });
  const pieces = parseMappedPieces(await ask("info mtree -f"));
  const blocks = new Map<string, LocatedBlock>();
  for (const [idstr, lengthBytes] of parseRamBlocks(await ask("info ramblock"))) {
    const piece = pieceOf(idstr, pieces);
    if (piece === undefined) continue;
    const answer = await ask(`gpa2hva 0x${piece.guestAddress.toString(16)}`);
    const hex = /^Host virtual address for .* is 0x([0-9a-f]+)/.exec(answer)?.[1];
    if (hex === undefined) continue;
    const hostAddress = Number.parseInt(hex, 16) - piece.offsetBytes;
    blocks.set(idstr, {
      ...{ lengthBytes, hostAddress, isNamed: idstr === piece.name },
      isAnonymous: isAnonymous(maps, hostAddress, lengthBytes),
    });
  }
  if (blocks.size === 0) throw new Error("QEMU does not say where guest RAM lies");
  return blocks;
}

/** Blocks of devices are known by the device's path, and a name that the tree of memory has alone. */
function pieceOf(idstr: string, pieces: readonly MappedPiece[]): MappedPiece | undefined {
  const named = pieces.filter(({ name }) => idstr === name || idstr.endsWith(`/${name}`));
  // Of two devices of a kind it cannot be told whose it is.
  const bases = new Set(
    named.map(({ name, guestAddress, offsetBytes }) => `${name} ${guestAddress - offsetBytes}`),
  );
  const isOfDevice = named.some(({ name }) => idstr !== name);
  return isOfDevice && bases.size > 1 ? undefined : named[0];
}

/** Names and used lengths, of HMP `info ramblock`. */
export function parseRamBlocks(text: string): Map<string, number> {
  const line = /^\s*(\S+)\s+\d+ [KMG]iB\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x[0-9a-f]+/gm;
  return new Map([...text.matchAll(line)].map(([, name, used]) => [name!, Number.parseInt(used!, 16)]));
}

/** Of the flat view of the system's memory, as HMP `info mtree -f` prints it. */
export function parseMappedPieces(text: string): MappedPiece[] {
  const views = text.split(/^FlatView #\d+\s*$/m);
  const system = views.find((view) => /^ AS "memory", root: system\s*$/m.test(view)) ?? "";
  const line = /^\s*([0-9a-f]{16})-[0-9a-f]{16} \(prio -?\d+, (?:ram|rom)\): (\S+)(?: @([0-9a-f]{16}))?/gm;
  return [...system.matchAll(line)].map(([, start, name, offset]) => ({
    name: name!,
    guestAddress: Number.parseInt(start!, 16),
    offsetBytes: Number.parseInt(offset ?? "0", 16),
  }));
}

/** Whether all of it is mapped, and is private memory without a file behind it (Documentation/filesystems/proc, maps). */
export function isAnonymous(maps: string, address: number, bytes: number): boolean {
  const line = /^([0-9a-f]+)-([0-9a-f]+) ...(.) [0-9a-f]+ \S+ (\d+)/gm;
  let coveredBytes = 0;
  for (const [, first, behind, sharing, inode] of maps.matchAll(line)) {
    const start = Math.max(address, Number.parseInt(first!, 16));
    const end = Math.min(address + bytes, Number.parseInt(behind!, 16));
    if (start >= end) continue;
    if (sharing !== "p" || inode !== "0") return false;
    coveredBytes += end - start;
  }
  return coveredBytes === bytes;
}

function unavailable(cause: Error): DeltaveeError {
  return new DeltaveeError("VERIFY_UNAVAILABLE", `QEMU's memory cannot be read here: ${cause.message}`);
}
