import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import { ProtocolError } from "../base/errors.ts";
import type { DataFrame, Frame } from "./frame.ts";
import {
  CODED_BYTES_MAX,
  checkRaw,
  dataFrame,
  encodeFrame,
  RAW_BYTES_MAX,
  RETURN_BYTES_MAX,
} from "./frame.ts";

const RAW = new TextEncoder().encode("123456789");
const DATA: DataFrame = dataFrame(1, 1, RAW, RAW);

describe("encodeFrame", () => {
  test("hands large payloads on without a copy", () => {
    const coded = new Uint8Array(CODED_BYTES_MAX);
    expect(encodeFrame({ ...DATA, coded })[1]).toBe(coded);
    const bytes = new Uint8Array(RETURN_BYTES_MAX);
    expect(encodeFrame({ type: "return", bytes })[1]).toBe(bytes);
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
    ["an empty RETURN", { type: "return", bytes: new Uint8Array(0) }],
    ["RETURN above the limit", { type: "return", bytes: new Uint8Array(RETURN_BYTES_MAX + 1) }],
    ["a reason without a code", { type: "abort", reason: { code: "", message: "" } }],
    ["a message of two lines", { type: "refuse", reason: { code: "BUSY", message: "one\ntwo" } }],
  ])("never emits %s: that would be our own mistake", (_, frame) => {
    expect(() => encodeFrame(frame)).toThrow("Assertion failed");
  });
});

describe("DATA", () => {
  test("carries length and CRC-32 of the raw bytes", () => {
    // The check value that CRC-32 definitions give for these nine bytes.
    expect(DATA).toMatchObject({ rawBytes: 9, rawCrc32: 0xcbf43926 });
    expect(() => checkRaw(DATA, RAW)).not.toThrow();
  });

  test("decoded to other bytes is a protocol error that names the frame", () => {
    const flipped = RAW.slice();
    flipped[4]! ^= 1;
    expect(() => checkRaw(DATA, flipped)).toThrow(ProtocolError);
    expect(() => checkRaw(DATA, flipped)).toThrow("DATA 1: expected 9 raw bytes with CRC-32 0xcbf43926");
  });

  test("decoded to another length is a protocol error even if the CRC agrees", () => {
    const longer = { ...DATA, rawBytes: 10, rawCrc32: crc32(RAW) };
    expect(() => checkRaw(longer, RAW)).toThrow("expected 10 raw bytes");
  });
});
