// Messages of the return path out of bytes cut anywhere.

import fc from "fast-check";
import { expect, test } from "vitest";
import { ReturnPathType } from "./format.ts";
import { pongValue, ReturnPathReader, returnPathMessage, shutValue } from "./return-path.ts";

const message = fc
  .record({ type: fc.nat(0xffff), payload: fc.uint8Array({ maxLength: 20 }) })
  .map(({ type, payload }) => {
    const bytes = Buffer.alloc(4 + payload.length);
    bytes.writeUInt16BE(type, 0);
    bytes.writeUInt16BE(payload.length, 2);
    bytes.set(payload, 4);
    return bytes;
  });

test("messages come out whole and in order, however their bytes are cut", () => {
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 10 }),
      fc.integer({ min: 1, max: 30 }),
      (messages, chunkBytes) => {
        const bytes = Buffer.concat(messages);
        const reader = new ReturnPathReader();
        const read: Buffer[] = [];
        for (let at = 0; at < bytes.length; at += chunkBytes) {
          const chunk = Buffer.from(bytes.subarray(at, at + chunkBytes));
          for (const found of reader.push(chunk)) {
            expect(found.type).toBe(found.bytes.readUInt16BE(0));
            read.push(found.bytes);
          }
          // What was read is the receiver's: nothing of the chunk is kept.
          chunk.fill(0xee);
        }
        expect(read).toEqual(messages);
      },
    ),
  );
});

test("the longest message is held back until it is complete", () => {
  const reader = new ReturnPathReader();
  const bytes = Buffer.concat([Buffer.of(0, 5, 0xff, 0xff), Buffer.alloc(65_535, 7)]);
  expect(reader.push(bytes.subarray(0, -1))).toEqual([]);
  expect(reader.push(bytes.subarray(-1))).toEqual([{ type: 5, bytes }]);
});

test("PONG and SHUT give their values, others none, nor do they in another length", () => {
  const read = (bytes: Uint8Array) => new ReturnPathReader().push(bytes)[0]!;
  const pong = read(returnPathMessage(ReturnPathType.PONG, 0xdeadbeef));
  expect([pongValue(pong), shutValue(pong)]).toEqual([0xdeadbeef, undefined]);
  const shut = read(returnPathMessage(ReturnPathType.SHUT, 1));
  expect([pongValue(shut), shutValue(shut)]).toEqual([undefined, 1]);
  const short = read(returnPathMessage(ReturnPathType.SHUT));
  expect([pongValue(short), shutValue(short)]).toEqual([undefined, undefined]);
});

test("SWITCHOVER_ACK is a header without a payload", () => {
  expect(returnPathMessage(ReturnPathType.SWITCHOVER_ACK).toString("hex")).toBe("00070000");
});
