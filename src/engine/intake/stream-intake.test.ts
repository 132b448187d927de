// The intake of a migration that is given up: a hypervisor that was told to wait must not go on waiting.

import { expect, test } from "vitest";
import { makeHome } from "../../../test/support/engine-parts.ts";
import { memoryChannels } from "../../../test/support/memory-channel.ts";
import { VirtualClock } from "../../base/clock.ts";
import { StreamIntake, type StreamIntakeOptions } from "./stream-intake.ts";

test("what a hypervisor could not get rid of is dropped when the migration is given up, however much it is", () => {
  const clock = new VirtualClock();
  const [near, far] = memoryChannels(clock, { bytesPerSecond: 1e9, bufferBytes: 64 * 1024 });
  const intake = new StreamIntake({
    memory: makeHome().memory,
    clock,
    // A link that is away: nothing is taken.
    link: { hasRoom: false, turnBytes: 65_536, figures: { waitingBytes: 0 } },
    reader: { consume: () => expect.unreachable("there is no room") },
    bypassJudge: undefined,
    bypass: () => {},
    pass: () => undefined,
    defer: () => {},
    failed: (error: Error) => expect.unreachable(error.message),
  } as unknown as StreamIntakeOptions);
  intake.from(near);
  let writtenBytes = 0;
  let flows = true;
  const write = () => {
    for (; flows && writtenBytes < 8e6; writtenBytes += 10_000) flows = far.write(Buffer.alloc(10_000));
  };
  const drained = () => {
    flows = true;
    write();
  };
  far.listen({ data: () => {}, drained, ended: () => {}, failed: () => {} });
  write();
  clock.advance(1000);
  const heldBytes = writtenBytes;
  expect(heldBytes).toBeLessThan(1e6);
  intake.end();
  clock.advance(1000);
  expect(writtenBytes).toBe(heldBytes);
  intake.drop();
  clock.advance(1000);
  expect(writtenBytes).toBe(8e6);
});
