// EntropyChoice in a world of tables: what each method costs and leaves is known there, so it can be said which one
// carries the most, and whether that is found, kept and left again.

import { describe, expect, test } from "vitest";
import { randomBytes } from "../../../test/support/arbitrary-stream.ts";
import {
  ENTROPY_CODEC_IDS,
  ENTROPY_LZ4,
  ENTROPY_NONE,
  ENTROPY_ZSTD,
} from "../../codec/entropy/entropy-coder.ts";
import { type BatchClass, EntropyChoice } from "./entropy-choice.ts";

interface Costs {
  msPerMegabyte: number;
  sizeShare: number;
}

/** About what `npm run bench -- entropy` shows; the tests depend on the order only. */
const TABLE: Readonly<Record<string, Costs>> = {
  none: { msPerMegabyte: 0, sizeShare: 1 },
  lz4: { msPerMegabyte: 1.5, sizeShare: 0.6 },
  "zstd -5": { msPerMegabyte: 2, sizeShare: 0.55 },
  "zstd -1": { msPerMegabyte: 2.6, sizeShare: 0.5 },
  "zstd 1": { msPerMegabyte: 3.3, sizeShare: 0.44 },
  "zstd 3": { msPerMegabyte: 5.5, sizeShare: 0.42 },
  "zstd 6": { msPerMegabyte: 25, sizeShare: 0.39 },
  "zstd 9": { msPerMegabyte: 40, sizeShare: 0.37 },
  "zstd 12": { msPerMegabyte: 55, sizeShare: 0.35 },
  "zstd 15": { msPerMegabyte: 170, sizeShare: 0.33 },
  "zstd 19": { msPerMegabyte: 370, sizeShare: 0.31 },
};
const MEGABYTE = 1e6;

interface WorldOptions {
  encoders?: number;
  /** Null: not known. */
  linkBytesPerSecond?: number | null;
  isBehind?: boolean;
  destinationBytesPerSecond?: number;
  /** Of each batch; a function of its number. */
  rawBytes?: (batch: number) => number;
  table?: Readonly<Record<string, Costs>>;
  /** Cost and size vary by up to this share from batch to batch. */
  noise?: number;
  /**
   * So much longer takes a batch, for reasons of the machine: by its number, the batches that the method has coded before,
   * and those that others have coded since.
   */
  stallMs?: (batch: number, codedBefore: number, restedFor: number) => number;
}

class World {
  readonly decisions: { choice: string; reason: string }[] = [];
  readonly choice: EntropyChoice;
  linkBytesPerSecond: number | null;
  isBehind: boolean;
  /** Undefined: it takes whatever comes. */
  destinationBytesPerSecond: number | undefined;
  table: Readonly<Record<string, Costs>>;
  used: string[] = [];
  /** Of all batches. */
  codingMs = 0;
  readonly #rawBytes: (batch: number) => number;
  readonly #noise: number;
  readonly #stallMs: Required<WorldOptions>["stallMs"];
  readonly #coded = new Map<string, { count: number; last: number }>();
  readonly #random = randomBytes(7);
  #batch = 0;

  constructor(options: WorldOptions = {}) {
    this.linkBytesPerSecond = options.linkBytesPerSecond === undefined ? 1e6 : options.linkBytesPerSecond;
    this.isBehind = options.isBehind ?? false;
    this.destinationBytesPerSecond = options.destinationBytesPerSecond;
    this.table = options.table ?? TABLE;
    this.#rawBytes = options.rawBytes ?? (() => 128 * 1024);
    this.#noise = options.noise ?? 0;
    this.#stallMs = options.stallMs ?? (() => 0);
    this.choice = new EntropyChoice(options.encoders ?? 2, (choice, reason) =>
      this.decisions.push({ choice, reason }),
    );
  }

