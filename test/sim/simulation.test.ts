// Ten thousand simulated migrations in which something goes wrong, and engines that are broken on purpose.

import { spawn, spawnSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { PACKAGE_ROOT } from "../support/package-root.ts";
import { MUTATIONS } from "./mutations.ts";
import { simulate } from "./simulation.ts";
import { type Counts, type Failure, MINIMUM_COUNTS, sumOf } from "./statistics.ts";

const SEEDS = 10_000;
const SEEDS_TO_CATCH = 100;
const PROCESSES_MAX = 4;

describe("a broken engine is caught within 100 seeds", () => {
  test.each(MUTATIONS)("$name", async ({ begin, sabotage = {} }) => {
    const undo = begin?.();
    let rule: string | undefined;
    try {
      for (let seed = 1; seed <= SEEDS_TO_CATCH && rule === undefined; seed++) {
        rule = (await simulate(seed, { sabotage })).violations[0]?.rule;
      }
    } finally {
      undo?.();
    }
    expect(rule).toBeDefined();
  });
});

test("a seed is the same migration every time", async () => {
  const logOf = async (seed: number) => {
    const lines: string[] = [];
    await simulate(seed, { log: (line) => lines.push(line) });
    return lines;
  };
  for (let seed = 1; seed <= 20; seed++) {
    const first = await logOf(seed);
    expect(first.length).toBeGreaterThan(5);
    expect(await logOf(seed)).toEqual(first);
  }
});

test("ten thousand migrations in which something goes wrong: one guest, the right one, and true words", async () => {
  const tsc = join(PACKAGE_ROOT, "node_modules/typescript/bin/tsc");
  spawnSync(process.execPath, [tsc, "-p", "tsconfig.tools.json"], { cwd: PACKAGE_ROOT, stdio: "inherit" });
  const processes = Math.min(PROCESSES_MAX, availableParallelism());
  const seedsEach = Math.ceil(SEEDS / processes);
  const parts = await Promise.all(
    Array.from({ length: processes }, (_, i) => seedsFrom(1 + i * seedsEach, seedsEach)),
  );
  const counts = sumOf(parts.map((part) => part.counts));
  console.log(
    Object.entries(counts)
      .map(([name, count]) => `${name}: ${count}`)
      .join("\n"),
  );
  const failures = parts.flatMap((part) => part.failures);
  const replays = failures.map(({ seed, rule }) => `${rule}: npm run sim -- --seed ${seed}`);
  expect(replays).toEqual([]);
  for (const [name, minimum] of Object.entries(MINIMUM_COUNTS))
    expect(counts[name] ?? 0, `cases of "${name}"`).toBeGreaterThanOrEqual(minimum);
});

function seedsFrom(from: number, count: number): Promise<{ counts: Counts; failures: Failure[] }> {
  const program = join(PACKAGE_ROOT, "build/test/sim/main.js");
  const child = spawn(process.execPath, [program, "--json", "--seeds", `${count}`, "--from", `${from}`], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  return new Promise((resolve, reject) => {
    let output = "";
    child.stdout.on("data", (text: Buffer) => {
      output += text.toString();
    });
    child.on("error", reject);
    child.on("close", (code) => {
      if (output === "") reject(new Error(`the simulation ended with code ${code}`));
      else resolve(JSON.parse(output) as { counts: Counts; failures: Failure[] });
    });
  });
}
