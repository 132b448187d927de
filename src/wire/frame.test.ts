import { describe, expect, test } from "vitest";
import { uncodedData } from "../../test/support/data-frame.ts";
import type { DataFrame, Frame } from "./frame.ts";
import { CODED_BYTES_MAX, encodeFrame, RAW_BYTES_MAX, RETURN_BYTES_MAX } from "./frame.ts";
import { PAYLOAD_PAGES } from "./page-batch.ts";

const RAW = new TextEncoder().encode("123456789");
const DATA: DataFrame = uncodedData(1, RAW);

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

test("DATA carries codec, kind of payload, length and checksum of the raw bytes", () => {
  const [head, coded] = encodeFrame({ ...DATA, sequence: 3, payloadKind: PAYLOAD_PAGES });
  expect(Buffer.from(head!.subarray(8)).toString("hex")).toBe(
    "0000000000000003" + "01030000" + "00000009" + "6fdcc4e9",
  );
  expect(coded).toBe(RAW);
});