  batches(count: number, batchClass: BatchClass = "pages", randomness?: number): this {
    this.used = [];
    for (let i = 0; i < count; i++) {
      const rawBytes = this.#rawBytes(this.#batch++);
      const { name } = this.choice.choose(batchClass, rawBytes, randomness, {
        linkBytesPerSecond: this.linkBytesPerSecond ?? 0,
        isLinkKnown: this.linkBytesPerSecond !== null,
        destinationBytesPerSecond: this.destinationBytesPerSecond ?? Number.POSITIVE_INFINITY,
        isDestinationLimit: this.destinationBytesPerSecond !== undefined,
        isBehind: this.isBehind,
      });
      const { msPerMegabyte, sizeShare } = this.table[name]!;
      const codedBytes = Math.min(rawBytes, Math.round(rawBytes * sizeShare * this.#vary()));
      const before = this.#coded.get(name) ?? { count: 0, last: 0 };
      this.#coded.set(name, { count: before.count + 1, last: this.#batch });
      const stallMs = this.#stallMs(this.#batch, before.count, this.#batch - before.last - 1);
      const encodeMs = (rawBytes / MEGABYTE) * msPerMegabyte * this.#vary() + stallMs;
      this.choice.observe(batchClass, name, rawBytes, codedBytes, encodeMs);
      this.used.push(name);
      this.codingMs += encodeMs;
    }
    return this;
  }

  get last(): string {
    return this.used.at(-1)!;
  }

  #vary(): number {
    return 1 + this.#noise * (this.#random() / 127.5 - 1);
  }
}

const strength = (name: string) => Object.keys(TABLE).indexOf(name);

describe("on a link of", () => {
  test("1 MB/s the encoders take their time, as far as one batch may delay the next", () => {
    const { last } = new World({ linkBytesPerSecond: 1e6 }).batches(300);
    // zstd 12 takes 7 ms for a batch, zstd 15 more than 20.
    expect(strength(last)).toBeGreaterThanOrEqual(strength("zstd 6"));
    expect(strength(last)).toBeLessThanOrEqual(strength("zstd 12"));
  });

  test("100 MB/s they do not become the brake", () => {
    const { last } = new World({ linkBytesPerSecond: 100e6 }).batches(300);
    expect(["zstd 1", "zstd 3"]).toContain(last);
  });

  test("500 MB/s only what is cheap is worth it", () => {
    expect(strength(new World({ linkBytesPerSecond: 500e6 }).batches(300).last)).toBeLessThan(
      strength("zstd 1"),
    );
  });

  test("5 GB/s nothing is, and nothing is done", () => {
    expect(new World({ linkBytesPerSecond: 5e9 }).batches(300).last).toBe("none");
  });

  test.each([null, 0])("unknown rate (%s) nothing is changed while no batch waits for an encoder", (rate) => {
    const world = new World({ linkBytesPerSecond: rate }).batches(300);
    expect(new Set(world.used)).toEqual(new Set(["zstd 1"]));
    expect(world.decisions).toEqual([]);
  });

  test("unknown rate that carries all that the encoders make they step aside, one step at a time", () => {
    const world = new World({ linkBytesPerSecond: null, isBehind: true }).batches(40);
    const steps = ["zstd -1", "zstd -5", "lz4", "none"];
    expect(world.last).toBe("none");
    expect(world.decisions).toEqual(
      steps.map((choice) => ({ choice, reason: expect.stringContaining("the encoders are the limit") })),
    );
    // It turns out to be slow: nothing has been found to be wrong with the dearer ones.
    world.linkBytesPerSecond = 1e6;
    world.isBehind = false;
    expect(strength(world.batches(20).last)).toBeGreaterThanOrEqual(strength("zstd 1"));
  });
});

describe("where it is the destination that takes no more", () => {
  test("what is known to be enough for it is enough", () => {
    // zstd 1 would bring 900 MB/s over, LZ4 667.
    const world = new World({ encoders: 8, linkBytesPerSecond: 400e6, destinationBytesPerSecond: 500e6 });
    expect(world.batches(50).last).toBe("lz4");
    world.destinationBytesPerSecond = 300e6;
    expect(world.batches(50).last).toBe("none");
    expect(world.decisions.at(-1)!.reason).toContain("and the destination takes no more");
    world.destinationBytesPerSecond = undefined;
    expect(strength(world.batches(300).last)).toBeGreaterThan(strength("lz4"));
  });

  test("and nobody knows what the link carries, less is done step by step", () => {
    const world = new World({ linkBytesPerSecond: null, destinationBytesPerSecond: 100e6 }).batches(100);
    expect([...new Set(world.used)]).toEqual(["zstd 1", "zstd -1", "zstd -5", "lz4", "none"]);
    expect(world.decisions.at(-1)).toEqual({
      choice: "none",
      reason: "pages: the destination is the limit with lz4, not the link",
    });
  });
});

test("nothing dearer is tried before what is used is known", () => {
  const world = new World({ linkBytesPerSecond: 1e6, rawBytes: () => 16 * 1024 }).batches(8);
  expect(new Set(world.used)).toEqual(new Set(["zstd 1"]));
  expect(strength(world.batches(100).last)).toBeGreaterThan(strength("zstd 1"));
});

test("more encoders allow more", () => {
  const [one, eight] = [1, 8].map(
    (encoders) => new World({ encoders, linkBytesPerSecond: 100e6 }).batches(300).last,
  );
  expect(strength(eight!)).toBeGreaterThan(strength(one!));
});

test("a link that becomes faster is followed within a few batches, one that becomes slower step by step", () => {
  const world = new World({ linkBytesPerSecond: 1e6 }).batches(300);
  world.linkBytesPerSecond = 5e9;
  expect(world.batches(2).last).toBe("none");
  world.linkBytesPerSecond = 1e6;
  world.batches(3000);
  expect(strength(world.last)).toBeGreaterThan(strength("zstd 3"));
});

test("large batches are coded less hard than small ones: each delays what is behind it", () => {
  const small = new World({ rawBytes: () => 16 * 1024 }).batches(400).last;
  const large = new World({ rawBytes: () => 1024 * 1024 }).batches(400).last;
  expect(strength(small)).toBeGreaterThan(strength(large));
  expect(strength(large)).toBeLessThan(strength("zstd 6"));
});

describe("no method is left for what the machine does at the time:", () => {
  const stalls: [string, Required<WorldOptions>["stallMs"]][] = [
    ["a coder that begins slowly", (_batch, codedBefore) => (codedBefore < 2 ? 20 : 0)],
    ["a processor that is given to others now and then", (batch) => (batch % 20 === 0 ? 30 : 0)],
  ];
  test.each(stalls)("%s", (_what, stallMs) => {
    const world = new World({ linkBytesPerSecond: 12.5e6, stallMs }).batches(400);
    const light = world.used.filter((name) => strength(name) < strength("zstd 1"));
    expect(light).toEqual([]);
    expect(strength(world.last)).toBeGreaterThanOrEqual(strength("zstd 3"));
  });
});

test("a method that begins slowly whenever it has rested gets a fair trial", () => {
  // What it needs has left the processor's caches meanwhile.
  const stallMs: WorldOptions["stallMs"] = (_batch, _codedBefore, restedFor) => (restedFor > 8 ? 6 : 0);
  // The encoders are the limit where zstd does well, the link where LZ4 does.
  const table: WorldOptions["table"] = {
    ...TABLE,
    lz4: { msPerMegabyte: 3, sizeShare: 0.34 },
    "zstd -5": { msPerMegabyte: 4.2, sizeShare: 0.335 },
    "zstd -1": { msPerMegabyte: 4.3, sizeShare: 0.33 },
    "zstd 1": { msPerMegabyte: 4.5, sizeShare: 0.2 },
    "zstd 3": { msPerMegabyte: 9, sizeShare: 0.19 },
  };
  const world = new World({ ...{ stallMs, table, encoders: 1, noise: 0.1 }, linkBytesPerSecond: 500e6 });
  expect(strength(world.batches(300).last)).toBeLessThan(strength("zstd 1"));
  world.linkBytesPerSecond = 37.5e6;
  const { used } = world.batches(1500);
  expect(used.filter((name) => name === "zstd 1").length).toBeGreaterThan(1000);
});

test.each([20, 100])(
  "a processor that becomes slow for good, %d times, is noticed within seconds",
  (times) => {
    const world = new World({ linkBytesPerSecond: 12.5e6 }).batches(300);
    const slow = Object.entries(TABLE).map(([name, { msPerMegabyte, sizeShare }]) => [
      name,
      { msPerMegabyte: msPerMegabyte * times, sizeShare },
    ]);
    world.table = Object.fromEntries(slow);
    const before = world.codingMs;
    while (strength(world.last) >= strength("zstd 1") && world.codingMs - before < 10_000) world.batches(1);
    expect(world.codingMs - before).toBeLessThan(5000);
  },
);

test("what takes far longer to leave a little less is not worth it, on however few or many cores", () => {
  const table: WorldOptions["table"] = {
    ...TABLE,
    "zstd 3": { msPerMegabyte: 5.5, sizeShare: 0.4 },
    "zstd 6": { msPerMegabyte: 22, sizeShare: 0.388 },
    "zstd 9": { msPerMegabyte: 40, sizeShare: 0.387 },
  };
  for (const encoders of [1, 8]) {
    const world = new World({ table, encoders, linkBytesPerSecond: encoders * 12.5e6 }).batches(1000);
    expect(world.used.filter((name) => name === "zstd 3").length).toBeGreaterThan(900);
  }
});

test("a processor that is somebody else's for half of the time is no reason to change all the time", () => {
  // In turns of 40 ms each, as the coder sees it.
  let codingMs = 0;
  const stallMs: WorldOptions["stallMs"] = () => {
    codingMs += 0.5;
    return codingMs % 40 < 20 ? 1.5 : 0;
  };
  const world = new World({ stallMs, encoders: 1, linkBytesPerSecond: 37.5e6, noise: 0.2 }).batches(6000);
  expect(world.decisions.length).toBeLessThan(20);
});

test("pages and deltas are judged each by themselves", () => {
  const world = new World({ linkBytesPerSecond: 1e6 });
  world.batches(300, "pages");
  const pages = world.last;
  expect(world.batches(1, "deltas").last).toBe("zstd 1");
  expect(world.batches(1, "pages").last).toBe(pages);
});

test("batches that look random are left alone, whatever the rest gets; it is said once", () => {
  const world = new World({ linkBytesPerSecond: 1e6 }).batches(100);
  const [before, decisions] = [world.last, world.decisions.length];
  expect(new Set(world.batches(50, "pages", 254).used)).toEqual(new Set(["none"]));
  expect(world.decisions.length).toBe(decisions + 1);
  expect(world.decisions.at(-1)).toEqual({
    choice: "random pages as they are",
    reason: expect.stringContaining("all others are as before"),
  });
  expect(world.batches(1, "pages", 120).last).toBe(before);
  world.batches(50, "pages", 255);
  expect(world.decisions.filter(({ reason }) => reason.includes("random")).length).toBe(1);
});

describe("what the destination does not decode is never chosen", () => {
  const agreed: number[][] = [
    [ENTROPY_NONE],
    [ENTROPY_LZ4],
    [ENTROPY_ZSTD],
    [ENTROPY_NONE, ENTROPY_LZ4],
    [ENTROPY_LZ4, ENTROPY_ZSTD],
    [ENTROPY_ZSTD, 77],
  ];
  test.each(agreed.map((ids) => [ids]))("codecs %j", (ids) => {
    for (const linkBytesPerSecond of [1e5, 1e7, 1e8, 1e9, 1e11]) {
      for (const randomness of [undefined, 255]) {
        const world = new World({ linkBytesPerSecond });
        world.choice.allow(ids);
        world.batches(200, "pages", randomness);
        for (const name of world.used) {
          const id = name === "none" ? ENTROPY_NONE : name === "lz4" ? ENTROPY_LZ4 : ENTROPY_ZSTD;
          expect(ids).toContain(id);
        }
      }
    }
  });

  test("none in common is our own mistake: the handshake has refused that", () => {
    expect(() => new World().choice.allow([])).toThrow("Assertion failed");
    expect(() => new World().choice.allow(ENTROPY_CODEC_IDS)).not.toThrow();
  });
});

test("every change is told, with what was expected of it", () => {
  const world = new World({ linkBytesPerSecond: 1e6 });
  let before = "zstd 1";
  for (let i = 0; i < 500; i++) {
    if (i === 250) world.linkBytesPerSecond = 1e9;
    const told = world.decisions.length;
    const { last } = world.batches(1);
    expect(world.decisions.length).toBe(last === before ? told : told + 1);
    if (last !== before) {
      const { choice, reason } = world.decisions.at(-1)!;
      expect(choice).toBe(last);
      expect(reason).toMatch(new RegExp(`^pages: .* expected, .* with ${before}, on a link of `));
    }
    before = last;
  }
  expect(world.decisions.length).toBeGreaterThanOrEqual(3);
});

describe("it does not flap:", () => {
  const DECISIONS_MAX = 20;
  const worlds: [string, WorldOptions][] = [
    ["on a slow link", { linkBytesPerSecond: 1e6 }],
    ["between two methods that are worth the same", { linkBytesPerSecond: 165e6 }],
    ["with figures that vary by a third", { linkBytesPerSecond: 60e6, noise: 0.33 }],
    ["on a slow link, with figures that vary by a third", { linkBytesPerSecond: 1e6, noise: 0.33 }],
    [
      "with batches of very different sizes",
      { linkBytesPerSecond: 1e6, rawBytes: (batch) => (batch % 7 === 0 ? 1024 * 1024 : 16 * 1024) },
    ],
  ];
  // Words that changed to random others: nearly all that is left of them is left by any coder.
  const random = [1, 0.97, 0.97, 0.965, 0.96, 0.955, 0.95, 0.945, 0.94, 0.94, 0.94];
  const deltas = Object.fromEntries(
    Object.entries(TABLE).map(([name, costs], index) => [
      name,
      { msPerMegabyte: 5 * costs.msPerMegabyte, sizeShare: random[index]! },
    ]),
  );

  test.each([8, 16, 48])("small batches of much the same deltas, %d KiB", (kib) => {
    const world = new World({
      ...{ linkBytesPerSecond: 12e6, noise: 0.3, table: deltas, rawBytes: () => kib * 1024 },
    });
    world.batches(4000, "deltas");
    expect(world.decisions.length).toBeLessThan(60);
  });

  test.each(worlds)("%s", (_where, options) => {
    const { decisions } = new World(options).batches(1000);
    expect(decisions.length).toBeLessThanOrEqual(DECISIONS_MAX);
  });
});
