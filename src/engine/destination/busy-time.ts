// For how long there was something to do. Pure.

export class BusyTime {
  #pastMs = 0;
  /** Undefined: there is nothing to do. */
  #sinceMs: number | undefined;

  /** There is something to do; perhaps there was already. */
  begin(nowMs: number): void {
    this.#sinceMs ??= nowMs;
  }

  /** All of it is done. */
  end(nowMs: number): void {
    this.#pastMs = this.totalMs(nowMs);
    this.#sinceMs = undefined;
  }

  totalMs(nowMs: number): number {
    return this.#pastMs + (this.#sinceMs === undefined ? 0 : nowMs - this.#sinceMs);
  }
}
