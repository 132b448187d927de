// Reading a stream in pieces, for tests: all that the reader said, and how it ended.

import { expect } from "vitest";
import { QemuStreamError } from "../../src/base/errors.ts";
import { StreamReader } from "../../src/stream/reader.ts";
import { type Call, describeCalls, firstDifference, Trace, tracingHandler } from "./stream-trace.ts";

export interface Reading {
  calls: Call[];
  reader: StreamReader;
  reason: string;
  error: QemuStreamError | undefined;
}

/** `chunkBytes` gives the length of each chunk in turn. */
export function read(bytes: Uint8Array, chunkBytes: () => number): Reading {
  const trace = new Trace();
  const handler = tracingHandler(trace);
  const reader = new StreamReader(handler);
  let error: QemuStreamError | undefined;
  try {
    for (let at = 0; at < bytes.length; ) {
      const length = Math.max(1, chunkBytes());
      // A copy that is spoilt afterwards: the reader may keep nothing of a chunk.
      const chunk = Buffer.from(bytes.subarray(at, at + length));
      reader.push(chunk);
      chunk.fill(0xee);
      at += length;
    }
  } catch (thrown) {
    if (!(thrown instanceof QemuStreamError)) throw thrown;
    error = thrown;
  }
  return { calls: trace.calls, reader, reason: handler.reason, error };
}

export const whole = (bytes: Uint8Array): Reading => read(bytes, () => bytes.length);
export const byteByByte = (bytes: Uint8Array): Reading => read(bytes, () => 1);

export function expectCalls(actual: readonly Call[], expected: readonly Call[]): void {
  const at = firstDifference(actual, expected);
  if (at !== -1)
    expect(describeCalls(actual.slice(at, at + 3))).toEqual(describeCalls(expected.slice(at, at + 3)));
}
