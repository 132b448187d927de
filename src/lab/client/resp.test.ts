import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeCommand, RespErrorReply, RespFormatError, RespParser, type RespReply } from "./resp.ts";

function parse(...chunks: readonly (string | Uint8Array)[]): RespReply[] {
  const replies: RespReply[] = [];
  const parser = new RespParser((reply) => replies.push(reply));
  for (const chunk of chunks) parser.push(typeof chunk === "string" ? Buffer.from(chunk, "latin1") : chunk);
  return replies;
}

function encodeReply(reply: RespReply): string {
  if (reply === null) return "$-1\r\n";
  if (typeof reply === "number") return `:${reply}\r\n`;
  if (typeof reply === "string") return `$${reply.length}\r\n${reply}\r\n`;
  if (reply instanceof RespErrorReply) return `-${reply.message}\r\n`;
  return `*${reply.length}\r\n${reply.map(encodeReply).join("")}`;
}

const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array).toString("latin1"));
const { reply: anyReply } = fc.letrec<{ reply: RespReply }>((tie) => ({
  reply: fc.oneof(
    { depthSize: "small", maxDepth: 4 },
    bytes,
    fc.integer(),
    fc.constant(null),
    fc.stringMatching(/^[A-Z ]{1,12}$/).map((text) => new RespErrorReply(text)),
    fc.array(tie("reply"), { maxLength: 5 }),
  ),
}));

describe("a reply", () => {
  it("has one of six forms", () => {
    expect(parse("+OK\r\n:-7\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n")).toEqual([
      "OK",
      -7,
      "a\r\nbc",
      "",
      null,
      null,
      [],
    ]);
    expect(parse("*2\r\n-ERR no\r\n*1\r\n:1\r\n")).toEqual([[new RespErrorReply("ERR no"), [1]]]);
  });

  it("is the same however the bytes were cut", () => {
    fc.assert(
      fc.property(
        fc.array(anyReply, { maxLength: 6 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 9 })),
        (all, cuts) => {
          const wire = Buffer.from(all.map(encodeReply).join(""), "latin1");
          const chunks: Uint8Array[] = [];
          for (let at = 0; at < wire.length; ) {
            const end = at + (cuts.next().value as number);
            chunks.push(wire.subarray(at, end));
            at = end;
          }
          expect(parse(...chunks)).toEqual(all);
        },
      ),
    );
  });

  it("made of any bytes is an error or a value, never anything else", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.constantFrom("", "*", "$", "*2\r\n$", ":"),
        (noise, lead) => {
          try {
            parse(lead, noise);
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(RespFormatError);
          }
        },
      ),
    );
  });

  it.each([
    ["a line that never ends", "+".padEnd(70_000, "x")],
    ["a bulk string of more than can be meant", "$99999999999\r\n"],
    ["arrays in arrays in arrays", "*1\r\n".repeat(9)],
    ["a bulk string longer than it said", "$1\r\nabc\r\n"],
    ["no type at all", "HTTP/1.1 400 Bad Request\r\n"],
    ["a newline alone", "+OK\n"],
    ["no number", ":1e3\r\n"],
  ])("with %s is refused", (_, wire) => {
    expect(() => parse(wire)).toThrow(RespFormatError);
  });

  it("cannot multiply its size by nesting", () => {
    const inner = `*1000\r\n${":1\r\n".repeat(1000)}`;
    expect(() => parse("*1000\r\n", inner.repeat(1000), "*1000\r\n", inner.repeat(2))).not.toThrow();
    const bulk = `$4000000\r\n${"x".repeat(4_000_000)}\r\n`;
    expect(() => parse("*15\r\n", ...Array<string>(15).fill(bulk))).not.toThrow();
    expect(() => parse("*20\r\n", ...Array<string>(20).fill(bulk))).toThrow("too long");
    expect(() => parse("*1048576\r\n", inner.repeat(1100))).toThrow("too many elements");
  });
});

it("a command is an array of bulk strings, a byte per character", () => {
  expect(encodeCommand(["SET", "é", 12]).toString("latin1")).toBe(
    "*3\r\n$3\r\nSET\r\n$1\r\né\r\n$2\r\n12\r\n",
  );
});
