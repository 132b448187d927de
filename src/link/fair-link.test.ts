// Channels that share a rate, on virtual time: shares, the rate as a limit, what the slow ones leave to the others, and
// that nobody is told to go on in the middle of a write.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { memoryChannels } from "../../test/support/memory-channel.ts";
import { VirtualClock } from "../base/clock.ts";
import type { Channel } from "../engine/ports.ts";
import { DeliveryWindow, QUEUE_MS } from "../engine/transport/window.ts";
import { FairLink, HOLD_MS } from "./fair-link.ts";
import { WEIGHT_MAX, WEIGHT_MIN } from "./fair-schedule.ts";

interface Party {
  readonly channel: Channel;
  readonly receivedBytes: () => number;
  /** Not yet sent, though written: at most one write, whoever stops at `false`. */
  heldBytes(): number;
  /** Of its own connection, whose buffer takes 20,000. */
  unreceivedBytes(): number;
  ended(): boolean;
}

interface PartyOptions {
  weight?: number;
  writeBytes?: number;
  /** Of its own connection. */
  bytesPerSecond?: number;
  /** Writes as long as it may, and whenever it may again. */
  isGreedy?: boolean;
}

function join(clock: VirtualClock, link: FairLink, options: PartyOptions = {}): Party {
  const { weight = 1, writeBytes = 10_000, bytesPerSecond = 1e9, isGreedy = true } = options;
  const [near, far] = memoryChannels(clock, { bytesPerSecond, bufferBytes: 20_000 });
  const channel = link.share(near, weight);
  let receivedBytes = 0;
  let isEnded = false;
  let writtenBytes = 0;
  far.listen({
    data: (bytes) => {
      receivedBytes += bytes.length;
    },
    drained: () => {},
    ended: () => {
      isEnded = true;
    },
    failed: () => {},
  });
  const fill = () => {
    if (!isGreedy) return;
    for (let flows = true; flows; ) {
      writtenBytes += writeBytes;
      flows = channel.write(Buffer.alloc(writeBytes));
    }
  };
  channel.listen({ data: () => {}, drained: fill, ended: () => {}, failed: () => {} });
  fill();
  return {
    channel,
    receivedBytes: () => receivedBytes,
    heldBytes: () => writtenBytes - near.writtenBytes,
    unreceivedBytes: () => near.writtenBytes - receivedBytes,
    ended: () => isEnded,
  };
}

/** A sender that does as the engines do: as much in flight as its window has room for, with markers that are answered. */
function sendThroughWindow(clock: VirtualClock, link: FairLink, weight: number, delayMs: number) {
  const [near, far] = memoryChannels(clock, { bytesPerSecond: 1e10, bufferBytes: 1 << 22, delayMs });
  const channel = link.share(near, weight);
  const window = new DeliveryWindow(clock);
  const markedBytes: number[] = [];
  let [sentBytes, receivedBytes] = [0, 0];
  let isBlocked = false;
  const pump = () => {
    while (!isBlocked && window.hasRoom && window.mayMark) {
      const bytes = window.turnBytes;
      window.sent(bytes);
      sentBytes += bytes;
      isBlocked = !channel.write(Buffer.alloc(bytes));
      window.marked(isBlocked);
      markedBytes.push(sentBytes);
    }
  };
  far.listen({
    data: (bytes) => {
      receivedBytes += bytes.length;
      const upTo = receivedBytes;
      clock.after(delayMs, () => {
        let answered = 0;
        for (; markedBytes[0] !== undefined && markedBytes[0] <= upTo; answered++) markedBytes.shift();
        if (answered === 0) return;
        window.acknowledged(answered);
        pump();
      });
    },
    drained: () => {},
    ended: () => {},
    failed: () => {},
  });
  const drained = () => {
    isBlocked = false;
    pump();
  };
  channel.listen({ data: () => {}, drained, ended: () => {}, failed: () => {} });
  pump();
  return { window, receivedBytes: () => receivedBytes };
}

const RATE = 1_000_000;
const rates = fc.integer({ min: 20_000, max: 50_000_000 });
const parties = fc.array(
  fc.record({
    weight: fc.double({ min: 0.2, max: 5, noNaN: true }),
    writeBytes: fc.integer({ min: 1000, max: 30_000 }),
  }),
  { minLength: 1, maxLength: 8 },
);

/** More than what a latecomer makes up for. */
const SETTLED_MS = 1000;

