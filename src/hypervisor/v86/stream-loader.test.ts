import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { be32, counted, END, PART, StreamBuilder } from "../../../test/support/stream-builder.ts";
import { QemuStreamError } from "../../base/errors.ts";
import { xbzrleEncode } from "../../codec/xbzrle.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";
import { DEVICE_STATE_BYTES_MAX, StreamLoader } from "./stream-loader.ts";

const PAGES = 6;
const STATE = Buffer.from("all but RAM");
const RAM = [{ idstr: "ram", pages: PAGES }];

function page(seed: number): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES);
  for (let i = 0; i < PAGE_BYTES; i++) bytes[i] = (i * 7 + seed * 131) % 251;
  return bytes;
}

function deltaOf(from: Uint8Array, to: Uint8Array): Uint8Array {
  const delta = new Uint8Array(PAGE_BYTES);
  const bytes = xbzrleEncode(from, 0, to, 0, PAGE_BYTES, delta, 0, PAGE_BYTES - 1);
  expect(bytes).toBeGreaterThan(0);
  return delta.subarray(0, bytes);
}

/** Pages, zero pages, filled pages and deltas, in several sections; `end` completes it. */
function stream(end: (builder: StreamBuilder) => void = complete): Buffer {
  const changed = Buffer.from(page(1));
  changed.writeUInt32LE(0xdeadbeef, 100);
  const fromZero = Buffer.alloc(PAGE_BYTES);
  fromZero.write("on a page of zeros", 2000);
  const builder = new StreamBuilder().header().configuration("v86").start(1, RAM).endSection();
  builder.section(PART).zero(0, 0).page(0, 1, page(1)).zero(0, 2).zero(0, 3, 0x5a).page(0, 4, page(4));
  builder
    .endSection()
    .section(PART)
    .xbzrle(0, 1, deltaOf(page(1), changed))
    .endSection();
  builder
    .section(END)
    .xbzrle(0, 2, deltaOf(Buffer.alloc(PAGE_BYTES), fromZero))
    .page(0, 4, page(5));
  end(builder.endSection());
  return builder.bytes;
}

function complete(builder: StreamBuilder): void {
  builder.device("v86", STATE).verbatim(Buffer.of(0));
}

function expectedMemory(): Buffer {
  const memory = Buffer.alloc(PAGES * PAGE_BYTES, 0xee);
  memory.fill(0, 0, PAGE_BYTES);
  page(1).copy(memory, PAGE_BYTES);
  memory.writeUInt32LE(0xdeadbeef, PAGE_BYTES + 100);
  memory.fill(0, 2 * PAGE_BYTES, 3 * PAGE_BYTES).write("on a page of zeros", 2 * PAGE_BYTES + 2000);
  memory.fill(0x5a, 3 * PAGE_BYTES, 4 * PAGE_BYTES);
  page(5).copy(memory, 4 * PAGE_BYTES);
  return memory;
}

function load(bytes: Uint8Array, cuts: readonly number[] = []): { memory: Buffer; loader: StreamLoader } {
  const memory = Buffer.alloc(PAGES * PAGE_BYTES, 0xee);
  const loader = new StreamLoader(() => memory);
  let start = 0;
  for (const cut of [...cuts].sort((a, b) => a - b)) {
    loader.push(bytes.subarray(start, cut));
    start = Math.max(start, cut);
  }
  loader.push(bytes.subarray(start));
  return { memory, loader };
}

