import { expect, test } from "vitest";
import { DeltaveeError } from "../../base/errors.ts";
import { targetPageBytes } from "./target-pages.ts";

test.each([
  ["x86_64", 7, 4096],
  ["s390x", 7, 4096],
  ["an architecture of tomorrow", 11, 4096],
  ["aarch64", 7, 1024],
  ["loongarch64", 10, 4096],
])("pages of %s under QEMU %i: %i bytes where the stream does not say it", (arch, major, pageBytes) => {
  expect(targetPageBytes(arch, { major })).toBe(pageBytes);
});

test.each([
  ["sparc64", 10, "8192 bytes are larger than the host's"],
  ["alpha", 7, "8192 bytes are larger"],
  ["loongarch64", 7, "16384 bytes are larger"],
  ["avr", 7, "256 bytes"],
])("a guest of %s under QEMU %i is refused before QEMU is asked for anything", (arch, major, words) => {
  const thrown = expect(() => targetPageBytes(arch, { major }));
  thrown.toThrow(DeltaveeError);
  thrown.toThrow(expect.objectContaining({ code: "HYPERVISOR_INCOMPATIBLE" }));
  thrown.toThrow(words);
});
