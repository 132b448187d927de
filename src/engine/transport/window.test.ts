// DeliveryWindow on simulated links: keeps them busy, keeps the queue short, follows what changes, never creeps.

import { describe, expect, test } from "vitest";
import { randomBytes } from "../../../test/support/arbitrary-stream.ts";
import { type LinkConditions, SetClock, SimulatedLink } from "../../../test/support/simulated-link.ts";
import {
  DeliveryWindow,
  LATENESS_MS_MAX,
  MARKERS_MAX,
  QUEUE_MS,
  SHORT_QUEUE_MS,
  WINDOW_BYTES_MAX,
} from "./window.ts";

const MBIT = 1e6 / 8;

function simulate(
  conditions: LinkConditions,
  seed = 7,
): {
  link: SimulatedLink;
  window: DeliveryWindow;
  clock: SetClock;
} {
  const clock = new SetClock();
  const window = new DeliveryWindow(clock);
  const random = randomBytes(seed);
  return { link: new SimulatedLink(clock, window, conditions, () => random() / 256), window, clock };
}

/** Longest queue that is fine in steady state: what is wanted, with some room, and one marker's bytes. */
function queueMsAllowed({ bytesPerSecond }: LinkConditions, window: DeliveryWindow): number {
  return 2.5 * QUEUE_MS + (window.turnBytes / bytesPerSecond) * 1000;
}

const links: LinkConditions[] = [];
for (const mbit of [1, 20, 100, 1000]) {
  for (const roundTripMs of [0.2, 20, 100]) {
    for (const jitterMs of [0, 5]) links.push({ bytesPerSecond: mbit * MBIT, roundTripMs, jitterMs });
  }
}

const name = ({ bytesPerSecond, roundTripMs, jitterMs }: LinkConditions): string =>
  `${bytesPerSecond / MBIT} Mbit/s, round trip ${roundTripMs} ms, jitter ${jitterMs} ms`;

describe.each(links.map((link) => [name(link), link] as const))("%s:", (_name, conditions) => {
  test("the link is busy, the queue is short, rate and round trip are known", () => {
    const { link, window } = simulate(conditions);
    link.run(5000);
    const use = link.run(15_000);
    expect(use.utilisation).toBeGreaterThan(0.9);
    expect(use.queueMsMax).toBeLessThan(queueMsAllowed(conditions, window));
    expect(window.linkBytesPerSecond / conditions.bytesPerSecond).toBeGreaterThan(0.9);
    expect(window.linkBytesPerSecond / conditions.bytesPerSecond).toBeLessThan(1.25);
    const turnMs = (window.turnBytes / conditions.bytesPerSecond) * 1000;
    expect(window.roundTripMs).toBeGreaterThanOrEqual(conditions.roundTripMs);
    expect(window.roundTripMs).toBeLessThan(conditions.roundTripMs + conditions.jitterMs + 2 * turnMs);
  });
});

// At a tenth of 1 Mbit/s a single turn would be all there is to see.
const changing = links.filter(({ bytesPerSecond }) => bytesPerSecond > MBIT);

test.each(changing.map((link) => [name(link), link] as const))(
  "%s: shortened, the queue is shorter by most of what it may be, and the link as busy",
  (_name, conditions) => {
    const { link, window } = simulate(conditions);
    link.run(5000);
    const before = link.run(5000);
    const announcedBytes = window.shortBytes;
    window.shorten();
    link.run(1000);
    const use = link.run(5000);
    expect(use.queueMsMax).toBeLessThan(before.queueMsMax - (QUEUE_MS - SHORT_QUEUE_MS) / 2);
    expect(use.utilisation).toBeGreaterThan(before.utilisation - 0.02);
    expect(window.windowBytes).toBeLessThanOrEqual(announcedBytes * 1.25);
  },
);

