// Many guests over one link.

import { describe, expect, test } from "vitest";
import { modelOf } from "../../test/support/guest-model.ts";
import { seeded } from "../base/seeded.ts";
import { bestFleetPlan, type FLEET_ORDERS, type FleetGuest, simulateFleet } from "./fleet.ts";
import { randomFleet } from "./kinds.ts";

const LINK = { bytesPerSecond: 1.25e9, roundTripMs: 1, lossShare: 0 };
const idle = (name: string, gib = 1): FleetGuest => ({ name, guest: modelOf({ pages: gib * 2 ** 18 }) });
const simulate = (guests: FleetGuest[], concurrent: number, order: (typeof FLEET_ORDERS)[number] = "given") =>
  simulateFleet({ guests, link: LINK, method: "vanilla", downtimeMsMax: 300, order, concurrent });

describe("a fleet", () => {
  test("moves every guest once, never more than so many at a time", () => {
    const guests = randomFleet(40, 2 ** 36, seeded(5));
    for (const concurrent of [1, 3, 16]) {
      const { members } = simulate(guests, concurrent);
      expect(members.map(({ name }) => name).sort()).toEqual(guests.map(({ name }) => name).sort());
      for (const { startMs } of members) {
        const under = members.filter((each) => each.startMs <= startMs && each.endMs > startMs + 500);
        expect(under.length).toBeLessThanOrEqual(concurrent);
      }
    }
  });

  test("shares the link: two at a time take as long as one after the other", () => {
    const [one, two] = [
      simulate([idle("a", 16), idle("b", 16)], 1),
      simulate([idle("a", 16), idle("b", 16)], 2),
    ];
    expect(two.totalMs / one.totalMs).toBeCloseTo(1, 1);
    expect(two.members[0]!.endMs).toBeGreaterThan(one.members[0]!.endMs * 1.5);
  });

  test("goes by the order that was asked for", () => {
    const guests = [idle("middle", 8), idle("large", 32), idle("small", 1)];
    const names = (order: (typeof FLEET_ORDERS)[number]) =>
      simulate(guests, 1, order).members.map(({ name }) => name);
    expect(names("smallest-first")).toEqual(["small", "middle", "large"]);
    expect(names("largest-first")).toEqual(["large", "middle", "small"]);
    expect(names("given")).toEqual(["middle", "large", "small"]);
  });

  test("of 200 guests of mixed kinds, up to 1 TiB, is planned over one link of 10 Gbit/s, the same every time", () => {
    const evacuation = (seed: number) => {
      const guests = randomFleet(200, 2 ** 40, seeded(seed));
      return bestFleetPlan({ guests, link: LINK, method: "tunnel", downtimeMsMax: 300 }, [4]);
    };
    const [plan, again, another] = [evacuation(1), evacuation(1), evacuation(2)];
    expect(plan).toEqual(again);
    expect(plan).not.toEqual(another);
    const { members, totalMs } = plan[0]!.outcome;
    expect(members).toHaveLength(200);
    expect(randomFleet(200, 2 ** 40, seeded(1)).some(({ guest }) => guest.pages === 2 ** 28)).toBe(true);
    // No faster than the link: what all of them put on it.
    const bytes = members.reduce((sum, { outcome }) => sum + outcome.wireBytes, 0);
    expect(totalMs).toBeGreaterThan((bytes / LINK.bytesPerSecond) * 1000);
  });

  test("of the same seed is the same, and the best plan leaves the fewest that do not converge", () => {
    const plans = () =>
      bestFleetPlan(
        { guests: randomFleet(30, 2 ** 38, seeded(9)), link: LINK, method: "tunnel", downtimeMsMax: 300 },
        [1, 4],
      );
    expect(plans()).toEqual(plans());
    const failing = plans().map(
      ({ outcome }) => outcome.members.filter((each) => !each.outcome.converges).length,
    );
    expect(failing).toEqual([...failing].sort((a, b) => a - b));
  });
});
