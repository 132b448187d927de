// How hard to compress: as hard as the link gives time for (DESIGN §6). While enough is under way to keep the
// link busy, the encoder may take its time; once the link waits for us, every millisecond of it is lost.

/** Brotli qualities that pay, weakest first (docs/decisions: entropy coder). */
const LEVELS = [1, 3, 5] as const;
/** Go up while the link stood idle for less than this share of the time that it needs for what we gave it... */
const CALM_SHARE = 0.15;
/** ...and down as soon as one batch leaves it idle for more than this. */
const BUSY_SHARE = 0.5;
/** Batches between two steps up, so that each level is judged by its own figures. */
const SETTLE_BATCHES = 16;

export class CompressionEffort {
  #index = 0;
  #batches = 0;
  #idleMs = 0;
  #linkMs = 0;

  get level(): number {
    return LEVELS[this.#index]!;
  }

  /**
   * A batch was encoded, and for `idleMs` of that time the link had nothing of ours to carry. The link carries
   * `linkBytesPerSecond` (0 = not known yet).
   */
  observe(codedBytes: number, idleMs: number, linkBytesPerSecond: number): void {
    if (linkBytesPerSecond === 0) return;
    const linkMs = (codedBytes / linkBytesPerSecond) * 1000;
    this.#batches++;
    this.#idleMs += idleMs;
    this.#linkMs += linkMs;
    if (idleMs > BUSY_SHARE * linkMs) this.#moveTo(this.#index - 1);
    else if (this.#batches >= SETTLE_BATCHES) {
      this.#moveTo(this.#idleMs < CALM_SHARE * this.#linkMs ? this.#index + 1 : this.#index);
    }
  }

  #moveTo(index: number): void {
    this.#index = Math.max(0, Math.min(LEVELS.length - 1, index));
    this.#batches = this.#idleMs = this.#linkMs = 0;
  }
}
