// A guest of a few pages: RAM, a workload that writes to it while the guest runs, and the state of its devices. The
// workload is worked off when somebody looks, so that time in which nobody does costs nothing.

import { Random } from "./random.ts";
import type { SimClock } from "./sim-clock.ts";

export const PAGE_BYTES = 4096;

export interface Workload {
  pageCount: number;
  /** Share of RAM that is zero at first. */
  zeroShare: number;
  writesPerMs: number;
  /** The guest is idle after so long. */
  untilMs: number;
  /** Of all pages, those that most writes go to. */
  hotShare: number;
  /** Share of writes that change a few words; the others rewrite, empty or copy a page. */
  sparseShare: number;
  /** They rewrite it, with what nothing makes small. */
  isDense: boolean;
}

/** Writes that are worked off at once at most: more of them would hit the same pages again. */
const WRITES_MAX = 600;

/** No two stretches of it are alike. */
const NOISE = noise(new Random(1), 16 * PAGE_BYTES);

function noise(random: Random, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  for (let at = 0; at < lengthBytes; at += 4) bytes.writeUInt32LE(random.bits(), at);
  return bytes;
}

export class SimGuest {
  readonly ram: Buffer;
  readonly pageCount: number;
  /** Called for each page that is written. */
  onWrite: (pageIndex: number) => void = () => {};
  /** Share of the time in which it does not get to run. */
  throttlePercentage = 0;
  readonly #clock: SimClock;
  readonly #random: Random;
  readonly #workload: Workload;
  #runs: boolean;
  #workedUntilMs = 0;

  constructor(clock: SimClock, random: Random, workload: Workload, runs: boolean) {
    this.#clock = clock;
    this.#random = random;
    this.#workload = workload;
    this.#runs = runs;
    this.pageCount = workload.pageCount;
    this.ram = Buffer.alloc(this.pageCount * PAGE_BYTES);
    for (let page = 0; page < this.pageCount; page++) {
      if (!random.chance(workload.zeroShare)) this.#rewrite(page);
    }
  }

  get runs(): boolean {
    return this.#runs;
  }

  set runs(runs: boolean) {
    this.work();
    this.#runs = runs;
  }

  page(pageIndex: number): Buffer {
    return this.ram.subarray(pageIndex * PAGE_BYTES, (pageIndex + 1) * PAGE_BYTES);
  }

  /** Brings RAM to the present. */
  work(): void {
    const nowMs = this.#clock.nowMs();
    const { writesPerMs, untilMs } = this.#workload;
    const elapsedMs = Math.min(nowMs, untilMs) - this.#workedUntilMs;
    const workMs = elapsedMs * (1 - this.throttlePercentage / 100);
    this.#workedUntilMs = Math.max(this.#workedUntilMs, nowMs);
    if (!this.#runs || workMs <= 0) return;
    const writes = Math.min(WRITES_MAX, Math.floor(workMs * writesPerMs + this.#random.share()));
    for (let i = 0; i < writes; i++) this.#write();
  }

  #write(): void {
    const random = this.#random;
    const { hotShare, sparseShare, isDense } = this.#workload;
    const hotPages = Math.max(1, Math.floor(this.pageCount * hotShare));
    const page = random.chance(0.9) ? random.int(0, hotPages - 1) : random.int(0, this.pageCount - 1);
    if (isDense) this.#fillWithNoise(page);
    else if (random.chance(sparseShare)) {
      for (let words = random.int(1, 4); words > 0; words--) {
        this.ram.writeUInt32LE(random.bits(), page * PAGE_BYTES + random.int(0, PAGE_BYTES / 4 - 1) * 4);
      }
    } else {
      const kind = random.int(0, 3);
      if (kind === 0) this.page(page).fill(0);
      else if (kind === 1) this.page(random.int(0, this.pageCount - 1)).copy(this.page(page));
      else if (kind === 2) this.#rewrite(page);
      // Kind 3 writes what is there already: dirty, and unchanged.
    }
    this.onWrite(page);
  }

  /** Cheap, since many are worked off in a simulation that lasts. */
  #fillWithNoise(page: number): void {
    const from = this.#random.int(0, NOISE.length - PAGE_BYTES);
    this.page(page).set(NOISE.subarray(from, from + PAGE_BYTES));
  }

  /** Half text, which coders make smaller, half noise. */
  #rewrite(page: number): void {
    const words = new Uint32Array(PAGE_BYTES / 4);
    const noisy = this.#random.chance(0.5);
    const word = this.#random.bits();
    for (let i = 0; i < words.length; i++) {
      words[i] = noisy ? Math.imul(word + i, 0x9e3779b1) ^ ((word ^ i) << 7) : 0x20746f20 + (i & 0x0303);
    }
    words[0] = word;
    this.page(page).set(new Uint8Array(words.buffer));
  }
}
