// The virtual clock of a simulation: events in order of their time, ties in random order, one at a time, so that
// something can look at the world between any two. A process has a view of it that ends when the process dies.

import type { Clock } from "../../src/base/clock.ts";
import type { Random } from "./random.ts";

/** Real timers are coarser still; without it a rest that is lost in rounding would never pass. */
const GRAIN_MS = 0.001;

interface Event {
  dueMs: number;
  tie: number;
  callback: (() => void) | undefined;
}

export class SimClock implements Clock {
  readonly #random: Random;
  #nowMs = 0;
  /** A binary heap: each event is due no later than the two below it. */
  readonly #heap: Event[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const event: Event = {
      dueMs: this.#nowMs + (delayMs > 0 ? Math.max(GRAIN_MS, delayMs) : 0),
      tie: this.#random.bits(),
      callback,
    };
    this.#push(event);
    return () => {
      event.callback = undefined;
    };
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** Due time of the next event. */
  nextDueMs(): number | undefined {
    while (this.#heap.length > 0 && this.#heap[0]!.callback === undefined) this.#pop();
    return this.#heap[0]?.dueMs;
  }

  /** Runs the next event; false when there is none. */
  step(): boolean {
    if (this.nextDueMs() === undefined) return false;
    const { dueMs, callback } = this.#pop();
    this.#nowMs = dueMs;
    callback!();
    return true;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!isBefore(event, heap[above]!)) break;
      heap[at] = heap[above]!;
      at = above;
    }
    heap[at] = event;
  }

  #pop(): Event {
    const heap = this.#heap;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && isBefore(heap[below + 1]!, heap[below]!)) below++;
      if (!isBefore(heap[below]!, last)) break;
      heap[at] = heap[below]!;
      at = below;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.tie < b.tie);
}
