// Where guest RAM lies in QEMU's process, as QEMU tells it (HMP, QEMU 7.2 to 10.x): which RAMBlocks there are (`info ramblock`),
// what of them the guest sees where (`info mtree -f`), and the address that leads to it in the process (`gpa2hva`). Blocks that
// no guest address leads to, such as the ROM of a network card, cannot be found.

import type { QmpClient } from "./qmp.ts";

/** Legacy holes of a PC's RAM are parts of it that the guest sees as ROM; they are of no size that matters. */
const RANGE_BYTES_MIN = 1024 * 1024;

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

/** RAMBlocks that a guest address leads to, by name. `maps`: of QEMU's process. */
export async function locateBlocks(qmp: QmpClient, maps: string): Promise<Map<string, LocatedBlock>> {
  const pieces = parseMappedPieces(await askMonitor(qmp, "info mtree -f"));
  const blocks = new Map<string, LocatedBlock>();
  for (const [idstr, { usedBytes: lengthBytes }] of await listRamBlocks(qmp)) {
    const piece = pieceOf(idstr, pieces);
    if (piece === undefined) continue;
    const pieceAddress = parseHostAddress(await askHostAddress(qmp, piece.guestAddress));
    if (pieceAddress === undefined) continue;
    const hostAddress = pieceAddress - piece.offsetBytes;
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

export interface RamBlock {
  /** Where it lies among all RAMBlocks, not in the guest's address space: the first that was made is at 0. */
  readonly offset: number;
  readonly usedBytes: number;
  /** What it may grow to. */
  readonly totalBytes: number;
}

/** All RAMBlocks, by name. */
export async function listRamBlocks(qmp: QmpClient): Promise<Map<string, RamBlock>> {
  return parseRamBlocks(await askMonitor(qmp, "info ramblock"));
}

/** Of HMP `info ramblock`. */
export function parseRamBlocks(text: string): Map<string, RamBlock> {
  const line = /^\s*(\S+)\s+\d+ [KMG]iB\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)/gm;
  const number = (hex: string | undefined) => Number.parseInt(hex!, 16);
  return new Map(
    [...text.matchAll(line)].map(([, name, offset, used, total]) => [
      name!,
      { offset: number(offset), usedBytes: number(used), totalBytes: number(total) },
    ]),
  );
}

/** Of the flat view of the system's memory, as HMP `info mtree -f` prints it. */
export function parseMappedPieces(text: string): MappedPiece[] {
  const line = /^\s*([0-9a-f]{16})-[0-9a-f]{16} \(prio -?\d+, (?:ram|rom)\): (\S+)(?: @([0-9a-f]{16}))?/gm;
  return [...systemView(text).matchAll(line)].map(([, start, name, offset]) => ({
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

/** Ranges of RAM in the guest's physical address space, from the flat view of the system's memory. */
export function parseMemoryTree(text: string): { start: number; bytes: number }[] {
  const range = /^\s*([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ram\): /gm;
  return [...systemView(text).matchAll(range)]
    .map(([, start, end]) => ({ start: Number.parseInt(start!, 16), end: Number.parseInt(end!, 16) }))
    .map(({ start, end }) => ({ start, bytes: end + 1 - start }))
    .filter(({ bytes }) => bytes >= RANGE_BYTES_MIN);
}

/** Where it lies in QEMU's process, in words: parseHostAddress. */
export function askHostAddress(qmp: QmpClient, guestAddress: number): Promise<string> {
  return askMonitor(qmp, `gpa2hva 0x${guestAddress.toString(16)}`);
}

/** Undefined: nothing that QEMU knows of. */
export function parseHostAddress(answer: string): number | undefined {
  const hex = /^Host virtual address for .* is 0x([0-9a-f]+)/.exec(answer)?.[1];
  return hex === undefined ? undefined : Number.parseInt(hex, 16);
}

export function askMonitor(qmp: QmpClient, line: string): Promise<string> {
  return qmp.execute("human-monitor-command", { "command-line": line });
}

/** The guest's address space, of all that `info mtree -f` prints. */
function systemView(text: string): string {
  const views = text.split(/^FlatView #\d+\s*$/m);
  return views.find((view) => /^ AS "memory", root: system\s*$/m.test(view)) ?? "";
}
