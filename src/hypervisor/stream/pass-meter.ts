// How far a pre-copy is, told from its pages alone: QEMU goes through RAM from the first RAMBlock to the last, again
// and again, and sends what it finds dirty. So a page that lies before the one before it begins another pass, and what
// a pass finds is what the guest has dirtied during the pass before. Pure: pages and the time in, estimates out.

import type { Clock } from "../../base/clock.ts";
import type { PageObserver, TraceBlock } from "../../trace/format.ts";

/** Passes over few dirty pages are short: a rate is taken over so much time at least. */
const RATE_MS_MIN = 100;
/** No page for so long, and nobody kept it from coming: the pass has found nothing more. */
const QUIET_MS = 200;
/** In the first pass there is more, unless the guest has told QEMU that it does not need it. */
const QUIET_FIRST_MS = 2000;

/** Of a guest whose RAMBlocks have been listed. */
export interface PassFigures {
  /** 0 = the first pass over all RAM. */
  iteration: number;
  /** What is dirty by now; undefined until the first pass over dirty pages has told what there is to expect. */
  remainingBytes: number | undefined;
  dirtyPagesPerSecond: number | undefined;
}

export class PassMeter implements PageObserver {
  readonly #clock: Clock;
  readonly #firstPassEnded: () => void;
  #pageBytes = 0;
  #pageCount = 0;
  /** Of each RAMBlock, where it begins, in pages. */
  #begins: number[] = [];
  #lastPosition = -1;
  #iteration = 0;
  #passBeganMs = 0;
  #passPages = 0;
  /** How long the pass before took. */
  #passMsBefore = 0;
  /** Of passes that are too short to go by one by one: what they have found, and the time in which it became dirty. */
  #foundPages = 0;
  #foundMs = 0;
  #dirtyPagesPerMs: number | undefined;
  /** At the last look: pages seen so far in this pass, and since when no more have come. */
  #lookedPages = 0;
  #quietSinceMs = 0;

  constructor(clock: Clock, firstPassEnded: () => void = () => {}) {
    this.#clock = clock;
    this.#firstPassEnded = firstPassEnded;
  }

  ramBlocks(blocks: readonly TraceBlock[], pageBytes: number): void {
    this.#pageBytes = pageBytes;
    for (const { pageCount } of blocks) {
      this.#begins.push(this.#pageCount);
      this.#pageCount += pageCount;
    }
    this.#passBeganMs = this.#quietSinceMs = this.#clock.nowMs();
  }

  codec(): void {}

  observe(blockIndex: number, pageIndex: number): void {
    const position = this.#begins[blockIndex]! + pageIndex;
    if (position < this.#lastPosition) this.#passEnded();
    this.#passPages++;
    this.#lastPosition = position;
    if (position === this.#pageCount - 1) this.#passEnded();
  }

  /** Undefined: RAM has not begun. `mayCome`: nobody keeps the hypervisor from sending. */
  look(mayCome: boolean): PassFigures | undefined {
    if (this.#pageCount === 0) return undefined;
    const nowMs = this.#clock.nowMs();
    if (!mayCome || this.#passPages !== this.#lookedPages) this.#quietSinceMs = nowMs;
    else if (nowMs - this.#quietSinceMs >= (this.#iteration > 0 ? QUIET_MS : QUIET_FIRST_MS))
      this.#passEnded();
    this.#lookedPages = this.#passPages;
    return {
      iteration: this.#iteration,
      remainingBytes: this.#remainingBytes(nowMs),
      dirtyPagesPerSecond: this.#dirtyPagesPerMs === undefined ? undefined : this.#dirtyPagesPerMs * 1000,
    };
  }

  #remainingBytes(nowMs: number): number | undefined {
    if (this.#iteration === 0) return (this.#pageCount - 1 - this.#lastPosition) * this.#pageBytes;
    const rate = this.#dirtyPagesPerMs;
    if (rate === undefined) return undefined;
    const toBeFound = Math.max(0, rate * this.#passMsBefore - this.#passPages);
    const dirtiedSince = rate * (nowMs - this.#passBeganMs);
    return Math.min(this.#pageCount, toBeFound + dirtiedSince) * this.#pageBytes;
  }

  #passEnded(): void {
    const nowMs = this.#clock.nowMs();
    if (this.#iteration > 0) {
      this.#foundPages += this.#passPages;
      this.#foundMs += this.#passMsBefore;
      if (this.#foundMs >= RATE_MS_MIN) {
        this.#dirtyPagesPerMs = this.#foundPages / this.#foundMs;
        this.#foundPages = this.#foundMs = 0;
      }
    }
    this.#passMsBefore = nowMs - this.#passBeganMs;
    this.#passBeganMs = this.#quietSinceMs = nowMs;
    this.#passPages = this.#lookedPages = 0;
    this.#lastPosition = -1;
    this.#iteration++;
    if (this.#iteration === 1) this.#firstPassEnded();
  }
}
