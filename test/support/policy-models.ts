// Page cache policies as one would explain them: arrays, maps and searches, no state packed into bytes. What the
// real ones are compared with. Each says which pages are held after the same calls.

export interface PolicyModel {
  evictions: number;
  holds(page: number): boolean;
  admit(page: number, mayEvict: boolean): void;
  touch(page: number): void;
  remove(page: number): void;
  iteration(): void;
}

/** A page's one place is its number modulo the places; there it is safe for two iterations. */
export class DirectMappedModel implements PolicyModel {
  readonly #places = new Map<number, { page: number; usedIn: number }>();
  readonly #slotCount: number;
  #iteration = 0;
  evictions = 0;

  constructor(slotCount: number) {
    this.#slotCount = slotCount;
  }
  holds(page: number): boolean {
    return this.#places.get(page % this.#slotCount)?.page === page;
  }
  admit(page: number, mayEvict: boolean): void {
    const place = page % this.#slotCount;
    const held = this.#places.get(place);
    if (held !== undefined && (!mayEvict || this.#iteration < held.usedIn + 2)) return;
    if (held !== undefined) this.evictions++;
    this.#places.set(place, { page, usedIn: this.#iteration });
  }
  touch(page: number): void {
    this.#places.set(page % this.#slotCount, { page, usedIn: this.#iteration });
  }
  remove(page: number): void {
    this.#places.delete(page % this.#slotCount);
  }
  iteration(): void {
    this.#iteration++;
  }
}

/** Sets of pages, each in the order of their last use, the oldest first. */
export class SetAssociativeModel implements PolicyModel {
  readonly #ways: number;
  readonly #sets: number[][];
  evictions = 0;

  constructor(slotCount: number, ways: number) {
    this.#ways = Math.min(ways, slotCount);
    this.#sets = Array.from({ length: Math.floor(slotCount / this.#ways) }, () => []);
  }
  #setOf(page: number): number[] {
    return this.#sets[page % this.#sets.length]!;
  }
  holds(page: number): boolean {
    return this.#setOf(page).includes(page);
  }
  admit(page: number, mayEvict: boolean): void {
    const set = this.#setOf(page);
    if (set.length === this.#ways) {
      if (!mayEvict) return;
      set.shift();
      this.evictions++;
    }
    set.push(page);
  }
  touch(page: number): void {
    this.remove(page);
    this.#setOf(page).push(page);
  }
  remove(page: number): void {
    const set = this.#setOf(page);
    set.splice(set.indexOf(page), 1);
  }
  iteration(): void {}
}

/** Figure 4 of the paper, with its names; lists have their most recently used page first. */
export class ArcModel implements PolicyModel {
  readonly #c: number;
  #p = 0;
  #t1: number[] = [];
  #t2: number[] = [];
  #b1: number[] = [];
  #b2: number[] = [];
  evictions = 0;

  constructor(slotCount: number) {
    this.#c = slotCount;
  }
  holds(page: number): boolean {
    return this.#t1.includes(page) || this.#t2.includes(page);
  }
  touch(page: number): void {
    this.remove(page);
    this.#t2.unshift(page);
  }
  remove(page: number): void {
    this.#t1 = this.#t1.filter((other) => other !== page);
    this.#t2 = this.#t2.filter((other) => other !== page);
  }
  iteration(): void {}

