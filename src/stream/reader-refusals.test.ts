// What StreamReader does not know makes it opaque, what contradicts the format is an error: every case of both, at
// its place and with what it says, however the bytes are cut.

import { describe, expect, test } from "vitest";
import { byteByByte, expectCalls, whole } from "../../test/support/read-stream.ts";
import { be16, be32, be64, counted, END, PART, StreamBuilder } from "../../test/support/stream-builder.ts";
import { Trace, tracingHandler } from "../../test/support/stream-trace.ts";
import { StreamReader } from "./reader.ts";

/** Header and configuration; the ram section has started, two blocks of two pages. */
function started(): StreamBuilder {
  const blocks = [
    { idstr: "pc.ram", pages: 2 },
    { idstr: "pc.bios", pages: 2 },
  ];
  return new StreamBuilder().header().configuration("pc").start(3, blocks).endSection();
}

const PAGE = new Uint8Array(4096).fill(7);
const record = (address: number, ...rest: Uint8Array[]): Uint8Array =>
  Buffer.concat([be64(address), ...rest]);
const fullSection = (type: number, name: string, version: number): Uint8Array =>
  Buffer.concat([Buffer.of(type), be32(8), counted(name), be32(0), be32(version)]);

describe("goes opaque, and carries all on, at", () => {
  const header = () => new StreamBuilder().header();
  const unknown: [string, () => StreamBuilder, Uint8Array, RegExp][] = [
    ["a TLS record", () => new StreamBuilder(), Buffer.from("160301020001", "hex"), /TLS/],
    [
      "another stream version",
      () => new StreamBuilder(),
      Buffer.from("5145564d00000004", "hex"),
      /version 4/,
    ],
    [
      "an unknown subsection",
      () => header().configuration("pc"),
      Buffer.concat([Buffer.of(5), counted("configuration/new"), be32(1)]),
      /configuration\/new/,
    ],
    [
      "target pages too large for XBZRLE",
      () => header().configuration("pc"),
      Buffer.concat([Buffer.of(5), counted("configuration/target-page-bits"), be32(1), be32(16)]),
      /2\^16/,
    ],
    [
      "a capability that changes the stream",
      () => header().configuration("pc"),
      Buffer.concat([
        Buffer.of(5),
        counted("configuration/capabilities"),
        be32(1),
        be32(2),
        counted("x-ignore-shared"),
        counted("mapped-ram"),
      ]),
      /mapped-ram/,
    ],
    ["an unknown command", () => header(), Buffer.concat([Buffer.of(8), be16(10), be16(0)]), /command 10/],
    [
      "a command between RAM sections",
      () => started().section(PART).page(1, 0, PAGE).endSection(),
      Buffer.concat([Buffer.of(8), be16(8), be16(0)]),
      /command 8/,
    ],
    [
      "huge pages in a list with addresses",
      () => new StreamBuilder().header().configuration("pc").capabilities(["x-ignore-shared"]),
      Buffer.concat([Buffer.of(8), be16(3), be16(16), be64(0x201000), be64(4096)]),
      /other sizes \(0x201000\)/,
    ],
    ["another live section", () => header(), fullSection(1, "dirty-bitmap", 1), /dirty-bitmap/],
    ["an early device section", () => started(), fullSection(4, "virtio-gpu", 1), /virtio-gpu/],
    ["another version of ram", () => header(), fullSection(1, "ram", 5), /version 5/],
    ["an unknown section type", () => started(), Buffer.of(0x42), /0x42/],
    ["the end of a stream without RAM", () => header(), Buffer.of(0), /no RAM/],
    ["unknown flags", () => started().section(PART).zero(0, 0), record(0x100, counted("pc.ram")), /0x100/],
    ["two flags at once", () => started().section(PART), record(0x0a, counted("pc.ram"), PAGE), /0xa/],
    [
      "a RAMBlock list after START",
      () => new StreamBuilder().header().startWithoutList(8).endSection().section(PART),
      record(4096 + 4),
      /after START/,
    ],
    [
      "a section without a footer",
      () => started().section(END),
      Buffer.concat([be64(0x10), Buffer.of(4)]),
      /footer/,
    ],
  ];
  test.each(unknown)("%s", (_what, before, bytes, reason) => {
    const builder = before();
    const offsetBytes = builder.lengthBytes;
    const rest = Buffer.from("whatever follows: never looked at \x03\x00\x00\x00\x99");
    builder.opaque().verbatim(Buffer.concat([bytes, rest]));
    for (const reading of [whole(builder.bytes), byteByByte(builder.bytes)]) {
      expect(reading.error).toBeUndefined();
      expectCalls(reading.calls, builder.calls);
      expect(reading.reason).toMatch(reason);
      expect(reading.reader.isOpaque).toBe(true);
      expect(reading.calls).toContainEqual(expect.objectContaining({ call: "opaque", offsetBytes }));
      reading.reader.end();
    }
  });
});

