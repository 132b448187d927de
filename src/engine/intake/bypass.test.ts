// BypassJudge on made-up links: begins without a look, looks at pages on slow links and once passes do not get shorter.

import { expect, test } from "vitest";
import { BypassJudge, type Progress } from "./bypass.ts";

const MB = 1e6;
const TURN_MS = 10;

class World {
  readonly decisions: string[] = [];
  readonly judge: BypassJudge;
  #progress: Progress = {
    ...{ nowMs: 0, handedOverBytes: 0, busyMs: 0 },
    ...{ pass: 0, isLinkKnown: false, isDestinationLimit: false, linkBytesPerSecond: 0 },
  };

  /** Without `idleCores` nobody knows how many there are. */
  constructor(idleCores?: () => number) {
    let [idleCoreMs, lookedMs] = [1000, 0];
    const idle = () => {
      idleCoreMs += idleCores!() * (this.#progress.nowMs - lookedMs);
      lookedMs = this.#progress.nowMs;
      return idleCoreMs;
    };
    const decided = (choice: string) => this.decisions.push(choice);
    this.judge = new BypassJudge(decided, idleCores === undefined ? undefined : idle);
  }

  /** Hands over for a while, as fast as it is told, with so much work. */
  run(ms: number, bytesPerSecond: number, busyShare: number, changes: Partial<Progress> = {}): this {
    for (let elapsedMs = 0; elapsedMs < ms; elapsedMs += TURN_MS) {
      const { nowMs, handedOverBytes, busyMs } = this.#progress;
      this.#progress = {
        ...this.#progress,
        ...changes,
        nowMs: nowMs + TURN_MS,
        handedOverBytes: handedOverBytes + (bytesPerSecond * TURN_MS) / 1000,
        busyMs: busyMs + busyShare * TURN_MS,
      };
      this.judge.judge(this.#progress);
    }
    return this;
  }
}

test("a migration begins without a look at pages", () => {
  expect(new World().judge.bypasses).toBe(true);
});

test.each([
  [12, TURN_MS],
  [60, 400 + TURN_MS],
])("a slow link (%s MB/s) is left when it has been known for a while (%s ms)", (rate, knownMs) => {
  // With or without a core to spare.
  const world = new World(() => 0).run(50, rate * MB, 0.1, { linkBytesPerSecond: rate * MB });
  world.run(knownMs - TURN_MS, rate * MB, 0.1, { isLinkKnown: true });
  expect(world.judge.bypasses).toBe(true);
  world.run(TURN_MS, rate * MB, 0.1, { isLinkKnown: true });
  expect(world.judge.bypasses).toBe(false);
  expect(world.decisions).toEqual(["look at pages"]);
});

test("one that seems to be slow for a moment is not, as both ends have to warm up", () => {
  const slow = { isLinkKnown: true, linkBytesPerSecond: 40 * MB };
  const world = new World(() => 0).run(300, 40 * MB, 0.1, slow);
  world.run(TURN_MS, 40 * MB, 0.1, { isLinkKnown: false }).run(300, 40 * MB, 0.1, slow);
  expect(world.judge.bypasses).toBe(true);
});

const FAST = { isLinkKnown: true, linkBytesPerSecond: 900 * MB };

test("on a fast link nothing is looked at as long as passes become much shorter", () => {
  const world = new World().run(4000, 900 * MB, 0.6, FAST);
  world.run(900, 900 * MB, 0.6, { pass: 1 }).run(200, 900 * MB, 0.6, { pass: 2 });
  expect([world.judge.bypasses, world.decisions]).toEqual([true, []]);
  // More than a quarter of 200 ms.
  world.run(40, 900 * MB, 0.6, { pass: 3 });
  expect(world.judge.bypasses).toBe(true);
  world.run(30, 900 * MB, 0.6);
  expect([world.judge.bypasses, world.decisions]).toEqual([false, ["look at pages"]]);
});

test("a guest that writes about as fast as a fast link carries it is looked at after a quarter of the first pass", () => {
  const world = new World().run(4000, 900 * MB, 0.6, FAST).run(1100, 900 * MB, 0.6, { pass: 1 });
  expect(world.judge.bypasses).toBe(false);
});

test("on any other link the first pass is all that is not looked at", () => {
  const world = new World(() => 0).run(3000, 110 * MB, 0.3, MIDDLING);
  expect(world.run(TURN_MS, 110 * MB, 0.3, { pass: 1 }).judge.bypasses).toBe(false);
});