describe("a link shared by weight", () => {
  test("those that always have something to send get their shares, and together all of the rate and no more", () => {
    fc.assert(
      fc.property(rates, parties, (rate, all) => {
        const clock = new VirtualClock();
        const link = new FairLink(clock, rate);
        const joined = all.map((each) => join(clock, link, each));
        // Long enough for the lightest to get some pieces.
        const weightTotal = all.reduce((sum, { weight }) => sum + weight, 0);
        const lightest = Math.min(...all.map(({ weight }) => weight));
        const ms = Math.max(200, ((2048 * 40 * weightTotal) / lightest / rate) * 1000);
        const received = () => joined.map((each) => each.receivedBytes());
        const sum = (bytes: readonly number[]) => bytes.reduce((total, each) => total + each, 0);
        // Whoever comes first is alone with the first burst, and the others make up for that.
        clock.advance(SETTLED_MS);
        const before = received();
        clock.advance(ms);
        const got = received().map((bytes, index) => bytes - before[index]!);
        const total = sum(got);
        const burstBytes = Math.max(2 * 2048, rate * 0.004);
        expect(sum(received())).toBeLessThanOrEqual((rate * (ms + SETTLED_MS)) / 1000 + burstBytes + 1);
        // What has left may still be on its way, a chunk for each.
        expect(total).toBeGreaterThan(((rate * ms) / 1000) * 0.97 - burstBytes);
        for (const [index, { weight }] of all.entries()) {
          const share = got[index]! / total / (weight / weightTotal);
          expect(share).toBeGreaterThan(0.9);
          expect(share).toBeLessThan(1.1);
        }
      }),
      { numRuns: 25 },
    );
  });

  test("nothing is held but some time's worth of a share, and what was written when it said no", () => {
    const clock = new VirtualClock();
    const link = new FairLink(clock, RATE);
    const weights = [1, 2, 3];
    const joined = weights.map((weight) => join(clock, link, { weight, writeBytes: 3000 }));
    // Who comes first has it all to itself.
    clock.advance(500);
    for (let i = 0; i < 200; i++) {
      clock.advance(7);
      for (const [index, each] of joined.entries()) {
        const shareBytes = (((RATE * weights[index]!) / 6) * HOLD_MS) / 1000;
        expect(each.heldBytes()).toBeLessThanOrEqual(shareBytes + 3000);
        expect(each.heldBytes()).toBeGreaterThan(shareBytes / 2 - 3000);
      }
    }
  });

  test("a link that holds nothing says no to whatever it cannot pass on at once", () => {
    const clock = new VirtualClock();
    const link = new FairLink(clock, RATE, 0);
    const party = join(clock, link, { writeBytes: 30_000 });
    for (let i = 0; i < 100; i++) {
      clock.advance(7);
      expect(party.heldBytes()).toBeLessThanOrEqual(30_000);
    }
  });

  test.each([
    [2_000_000, 1],
    [12_500_000, 10],
  ])(
    "engines that bound what is in flight get their shares, in bounded time: %i bytes/s, %i ms each way",
    (rate, delayMs) => {
      const clock = new VirtualClock();
      const link = new FairLink(clock, rate);
      const weights = [1, 2, 4, 4];
      const senders = weights.map((weight) => sendThroughWindow(clock, link, weight, delayMs));
      clock.advance(3000);
      const before = senders.map(({ receivedBytes }) => receivedBytes());
      clock.advance(4000);
      const got = senders.map(({ receivedBytes }, i) => receivedBytes() - before[i]!);
      const total = got.reduce((sum, bytes) => sum + bytes, 0);
      expect(total).toBeGreaterThan(rate * 4 * 0.95);
      for (const [index, weight] of weights.entries()) {
        const share = got[index]! / total / (weight / 11);
        expect(share).toBeGreaterThan(0.95);
        expect(share).toBeLessThan(1.05);
        // On the link, and waiting for it: some 20 ms more than there and back, and what is due in one go.
        const inFlightMs = (senders[index]!.window.inFlightBytes / ((rate * weight) / 11)) * 1000;
        expect(inFlightMs).toBeLessThan(2 * delayMs + 2.5 * QUEUE_MS);
      }
    },
  );

  test("one whose own connection is slow leaves the rest of its share to the others", () => {
    const clock = new VirtualClock();
    const link = new FairLink(clock, RATE);
    const slow = join(clock, link, { weight: 5, bytesPerSecond: RATE / 10, writeBytes: 100_000 });
    const [light, heavy] = [join(clock, link), join(clock, link, { weight: 2 })];
    clock.advance(1000);
    const from = [slow, light, heavy].map((each) => each.receivedBytes());
    let unreceivedBytesMax = 0;
    for (let i = 0; i < 100; i++) {
      clock.advance(50);
      unreceivedBytesMax = Math.max(unreceivedBytesMax, slow.unreceivedBytes());
    }
    const [ofSlow, ofLight, ofHeavy] = [slow, light, heavy].map((each, i) => each.receivedBytes() - from[i]!);
    expect(ofSlow! + ofLight! + ofHeavy!).toBeGreaterThan(5 * RATE * 0.97);
    expect(unreceivedBytesMax).toBeLessThanOrEqual(20_000 + 2048);
    expect(ofSlow!).toBeGreaterThan((5 * RATE) / 10 / 1.1);
    expect(ofHeavy! / ofLight!).toBeGreaterThan(1.9);
    expect(ofHeavy! / ofLight!).toBeLessThan(2.1);
  });

  test("one that has little to send gets it through at once, however much the others have", () => {
    const clock = new VirtualClock();
    const link = new FairLink(clock, RATE);
    for (let i = 0; i < 7; i++) join(clock, link);
    const modest = join(clock, link, { isGreedy: false });
    clock.advance(500);
    modest.channel.write(Buffer.alloc(1000));
    // A round of the others' pieces, 2 ms each.
    clock.advance(20);
    expect(modest.receivedBytes()).toBe(1000);
  });

  test("the lightest there may be is not starved by the heaviest", () => {
    const clock = new VirtualClock();
    const link = new FairLink(clock, 1e9);
    join(clock, link, { weight: WEIGHT_MAX, writeBytes: 1 << 20, bytesPerSecond: 1e12 });
    const light = join(clock, link, { weight: WEIGHT_MIN });
    clock.advance(100);
    expect(light.receivedBytes()).toBeGreaterThan(0);
  });

  test("a connection that ends has sent all that was written before, and its share is the others'", () => {
    const clock = new VirtualClock();
    const link = new FairLink(clock, RATE);
    const [leaving, staying] = [join(clock, link, { isGreedy: false }), join(clock, link)];
    leaving.channel.write(Buffer.alloc(50_000));
    leaving.channel.end();
    clock.advance(1000);
    expect(leaving.receivedBytes()).toBe(50_000);
    expect(leaving.ended()).toBe(true);
    expect(link.size).toBe(1);
    const before = staying.receivedBytes();
    clock.advance(1000);
    expect(staying.receivedBytes() - before).toBeGreaterThan(RATE * 0.97);
  });

  test("one that is dropped gives up what waits and leaves", () => {
    const clock = new VirtualClock();
    const link = new FairLink(clock, RATE);
    const dropped = join(clock, link);
    clock.advance(100);
    dropped.channel.destroy();
    const before = dropped.receivedBytes();
    clock.advance(1000);
    expect(dropped.receivedBytes()).toBe(before);
    expect(dropped.channel.write(Buffer.alloc(10))).toBe(false);
    expect(link.size).toBe(0);
  });

  test("one whose connection breaks leaves as well", () => {
    const clock = new VirtualClock();
    const link = new FairLink(clock, RATE);
    const [near] = memoryChannels(clock);
    const failures: string[] = [];
    const channel = link.share(near, 1);
    channel.listen({
      data: () => {},
      drained: () => {},
      ended: () => {},
      failed: ({ message }) => failures.push(message),
    });
    near.cut();
    expect(failures).toEqual(["connection reset"]);
    expect(link.size).toBe(0);
  });

  test("a timer that fires late costs nothing of the rate, and never makes it more than that", () => {
    const clock = new VirtualClock();
    const late = {
      nowMs: () => clock.nowMs(),
      after: (ms: number, callback: () => void) => clock.after(ms + 15, callback),
    };
    const link = new FairLink(late, RATE);
    const party = join(clock, link, { writeBytes: 20_000_000 });
    clock.advance(10_000);
    expect(party.receivedBytes()).toBeGreaterThan(10 * RATE * 0.95);
    expect(party.receivedBytes()).toBeLessThan(10 * RATE + 60_000);
  });
});