test.each(changing.map((link) => [name(link), link] as const))(
  "%s: a link that becomes ten times slower is followed, and one that becomes faster",
  (_name, conditions) => {
    const { link, window } = simulate(conditions);
    link.run(10_000);
    link.conditions = { ...conditions, bytesPerSecond: conditions.bytesPerSecond / 10 };
    link.run(4000 + 10 * conditions.roundTripMs);
    // Time in the queue and on the line; what the link carries by itself comes on top.
    const slow = link.run(6000);
    expect(slow.utilisation).toBeGreaterThan(0.9);
    expect(slow.queueMsMax).toBeLessThan(queueMsAllowed(link.conditions, window) + 50);
    link.conditions = conditions;
    link.run(4000 + 10 * conditions.roundTripMs);
    const fast = link.run(6000);
    expect(fast.utilisation).toBeGreaterThan(0.9);
    expect(fast.queueMsMax).toBeLessThan(queueMsAllowed(link.conditions, window));
  },
);

// Where packets are lost all that is behind one waits for it: answers come late, and together. A window that were always
// wide enough for that would be a queue whenever nothing is lost.
test.each([
  [20, 0.001, 0.9],
  [20, 0.01, 0.9],
  [100, 0.001, 0.6],
  [100, 0.01, 0.6],
])(
  "a way of %s ms on which %s of the packets are lost is used by %s at least",
  (roundTripMs, lossShare, use) => {
    const { link } = simulate({ bytesPerSecond: 100 * MBIT, roundTripMs, jitterMs: 1, lossShare });
    link.run(15_000);
    expect(link.run(15_000).utilisation).toBeGreaterThan(use);
  },
);

test.each([
  [1, 16 * 1024],
  [1, 64 * 1024],
  [10, 64 * 1024],
  [100, 256 * 1024],
])(
  "what a token bucket of a link of %s Mbit/s lets through after silence is not taken for the link (%s bytes)",
  (mbit, bucketBytes) => {
    const conditions = { bytesPerSecond: mbit * MBIT, roundTripMs: 1, jitterMs: 0, bucketBytes };
    const { link, window } = simulate(conditions);
    link.run(10_000);
    let most = 0;
    // A guest of which little is left sends in bursts: what it has dirtied in each pass.
    for (let i = 0; i < 150; i++) {
      link.run(5 + (i % 7) * 10, conditions.bytesPerSecond * 3);
      link.run(100 + 10 * (i % 5), 1);
      most = Math.max(most, window.linkBytesPerSecond);
    }
    expect(most / conditions.bytesPerSecond).toBeLessThan(1.5);
  },
);

test("nor is what it saves up in many short pauses", () => {
  const conditions = { bytesPerSecond: MBIT, roundTripMs: 1, jitterMs: 0, bucketBytes: 16 * 1024 };
  const { link, window } = simulate(conditions);
  link.run(10_000);
  let most = 0;
  for (let i = 0; i < 2000; i++) {
    // As on a machine that has more to do than cores: now and then a few milliseconds late.
    link.run(20 + (i % 5) * 8);
    link.run(40 + (i % 3), 1);
    most = Math.max(most, window.linkBytesPerSecond);
  }
  expect(most / conditions.bytesPerSecond).toBeLessThan(1.5);
});

test("a link that became faster is found out about, also by a guest that sends little", () => {
  const slow = { bytesPerSecond: 0.25 * MBIT, roundTripMs: 1, jitterMs: 0 };
  const { link, window } = simulate(slow);
  link.run(10_000);
  expect(window.linkBytesPerSecond).toBeLessThan(1.5 * slow.bytesPerSecond);
  link.conditions = { ...slow, bytesPerSecond: 100 * MBIT };
  for (let i = 0; i < 1300; i++) {
    link.run(5, 1e6);
    link.run(95, 1);
  }
  expect(window.linkBytesPerSecond).toBeGreaterThan(5 * slow.bytesPerSecond);
});

test("nor do pauses of a sender that is busy with something else keep it from being found out", () => {
  const slow = { bytesPerSecond: 4 * MBIT, roundTripMs: 1, jitterMs: 0 };
  const { link, window } = simulate(slow);
  link.run(10_000);
  expect(window.linkBytesPerSecond).toBeLessThan(1.5 * slow.bytesPerSecond);
  link.conditions = { ...slow, bytesPerSecond: 400 * MBIT };
  for (let i = 0; i < 100; i++) {
    link.run(10);
    link.run(10, 1);
  }
  expect(window.linkBytesPerSecond).toBeGreaterThan(0.4 * 400 * MBIT);
});