  admit(page: number, mayEvict: boolean): void {
    const isFull = this.#t1.length + this.#t2.length === this.#c;
    if (isFull && !mayEvict) return;
    if (this.#b1.includes(page)) {
      this.#p = Math.min(this.#c, this.#p + Math.max(1, this.#b2.length / this.#b1.length));
      if (isFull) this.#replace(false);
      this.#b1 = this.#b1.filter((other) => other !== page);
      this.#t2.unshift(page);
    } else if (this.#b2.includes(page)) {
      this.#p = Math.max(0, this.#p - Math.max(1, this.#b1.length / this.#b2.length));
      if (isFull) this.#replace(true);
      this.#b2 = this.#b2.filter((other) => other !== page);
      this.#t2.unshift(page);
    } else {
      if (this.#t1.length + this.#b1.length === this.#c) {
        if (this.#t1.length < this.#c) {
          this.#b1.pop();
          if (isFull) this.#replace(false);
        } else {
          this.#t1.pop();
          this.evictions++;
        }
      } else {
        const all = this.#t1.length + this.#t2.length + this.#b1.length + this.#b2.length;
        if (all === 2 * this.#c) this.#b2.pop();
        if (isFull) this.#replace(false);
      }
      this.#t1.unshift(page);
    }
  }

  #replace(isInB2: boolean): void {
    this.evictions++;
    const fromT1 = this.#t1.length > this.#p || (isInB2 && this.#t1.length === this.#p);
    if (this.#t1.length > 0 && (fromT1 || this.#t2.length === 0)) this.#b1.unshift(this.#t1.pop()!);
    else this.#b2.unshift(this.#t2.pop()!);
  }
}

/** In which of the last eight sweeps was each page dirty? */
export class HistoryModel implements PolicyModel {
  readonly #slots: (number | undefined)[];
  /** The slot that is taken next comes last. */
  readonly #empty: number[];
  readonly #dirtyIn = new Map<number, Set<number>>();
  #sweep = 0;
  #lastPage = 0;
  #hand = 0;
  evictions = 0;

  constructor(slotCount: number) {
    this.#slots = new Array<undefined>(slotCount).fill(undefined);
    this.#empty = Array.from({ length: slotCount }, (_, i) => slotCount - 1 - i);
  }
  holds(page: number): boolean {
    return this.#slots.includes(page);
  }
  touch(page: number): void {
    if (page < this.#lastPage) this.#sweep++;
    this.#lastPage = page;
    this.#dirtyIn.set(page, (this.#dirtyIn.get(page) ?? new Set<number>()).add(this.#sweep));
  }
  remove(page: number): void {
    const slot = this.#slots.indexOf(page);
    this.#slots[slot] = undefined;
    this.#empty.push(slot);
  }
  iteration(): void {}

  admit(page: number, mayEvict: boolean): void {
    this.touch(page);
    let slot = this.#empty.pop();
    if (slot === undefined && mayEvict) {
      slot = this.#worthLess(page);
      if (slot !== undefined) this.evictions++;
    }
    if (slot !== undefined) this.#slots[slot] = page;
  }

  #worthLess(page: number): number | undefined {
    const window = Math.min(32, this.#slots.length);
    const candidates = Array.from({ length: window }, (_, i) => (this.#hand + i) % this.#slots.length);
    this.#hand = (this.#hand + window) % this.#slots.length;
    const worth = (slot: number) => {
      const other = this.#slots[slot]!;
      return this.#worth(other, other > page);
    };
    const least = Math.min(...candidates.map(worth));
    if (least >= this.#worth(page, false)) return undefined;
    return candidates.find((slot) => worth(slot) === least);
  }

  /** The last sweep counts for more than all before it together, and so on. */
  #worth(page: number, isAhead: boolean): number {
    let worth = 0;
    for (let ago = 0; ago < 8; ago++) {
      const wasDirty = this.#dirtyIn.get(page)?.has(this.#sweep - ago) ?? false;
      if (wasDirty || (ago === 0 && isAhead)) worth += 2 ** -ago;
    }
    return worth;
  }
}

/** Only a page that has asked before makes another leave. */
export class SecondTouchModel implements PolicyModel {
  readonly #inner: PolicyModel;
  readonly #askedMax: number;
  readonly #asked = new Set<number>();

  constructor(inner: PolicyModel, slotCount: number) {
    this.#inner = inner;
    this.#askedMax = slotCount;
  }
  get evictions(): number {
    return this.#inner.evictions;
  }
  holds(page: number): boolean {
    return this.#inner.holds(page);
  }
  admit(page: number, mayEvict: boolean): void {
    const isSecond = this.#asked.has(page);
    this.#inner.admit(page, mayEvict && isSecond);
    if (isSecond || this.#inner.holds(page)) return;
    if (this.#asked.size === this.#askedMax) this.#asked.clear();
    this.#asked.add(page);
  }
  touch(page: number): void {
    this.#inner.touch(page);
  }
  remove(page: number): void {
    this.#inner.remove(page);
  }
  iteration(): void {
    this.#inner.iteration();
  }
}
