// How hard to compress: as hard as the link gives time for. A slow link waits for us hardly ever, so the
// encoder may take its time; on a fast one the same effort would be the brake (DESIGN §6).

/** Brotli qualities that pay, weakest first (docs/decisions: entropy coder). Each takes 2 to 3 times as long. */
const LEVELS = [1, 3, 5] as const;
/**
 * Down as soon as one batch keeps the encoder busy for more than this share of the time the link needs for it:
 * encoding is about half of what we do for a batch, so the link is about to run dry...
 */
const BUSY_SHARE = 0.5;
/** ...and up while the next level would stay below that. */
const CALM_SHARE = BUSY_SHARE / 2.5;
/** Batches between two steps up, so that each level is judged by its own figures. */
const SETTLE_BATCHES = 16;
/** A batch that stays larger than this share of itself is not worth the effort, and nor is the next one, most likely. */
const INCOMPRESSIBLE_SHARE = 0.95;

export class CompressionEffort {
  #index = 0;
  #batches = 0;
  #encodeMs = 0;
  #linkMs = 0;
  #compressible = true;

  get level(): number {
    return this.#compressible ? LEVELS[this.#index]! : LEVELS[0];
  }

  /** A batch was encoded in `encodeMs`; the link carries `linkBytesPerSecond` (0 = not known yet). */
  observe(rawBytes: number, codedBytes: number, encodeMs: number, linkBytesPerSecond: number): void {
    const wasCompressible = this.#compressible;
    this.#compressible = codedBytes < INCOMPRESSIBLE_SHARE * rawBytes;
    // Of a level only batches tell that were encoded with it and could be made smaller.
    if (!wasCompressible || !this.#compressible || linkBytesPerSecond === 0) return;
    const linkMs = (codedBytes / linkBytesPerSecond) * 1000;
    this.#batches++;
    this.#encodeMs += encodeMs;
    this.#linkMs += linkMs;
    if (encodeMs > BUSY_SHARE * linkMs) this.#moveTo(this.#index - 1);
    else if (this.#batches >= SETTLE_BATCHES) {
      this.#moveTo(this.#encodeMs < CALM_SHARE * this.#linkMs ? this.#index + 1 : this.#index);
    }
  }

  #moveTo(index: number): void {
    this.#index = Math.max(0, Math.min(LEVELS.length - 1, index));
    this.#batches = this.#encodeMs = this.#linkMs = 0;
  }
}
