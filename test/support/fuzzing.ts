// What the fuzz tests have in common: inputs made of valid ones by damage, how many each tries, and that it is known
// afterwards how many there were, from which seed, and what memory and CPU time they took. One input is one byte string
// that is given to what is tested. FUZZ_RUNS: inputs for each property; FUZZ_SEED: where they begin; FUZZ_REPORT: a file
// to which each test file appends one line of JSON (scripts/fuzz.mjs adds them up).
//
// Guided by what came of it: an input whose outcome was not seen before is damaged further. No shrinking and no
// description of what an input may be, as property tests have them: most of the time is the parser's.

import { appendFileSync } from "node:fs";
import { afterAll } from "vitest";
import { Random } from "../sim/random.ts";
import { mutated, randomInput } from "./mutation.ts";

const asked = process.env.FUZZ_RUNS;
const seed = Number(process.env.FUZZ_SEED ?? 1);
const residentBytesBefore = process.memoryUsage.rss();
const cpuBefore = process.cpuUsage();
let inputs = 0;

/** One of so many inputs is of random bytes alone, or generated. */
const RANDOM_EVERY = 16;
/** Inputs that led to something new. */
const FOUND_MAX = 2000;
const FOUND_BYTES_MAX = 32 * 1024 * 1024;
/** Kinds of outcomes that are told apart. */
const OUTCOMES_MAX = 5000;
/** A failing input is made smaller in so many attempts at most. */
const SHRINK_MAX = 4000;

export interface FuzzInputs {
  /** What is damaged. Empty: nothing is. */
  readonly seeds: readonly Uint8Array[];
  readonly runs: number;
  /** Where damage is wanted most, as offsets into each of the seeds (headers between contents); else near both ends. */
  readonly places?: readonly (readonly number[])[];
  /** What may be put in: words of a language of text. */
  readonly words?: readonly string[];
  /** Inputs of random bytes alone; default 400. */
  readonly randomBytesMax?: number;
  /** What is made instead of random bytes alone. */
  readonly generate?: (random: Random) => Uint8Array;
}

/** Throws where something does not hold. What it returns is the outcome: where that is new, the input is kept. */
export type Check = (bytes: Uint8Array, random: Random) => string | number | undefined;

/** Fails if anything thrown is not of these: what a test wants is told by its type. */
export type AsyncCheck = (bytes: Uint8Array, random: Random) => Promise<string | number | undefined>;

/** What JSON is made of, and what programs stumble over. */
export const JSON_WORDS: readonly string[] = [
  ...["{", "}", "[", "]", ":", ",", '"', "\r\n", "\n"],
  ...["null", "true", "-0", "1e999"],
];

/** What a property tries: few in the tests of every day. */
export function fuzzRuns(everyDay: number): number {
  return asked === undefined ? everyDay : Number(asked);
}

/** `what` tells the properties of one file apart, so that each has inputs of its own. */
export function fuzz(what: string, options: FuzzInputs, check: Check): void {
  const source = new InputSource(what, options);
  for (let run = 0; run < options.runs; run++) {
    const bytes = source.next();
    try {
      source.came(check(bytes, source.randomOfInput()));
    } catch (thrown) {
      const fails = (smaller: Uint8Array): boolean => {
        try {
          check(smaller, source.randomOfInput());
          return false;
        } catch {
          return true;
        }
      };
      throw source.failure(run, smallest(bytes, fails), thrown);
    }
  }
  inputs += options.runs;
}

/** The same for what has to be waited for; what fails is not made smaller. */
export async function fuzzAsync(what: string, options: FuzzInputs, check: AsyncCheck): Promise<void> {
  const source = new InputSource(what, options);
  for (let run = 0; run < options.runs; run++) {
    const bytes = source.next();
    try {
      source.came(await check(bytes, source.randomOfInput()));
    } catch (thrown) {
      throw source.failure(run, bytes, thrown);
    }
  }
  inputs += options.runs;
}

/** For what must hold of each input: `expect` takes longer than most parsers do. */
export function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(`It does not hold that ${what}`);
}

