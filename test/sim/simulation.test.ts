// Ten thousand simulated migrations in which something goes wrong, and engines that are broken on purpose.

import { describe, expect, test } from "vitest";
import { MUTATIONS } from "./mutations.ts";
import { simulate } from "./simulation.ts";

const SEEDS_TO_CATCH = 100;

describe("a broken engine is caught within 100 seeds", () => {
  test.each(MUTATIONS)("$name", async ({ begin, sabotage = {} }) => {
    const undo = begin?.();
    let rule: string | undefined;
    try {
      for (let seed = 1; seed <= SEEDS_TO_CATCH && rule === undefined; seed++) {
        rule = (await simulate(seed, { sabotage })).violations[0]?.rule;
        if (rule !== undefined) console.log(`seed ${seed}: ${rule}`);
      }
    } finally {
      undo?.();
    }
    expect(rule).toBeDefined();
  });
});
