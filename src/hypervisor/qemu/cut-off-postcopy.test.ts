// What a source QEMU that goes on with a post-copy is told, byte by byte (stream/FORMAT.md, "Post-copy recovery"). That
// QEMU then completes, and its guest is whole: test/e2e/postcopy-crash.test.ts.

import { describe, expect, test } from "vitest";
import { RecoveryAnswers } from "./cut-off-postcopy.ts";

const command = (number: number, payload = ""): Buffer => {
  const bytes = Buffer.alloc(5 + payload.length);
  bytes[0] = 8;
  bytes.writeUInt16BE(number, 1);
  bytes.writeUInt16BE(payload.length, 3);
  bytes.write(payload, 5, "latin1");
  return bytes;
};
const asked = Buffer.concat([command(10, "\x06pc.ram"), command(2, "\0\0\0\x01"), command(9)]);
const answers = new Map([["pc.ram", 16]]);
const told =
  `0005 0007 ${Buffer.from("\x06pc.ram").toString("hex")} 0000000000000010 ${"ff".repeat(16)} 0123456789abcdef ` +
  "0006 0004 00000001 0001 0004 00000000";

describe("a source that asks what has arrived", () => {
  test("hears that all of it has, however its questions come, and of nothing after them", () => {
    for (const pieceBytes of [1, 2, 7, asked.length]) {
      const destination = new RecoveryAnswers(answers);
      const heard: Buffer[] = [];
      for (let at = 0; at < asked.length; at += pieceBytes)
        heard.push(...destination.to(asked.subarray(at, at + pieceBytes)));
      expect(Buffer.concat(heard).toString("hex")).toBe(told.replaceAll(" ", ""));
      expect(destination.isResumed).toBe(true);
      expect(destination.to(Buffer.from([1, 2, 3]))).toEqual([]);
    }
  });

  test("is left alone where it asks for what it does not have, or sends something else", () => {
    expect(() => new RecoveryAnswers(answers).to(command(10, "\x03rom"))).toThrow(/"rom"/);
    expect(() => new RecoveryAnswers(answers).to(Buffer.from([1, 0, 0, 0, 0]))).toThrow(/type 1/);
  });
});
