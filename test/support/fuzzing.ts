// What the fuzz tests have in common: how many inputs each tries, and that it is known afterwards how many there were,
// from which seed, and what memory and CPU time they took. FUZZ_RUNS: inputs for each property; FUZZ_SEED: where they begin;
// FUZZ_REPORT: a file to which each test file appends one line of JSON (scripts/fuzz.mjs adds them up).

import { appendFileSync } from "node:fs";
import fc from "fast-check";
import { afterAll } from "vitest";

const asked = process.env.FUZZ_RUNS;
const seed = process.env.FUZZ_SEED === undefined ? undefined : Number(process.env.FUZZ_SEED);
const residentBytesBefore = process.memoryUsage.rss();
const cpuBefore = process.cpuUsage();
let inputs = 0;

/** What a property tries: few in the tests of every day. */
export function fuzzRuns(everyDay: number): number {
  return asked === undefined ? everyDay : Number(asked);
}

/** fc.assert, counted. A failure names seed and path as ever. */
export function fuzz<Input>(property: fc.IProperty<Input>, params: { numRuns: number }): void {
  fc.assert(property, { ...withSeed(params), reporter: count });
}

/** The same for what has to be waited for. */
export async function fuzzAsync<Input>(
  property: fc.IAsyncProperty<Input>,
  params: { numRuns: number },
): Promise<void> {
  await fc.assert(property, { ...withSeed(params), asyncReporter: async (details) => count(details) });
}

/** Bytes that were valid, with some of them changed, dropped and inserted; most where headers are. */
export function mutated(valid: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Uint8Array> {
  const edit = fc.record({
    where: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    nearBeginning: fc.boolean(),
    dropBytes: fc.nat(4),
    insert: fc.uint8Array({ maxLength: 4 }),
  });
  return fc
    .tuple(valid, fc.array(edit, { minLength: 1, maxLength: 4 }))
    .map(([bytes, edits]) => edits.reduce(applied, bytes));
}

function applied(
  bytes: Uint8Array,
  edit: { where: number; nearBeginning: boolean; dropBytes: number; insert: Uint8Array },
): Uint8Array {
  const reach = edit.nearBeginning ? Math.min(24, bytes.length) : bytes.length;
  const at = Math.floor(edit.where * reach);
  return Buffer.concat([bytes.subarray(0, at), edit.insert, bytes.subarray(at + edit.dropBytes)]);
}

function withSeed<Params extends object>(params: Params): Params & { seed?: number } {
  return seed === undefined ? params : { ...params, seed };
}

function count<Input>(details: fc.RunDetails<Input>): void {
  inputs += details.numRuns;
  if (details.failed) throw new Error(fc.defaultReportMessage(details), { cause: details.errorInstance });
}

afterAll(() => {
  if (process.env.FUZZ_REPORT === undefined) return;
  const grownBytes = process.memoryUsage.rss() - residentBytesBefore;
  const { user, system } = process.cpuUsage(cpuBefore);
  const cpuSeconds = (user + system) / 1e6;
  appendFileSync(process.env.FUZZ_REPORT, `${JSON.stringify({ inputs, grownBytes, cpuSeconds })}\n`);
});
