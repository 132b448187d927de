// What the page cache relies on, for every policy; then what is CLOCK's own.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ClockPolicy, type ReplacementPolicy } from "./replacement.ts";

const policies: { name: string; make: (slotCount: number) => ReplacementPolicy }[] = [
  { name: "CLOCK", make: (slotCount) => new ClockPolicy(slotCount) },
];

describe.each(policies)("the policy $name", ({ make }) => {
  test("always names an occupied slot, whatever happened before", () => {
    const steps = fc.array(fc.tuple(fc.constantFrom("insert", "touch", "remove", "evict"), fc.nat()), {
      maxLength: 300,
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), steps, (slotCount, list) => {
        const policy = make(slotCount);
        const occupied = new Set<number>();
        for (const [step, number] of list) {
          const slot = number % slotCount;
          if (step === "insert" && !occupied.has(slot)) {
            policy.inserted(slot);
            occupied.add(slot);
          } else if (step === "touch" && occupied.has(slot)) {
            policy.touched(slot);
          } else if (step === "remove" && occupied.delete(slot)) {
            policy.removed(slot);
          } else if (step === "evict" && occupied.size > 0) {
            const victim = policy.victim();
            expect(occupied.has(victim)).toBe(true);
            occupied.delete(victim);
            policy.removed(victim);
          }
        }
      }),
    );
  });

  test("names a victim again until it is removed, without running out", () => {
    const policy = make(3);
    for (const slot of [0, 1, 2]) policy.inserted(slot);
    for (let i = 0; i < 20; i++) {
      policy.touched(i % 3);
      expect([0, 1, 2]).toContain(policy.victim());
    }
  });
});

describe("CLOCK", () => {
  function evict(policy: ReplacementPolicy): number {
    const victim = policy.victim();
    policy.removed(victim);
    return victim;
  }

  test("goes round untouched pages in the order of their slots", () => {
    const policy = new ClockPolicy(3);
    for (const slot of [0, 1, 2]) policy.inserted(slot);
    expect([evict(policy), evict(policy), evict(policy)]).toEqual([0, 1, 2]);
  });

  test("passes a touched page once, and only once", () => {
    const policy = new ClockPolicy(3);
    for (const slot of [0, 1, 2]) policy.inserted(slot);
    policy.touched(0);
    expect([evict(policy), evict(policy), evict(policy)]).toEqual([1, 2, 0]);
  });

  test("finds a victim when every page was touched", () => {
    const policy = new ClockPolicy(3);
    for (const slot of [0, 1, 2]) {
      policy.inserted(slot);
      policy.touched(slot);
    }
    expect(evict(policy)).toBe(0);
  });

  test("a scan of pages that are never touched again does not push out those that are", () => {
    const policy = new ClockPolicy(10);
    for (let slot = 0; slot < 10; slot++) policy.inserted(slot);
    for (let i = 0; i < 1000; i++) {
      for (const hot of [0, 1, 2, 3]) policy.touched(hot);
      const victim = evict(policy);
      expect(victim).toBeGreaterThan(3);
      policy.inserted(victim);
    }
  });

  test("a victim of no pages at all is our own mistake", () => {
    expect(() => new ClockPolicy(0).victim()).toThrow(/Assertion/);
    expect(() => new ClockPolicy(4).victim()).toThrow(/Assertion/);
    expect(() => new ClockPolicy(4).touched(1)).toThrow(/Assertion/);
    expect(() => new ClockPolicy(4).removed(9)).toThrow(/Assertion/);
  });
});
