import { describe, expect, it } from "vitest";
import { FLAGS_GUEST } from "../../../test/support/tiny-guest.ts";
import { checkKernel } from "./kernel.ts";

const MEMORY_BYTES = 4 * 1024 * 1024;

function check(elf: Uint8Array, memoryBytes = MEMORY_BYTES, commandLine = ""): () => void {
  return () => checkKernel({ elf, commandLine }, memoryBytes);
}

function changed(offset: number, value: number): Uint8Array {
  const elf = Buffer.from(FLAGS_GUEST);
  elf.writeUInt32LE(value, offset);
  return elf;
}

describe("a guest kernel", () => {
  it("passes when it is a multiboot ELF that fits into the RAM", () => {
    expect(check(FLAGS_GUEST)).not.toThrow();
  });

  it("is refused with the reason when v86 would run zeros instead of it", () => {
    expect(check(new Uint8Array(0))).toThrow("not a 32 bit little-endian ELF");
    expect(check(Buffer.from("MZ".padEnd(512)))).toThrow("not a 32 bit little-endian ELF");
    expect(check(changed(4, 2))).toThrow("not a 32 bit little-endian ELF");
    expect(check(changed(84, 0))).toThrow("no multiboot header");
    expect(check(changed(88, 1))).toThrow("no multiboot header"); // its checksum no longer fits
    expect(check(changed(28, 0xffff_ffff))).toThrow("program headers lie outside");
    expect(check(FLAGS_GUEST.subarray(0, FLAGS_GUEST.length - 1))).toThrow("cut short");
    expect(check(FLAGS_GUEST, 1024 * 1024)).toThrow("beyond its 1048576 bytes of RAM");
    expect(check(FLAGS_GUEST, MEMORY_BYTES, "x".repeat(2000))).toThrow("command line has 2000 characters");
  });
});