const DESTINATION = { isDestinationLimit: true, linkBytesPerSecond: 60 * MB };

test("where it is the destination that takes no more, pages are left alone, however many cores are idle", () => {
  const world = new World(() => 2).run(3000, 60 * MB, 0.1, DESTINATION);
  expect([world.judge.bypasses, world.decisions]).toEqual([true, ["bypass"]]);
  world.run(100, 60 * MB, 0.1, { pass: 1 });
  expect(world.judge.bypasses).toBe(true);
  // It takes more, and the link turns out to be slow.
  world.run(500, 60 * MB, 0.1, { isDestinationLimit: false, isLinkKnown: true });
  expect(world.judge.bypasses).toBe(false);
});

test("a link that has a little to show for itself has some megabytes to show more", () => {
  const slow = new World().run(100, 100 * MB, 0.3, { isLinkKnown: true, linkBytesPerSecond: 100 * MB });
  expect(slow.judge.bypasses).toBe(true);
  slow.run(2000, 100 * MB, 0.3);
  expect(slow.judge.bypasses).toBe(false);
  const cold = new World().run(100, 100 * MB, 0.3, { isLinkKnown: true, linkBytesPerSecond: 100 * MB });
  cold.run(2000, 400 * MB, 0.3, { linkBytesPerSecond: 400 * MB });
  expect(cold.judge.bypasses).toBe(true);
});

test("a link that never shows what it can do does not keep pages from being looked at for long", () => {
  const world = new World().run(20_000, 10 * MB, 0.1, { linkBytesPerSecond: 10 * MB });
  expect(world.judge.bypasses).toBe(false);
});

const MIDDLING = { isLinkKnown: true, linkBytesPerSecond: 110 * MB };

test("a middling link is looked at pages for only while there is a core to do it with", () => {
  let idleCores = 0.6;
  const world = new World(() => idleCores).run(3000, 110 * MB, 0.3, MIDDLING);
  expect(world.judge.bypasses).toBe(true);
  expect(world.decisions).toEqual(["bypass"]);
  idleCores = 1.5;
  world.run(1000, 110 * MB, 0.3);
  expect(world.judge.bypasses).toBe(false);
  expect(world.decisions).toEqual(["bypass", "look at pages"]);
});

test("on a machine without an idle core a slow link is left all the same, and so is the first pass", () => {
  const slow = { isLinkKnown: true, linkBytesPerSecond: 12 * MB };
  expect(new World(() => 0).run(TURN_MS, 12 * MB, 0.1, slow).judge.bypasses).toBe(false);
  const world = new World(() => 0).run(3000, 110 * MB, 0.3, MIDDLING);
  world.run(TURN_MS, 110 * MB, 0.3, { pass: 1 });
  expect(world.judge.bypasses).toBe(false);
});

test("with idle cores a middling link has its opening and no more", () => {
  const world = new World(() => 1.5).run(200, 110 * MB, 0.3, MIDDLING);
  expect(world.judge.bypasses).toBe(true);
  expect(world.run(300, 110 * MB, 0.3).judge.bypasses).toBe(false);
});

const looking = () => new World().run(50, 300 * MB, 0.95, { pass: 1, linkBytesPerSecond: 100 * MB });

test("later bypass is tried when looking is the brake, and kept if more gets across", () => {
  const world = looking().run(500, 300 * MB, 0.95);
  expect(world.judge.bypasses).toBe(true);
  world.run(500, 600 * MB, 0.95).run(5000, 600 * MB, 0.8);
  expect(world.judge.bypasses).toBe(true);
  // Then it is the destination that is waited for: a look would not change that.
  world.run(1000, 600 * MB, 0.3, { isDestinationLimit: true });
  expect(world.judge.bypasses).toBe(true);
  world.run(500, 600 * MB, 0.3, { isDestinationLimit: false });
  expect(world.judge.bypasses).toBe(false);
});

test("a try that gains nothing is given up, and repeated less and less often", () => {
  const world = looking();
  const triesIn = (ms: number) => {
    const before = world.decisions.length;
    world.run(ms, 300 * MB, 0.95);
    return world.decisions.slice(before).filter((choice) => choice === "bypass").length;
  };
  const first = triesIn(20_000);
  expect(first).toBeGreaterThan(1);
  expect(triesIn(20_000)).toBeLessThan(first);
});

test("as long as the link is the limit, pages are looked at", () => {
  expect(looking().run(60_000, 100 * MB, 0.6).judge.bypasses).toBe(false);
});
