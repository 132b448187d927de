// Watching a guest, when looking at it does not always work.

import { expect, test } from "vitest";
import { modelOf } from "../../../test/support/guest-model.ts";
import { planMigration } from "../../planner/forecast.ts";
import { bestLine, momentLine, watchGuest } from "./watch.ts";

const busy = modelOf({ hotPages: 40_000, changesPerSecond: 3 });
const calm = modelOf();
const LINK = { bytesPerSecond: 12.5e6, roundTripMs: 1, lossShare: 0 };

/** What is said of looks that find these guests, or fail; the hour says which look it was. */
async function watched(
  looks: readonly (typeof busy | "fails")[],
): Promise<{ said: string[]; error?: Error }> {
  const said: string[] = [];
  let [hour, look] = [0, 0];
  const run = watchGuest({
    look: async () => {
      const found = looks[look++]!;
      if (found === "fails") throw new Error("the monitor does not answer");
      return found;
    },
    plan: (guest) => planMigration({ guest, link: LINK, downtimeMsMax: 300, methods: ["tunnel"] }),
    now: () => new Date(Date.UTC(2026, 0, 1, hour++)),
    show: (moment) => said.push(momentLine(moment)),
    showFailure: (at, message) => said.push(`${at.toISOString()} ${message}`),
    showBest: (moment) => said.push(bestLine(moment)),
    wait: async () => look < looks.length,
  });
  return run.then(
    () => ({ said }),
    (error) => ({ said, error }),
  );
}

test("the best moment is that of the shortest migration", async () => {
  const { said, error } = await watched([busy, calm, busy]);
  expect(error).toBeUndefined();
  expect(said).toHaveLength(4);
  expect(said.at(-1)).toMatch(/^Best moment: 2026-01-01T01:00:00.000Z \(tunnel: /);
});

test("a look that fails is told of, and loses nothing of what was seen before", async () => {
  const { said, error } = await watched([calm, "fails", busy]);
  expect(error).toBeUndefined();
  expect(said[1]).toBe("2026-01-01T01:00:00.000Z the monitor does not answer");
  expect(said.at(-1)).toContain("Best moment: 2026-01-01T00");
});

test("a guest that cannot be looked at any more ends it, with the best moment so far", async () => {
  const { said, error } = await watched([calm, ...Array.from({ length: 9 }, () => "fails" as const)]);
  expect(error?.message).toBe("the monitor does not answer");
  expect(said).toHaveLength(6);
  expect(said.at(-1)).toContain("Best moment: 2026-01-01T00");
});

test("failures that are not in a row do not end it", async () => {
  const looks = Array.from({ length: 12 }, () => [calm, "fails" as const, "fails" as const]).flat();
  expect((await watched(looks)).error).toBeUndefined();
});

test("a guest that cannot be looked at at all is an error at once", async () => {
  const { said, error } = await watched(["fails", calm]);
  expect(error?.message).toBe("the monitor does not answer");
  expect(said).toEqual([]);
});
