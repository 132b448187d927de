// Measures things against each other in one process: they take turns, and a ratio is the median of the ratios of
// each turn, so that what else the machine does meets all of them alike. Time is CPU time of this process, which
// other processes do not lengthen (their cache misses still do).

import { assert } from "../src/base/assert.ts";

export interface Contender {
  readonly name: string;
  /** Bytes of input that one `run` works on. */
  readonly bytes: number;
  /** Before each run, not measured. */
  prepare?(): void;
  run(): void;
}

export interface Timing {
  name: string;
  /** Median. */
  bytesPerSecond: number;
  /** Speed as a multiple of the fastest reference's; undefined without one. */
  ratio?: number;
}

/** Shorter ones are run several times in one turn: the clock counts in microseconds, and functions get warm. */
const TURN_SECONDS_MIN = 0.05;
const WARM_UP_RUNS = 2;

/** `references`: names among them; ratios are to whichever of these was the fastest in the same turn. */
export function takeTurns(
  contenders: readonly Contender[],
  turns: number,
  references: readonly string[] = [],
): Timing[] {
  const runsPerTurn = contenders.map((contender) => {
    let fastest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < WARM_UP_RUNS; i++) fastest = Math.min(fastest, secondsOf(contender, 1));
    return Math.max(1, Math.ceil(TURN_SECONDS_MIN / Math.max(fastest, 1e-4)));
  });
  const seconds: number[][] = contenders.map(() => []);
  for (let turn = 0; turn < turns; turn++) {
    for (let i = 0; i < contenders.length; i++) {
      // Another one begins each turn.
      const index = (i + turn) % contenders.length;
      const runs = runsPerTurn[index]!;
      seconds[index]!.push(secondsOf(contenders[index]!, runs) / runs);
    }
  }
  const referenceIndices = references.map((name) => contenders.findIndex((each) => each.name === name));
  assert(!referenceIndices.includes(-1), "the references are among the contenders");
  const perByte = (index: number, turn: number) => seconds[index]![turn]! / contenders[index]!.bytes;
  return contenders.map(({ name, bytes }, index) => {
    const timing: Timing = { name, bytesPerSecond: bytes / median(seconds[index]!) };
    if (references.length > 0) {
      const ratios = seconds[index]!.map((_, turn) => {
        const fastest = Math.min(...referenceIndices.map((reference) => perByte(reference, turn)));
        return fastest / perByte(index, turn);
      });
      timing.ratio = median(ratios);
    }
    return timing;
  });
}

function secondsOf(contender: Contender, runs: number): number {
  let microseconds = 0;
  for (let i = 0; i < runs; i++) {
    contender.prepare?.();
    const start = process.cpuUsage();
    contender.run();
    const { user, system } = process.cpuUsage(start);
    microseconds += user + system;
  }
  return microseconds / 1e6;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)]!;
  const lower = sorted[Math.floor((sorted.length - 1) / 2)]!;
  return (lower + upper) / 2;
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}