test.each([
  [0.2, 0.6],
  [20, 0.6],
  [100, 0.6],
  [100, 0.8],
])(
  "over a way of %s ms who sends %s of what the link carries does not make it look slower",
  (roundTripMs, share) => {
    const conditions = { bytesPerSecond: 100 * MBIT, roundTripMs, jitterMs: 0 };
    const { link, window } = simulate(conditions);
    link.run(10_000);
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 50; i++) {
      link.run(100, share * conditions.bytesPerSecond);
      least = Math.min(least, window.linkBytesPerSecond);
    }
    expect(least / conditions.bytesPerSecond).toBeGreaterThan(0.9);
  },
);

test("in an hour of sending the window does not creep", () => {
  const conditions = { bytesPerSecond: 20 * MBIT, roundTripMs: 20, jitterMs: 8 };
  const { link, window } = simulate(conditions);
  link.run(10_000);
  for (let minute = 0; minute < 60; minute++) {
    const use = link.run(60_000);
    expect(use.queueMsMax).toBeLessThan(queueMsAllowed(conditions, window));
    expect(use.utilisation).toBeGreaterThan(0.95);
  }
});

describe.each([20, 100])("%i Mbit/s:", (mbit) => {
  test.each([
    [50, 40],
    [50, 100],
    [200, 40],
    [200, 80],
  ])(
    "a round trip of %i ms with answers up to %i ms late does not close the window",
    (roundTripMs, jitterMs) => {
      const conditions = { bytesPerSecond: mbit * MBIT, roundTripMs, jitterMs };
      const { link, window } = simulate(conditions);
      link.run(6000);
      expect(link.run(20_000).utilisation).toBeGreaterThan(0.8);
      conditions.jitterMs = 0;
      link.run(12_000);
      const use = link.run(10_000);
      expect(use.utilisation).toBeGreaterThan(0.9);
      expect(use.queueMsMax).toBeLessThan(queueMsAllowed(conditions, window) + 50);
    },
  );
});

// A machine with more to do than cores: who sends and who answers get to it late, whatever the link carries. Were that taken for
// the link, the window would shrink, and with it what gets across: in the end all of it waits for single answers.
describe.each([5, 50, 1000])("%i Mbit/s:", (mbit) => {
  test.each([
    [0.2, 60],
    [1, 100],
    [7, 300],
  ])(
    "a round trip of %d ms and ends that get to it up to %i ms late: the window stays open, and is as before soon after",
    (roundTripMs, asleepMsMax) => {
      const calm = { bytesPerSecond: mbit * MBIT, roundTripMs, jitterMs: 0, pieceBytesMin: 8258 };
      const { link, window } = simulate(calm);
      link.run(3000);
      link.conditions = { ...calm, asleepMsMax };
      link.run(60_000);
      expect(link.run(10_000).utilisation).toBeGreaterThan(0.4);
      expect(window.linkBytesPerSecond / calm.bytesPerSecond).toBeGreaterThan(0.4);
      link.conditions = calm;
      link.run(12_000);
      const use = link.run(10_000);
      expect(use.utilisation).toBeGreaterThan(0.9);
      expect(use.queueMsMax).toBeLessThan(queueMsAllowed(calm, window));
    },
  );

  test("what it was is known again as soon as it has turned out that it was not a queue", () => {
    let utilisation = 0;
    for (let seed = 1; seed <= 12; seed++) {
      const calm = { bytesPerSecond: mbit * MBIT, roundTripMs: 7, jitterMs: 0, pieceBytesMin: 8258 };
      const { link } = simulate(calm, seed);
      link.run(3000);
      link.conditions = { ...calm, asleepMsMax: 300 };
      utilisation += link.run(10_000).utilisation / 12;
    }
    expect(utilisation).toBeGreaterThan(0.25);
  });

  test("nor does it close where they have been late from the very start", () => {
    const conditions = {
      ...{ bytesPerSecond: mbit * MBIT, roundTripMs: 7, jitterMs: 0 },
      ...{ asleepMsMax: 200, pieceBytesMin: 8258 },
    };
    const { link, window } = simulate(conditions);
    link.run(40_000);
    expect(link.run(10_000).utilisation).toBeGreaterThan(0.4);
    expect(window.linkBytesPerSecond / conditions.bytesPerSecond).toBeGreaterThan(0.4);
  });
});

