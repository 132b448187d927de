// Turns on a shared link, without a link: who is next, and what each has got after many turns.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FairSchedule, type Flow, WEIGHT_MAX, WEIGHT_MIN } from "./fair-schedule.ts";

const PIECE_BYTES_MAX = 4096;

interface Sender extends Flow {
  sentBytes: number;
}

function sender(weight: number, isReady = true): Sender {
  return { weight, isReady, finish: 0, sentBytes: 0 };
}

function scheduleOf(senders: readonly Sender[]): FairSchedule<Sender> {
  const schedule = new FairSchedule<Sender>();
  for (const each of senders) schedule.add(each);
  return schedule;
}

function turn(schedule: FairSchedule<Sender>, bytes: number): Sender | undefined {
  const next = schedule.next();
  if (next === undefined) return undefined;
  schedule.sent(next, bytes);
  next.sentBytes += bytes;
  return next;
}

const weights = fc.array(fc.double({ min: 0.1, max: 50, noNaN: true }), { minLength: 1, maxLength: 12 });

describe("a fair schedule", () => {
  test("gives nobody a turn who is not ready, and none to nobody", () => {
    const schedule = scheduleOf([sender(1, false), sender(2, false)]);
    expect(schedule.next()).toBeUndefined();
  });

  test("among those that always have something to send, nobody is more than a piece from its share", () => {
    fc.assert(
      fc.property(weights, fc.array(fc.nat(PIECE_BYTES_MAX - 1), { minLength: 1 }), (given, sizes) => {
        const senders = given.map((weight) => sender(weight));
        const schedule = scheduleOf(senders);
        for (let i = 0; i < 2000; i++) turn(schedule, 1 + sizes[i % sizes.length]!);
        // Goyal et al., theorem 1: what two have got by weight differs by no more than a piece of each.
        for (const a of senders) {
          for (const b of senders) {
            const apart = Math.abs(a.sentBytes / a.weight - b.sentBytes / b.weight);
            expect(apart).toBeLessThanOrEqual(
              (PIECE_BYTES_MAX / a.weight + PIECE_BYTES_MAX / b.weight) * 1.0001,
            );
          }
        }
      }),
    );
  });

  test("one that comes, or comes back, neither catches up on what it has missed nor waits for the others", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5000 }), (turnsAlone) => {
        const [early, late] = [sender(1), sender(1, false)];
        const schedule = scheduleOf([early, late]);
        for (let i = 0; i < turnsAlone; i++) turn(schedule, PIECE_BYTES_MAX);
        late.isReady = true;
        const before = early.sentBytes;
        for (let i = 0; i < 100; i++) turn(schedule, PIECE_BYTES_MAX);
        expect(Math.abs(early.sentBytes - before - late.sentBytes)).toBeLessThanOrEqual(2 * PIECE_BYTES_MAX);
      }),
    );
  });

  test("one that is away for less than the slack gets its share all the same, one that stays away does not", () => {
    const afterAbsence = (turnsAway: number) => {
      const [always, at] = [sender(1), sender(1)];
      const schedule = new FairSchedule<Sender>(10 * PIECE_BYTES_MAX);
      schedule.add(always);
      schedule.add(at);
      for (let i = 0; i < 10; i++) turn(schedule, PIECE_BYTES_MAX);
      at.isReady = false;
      for (let i = 0; i < turnsAway; i++) turn(schedule, PIECE_BYTES_MAX);
      at.isReady = true;
      for (let i = 0; i < 100; i++) turn(schedule, PIECE_BYTES_MAX);
      return (always.sentBytes - at.sentBytes) / PIECE_BYTES_MAX;
    };
    expect(Math.abs(afterAbsence(4))).toBeLessThanOrEqual(2);
    // Ten turns of both are five of its own.
    expect(afterAbsence(100)).toBeGreaterThan(100 - 5 - 2);
    expect(afterAbsence(100)).toBeLessThan(100 - 5 + 2);
  });

  test("the lightest there may be has its turn beside the heaviest", () => {
    const [light, heavy] = [sender(WEIGHT_MIN), sender(WEIGHT_MAX)];
    const schedule = scheduleOf([heavy, light]);
    turn(schedule, PIECE_BYTES_MAX);
    expect(turn(schedule, PIECE_BYTES_MAX)).toBe(light);
    let turns = 0;
    while (turn(schedule, PIECE_BYTES_MAX) === heavy) turns++;
    expect(turns).toBeGreaterThan(999_000);
    expect(turns).toBeLessThan(1_001_000);
  });

  test("one that has left is not asked again", () => {
    const [a, b] = [sender(1), sender(1)];
    const schedule = scheduleOf([a, b]);
    schedule.remove(a);
    for (let i = 0; i < 10; i++) expect(turn(schedule, 1)).toBe(b);
    expect(schedule.size).toBe(1);
  });

  test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY, WEIGHT_MAX * 2])("no weight of %s", (weight) => {
    expect(() => scheduleOf([sender(weight)])).toThrow("weight");
  });
});
