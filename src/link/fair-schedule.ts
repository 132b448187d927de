// Who sends next on a link that several share by weight: start-time fair queueing (Goyal, Vin and Cheng, "Start-time
// fair queueing", 1996). Each flow's pieces carry tags of virtual time, which moves as fast as the link serves a weight
// of one; the piece with the earliest start goes first. Whoever has nothing to send for long saves nothing up, and owes
// nothing; whoever is back soon, since it was only late with its next bytes, has not lost its turns. Pure arithmetic: no clock, no data, nothing allocated per piece.

import { assert } from "../base/assert.ts";

export const WEIGHT_MIN = 0.01;
export const WEIGHT_MAX = 10_000;

/** One of those who share. Belongs to the schedule that made it. */
export interface Flow {
  readonly weight: number;
  /** Has something that could be sent at once. */
  isReady: boolean;
  /** Virtual time at which its last piece ended, which is when its next one may start. */
  finish: number;
}

export class FairSchedule<Entry extends Flow> {
  readonly #flows: Entry[] = [];
  readonly #slackBytes: number;
  #weightTotal = 0;
  /** Start of the piece that was sent last. */
  #virtual = 0;

  /** `slackBytes`: whoever is away for no longer than it takes all together to send so much makes up for it. */
  constructor(slackBytes: number = 0) {
    this.#slackBytes = slackBytes;
  }

  get size(): number {
    return this.#flows.length;
  }

  /** What this flow gets of everything while all of them have something to send: 0…1. */
  shareOf({ weight }: Entry): number {
    return weight / this.#weightTotal;
  }

  add(flow: Entry): void {
    const { weight } = flow;
    assert(weight >= WEIGHT_MIN && weight <= WEIGHT_MAX, "a weight is within its bounds");
    flow.finish = this.#virtual;
    this.#flows.push(flow);
    this.#weightTotal += weight;
  }

  remove(flow: Entry): void {
    const index = this.#flows.indexOf(flow);
    if (index === -1) return;
    this.#flows.splice(index, 1);
    // Anew: differences of what was added would go astray in the long run.
    this.#weightTotal = this.#flows.reduce((total, { weight }) => total + weight, 0);
  }

  /** Of those that are ready the one that is furthest behind; undefined when none is. */
  next(): Entry | undefined {
    let first: Entry | undefined;
    let firstStart = Number.POSITIVE_INFINITY;
    for (const flow of this.#flows) {
      if (!flow.isReady) continue;
      const start = this.#startOf(flow);
      if (start >= firstStart) continue;
      first = flow;
      firstStart = start;
    }
    return first;
  }

  /** `next` has sent so many bytes. */
  sent(flow: Entry, bytes: number): void {
    const start = this.#startOf(flow);
    this.#virtual = Math.max(this.#virtual, start);
    flow.finish = start + bytes / flow.weight;
  }

  #startOf(flow: Entry): number {
    return Math.max(this.#virtual - this.#slackBytes / this.#weightTotal, flow.finish);
  }
}