/** In what pieces an input comes: mostly few, now and then byte by byte. */
export function pieceBytes(random: Random, bytesMax: number): number {
  return Math.ceil(random.chance(0.05) ? random.magnitude(0.5, 16) : random.magnitude(16, bytesMax));
}

/** An error's message without what differs from input to input: one outcome for each check that refuses. */
export function outcomeOf(message: string): string {
  return message.replace(/"[^"]*"|0x[0-9a-f]+|\d+/g, "#").slice(0, 80);
}

interface Parent {
  readonly bytes: Uint8Array;
  readonly places: readonly number[];
}

class InputSource {
  readonly #options: FuzzInputs;
  readonly #random: Random;
  readonly #parents: Parent[];
  readonly #outcomes = new Set<string | number>();
  readonly #seeds: number;
  #foundBytes = 0;
  #latest: Parent = { bytes: new Uint8Array(), places: [] };
  #inputSeed = 0;

  constructor(what: string, options: FuzzInputs) {
    this.#options = options;
    let hash = seed;
    for (let i = 0; i < what.length; i++) hash = Math.imul(hash, 31) + what.charCodeAt(i);
    this.#random = new Random(hash);
    this.#parents = options.seeds.map((bytes, i) => ({ bytes, places: options.places?.[i] ?? [] }));
    this.#seeds = this.#parents.length;
  }

  next(): Uint8Array {
    const random = this.#random;
    this.#inputSeed = random.bits();
    if (this.#parents.length === 0 || this.#inputSeed % RANDOM_EVERY === 0) {
      const { generate, randomBytesMax = 400 } = this.#options;
      this.#latest = { bytes: generate?.(random) ?? randomInput(random, randomBytesMax), places: [] };
    } else {
      // As often what was valid as what was found.
      const parents = this.#parents;
      const count = this.#seeds > 0 && random.chance(0.5) ? this.#seeds : parents.length;
      const { bytes, places } = parents[random.int(0, count - 1)]!;
      const other = parents[random.int(0, count - 1)]!.bytes;
      this.#latest = { bytes: mutated(bytes, { random, other, places, words: this.#options.words }), places };
    }
    return this.#latest.bytes;
  }

  /** For whatever else a check varies: the same for the same input. */
  randomOfInput(): Random {
    return new Random(this.#inputSeed);
  }

  came(outcome: string | number | undefined): void {
    if (outcome === undefined || this.#outcomes.has(outcome) || this.#outcomes.size >= OUTCOMES_MAX) return;
    this.#outcomes.add(outcome);
    this.#foundBytes += this.#latest.bytes.length;
    const hasRoom = this.#parents.length - this.#seeds < FOUND_MAX && this.#foundBytes <= FOUND_BYTES_MAX;
    if (hasRoom) this.#parents.push(this.#latest);
  }

  failure(run: number, bytes: Uint8Array, cause: unknown): Error {
    const base64 = Buffer.from(bytes).toString("base64");
    return new Error(`Input ${run} of seed ${seed} fails (${bytes.length} bytes, base64): ${base64}`, {
      cause,
    });
  }
}

/** Leaves out what can be left out. */
function smallest(bytes: Uint8Array, fails: (bytes: Uint8Array) => boolean): Uint8Array {
  let attempts = 0;
  for (let piece = bytes.length >> 1; piece >= 1; piece >>= 1) {
    for (let at = 0; at < bytes.length && attempts < SHRINK_MAX; attempts++) {
      const smaller = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + piece)]);
      if (fails(smaller)) bytes = smaller;
      else at += piece;
    }
  }
  return bytes;
}

afterAll(() => {
  if (process.env.FUZZ_REPORT === undefined) return;
  const grownBytes = process.memoryUsage.rss() - residentBytesBefore;
  const { user, system } = process.cpuUsage(cpuBefore);
  const cpuSeconds = (user + system) / 1e6;
  appendFileSync(process.env.FUZZ_REPORT, `${JSON.stringify({ inputs, grownBytes, cpuSeconds })}\n`);
});
