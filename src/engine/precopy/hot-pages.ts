// Which dirty pages are worth sending now: a page that keeps changing is not, since what is sent of it early is
// sent in vain (Clark et al. 2005, §5: "peeking" at the dirty bitmap). Pure: page indices in, page indices out.
//
// Nothing is held back as long as sending helps, that is, while each scan finds fewer dirty pages than the one
// before: a hot page is then sent in less time than it takes to become dirty again.

/** A page found dirty this many times in a row is hot... */
const HOT_SCANS = 3;
/** ...and is tried again after so many more: held pages look dirty whether they still change or not. */
const HELD_SCANS = 5;
/** A scan that finds at least this share of what the last one found has not been helped by sending. */
const STAGNANT_SHARE = 0.8;

export class HotPages {
  /** By page: how many scans in a row have found it dirty. */
  readonly #dirtyInARow: Uint8Array;
  readonly #due: Uint32Array;
  #dirtyPages: number;

  constructor(pageCount: number) {
    this.#dirtyInARow = new Uint8Array(pageCount);
    this.#due = new Uint32Array(pageCount);
    this.#dirtyPages = pageCount;
  }

  /** Those of `dirty` (all that the scan has found, ascending) that are due. Valid until the next call. */
  dueOf(dirty: Uint32Array): Uint32Array {
    const stagnant = dirty.length >= this.#dirtyPages * STAGNANT_SHARE;
    this.#dirtyPages = dirty.length;
    const inARow = this.#dirtyInARow;
    let dueCount = 0;
    let next = 0;
    for (let pageIndex = 0; pageIndex < inARow.length; pageIndex++) {
      if (dirty[next] !== pageIndex) {
        inARow[pageIndex] = 0;
        continue;
      }
      next++;
      const scans = inARow[pageIndex]! + 1;
      const tryAgain = scans >= HOT_SCANS + HELD_SCANS;
      // One that still changes after it was tried again is hot at the next scan.
      inARow[pageIndex] = tryAgain ? HOT_SCANS - 1 : scans;
      if (!stagnant || scans < HOT_SCANS || tryAgain) this.#due[dueCount++] = pageIndex;
    }
    return this.#due.subarray(0, dueCount);
  }
}
