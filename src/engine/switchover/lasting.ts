// Conditions that must last before anybody is told, and the lowest of recent values. Time is given.

/** Turns true, or false again, only when what it is told has been so for a while. */
export class Lasting {
  readonly #ms: number;
  #isSo = false;
  /** Since when the opposite has been told. */
  #sinceMs: number | undefined;

  constructor(ms: number) {
    this.#ms = ms;
  }

  get isSo(): boolean {
    return this.#isSo;
  }

  /** What has begun to be otherwise begins anew. */
  forget(): void {
    this.#sinceMs = undefined;
  }

  /** Returns whether it has turned just now. */
  tell(isSo: boolean, nowMs: number): boolean {
    if (isSo === this.#isSo) {
      this.#sinceMs = undefined;
      return false;
    }
    this.#sinceMs ??= nowMs;
    if (nowMs - this.#sinceMs < this.#ms) return false;
    this.#isSo = isSo;
    this.#sinceMs = undefined;
    return true;
  }
}

/** The lowest value of the last `ms`, or of up to twice as long. */
export class RecentMinimum {
  readonly #ms: number;
  #turnedMs = Number.NEGATIVE_INFINITY;
  #current = Number.POSITIVE_INFINITY;
  #before = Number.POSITIVE_INFINITY;

  constructor(ms: number) {
    this.#ms = ms;
  }

  add(value: number, nowMs: number): void {
    if (nowMs - this.#turnedMs >= this.#ms) {
      this.#before = this.#current;
      this.#current = Number.POSITIVE_INFINITY;
      this.#turnedMs = nowMs;
    }
    this.#current = Math.min(this.#current, value);
  }

  get value(): number {
    return Math.min(this.#current, this.#before);
  }
}
