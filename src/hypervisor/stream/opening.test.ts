import { expect, test } from "vitest";
import { openingOf } from "./opening.ts";

test.each([
  ["5145564d00000003", "migration", undefined],
  ["1122334400000001", "refused", "--parallel"],
  ["1603010200", "refused", "TLS"],
  ["474554202f", "unknown", "0x47455420"],
  ["00000001", "unknown", "0x00000001"],
] as const)("a connection that begins with %s: %s", (hex, kind, why) => {
  const opening = openingOf(Buffer.from(hex, "hex"));
  expect(opening).toMatchObject(why === undefined ? { kind } : { kind, why: expect.stringContaining(why) });
});

test("it does not matter where the bytes lie", () => {
  const bytes = Buffer.from("ffffff5145564d", "hex").subarray(3);
  expect(openingOf(bytes)).toEqual({ kind: "migration" });
});
