// What a plan says to people of writes that nobody has counted.

import { expect, test } from "vitest";
import { modelOf } from "../../../test/support/guest-model.ts";
import { planMigration } from "../../planner/forecast.ts";
import type { GuestModel } from "../../planner/guest-model.ts";
import { planText } from "./text.ts";

const LINK = { bytesPerSecond: 12.5e6, roundTripMs: 20, lossShare: 0 };
const METHODS = ["vanilla", "tunnel"] as const;

function textOf(guest: GuestModel): string {
  return planText(guest, LINK, planMigration({ guest, link: LINK, downtimeMsMax: 300, methods: METHODS }));
}

test("what is rewritten alike is said not to be counted, and how much of it pre-copy bears", () => {
  const guest = modelOf({ hotPages: 1000, changesPerSecond: 1 });
  const text = textOf({ ...guest, rewrittenIsKnown: false });
  expect(text).toMatch(/^rewritten alike +not counted here/m);
  const [, room] = /bears about ([\d,]+) such pages\/s/.exec(text)!;
  // The link carries some 2900 whole pages a second, and some 630 change.
  expect(Number(room!.replace(",", ""))).toBeGreaterThan(2000);
  expect(Number(room!.replace(",", ""))).toBeLessThan(2500);
  const vanilla = (rewrittenPagesPerSecond: number) =>
    textOf({ ...guest, rewrittenPagesPerSecond, rewrittenIsKnown: true });
  expect(vanilla(1000)).toMatch(/^QEMU: pre-copy +yes/m);
  expect(vanilla(4000)).toMatch(/^QEMU: pre-copy +no/m);
  expect(vanilla(4000)).toMatch(/^Deltavee: tunnel +yes/m);
});

test("a guest for which pre-copy is too slow anyway bears none", () => {
  const guest = modelOf({ hotPages: 50_000, changesPerSecond: 1 });
  expect(textOf({ ...guest, rewrittenIsKnown: false })).toContain("does not keep up even without them");
});

test("what was counted, or assumed, is said as a rate", () => {
  const guest = modelOf({ rewrittenPagesPerSecond: 1234 });
  for (const text of [textOf(guest), textOf({ ...guest, rewrittenIsKnown: true })]) {
    expect(text).toMatch(/^rewritten alike +1,234 pages\/s/m);
    expect(text).not.toContain("Not counted");
  }
});