test("room that is made for late answers has a limit: it may be the queue of others in which they stand", () => {
  const conditions = { bytesPerSecond: 20 * MBIT, roundTripMs: 20, jitterMs: 300 };
  const { link, window } = simulate(conditions);
  link.run(30_000);
  for (let second = 0; second < 120; second++) {
    link.run(1000);
    const heldMs = (window.windowBytes / conditions.bytesPerSecond) * 1000;
    // Of answers that come so late, and some together, the rate is not seen closer than this.
    expect(heldMs).toBeLessThan(2 * (conditions.roundTripMs + LATENESS_MS_MAX + QUEUE_MS));
  }
});

test("a round trip that becomes longer is learned within three drains", () => {
  const conditions = { bytesPerSecond: 100 * MBIT, roundTripMs: 5, jitterMs: 1 };
  const { link, window } = simulate(conditions);
  link.run(10_000);
  conditions.roundTripMs = 60;
  link.run(16_000);
  expect(window.roundTripMs).toBeGreaterThan(60);
  expect(link.run(5000).utilisation).toBeGreaterThan(0.9);
});

test("a link that has carried all that was sent is not known; one that was filled is", () => {
  const { link, window } = simulate({ bytesPerSecond: 1000 * MBIT, roundTripMs: 1, jitterMs: 0 });
  link.run(3000, 0.05 * MBIT);
  expect(window.linkBytesPerSecond).toBeGreaterThan(0);
  expect(window.isLinkKnown).toBe(false);
  link.run(3000);
  expect(window.isLinkKnown).toBe(true);
  expect(window.linkBytesPerSecond / (1000 * MBIT)).toBeGreaterThan(0.9);
});

test("an answer that is late at the very start does not keep a fast link from being used", () => {
  for (const roundTripMs of [0.2, 1, 20]) {
    const conditions = { bytesPerSecond: 1000 * MBIT, roundTripMs, jitterMs: 0 };
    const { link, clock, window } = simulate(conditions);
    window.sent(1000);
    window.marked(false);
    clock.atMs += roundTripMs;
    window.acknowledged();
    window.sent(1000);
    window.marked(false);
    clock.atMs += roundTripMs + 2 * QUEUE_MS;
    window.acknowledged();
    link.run(4000);
    expect(link.run(4000).utilisation).toBeGreaterThan(0.95);
  }
});

test("answers that were held up and come in a bunch are not taken for a faster link", () => {
  const conditions = { bytesPerSecond: 100 * MBIT, roundTripMs: 0.2, jitterMs: 0 };
  const { link, window } = simulate(conditions);
  link.run(5000);
  for (let i = 0; i < 40; i++) {
    link.holdAnswers(40);
    expect(link.run(150).queueMsMax).toBeLessThan(queueMsAllowed(conditions, window));
    expect(window.linkBytesPerSecond / conditions.bytesPerSecond).toBeLessThan(1.6);
  }
});

test("a sender with little to say does not take itself for the link", () => {
  for (const roundTripMs of [0.2, 20, 100]) {
    const conditions = { bytesPerSecond: 100 * MBIT, roundTripMs, jitterMs: 2 };
    const { link, window } = simulate(conditions);
    link.run(5000);
    link.run(60_000, 0.02 * MBIT);
    expect(window.linkBytesPerSecond / conditions.bytesPerSecond).toBeGreaterThan(0.9);
    expect(window.linkBytesPerSecond / conditions.bytesPerSecond).toBeLessThan(1.6);
    expect(link.run(2000).utilisation).toBeGreaterThan(0.9);
  }
});

test("a sender whose connection is full although the window is not measures the link", () => {
  const clock = new SetClock();
  const window = new DeliveryWindow(clock);
  for (let i = 0; i < 400; i++) {
    window.sent(10_000);
    window.marked(true);
    clock.atMs += i < 200 ? 10 : 100;
    window.acknowledged();
  }
  expect(window.linkBytesPerSecond).toBeCloseTo(100_000, -3);
});

test("nothing is known before the first answer, and then at once", () => {
  const clock = new SetClock();
  const window = new DeliveryWindow(clock);
  expect([window.linkBytesPerSecond, window.roundTripMs, window.inFlightBytes]).toEqual([0, undefined, 0]);
  window.sent(20_000);
  window.marked(false);
  expect(window.hasRoom).toBe(true);
  window.sent(20_000);
  expect(window.hasRoom).toBe(false);
  clock.atMs = 10;
  window.acknowledged();
  expect([window.linkBytesPerSecond, window.roundTripMs, window.inFlightBytes]).toEqual([2e6, 10, 20_000]);
});

