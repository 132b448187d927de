// How hard to compress: as hard as the link gives time for. A slow link waits for us hardly ever, so the
// encoder may take its time; on a fast one the same effort would be the brake (DESIGN §6).

/** Brotli qualities that pay, weakest first (docs/decisions: entropy coder). */
const LEVELS = [1, 3, 5] as const;
/** Go up while the encoder would be busy for less than this share of the time the link needs... */
const CALM_SHARE = 0.15;
/** ...and down as soon as it is busy for more than this. */
const BUSY_SHARE = 0.5;
/** Batches between two changes, so that each level is judged by its own figures. */
const SETTLE_BATCHES = 16;

export class CompressionEffort {
  #index = 0;
  #batches = 0;
  #encodeMs = 0;
  #linkMs = 0;

  get level(): number {
    return LEVELS[this.#index]!;
  }

  /** A batch was encoded in `encodeMs`; the link carries `linkBytesPerSecond` (0 = not known yet). */
  observe(codedBytes: number, encodeMs: number, linkBytesPerSecond: number): void {
    if (linkBytesPerSecond === 0) return;
    this.#batches++;
    this.#encodeMs += encodeMs;
    this.#linkMs += (codedBytes / linkBytesPerSecond) * 1000;
    if (this.#batches < SETTLE_BATCHES) return;
    const share = this.#encodeMs / this.#linkMs;
    if (share > BUSY_SHARE && this.#index > 0) this.#index--;
    else if (share < CALM_SHARE && this.#index < LEVELS.length - 1) this.#index++;
    this.#batches = this.#encodeMs = this.#linkMs = 0;
  }
}
