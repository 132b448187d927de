// A channel with a rate of its own, in front of a connection that is slower or faster than it.

import { describe, expect, test } from "vitest";
import { memoryChannels } from "../../test/support/memory-channel.ts";
import { VirtualClock } from "../base/clock.ts";
import { PacedChannel } from "./paced-channel.ts";

function pacedPair(bytesPerSecond: number, link: { bytesPerSecond: number; bufferBytes: number }) {
  const clock = new VirtualClock();
  const [near, far] = memoryChannels(clock, link);
  const paced = new PacedChannel(near, clock, bytesPerSecond);
  const received: Buffer[] = [];
  far.listen({
    data: (bytes) => received.push(Buffer.from(bytes)),
    drained: () => {},
    ended: () => {},
    failed: () => {},
  });
  let writing = false;
  let drainedCount = 0;
  let drainedInWrite = 0;
  paced.listen({
    data: () => {},
    drained: () => {
      drainedCount++;
      if (writing) drainedInWrite++;
    },
    ended: () => {},
    failed: () => {},
  });
  return {
    clock,
    write(bytes: Uint8Array) {
      writing = true;
      const flows = paced.write(bytes);
      writing = false;
      return flows;
    },
    received: () => Buffer.concat(received),
    counts: () => ({ drainedCount, drainedInWrite }),
  };
}

describe("a paced channel", () => {
  test("sends no faster than its rate, and everything in order", () => {
    const pair = pacedPair(1_000_000, { bytesPerSecond: 1e9, bufferBytes: 1 << 20 });
    const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, i) => i % 251));
    expect(pair.write(bytes)).toBe(false);
    pair.clock.advance(100);
    expect(pair.received().length).toBeGreaterThan(80_000);
    expect(pair.received().length).toBeLessThan(110_000);
    pair.clock.advance(200);
    expect(pair.received().equals(bytes)).toBe(true);
    expect(pair.counts()).toEqual({ drainedCount: 1, drainedInWrite: 0 });
  });

  test("says that it takes bytes again when it was the connection behind it that was slow", () => {
    const pair = pacedPair(1e9, { bytesPerSecond: 100_000, bufferBytes: 1000 });
    expect(pair.write(Buffer.alloc(5000))).toBe(false);
    pair.clock.advance(1000);
    expect(pair.received().length).toBe(5000);
    expect(pair.counts().drainedCount).toBe(1);
  });

  test("never says so from within a write, whose caller may be in the middle of a frame", () => {
    const pair = pacedPair(1e9, { bytesPerSecond: 1e9, bufferBytes: 1 << 20 });
    for (let i = 0; i < 100; i++) pair.write(Buffer.alloc(10 * i));
    pair.clock.advance(1000);
    expect(pair.counts()).toEqual({ drainedCount: 0, drainedInWrite: 0 });
  });
});