describe("refuses, with offset and section,", () => {
  const blockList = (...blocks: [string, number][]): Uint8Array =>
    Buffer.concat(blocks.map(([name, bytes]) => Buffer.concat([counted(name), be64(bytes)])));
  const ramStart = (totalBytes: number | bigint): StreamBuilder =>
    new StreamBuilder()
      .header()
      .verbatim(fullSection(1, "ram", 4))
      .verbatim(be64(BigInt(totalBytes) + 4n));
  const inPart = () => started().section(PART);
  const configured = () => new StreamBuilder().header().configuration("pc");
  const many = Array.from({ length: 4097 }, (_, i): [string, number] => [`block${i}`, 0]);
  // What is wrong, what stands before it, the wrong bytes, the message, the section, and how far in the trouble is.
  const wrong: [string, StreamBuilder, Uint8Array, RegExp, string, number?][] = [
    ["another magic", new StreamBuilder(), Buffer.from("HTTP/1.1"), /0x48545450/, "header"],
    [
      "a machine name without bounds",
      new StreamBuilder().header(),
      Buffer.concat([Buffer.of(7), be32(0xffffffff)]),
      /Machine name/,
      "configuration",
    ],
    [
      "capabilities without bounds",
      configured(),
      Buffer.concat([Buffer.of(5), counted("configuration/capabilities"), be32(1), be32(257)]),
      /257 capabilities/,
      "subsections",
    ],
    [
      "a section that never started",
      started(),
      Buffer.concat([Buffer.of(2), be32(4)]),
      /Section 4/,
      "sections",
    ],
    ["PART before START", configured(), Buffer.concat([Buffer.of(2), be32(3)]), /never started/, "sections"],
    ["a second START of ram", started(), fullSection(1, "ram", 4), /starts twice/, "sections"],
    ["an end before RAM is complete", started(), Buffer.of(0), /before RAM/, "sections"],
    [
      "a second RAMBlock list",
      new StreamBuilder().header().start(3, [{ idstr: "pc.ram", pages: 1 }]),
      record(4096 + 4),
      /listed twice/,
      "ram",
    ],
    [
      "a RAMBlock longer than what is left",
      ramStart(8192),
      blockList(["a", 12288]),
      /12288 bytes, 8192/,
      "ram-blocks",
    ],
    ["a RAMBlock that ends inside a page", ramStart(8192), blockList(["a", 4097]), /4097/, "ram-blocks"],
    ["a RAMBlock twice", ramStart(8192), blockList(["a", 4096], ["a", 4096]), /twice/, "ram-blocks", 10],
    [
      "too many RAMBlocks",
      ramStart(4096),
      blockList(...many),
      /More than 4096/,
      "ram-blocks",
      blockList(...many.slice(0, 4096)).length,
    ],
    [
      "more RAM than can be counted",
      new StreamBuilder().header().verbatim(fullSection(1, "ram", 4)),
      be64(2n ** 60n + 4n),
      /RAM of/,
      "ram",
    ],
    ["CONTINUE before any name", inPart(), record(0x28, PAGE), /CONTINUE/, "ram"],
    ["a page of an unlisted RAMBlock", inPart(), record(8, counted("pc.rom\x1b"), PAGE), /"pc.rom\?"/, "ram"],
    ["a page beyond its RAMBlock", inPart(), record(2 * 4096 + 8, counted("pc.ram"), PAGE), /8192/, "ram"],
    [
      "a page at an absurd offset",
      inPart().zero(0, 0),
      Buffer.from("fffffffffffff02201", "hex"),
      /Page at/,
      "ram",
    ],
    [
      "another XBZRLE encoding",
      inPart(),
      record(0x40, counted("pc.ram"), Buffer.of(2, 0, 1, 0)),
      /encoding 2/,
      "ram",
    ],
    [
      "a delta longer than a page",
      inPart(),
      record(0x40, counted("pc.ram"), Buffer.of(1), be16(4097)),
      /4097 bytes/,
      "ram",
    ],
    [
      "the footer of another section",
      inPart(),
      Buffer.concat([be64(0x10), Buffer.of(0x7e), be32(9)]),
      /Footer of section 9/,
      "ram",
      8,
    ],
  ];
  test.each(wrong)("%s", (_what, before, bytes, message, section, ahead = 0) => {
    const offsetBytes = before.lengthBytes + ahead;
    const stream = Buffer.concat([before.bytes, bytes]);
    for (const { error } of [whole(stream), byteByByte(stream)]) {
      expect(error?.message).toMatch(message);
      expect(error).toMatchObject({ code: "STREAM_CORRUPT", offsetBytes, section });
    }
  });
});

describe("post-copy that contradicts itself", () => {
  const begun = () =>
    new StreamBuilder()
      .header()
      .start(2, [{ idstr: "pc.ram", pages: 4 }])
      .endSection();
  const hugePages = (announced: number, hugePageBytes: number) =>
    new StreamBuilder()
      .header()
      .command(3, Buffer.concat([be64(announced), be64(4096)]))
      .start(2, [{ idstr: "pc.ram", pages: 512, hugePageBytes }])
      .endSection();
  const name = Buffer.from("\0\x06pc.ram\0", "latin1");
  const range = (offset: number, length: number) => Buffer.concat([name, be64(offset), be64(length)]);
  test.each<[string, StreamBuilder, string]>([
    ["pages of a size that was not announced", hugePages(0x200000, 0x400000), "pages of 4194304 bytes"],
    ["pages of no size", hugePages(0x200000, 0), "pages of 0 bytes"],
    ["pages beyond the end", begun().command(6, range(8192, 12288)), "Discard of 12288 bytes at 8192"],
    ["half a page", begun().command(6, range(0, 100)), "Discard of 100 bytes"],
    ["half a range", begun().command(6, range(0, 4096).subarray(0, 20)), "List of pages to discard"],
    ["another RAMBlock", begun().command(6, Buffer.from("\0\x03rom\0", "latin1")), "which was not listed"],
    ["an empty package", begun().command(7, be32(0)), "Package of 0 bytes"],
    ["a second package", begun().package(Buffer.of(1)).package(Buffer.of(1)), "A second package"],
  ])("is an error: %s", (_what, builder, message) => {
    const reader = new StreamReader(tracingHandler(new Trace()));
    expect(() => reader.push(builder.bytes)).toThrow(message);
  });
});
