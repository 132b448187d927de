// What V8 does with a function that is called very often: nothing meanwhile, the usual afterwards. This file has a process of
// its own, since flags of V8 hold for all of it.

import { setFlagsFromString } from "node:v8";
import { expect, test } from "vitest";
import { unoptimized } from "./unoptimized.ts";

const CALLS = 20_000;
const ROUNDS_MAX = 1000;
/** Bit of %GetOptimizationStatus (V8's runtime.h, OptimizationStatus::kOptimized). */
const OPTIMIZED = 1 << 4;

setFlagsFromString("--allow-natives-syntax");
const isOptimized = new Function("f", `return (%GetOptimizationStatus(f) & ${OPTIMIZED}) !== 0`) as (
  f: unknown,
) => boolean;

/** Another function each time. */
const makeHot = () => new Function("n", "let s = 0; for (let i = 0; i < n; i++) s += i; return s");

/** Optimised within so many calls? The compiler works beside us. */
async function becomesOptimized(f: ReturnType<typeof makeHot>, rounds: number): Promise<boolean> {
  for (let round = 0; round < rounds && !isOptimized(f); round++) {
    for (let call = 0; call < CALLS; call++) f(10);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return isOptimized(f);
}

test("what is called often stays as it is while the work is done, and no longer", async () => {
  const during = await unoptimized(() => becomesOptimized(makeHot(), 50));
  expect(during).toBe(false);
  expect(await becomesOptimized(makeHot(), ROUNDS_MAX)).toBe(true);
});

test("work that fails says so, and leaves the optimiser as it was", async () => {
  await expect(unoptimized(() => Promise.reject(new Error("no guest")))).rejects.toThrow("no guest");
  expect(await becomesOptimized(makeHot(), ROUNDS_MAX)).toBe(true);
});
