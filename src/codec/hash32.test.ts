import { expect, test } from "vitest";
import { hash32 } from "./hash32.ts";

test.each([
  [new Uint8Array(0), 0x00000000],
  [new TextEncoder().encode("123456789"), 0x6fdcc4e9],
  [Uint8Array.from({ length: 300 }, (_, i) => i), 0x7e66db85],
])("the checksum is the one that the protocol's description gives as an example", (bytes, checksum) => {
  expect(hash32(bytes)).toBe(checksum);
});
