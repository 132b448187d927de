// Time as an argument: production code reads the monotonic clock, tests and the simulator a virtual one.

export interface Clock {
  /** Milliseconds from an arbitrary start, monotonic, fractional. */
  nowMs(): number;
  /** Calls `callback` once, `delayMs` from now. The returned function cancels it (harmless if it has run). */
  after(delayMs: number, callback: () => void): () => void;
}

/** Some 25 days: Node has no longer timer, and takes one that would be for none at all. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after(delayMs, callback) {
    // Of a time that has passed already newer Node would warn the operator.
    const timer = setTimeout(callback, Math.max(0, Math.min(delayMs, TIMER_MS_MAX)));
    return () => clearTimeout(timer);
  },
};

/** Time that moves only when told to; timers run in order of their due time, ties in order of creation. */
export class VirtualClock implements Clock {
  #nowMs = 0;
  #sequence = 0;
  readonly #timers = new Map<number, { dueMs: number; callback: () => void }>();

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const id = this.#sequence++;
    this.#timers.set(id, { dueMs: this.#nowMs + Math.max(0, delayMs), callback });
    return () => this.#timers.delete(id);
  }

  /** Due time of the earliest timer, or undefined when none is set. */
  nextDueMs(): number | undefined {
    let dueMs: number | undefined;
    for (const timer of this.#timers.values()) {
      if (dueMs === undefined || timer.dueMs < dueMs) dueMs = timer.dueMs;
    }
    return dueMs;
  }

  /** Moves time forward by `ms`, running every timer that falls due on the way. */
  advance(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      const dueMs = this.nextDueMs();
      if (dueMs === undefined || dueMs > endMs) break;
      this.#nowMs = dueMs;
      for (const [id, timer] of this.#timers) {
        if (timer.dueMs !== dueMs) continue;
        this.#timers.delete(id);
        timer.callback();
        break;
      }
    }
    this.#nowMs = endMs;
  }
}
