// When it is tried whether the link takes what a guest would have to wait for: where that may help, and no more often than it
// costs little.

import { expect, test } from "vitest";
import { Rehearsals } from "./rehearsals.ts";
import { estimateDowntimeMs, type SwitchoverFigures } from "./switchover.ts";

const GOAL_MS = 60;
/** Half of the goal by itself, and 30 kB that take 150 ms. */
const FIGURES: SwitchoverFigures = {
  remainingBytes: 400_000,
  wireBytesPerGuestByte: 0.025,
  handoverBytesPerSecond: 200e6,
  queuedBytes: 0,
  shortQueueBytes: 4000,
  linkBytesPerSecond: 200_000,
  roundTripMs: 2,
  roundTrips: 1.5,
  deviceStateBytes: 20_000,
  fixedMs: 20,
};

/** When, and with how many bytes, in so many milliseconds. */
function rehearsed(ms: number, figures: (nowMs: number) => SwitchoverFigures): [number, number][] {
  const rehearsals = new Rehearsals(GOAL_MS);
  const all: [number, number][] = [];
  for (let nowMs = 0; nowMs < ms; nowMs += 20) {
    const bytes = rehearsals.due(figures(nowMs), nowMs);
    if (bytes === undefined) continue;
    all.push([nowMs, bytes]);
    rehearsals.sent(bytes, figures(nowMs), nowMs);
  }
  return all;
}

test("a second after the goal was first missed by what is known of the link it is tried, with more than what would have to cross", () => {
  const [first] = rehearsed(5000, () => FIGURES);
  expect(first![0]).toBe(1000);
  expect(first![1]).toBeGreaterThan(30_000);
  expect(first![1]).toBeLessThan(60_000);
});

test("what went through is enough to release the guest", () => {
  const [[, bytes]] = rehearsed(1100, () => FIGURES) as [[number, number]];
  expect(estimateDowntimeMs({ ...FIGURES, proof: { bytes, answeredMs: 9 } })).toBeLessThan(GOAL_MS);
});

test("it is tried more and more rarely as long as it does not help, and keeps the link busy for a tenth of the time at most", () => {
  const all = rehearsed(600_000, () => FIGURES);
  const gaps = all.slice(1).map(([atMs], i) => atMs - all[i]![0]);
  expect(Math.max(...gaps)).toBeGreaterThanOrEqual(30_000);
  expect(gaps).toEqual([...gaps].sort((a, b) => a - b));
  const bytes = all.reduce((sum, [, each]) => sum + each, 0);
  expect(bytes / FIGURES.linkBytesPerSecond).toBeLessThan(60);
});

test("what has helped is tried again as soon as it is forgotten, by a guest of which too much was left meanwhile", () => {
  let provenMs = Number.NEGATIVE_INFINITY;
  const rehearsals = new Rehearsals(GOAL_MS);
  const all: number[] = [];
  for (let nowMs = 0; nowMs < 60_000; nowMs += 20) {
    const proof = nowMs - provenMs < 5000 ? { bytes: 60_000, answeredMs: 9 } : undefined;
    const bytes = rehearsals.due({ ...FIGURES, proof }, nowMs);
    if (bytes === undefined) continue;
    all.push(nowMs);
    provenMs = nowMs;
    rehearsals.sent(bytes, FIGURES, nowMs);
  }
  expect(all.length).toBeGreaterThanOrEqual(11);
});

test("over a link on which it takes a second and more it is not sent again for ten times as long, however it has helped", () => {
  const slow = { ...FIGURES, linkBytesPerSecond: 30_000 };
  const [first, second] = rehearsed(60_000, (nowMs) => {
    const isProven = nowMs > 1000 && nowMs < 2000;
    return { ...slow, proof: isProven ? { bytes: 60_000, answeredMs: 9 } : undefined };
  });
  expect(second![0] - first![0]).toBeGreaterThanOrEqual(15_000);
});

test.each<[string, Partial<SwitchoverFigures>]>([
  ["the goal is met", { linkBytesPerSecond: 5e6 }],
  ["nothing is known of the link, which keeps nobody", { linkBytesPerSecond: 0 }],
  ["it is not the link that the goal is missed for", { roundTripMs: 40 }],
  ["pages would wait for it for seconds", { remainingBytes: 40e6 }],
  [
    "it is more than can be sent for that",
    { remainingBytes: 100e6, linkBytesPerSecond: 10e6, handoverBytesPerSecond: 4e9 },
  ],
])("nothing is tried where %s", (_why, figures) => {
  expect(rehearsed(60_000, () => ({ ...FIGURES, ...figures }))).toEqual([]);
});
