// The code decides, and everything that it is mixed with: the connection, both certificates, and who says it.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { messageBytes, newCode, normalCode, PairingExchange, type PairingGround } from "./exchange.ts";

const GROUND: PairingGround = {
  code: "K7QM-2XPD-9HTV-4WRC",
  binding: Buffer.alloc(32, 7),
  fingerprints: { listening: "aa".repeat(32), connecting: "bb".repeat(32) },
};
const exchange = await PairingExchange.over(GROUND);

describe("a code", () => {
  test("is of 80 bits, and never the same", () => {
    const codes = Array.from({ length: 1000 }, newCode);
    expect(new Set(codes).size).toBe(1000);
    for (const code of codes) expect(code).toMatch(/^([2-9A-HJ-NP-Z]{4}-){3}[2-9A-HJ-NP-Z]{4}$/);
    expect(new Set(codes.join("").replaceAll("-", "")).size).toBe(32);
  });

  test("may be typed in lower case, with spaces or none, and nothing else is one", () => {
    const { code } = GROUND;
    for (const typed of [
      code,
      code.toLowerCase(),
      code.replaceAll("-", ""),
      ` ${code.replaceAll("-", " ")}\n`,
    ]) {
      expect(normalCode(typed)).toBe(code);
    }
    for (const typed of [
      "",
      "K7QM",
      `${code}A`,
      code.replace("K", "0"),
      code.replace("K", "I"),
      code.slice(1),
    ]) {
      expect(normalCode(typed)).toBeUndefined();
    }
  });
});

describe("who knows the code", () => {
  test("is believed, and by the name that it says", async () => {
    const other = await PairingExchange.over({ ...GROUND });
    expect(other.read("connecting", exchange.message("connecting", "host1"))).toBe("host1");
    expect(exchange.read("listening", other.message("listening", "host2"))).toBe("host2");
  });

  const others: [string, Partial<PairingGround>][] = [
    ["another code", { code: "K7QM-2XPD-9HTV-4WRD" }],
    ["another connection", { binding: Buffer.alloc(32, 8) }],
    [
      "another certificate of the side that listens",
      { fingerprints: { ...GROUND.fingerprints, listening: "cc".repeat(32) } },
    ],
    [
      "another certificate of the side that connects",
      { fingerprints: { ...GROUND.fingerprints, connecting: "cc".repeat(32) } },
    ],
  ];

  test.each(others)("%s is not believed", async (_, change) => {
    const other = await PairingExchange.over({ ...GROUND, ...change });
    for (const side of ["listening", "connecting"] as const) {
      expect(() => exchange.read(side, other.message(side, "host"))).toThrow(/does not know the code/);
    }
  });

  test("what one side has said is not believed of the other one", () => {
    expect(() => exchange.read("listening", exchange.message("connecting", "host"))).toThrow(
      /does not know the code/,
    );
  });

  test("a message of which any bit is changed, or that is cut or longer, is refused with a typed error", () => {
    const message = exchange.message("connecting", "host1");
    for (let bit = 0; bit < 8 * message.length; bit++) {
      const changed = Buffer.from(message);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      expect(() => exchange.read("connecting", changed)).toThrow(
        expect.objectContaining({ name: "ProtocolError" }),
      );
    }
    for (let length = 0; length < message.length; length++) {
      expect(() => exchange.read("connecting", message.subarray(0, length))).toThrow(
        expect.objectContaining({ code: "PROTOCOL_INVALID_FRAME" }),
      );
    }
    expect(() => exchange.read("connecting", Buffer.concat([message, Buffer.of(0)]))).toThrow();
  });

  test("a name that is none of a host, or a path, is refused", () => {
    for (const name of ["../etc", "a/b", "a b", "", ".", "x\u001b[2J"]) {
      expect(() => exchange.read("connecting", exchange.message("connecting", name))).toThrow(/no message/);
    }
  });
});

test("how long a message is is told by its beginning, one byte at a time", () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z0-9]{1,253}$/), (name) => {
      const message = exchange.message("connecting", name);
      for (let bytes = 0; bytes <= 8; bytes++)
        expect(messageBytes(message.subarray(0, bytes))).toBeUndefined();
      expect(messageBytes(message.subarray(0, 9))).toBe(message.length);
    }),
    { numRuns: 50 },
  );
});