describe("the loader of a migration stream", () => {
  it("puts pages, zero pages and deltas in their places, and hands the device state out", () => {
    const { memory, loader } = load(stream());
    expect(memory.equals(expectedMemory())).toBe(true);
    expect(Buffer.from(loader.loadedState!).equals(STATE)).toBe(true);
  });

  it("does so however the stream is cut", () => {
    const bytes = stream();
    const { memory, loader } = load(
      bytes,
      Array.from(bytes, (_, i) => i),
    );
    expect(memory.equals(expectedMemory())).toBe(true);
    expect(Buffer.from(loader.loadedState!).equals(STATE)).toBe(true);
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 30 }), (cuts) => {
        const cut = load(bytes, cuts);
        expect(cut.memory.equals(expectedMemory())).toBe(true);
        expect(Buffer.from(cut.loader.loadedState!).equals(STATE)).toBe(true);
      }),
    );
  });

  it("has no device state before the last byte", () => {
    const bytes = stream();
    const loader = new StreamLoader(() => Buffer.alloc(PAGES * PAGE_BYTES));
    loader.push(bytes.subarray(0, -1));
    expect(loader.loadedState).toBeUndefined();
  });

  it("takes a state of no bytes, and a long name", () => {
    const bytes = stream((builder) =>
      builder.device("n".repeat(255), Buffer.alloc(0)).verbatim(Buffer.of(0)),
    );
    expect(load(bytes).loader.loadedState).toHaveLength(0);
  });

  it("asks for the memory anew, since it may have moved", () => {
    const bytes = stream();
    let memory = Buffer.alloc(PAGES * PAGE_BYTES, 0xee);
    const loader = new StreamLoader(() => memory);
    loader.push(bytes.subarray(0, 6000));
    memory = Buffer.from(memory);
    loader.push(bytes.subarray(6000));
    expect(memory.equals(expectedMemory())).toBe(true);
  });
});

describe("the loader refuses", () => {
  const start = () => new StreamBuilder().header().configuration("v86");
  const section = (type: number, ...rest: Buffer[]) =>
    stream((builder) => builder.verbatim(Buffer.concat([Buffer.of(type), be32(2), ...rest])));
  const huge = be32(DEVICE_STATE_BYTES_MAX + 1);

  it.each<[string, Buffer, RegExp]>([
    [
      "RAM of another size",
      start()
        .start(1, [{ idstr: "ram", pages: PAGES + 1 }])
        .endSection().bytes,
      /RAM of the source \(ram 28672\) is not that of this VM \(24576 bytes\)/,
    ],
    [
      "RAM in several blocks",
      start()
        .start(1, [...RAM, { idstr: "rom", pages: 1 }])
        .endSection().bytes,
      /\(ram 24576, rom 4096\)/,
    ],
    [
      "pages of another size",
      start()
        .pageBits(13)
        .start(1, [{ idstr: "ram", pages: 3 }])
        .endSection().bytes,
      /RAM of the/,
    ],
    [
      "a stream of no RAM",
      start().startWithoutList(1).endSection().section(END).endSection().bytes,
      /what RAM it is of/,
    ],
    [
      "what it does not understand",
      start().verbatim(Buffer.concat([Buffer.of(4), be32(1), counted("vga"), be32(0), be32(1)])).bytes,
      /Not a stream of this hypervisor: device section "vga"/,
    ],
    [
      "something else behind RAM",
      section(2, counted("v86"), be32(0), be32(1), be32(0)),
      /Section type 2 behind RAM/,
    ],
    [
      "a device state beyond all bounds",
      section(4, counted("v86"), be32(0), be32(1), huge),
      /Device state of 67108865 bytes/,
    ],
    [
      "a device section without a footer",
      stream((builder) => builder.device("v86", STATE).verbatim(Buffer.of(1))),
      /no footer/,
    ],
    [
      "bytes behind the end",
      stream((builder) => {
        complete(builder);
        builder.verbatim(Buffer.of(0));
      }),
      /behind the end/,
    ],
  ])("%s", (_name, bytes, message) => {
    expect(() => load(bytes)).toThrow(QemuStreamError);
    expect(() => load(bytes)).toThrow(message);
  });

  it("bytes that come after it was complete", () => {
    const { loader } = load(stream());
    expect(() => loader.push(Buffer.of(0))).toThrow(/behind the end/);
  });
});