test("a link that stands still shows as a round trip that becomes longer and longer", () => {
  const conditions = { bytesPerSecond: 20 * MBIT, roundTripMs: 20, jitterMs: 5 };
  const { link, window, clock } = simulate(conditions);
  for (let i = 0; i < 100; i++) {
    link.run(97);
    if (i > 20) expect(window.currentRoundTripMs).toBe(window.roundTripMs);
  }
  clock.atMs += 1000;
  expect(window.currentRoundTripMs).toBeGreaterThan(1000);
  expect(window.roundTripMs).toBeLessThan(50);
});

test("several markers answered at once count as one, more than were set are our own mistake", () => {
  const clock = new SetClock();
  const window = new DeliveryWindow(clock);
  for (let i = 0; i < MARKERS_MAX; i++) {
    expect(window.mayMark).toBe(true);
    window.sent(100);
    window.marked(false);
  }
  expect(window.mayMark).toBe(false);
  expect(() => window.marked(false)).toThrow(/Assertion/);
  window.acknowledged(MARKERS_MAX - 1);
  expect([window.unansweredMarkers, window.inFlightBytes]).toEqual([1, 100]);
  expect(() => window.acknowledged(2)).toThrow(/Assertion/);
});

test("an outage says nothing about the link: rate, round trip and window are as they were", () => {
  const conditions = { bytesPerSecond: 20 * MBIT, roundTripMs: 20, jitterMs: 0 };
  const { link, window, clock } = simulate(conditions);
  link.run(10_000);
  const { linkBytesPerSecond, roundTripMs, windowBytes } = window;
  // One round of what is then on its way is lost, and sent again after the outage; some of it had arrived.
  const unanswered = window.unansweredMarkers;
  expect(unanswered).toBeGreaterThan(2);
  clock.atMs += 30_000;
  window.resumed(2);
  expect(window.unansweredMarkers).toBe(unanswered - 2);
  expect(window).toMatchObject({ linkBytesPerSecond, roundTripMs, windowBytes });
  expect(window.currentRoundTripMs).toBe(roundTripMs);
  // It is answered at the rate of the link, the round trip later.
  clock.atMs += 20;
  while (window.unansweredMarkers > 0) {
    window.acknowledged();
    clock.atMs += (window.turnBytes / conditions.bytesPerSecond) * 1000;
    expect(window.linkBytesPerSecond).toBeGreaterThan(0.9 * conditions.bytesPerSecond);
    expect(window.linkBytesPerSecond).toBeLessThan(1.2 * conditions.bytesPerSecond);
  }
  expect(window.roundTripMs).toBeLessThanOrEqual(20 + 1);
  expect(window.inFlightBytes).toBe(0);
});

test("the window has a limit", () => {
  const conditions = { bytesPerSecond: 1e12, roundTripMs: 1000, jitterMs: 0 };
  const { link, window } = simulate(conditions);
  link.run(5000);
  expect(window.windowBytes).toBeLessThanOrEqual(WINDOW_BYTES_MAX);
});

test("a rate that was once taken for too high is forgotten, although the sender now and then has room", () => {
  const clock = new SetClock();
  const window = new DeliveryWindow(clock);
  /** Fills the window (or leaves room in it) with one marker, which is answered after `ms`. */
  const round = (bytes: number, ms: number, linkIsFull: boolean) => {
    window.sent(bytes);
    window.marked(linkIsFull);
    clock.atMs += ms;
    window.acknowledged();
  };
  round(1_000_000, 20, true);
  expect(window.linkBytesPerSecond).toBeCloseTo(50e6, -6);
  // From now on 10 MB/s; every other marker goes out while there is room.
  for (let i = 0; i < 100; i++) round(200_000, 20, i % 2 === 0);
  expect(window.linkBytesPerSecond).toBeCloseTo(10e6, -6);
  // A sender with nothing but a few bytes to send says nothing about the link, for however long.
  for (let i = 0; i < 100; i++) round(100, 100, false);
  expect(window.linkBytesPerSecond).toBeCloseTo(10e6, -6);
});
