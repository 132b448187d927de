// Reconnector on a virtual clock: when it tries, when it stops, and what becomes of connections that come too late.

import { expect, test } from "vitest";
import { memoryChannels } from "../../../test/support/memory-channel.ts";
import { VirtualClock } from "../../base/clock.ts";
import type { Channel } from "../ports.ts";
import { RECONNECT_MS_MAX, RECONNECT_MS_MIN, Reconnector } from "./reconnector.ts";

function setUp() {
  const clock = new VirtualClock();
  const attempts: { atMs: number; settle: (outcome: Channel | Error) => void }[] = [];
  const seen: string[] = [];
  const connect = () =>
    new Promise<Channel>((resolve, reject) => {
      const settle = (outcome: Channel | Error) =>
        outcome instanceof Error ? reject(outcome) : resolve(outcome);
      attempts.push({ atMs: clock.nowMs(), settle });
    });
  const reconnector = new Reconnector(clock, connect, {
    connected: () => seen.push("connected"),
    gaveUp: (cause) => seen.push(`gave up: ${cause.message}`),
  });
  /** Lets time pass in which each attempt fails at once. */
  const failFor = async (ms: number) => {
    const endMs = clock.nowMs() + ms;
    let settled = attempts.length;
    while (clock.nowMs() < endMs) {
      clock.advance(10);
      for (const { settle } of attempts.slice(settled)) settle(new Error("refused"));
      settled = attempts.length;
      await new Promise(setImmediate);
    }
  };
  return { clock, attempts, seen, reconnector, failFor };
}

test("tries soon, then at longer intervals up to a limit, until its time is over", async () => {
  const { attempts, seen, reconnector, failFor } = setUp();
  reconnector.begin(new Error("reset"), 20_000);
  await failFor(30_000);
  const gaps = attempts.map(({ atMs }, i) => atMs - (attempts[i - 1]?.atMs ?? 0));
  expect(gaps[0]).toBe(RECONNECT_MS_MIN);
  expect(gaps.slice(1).every((gap, i) => gap >= gaps[i]!)).toBe(true);
  expect(Math.max(...gaps)).toBe(RECONNECT_MS_MAX);
  expect(attempts.at(-1)!.atMs).toBeGreaterThan(20_000 - RECONNECT_MS_MAX);
  expect(attempts.at(-1)!.atMs).toBeLessThanOrEqual(20_000);
  expect(seen).toEqual(["gave up: refused"]);
});

test("a connection that comes too late is closed", async () => {
  const { clock, attempts, seen, reconnector } = setUp();
  reconnector.begin(new Error("reset"), 1000);
  clock.advance(500);
  expect(attempts).toHaveLength(1);
  clock.advance(500);
  expect(seen).toEqual(["gave up: reset"]);
  const [ours, theirs] = memoryChannels(clock);
  const events: string[] = [];
  theirs.listen({
    data: () => {},
    drained: () => {},
    ended: () => events.push("ended"),
    failed: () => {},
  });
  attempts[0]!.settle(ours);
  await new Promise(setImmediate);
  clock.advance(100);
  expect(events).toEqual(["ended"]);
  expect(seen).toEqual(["gave up: reset"]);
});

test("the next outage begins with short intervals again", async () => {
  const { clock, attempts, seen, reconnector, failFor } = setUp();
  reconnector.begin(new Error("reset"), 20_000);
  await failFor(10_000);
  clock.advance(RECONNECT_MS_MAX);
  const [ours] = memoryChannels(clock);
  attempts.at(-1)!.settle(ours);
  await new Promise(setImmediate);
  expect(seen).toEqual(["connected"]);
  reconnector.stop();
  await failFor(30_000);
  const before = attempts.length;
  const startMs = clock.nowMs();
  reconnector.begin(new Error("reset"), 20_000);
  await failFor(200);
  expect(attempts[before]!.atMs - startMs).toBe(RECONNECT_MS_MIN);
});
