// Requests for pages, as a destination may and may not make them. Bytes by hand, from stream/FORMAT.md.

import { expect, test } from "vitest";
import { be16, be32, be64, counted } from "../../../test/support/stream-builder.ts";
import type { ReturnPathMessage } from "../../stream/return-path.ts";
import { PageRequests } from "./page-requests.ts";

const BLOCKS = [
  { idstr: "pc.ram", lengthBytes: 5 * 2 ** 32 },
  { idstr: "vga.vram", lengthBytes: 8192 },
];

function message(type: number, ...body: Buffer[]): ReturnPathMessage {
  const bytes = Buffer.concat(body);
  return { type, bytes: Buffer.concat([be16(type), be16(bytes.length), bytes]) };
}
const range = (offsetBytes: number, lengthBytes: number) => [be64(offsetBytes), be32(lengthBytes)];
const of = (idstr: string, offsetBytes: number, lengthBytes = 4096) =>
  message(3, ...range(offsetBytes, lengthBytes), counted(idstr));
const same = (offsetBytes: number, lengthBytes = 4096) => message(4, ...range(offsetBytes, lengthBytes));

test("what is asked for is counted, of the RAMBlock that was named last", () => {
  const requests = new PageRequests(BLOCKS);
  expect(requests.take(of("vga.vram", 4096), true)).toBe(4096);
  expect(requests.take(same(0, 8192), true)).toBe(8192);
  expect(() => requests.take(same(8192), true)).toThrow("vga.vram has 8192 bytes");
  expect(requests.take(of("pc.ram", 5 * 2 ** 32 - 4096), true)).toBe(4096);
  expect(requests.take(message(7), true)).toBe(0);
});

test.each<[string, ReturnPathMessage, string]>([
  ["no RAMBlock before one was named", same(0), "has named none"],
  ["one that there is not", of("pc.bios", 0), 'none of the name "pc.bios"'],
  ["what lies behind its end", of("pc.ram", 5 * 2 ** 32), "pc.ram has"],
  ["what reaches over its end", of("vga.vram", 4096, 8192), "vga.vram has 8192 bytes"],
  ["nothing", of("pc.ram", 0, 0), "asked for 0 bytes"],
  ["an offset beyond all numbers", of("pc.ram", 2 ** 53), "pc.ram has"],
  ["half of a request", message(3, be64(0)), "asked for 0 bytes"],
  ["a name cut short", message(3, ...range(0, 4096), Buffer.from("\x08pc")), "asked for 0 bytes"],
])("%s is asked for: a ProtocolError says so", (_what, request, text) => {
  const requests = new PageRequests(BLOCKS);
  expect(() => requests.take(request, true)).toThrow(
    expect.objectContaining({ code: "PROTOCOL_INVALID_FRAME", message: expect.stringContaining(text) }),
  );
});

test("whatever is asked for before anything can be missing is refused", () => {
  const requests = new PageRequests(BLOCKS);
  expect(() => requests.take(of("pc.ram", 0), false)).toThrow("given no device state");
});
