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
  /** Speed as a multiple of the reference's; undefined without a reference. */
  ratio?: number;
}

/** Shorter ones are run several times in one turn: the clock counts in microseconds, and functions get warm. */
const TURN_SECONDS_MIN = 0.05;
const WARM_UP_RUNS = 2;

/** `reference`: the name of one of them. */
export function takeTurns(
  contenders: readonly Contender[],
  turns: number,
  reference: string | undefined,
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
  const referenceIndex = contenders.findIndex(({ name }) => name === reference);
  assert(reference === undefined || referenceIndex !== -1, "the reference is one of the contenders");
  return contenders.map(({ name, bytes }, index) => {
    const timing: Timing = { name, bytesPerSecond: bytes / median(seconds[index]!) };
    if (referenceIndex !== -1) {
      // Per byte, should they work on different amounts.
      const perByte = contenders[referenceIndex]!.bytes / bytes;
      timing.ratio =
        median(seconds[index]!.map((value, turn) => seconds[referenceIndex]![turn]! / value)) / perByte;
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
