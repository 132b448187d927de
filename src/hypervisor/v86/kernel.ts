// Checks a guest kernel before v86 sees it: v86 takes anything, and a file that it cannot boot runs as zeros
// without a word. Sources: Multiboot Specification 0.6.96 (§3.1), System V ABI, ELF header (32 bit).

import { UsageError } from "../../base/errors.ts";

export interface Kernel {
  /** A multiboot kernel as an ELF32 file for i386. */
  readonly elf: Uint8Array;
  /** Passed as it is: unlike QEMU, v86 puts no file name before it. */
  readonly commandLine: string;
}

const ELF_MAGIC = 0x464c457f;
const ELF_CLASS_32 = 1;
const ELF_DATA_LITTLE_ENDIAN = 1;
const ELF_HEADER_BYTES = 52;
const PROGRAM_HEADER_BYTES = 32;
const PROGRAM_HEADERS_MAX = 64;
const SEGMENT_TYPE_LOAD = 1;
const MULTIBOOT_MAGIC = 0x1badb002;
/** The multiboot header lies in the first 8 KiB, on a multiple of 4. */
const MULTIBOOT_SEARCH_BYTES = 8192;
/** v86 puts the command line into low memory, below what it tells the guest of the memory map. */
const COMMAND_LINE_CHARACTERS_MAX = 1024;

/** @throws UsageError if v86 could not boot it in `memoryBytes` of RAM. */
export function checkKernel(kernel: Kernel, memoryBytes: number): void {
  const { elf, commandLine } = kernel;
  if (commandLine.length > COMMAND_LINE_CHARACTERS_MAX) {
    throw new UsageError(
      `The guest's command line has ${commandLine.length} characters, more than ${COMMAND_LINE_CHARACTERS_MAX}`,
    );
  }
  const view = new DataView(elf.buffer, elf.byteOffset, elf.byteLength);
  if (
    elf.length < ELF_HEADER_BYTES ||
    view.getUint32(0, true) !== ELF_MAGIC ||
    view.getUint8(4) !== ELF_CLASS_32 ||
    view.getUint8(5) !== ELF_DATA_LITTLE_ENDIAN
  ) {
    throw new UsageError("The guest kernel is not a 32 bit little-endian ELF file");
  }
  if (!hasMultibootHeader(view)) {
    throw new UsageError("The guest kernel has no multiboot header in its first 8 KiB");
  }
  const headersAt = view.getUint32(28, true);
  const headerCount = view.getUint16(44, true);
  if (headerCount > PROGRAM_HEADERS_MAX || headersAt + headerCount * PROGRAM_HEADER_BYTES > elf.length) {
    throw new UsageError("The guest kernel's program headers lie outside of the file");
  }
  for (let i = 0; i < headerCount; i++) {
    const at = headersAt + i * PROGRAM_HEADER_BYTES;
    if (view.getUint32(at, true) !== SEGMENT_TYPE_LOAD) continue;
    const endInFileBytes = view.getUint32(at + 4, true) + view.getUint32(at + 16, true);
    const endInMemoryBytes = view.getUint32(at + 12, true) + view.getUint32(at + 20, true);
    if (endInFileBytes > elf.length) throw new UsageError("The guest kernel's file is cut short");
    if (endInMemoryBytes >= memoryBytes) {
      throw new UsageError(
        `The guest kernel reaches to address ${endInMemoryBytes}, beyond its ${memoryBytes} bytes of RAM`,
      );
    }
  }
}

function hasMultibootHeader(view: DataView): boolean {
  const end = Math.min(view.byteLength, MULTIBOOT_SEARCH_BYTES) - 12;
  for (let at = 0; at <= end; at += 4) {
    if (view.getUint32(at, true) !== MULTIBOOT_MAGIC) continue;
    const sum = MULTIBOOT_MAGIC + view.getUint32(at + 4, true) + view.getUint32(at + 8, true);
    if (sum % 2 ** 32 === 0) return true;
  }
  return false;
}
