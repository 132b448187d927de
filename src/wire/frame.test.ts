import { describe, expect, test } from "vitest";
import { uncodedData } from "../../test/support/data-frame.ts";
import type { DataFrame, Frame } from "./frame.ts";
import {
  CODED_BYTES_MAX,
  DATA_FRAME_BYTES_MAX,
  dataFrameBytes,
  encodeFrame,
  RAW_BYTES_MAX,
  RETURN_BYTES_MAX,
  writeDataFrame,
} from "./frame.ts";
import { PAYLOAD_PAGES } from "./page-batch.ts";

const RAW = new TextEncoder().encode("123456789");
const DATA: DataFrame = uncodedData(1, RAW);

describe("encodeFrame", () => {
  test("gives the longest payloads in one piece with their header", () => {
    const coded = new Uint8Array(CODED_BYTES_MAX).fill(1);
    const data = encodeFrame({ ...DATA, coded });
    expect(data.length).toBe(DATA_FRAME_BYTES_MAX);
    expect(Buffer.from(data.subarray(-CODED_BYTES_MAX)).equals(coded)).toBe(true);
    const bytes = new Uint8Array(RETURN_BYTES_MAX).fill(2);
    expect(
      Buffer.from(encodeFrame({ type: "return", bytes }).subarray(-RETURN_BYTES_MAX)).equals(bytes),
    ).toBe(true);
  });

  test("a DATA frame may be written over anything", () => {
    const bytes = new Uint8Array(dataFrameBytes(DATA)).fill(0xee);
    writeDataFrame(DATA, bytes);
    expect(bytes).toEqual(encodeFrame(DATA));
  });

  test.each<[string, Frame]>([
    ["coded bytes above the limit", { ...DATA, coded: new Uint8Array(CODED_BYTES_MAX + 1) }],
    ["no coded bytes", { ...DATA, coded: new Uint8Array(0) }],
    ["raw bytes above the limit", { ...DATA, rawBytes: RAW_BYTES_MAX + 1 }],
    ["no raw bytes", { ...DATA, rawBytes: 0 }],
    ["entropy codec 0", { ...DATA, entropyCodec: 0 }],
    ["entropy codec 256", { ...DATA, entropyCodec: 256 }],
    ["DATA sequence 0", { ...DATA, sequence: 0 }],
    ["an inexact sequence", { ...DATA, sequence: 2 ** 53 }],
    ["ACK of nothing", { type: "ack", sequence: 0 }],
    ["ACK busy for longer than it has been", { type: "ack", sequence: 1, pace: { elapsedMs: 1, busyMs: 2 } }],
    ["ACK of parts of a millisecond", { type: "ack", sequence: 1, pace: { elapsedMs: 1.5, busyMs: 1 } }],
    ["an empty RETURN", { type: "return", bytes: new Uint8Array(0) }],
    ["RETURN above the limit", { type: "return", bytes: new Uint8Array(RETURN_BYTES_MAX + 1) }],
    ["a reason without a code", { type: "abort", reason: { code: "", message: "" } }],
    ["a message of two lines", { type: "refuse", reason: { code: "BUSY", message: "one\ntwo" } }],
  ])("never emits %s: that would be our own mistake", (_, frame) => {
    expect(() => encodeFrame(frame)).toThrow("Assertion failed");
  });
});

test("DATA carries codec, kind of payload, length and checksum of the raw bytes", () => {
  const bytes = encodeFrame({ ...DATA, sequence: 3, payloadKind: PAYLOAD_PAGES });
  expect(Buffer.from(bytes.subarray(8)).toString("hex")).toBe(
    ["0000000000000003", "01030000", "00000009", "6fdcc4e9", Buffer.from(RAW).toString("hex")].join(""),
  );
});
