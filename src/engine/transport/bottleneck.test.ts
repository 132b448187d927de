// What a migration waits for, by what both ends say of themselves, on made-up clocks.

import { expect, test } from "vitest";
import { Bottleneck } from "./bottleneck.ts";

const MB = 1e6;
const ACK_MS = 10;
/** What the destination takes. */
const TAKEN_BYTES_PER_MS = 0.2 * MB;

/** Both ends, an acknowledgement each 10 ms. */
class World {
  readonly bottleneck = new Bottleneck();
  nowMs = 0;
  #busyMs = { source: 0, destination: 0 };
  #rawBytes = 0;

  /** Busy for these shares of the time; `isFull`: the window is. */
  run(ms: number, source: number, destination: number | undefined, isFull = true): this {
    for (let elapsedMs = 0; elapsedMs < ms; elapsedMs += ACK_MS) {
      this.nowMs += ACK_MS;
      this.#busyMs.source += source * ACK_MS;
      this.#rawBytes += TAKEN_BYTES_PER_MS * ACK_MS;
      const pace = (busyMs: number) => ({ elapsedMs: this.nowMs, busyMs });
      this.bottleneck.sourcePaced(pace(this.#busyMs.source), isFull);
      if (destination === undefined) continue;
      this.#busyMs.destination += destination * ACK_MS;
      this.bottleneck.destinationPaced(pace(this.#busyMs.destination), isFull, this.#rawBytes);
    }
    return this;
  }

  limit(isKnown = true) {
    return this.bottleneck.limit(isKnown);
  }

  link(bytesPerSecond: number, isKnown = true) {
    return this.bottleneck.link(this.nowMs, bytesPerSecond, isKnown);
  }
}

test("where both ends wait it is the link, once that has been measured", () => {
  const world = new World().run(300, 0.3, 0.4);
  expect(world.limit()).toBe("link");
  expect(world.limit(false)).toBe("unknown");
});

test("an end that always has something to do is the limit; of both, the destination", () => {
  expect(new World().run(300, 0.3, 0.96).limit()).toBe("destination");
  expect(new World().run(300, 0.96, 0.3).limit()).toBe("source");
  expect(new World().run(300, 0.96, 0.96).limit()).toBe("destination");
});

test("nothing is known before an end has been seen for a tenth of a second", () => {
  expect(new World().run(60, 0.3, 0.3).limit()).toBe("unknown");
  // What it did while the window was not full says nothing.
  expect(new World().run(500, 0.3, 0.3, false).run(60, 0.3, 0.3).limit()).toBe("unknown");
  expect(new World().run(500, 0.3, 0.96, false).run(200, 0.3, 0.3).limit()).toBe("link");
});

test("an end that is neither idle nor always at work is what it was", () => {
  expect(new World().run(300, 0.3, 0.8).limit()).toBe("unknown");
  // Not for ever: a link that is never known to be slow would never be treated as one.
  expect(new World().run(600, 0.3, 0.8).limit()).toBe("link");
  expect(new World().run(300, 0.3, 0.3).run(1000, 0.3, 0.8).limit()).toBe("link");
  expect(new World().run(300, 0.3, 0.96).run(1000, 0.3, 0.8).limit()).toBe("destination");
  // One span in which it waited for something is not enough either.
  expect(new World().run(600, 0.3, 1).run(100, 0.3, 0.6).limit()).toBe("destination");
});

test("a destination that does not say how busy it is is not waited for", () => {
  expect(new World().run(300, 0.3, undefined).limit()).toBe("link");
});

test("what the link was seen to carry is remembered for a while, while something else is the limit", () => {
  const world = new World().run(300, 0.3, 0.3);
  expect(world.link(40 * MB)).toEqual({ bytesPerSecond: 40 * MB, isKnown: true });
  world.run(1000, 0.3, 1);
  // It carries less, since the destination takes no more.
  expect(world.link(10 * MB)).toEqual({ bytesPerSecond: 40 * MB, isKnown: true });
  // A little more is the same link: figures vary.
  expect(world.link(44 * MB)).toEqual({ bytesPerSecond: 44 * MB, isKnown: true });
  // It can do more than was seen.
  expect(world.link(60 * MB)).toEqual({ bytesPerSecond: 60 * MB, isKnown: false });
  world.run(5000, 0.3, 1);
  expect(world.link(10 * MB)).toEqual({ bytesPerSecond: 10 * MB, isKnown: false });
});

test("what was measured while an end was the limit is not taken for the link's", () => {
  const world = new World().run(300, 0.3, 1);
  expect(world.link(40 * MB)).toEqual({ bytesPerSecond: 40 * MB, isKnown: false });
  world.run(100, 0.3, 1);
  expect(world.link(10 * MB)).toEqual({ bytesPerSecond: 10 * MB, isKnown: false });
});

test("what the destination takes is reckoned by the time in which it had something to take", () => {
  const world = new World();
  expect(world.bottleneck.destinationBytesPerSecond).toBe(Number.POSITIVE_INFINITY);
  world.run(2000, 0.3, 0.5);
  expect(world.bottleneck.destinationBytesPerSecond).toBeCloseTo((TAKEN_BYTES_PER_MS * 1000) / 0.5, -6);
});
