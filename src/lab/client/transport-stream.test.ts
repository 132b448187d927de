import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Picture, TransportStreamError, TransportStreamParser } from "./transport-stream.ts";

const PROGRAMME_PID = 0x1000;
const AUDIO_PID = 0x0101;
const VIDEO_PID = 0x0100;

/** One packet; a payload that is too short is filled up by an adaptation field, as muxers do. */
function packet(pid: number, payload: readonly number[], { start = false, continuity = 0 } = {}): Buffer {
  const bytes = Buffer.alloc(188, 0xff);
  bytes[0] = 0x47;
  bytes.writeUInt16BE((start ? 0x4000 : 0) | pid, 1);
  const spareBytes = 184 - payload.length;
  bytes[3] = (spareBytes > 0 ? 0x30 : 0x10) | continuity;
  if (spareBytes > 0) bytes[4] = spareBytes - 1;
  if (spareBytes > 1) bytes[5] = 0;
  bytes.set(payload, 188 - payload.length);
  return bytes;
}

const word = (value: number) => [value >> 8, value & 0xff];
const CRC = [0, 0, 0, 0];

function tables(): Buffer[] {
  const pat = [0, 0x00, ...word(0xb000 | 17), ...word(1), 0xc1, 0, 0, ...word(0), ...word(0xe010)];
  const programme = [...word(1), ...word(0xe000 | PROGRAMME_PID)];
  const streams = [
    ...[0x0f, ...word(0xe000 | AUDIO_PID), ...word(0xf002), 0x0a, 0],
    ...[0x1b, ...word(0xe000 | VIDEO_PID), ...word(0xf000)],
  ];
  const length = 9 + streams.length + 4;
  const pmt = [0, 0x02, ...word(0xb000 | length), ...word(1), 0xc1, 0, 0, ...word(0xe100), ...word(0xf000)];
  return [
    packet(0, [...pat, ...programme, ...CRC], { start: true }),
    packet(PROGRAMME_PID, [...pmt, ...streams, ...CRC], { start: true }),
  ];
}

function pesHeader(ticks: number): number[] {
  const high = Math.floor(ticks / 2 ** 30) & 7;
  const middle = Math.floor(ticks / 2 ** 15) & 0x7fff;
  const low = ticks & 0x7fff;
  return [
    0,
    0,
    1,
    0xe0,
    0,
    0,
    0x80,
    0x80,
    5,
    0x21 | (high << 1),
    ...word((middle << 1) | 1),
    ...word((low << 1) | 1),
  ];
}

/** A stream of pictures, each of so many packets, with sound between them. */
function stream(pictures: readonly { ticks: number; packets: number }[]): Buffer[] {
  let sent = 0;
  const packets = pictures.flatMap(({ ticks, packets }) => [
    packet(AUDIO_PID, [0, 0, 1, 0xc0], { start: true }),
    packet(VIDEO_PID, [...pesHeader(ticks), 1, 2, 3], { start: true, continuity: sent++ & 15 }),
    ...Array.from({ length: packets - 1 }, () =>
      packet(VIDEO_PID, Array(184).fill(0x47), { continuity: sent++ & 15 }),
    ),
  ]);
  return [...tables(), ...packets];
}

function parse(chunks: Iterable<Uint8Array>): { pictures: Picture[]; packetsLost: number } {
  const pictures: Picture[] = [];
  const parser = new TransportStreamParser((picture) => pictures.push(picture));
  let nowMs = 0;
  for (const chunk of chunks) parser.push(chunk, nowMs++);
  return { pictures, packetsLost: parser.packetsLost };
}

describe("a transport stream", () => {
  it("has its pictures found, each when its last packet was there and not when the next one began", () => {
    const packets = stream([
      { ticks: 900, packets: 3 },
      { ticks: 4500, packets: 1 },
      { ticks: 2700, packets: 2 },
    ]);
    // A chunk each: two tables; then sound, 3 packets; sound, 1; sound, and the last that nothing follows.
    expect(parse(packets)).toEqual({
      pictures: [
        { presentationMs: 10, arrivedMs: 5 },
        { presentationMs: 50, arrivedMs: 7 },
      ],
      packetsLost: 0,
    });
  });

  it("has the same pictures however its bytes were cut", () => {
    const picture = fc.record({ ticks: fc.nat(2 ** 33 - 1), packets: fc.integer({ min: 1, max: 4 }) });
    const cuts = fc.infiniteStream(fc.integer({ min: 1, max: 400 }));
    fc.assert(
      fc.property(fc.array(picture, { maxLength: 8 }), cuts, (pictures, sizes) => {
        const wire = Buffer.concat(stream(pictures));
        const chunks: Uint8Array[] = [];
        for (let at = 0; at < wire.length; ) {
          const end = at + (sizes.next().value as number);
          chunks.push(wire.subarray(at, end));
          at = end;
        }
        const times = (found: readonly Picture[]) => found.map(({ presentationMs }) => presentationMs);
        const found = times(parse(chunks).pictures);
        expect(found).toEqual(times(parse([wire]).pictures));
        expect(found.length).toBe(Math.max(0, pictures.length - 1));
      }),
    );
  });

  it("goes on where its clock of 33 bits wraps", () => {
    const ticks = [2 ** 33 - 3600, 0, 3600, 7200];
    const { pictures } = parse(stream(ticks.map((at) => ({ ticks: at, packets: 1 }))));
    const first = pictures[0]!.presentationMs;
    expect(pictures.map(({ presentationMs }) => presentationMs - first)).toEqual([0, 40, 80]);
  });

  it("tells how many packets the server left out, and counts one that came twice as none", () => {
    const packets = stream(Array.from({ length: 20 }, (_, index) => ({ ticks: index * 3600, packets: 2 })));
    const video = packets.flatMap((bytes, index) =>
      (bytes.readUInt16BE(1) & 0x1fff) === VIDEO_PID ? [index] : [],
    );
    const without = packets.toSpliced(video[9]!, 1).toSpliced(video[5]!, 1);
    expect(parse(without).packetsLost).toBe(2);
    const twice = packets.toSpliced(video[5]!, 0, packets[video[5]!]!);
    expect(parse(twice)).toMatchObject({ packetsLost: 0, pictures: { length: 19 } });
  });

  it("of any bytes is an error or has its pictures, never anything else", () => {
    const noise = fc.array(fc.record({ at: fc.nat(), value: fc.nat(255) }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(noise, fc.uint8Array({ maxLength: 600 }), (changes, tail) => {
        const wire = Buffer.concat([...stream(Array(6).fill({ ticks: 90, packets: 2 })), tail]);
        for (const { at, value } of changes) wire[at % wire.length] = value;
        try {
          parse([wire]);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(TransportStreamError);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("is refused with the place where it stops being one", () => {
    const packets = stream([{ ticks: 0, packets: 3 }]);
    packets[3]![0] = 0x48;
    expect(() => parse(packets)).toThrow("at byte 564");
  });

  it("without a video is refused", () => {
    const [pat, pmt] = tables() as [Buffer, Buffer];
    pmt[pmt.length - CRC.length - 5] = 0x0f;
    expect(() => parse([pat, pmt])).toThrow("has no video");
  });
});
