// Seeded randomness of a simulation: the same seed, the same run. Generator: Steele et al.'s SplitMix, 32 bits wide.

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
    // Neighbouring seeds begin far apart.
    for (let i = 0; i < 3; i++) this.#state = (Math.imul(this.bits(), 0x9e3779b1) + i) >>> 0;
  }

  /** 32 random bits, as a number from 0 to 2^32 - 1. */
  bits(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  }

  /** From 0 to below 1. */
  share(): number {
    return this.bits() / 2 ** 32;
  }

  chance(probability: number): boolean {
    return this.share() < probability;
  }

  /** A whole number, both ends included. */
  int(min: number, max: number): number {
    return min + Math.floor(this.share() * (max - min + 1));
  }

  real(min: number, max: number): number {
    return min + this.share() * (max - min);
  }

  /** Every order of magnitude is as likely. */
  magnitude(min: number, max: number): number {
    return min * (max / min) ** this.share();
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.int(0, items.length - 1)]!;
  }

  weighted<Item>(items: readonly (readonly [Item, number])[]): Item {
    let at = this.share() * items.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [item, weight] of items) {
      at -= weight;
      if (at < 0) return item;
    }
    return items.at(-1)![0];
  }

  /** A generator of its own, so that what draws from it moves nothing else. */
  fork(): Random {
    return new Random(this.bits());
  }
}
