// How long many things took, in memory that does not grow with their number: counted in steps of a sixteenth of an
// octave, so that a percentile is at most 4.4 % above the truth. The longest is kept as it is.

const STEPS_PER_OCTAVE = 16;
/** Everything faster counts as this. */
const SHORTEST_MS = 1 / 64;
/** From 1/64 ms to some 20 days: 2^37 times as much. */
const STEP_COUNT = 37 * STEPS_PER_OCTAVE;

export class LatencyHistogram {
  readonly #counts = new Uint32Array(STEP_COUNT);
  #count = 0;
  #maxMs = 0;

  get count(): number {
    return this.#count;
  }

  get maxMs(): number {
    return this.#maxMs;
  }

  add(latencyMs: number): void {
    const step = Math.ceil(Math.log2(Math.max(latencyMs, SHORTEST_MS) / SHORTEST_MS) * STEPS_PER_OCTAVE);
    this.#counts[Math.min(step, STEP_COUNT - 1)]!++;
    this.#count++;
    this.#maxMs = Math.max(this.#maxMs, latencyMs);
  }

  /** What `share` of all did not exceed (0.5: the median). Undefined when there is nothing. */
  percentileMs(share: number): number | undefined {
    if (this.#count === 0) return undefined;
    const rank = Math.max(1, Math.ceil(share * this.#count));
    let counted = 0;
    for (let step = 0; step < STEP_COUNT; step++) {
      counted += this.#counts[step]!;
      if (counted >= rank) return Math.min(SHORTEST_MS * 2 ** (step / STEPS_PER_OCTAVE), this.#maxMs);
    }
    return this.#maxMs;
  }
}
