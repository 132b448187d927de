// Hand-assembled guests of a few instructions, for what guest/ is too well-behaved for: flags that live across a
// jump, an unusual rounding mode, a line that is never finished. Format: ELF32 with one segment and a multiboot
// header (multiboot 0.6.96 §3.1). The code runs in 32 bit protected mode without paging or interrupts.

/** Where the code is loaded and begins. */
const CODE_ADDRESS = 0x100000;
/** Where the guests below count, as a 32 bit integer, how often they have gone round. */
export const COUNTER_ADDRESS = 0x200000;
/** A word for the host or the guest to leave something in. */
export const FLAG_ADDRESS = 0x200004;

const ELF_HEADER_BYTES = 52;
const PROGRAM_HEADER_BYTES = 32;
const MULTIBOOT_MAGIC = 0x1badb002;
const CODE_OFFSET_BYTES = 128;

/** A kernel of the instructions, given as hexadecimal, one string each so that a comment can stand beside it. */
function assemble(...instructions: readonly string[]): Uint8Array {
  const code = Buffer.from(instructions.join("").replaceAll(" ", ""), "hex");
  const elf = Buffer.alloc(CODE_OFFSET_BYTES + code.length);
  elf.write("\x7fELF\x01\x01\x01", "latin1");
  elf.writeUInt16LE(2, 16); // executable
  elf.writeUInt16LE(3, 18); // i386
  elf.writeUInt32LE(1, 20);
  elf.writeUInt32LE(CODE_ADDRESS, 24);
  elf.writeUInt32LE(ELF_HEADER_BYTES, 28);
  elf.writeUInt16LE(ELF_HEADER_BYTES, 40);
  elf.writeUInt16LE(PROGRAM_HEADER_BYTES, 42);
  elf.writeUInt16LE(1, 44);
  elf.writeUInt16LE(40, 46);
  const segment = [1, CODE_OFFSET_BYTES, CODE_ADDRESS, CODE_ADDRESS, code.length, code.length, 7, 1];
  for (const [i, word] of segment.entries()) elf.writeUInt32LE(word, ELF_HEADER_BYTES + i * 4);
  const multibootAt = ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES;
  elf.writeUInt32LE(MULTIBOOT_MAGIC, multibootAt);
  elf.writeUInt32LE(-MULTIBOOT_MAGIC >>> 0, multibootAt + 8);
  code.copy(elf, CODE_OFFSET_BYTES);
  return elf;
}

/** "mov dx, 0x3f8; mov al, character; out dx, al": 7 bytes. */
function printing(character: string): string {
  return `66baf803 b0${Buffer.from(character, "latin1").toString("hex")} ee`;
}

/** Sets the zero flag to 0 once and relies on it for ever; prints "Z" when it finds it 1. */
export const FLAGS_GUEST = assemble(
  "83c801", //             or eax, 1        the only instruction that sets flags
  "740b", //         loop: jz wrong
  "8d5b01", //             lea ebx, [ebx+1] counts without touching flags
  "891d 00002000", //      mov [COUNTER_ADDRESS], ebx
  "ebf3", //               jmp loop
  printing("Z"), // wrong:
  printing("\n"),
  "f4", //                 hlt
);

/** Converts 1.5 to an integer in truncation mode, set once; prints "R" when that gives anything but 1. */
export const ROUNDING_GUEST = assemble(
  "dbe3", //               fninit
  "d92d 3b001000", //      fldcw [control]
  "d905 37001000", // loop: fld dword [value]
  "db1d 04002000", //      fistp dword [FLAG_ADDRESS]
  "833d 04002000 01", //   cmp dword [FLAG_ADDRESS], 1
  "750b", //               jne wrong
  "8d5b01", //             lea ebx, [ebx+1]
  "891d 00002000", //      mov [COUNTER_ADDRESS], ebx
  "ebe0", //               jmp loop
  printing("R"), //  wrong:
  printing("\n"),
  "f4", //                 hlt
  "0000c03f", //    value: 1.5             at 0x37
  "7f0f", //      control: truncation      at 0x3b
);

/** Prints "A", and "B" and the end of the line only after the host has written to FLAG_ADDRESS. */
export const HALF_LINE_GUEST = assemble(
  printing("A"),
  "833d 04002000 00", // loop: cmp dword [FLAG_ADDRESS], 0
  "74f7", //               je loop
  printing("B"),
  printing("\n"),
  "f4", //                 hlt
);

/** Makes v86 throw: port 0xf4 is where its multiboot guests report that they have ended. */
export const FATAL_GUEST = assemble("e6f4"); // out 0xf4, al
