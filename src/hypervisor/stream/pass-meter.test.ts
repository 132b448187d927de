// What pages alone tell of a migration: where passes end, how fast the guest dirties, and what is left.

import { expect, test } from "vitest";
import { VirtualClock } from "../../base/clock.ts";
import { PassMeter } from "./pass-meter.ts";

const BLOCKS = [
  { idstr: "pc.ram", pageCount: 1000 },
  { idstr: "vga.vram", pageCount: 200 },
];
const PAGE_BYTES = 4096;

class Scene {
  readonly clock = new VirtualClock();
  firstPasses = 0;
  readonly meter = new PassMeter(this.clock, () => this.firstPasses++);

  begin(): this {
    this.meter.ramBlocks(BLOCKS, PAGE_BYTES);
    return this;
  }

  /** Pages of one pass, in order, `msPerPage` apart. */
  pass(pages: readonly [block: number, page: number][], msPerPage: number): this {
    for (const [block, page] of pages) {
      this.clock.advance(msPerPage);
      this.meter.observe(block, page);
    }
    return this;
  }

  firstPass(msPerPage = 1): this {
    return this.pass(everyPage(), msPerPage);
  }

  /** As the engine looks: every 50 ms for so long. */
  look(ms = 0, mayCome = true) {
    let figures = this.meter.look(mayCome);
    for (let leftMs = ms; leftMs > 0; leftMs -= 50) {
      this.clock.advance(50);
      figures = this.meter.look(mayCome);
    }
    return figures;
  }
}

function everyPage(): [number, number][] {
  return BLOCKS.flatMap(({ pageCount }, block) =>
    Array.from({ length: pageCount }, (_, page): [number, number] => [block, page]),
  );
}

function some(count: number): [number, number][] {
  return Array.from({ length: count }, (_, i): [number, number] => [0, i * 2]);
}

test("before RAM has begun there is nothing to tell", () => {
  expect(new Scene().look(5000)).toBeUndefined();
});

test("the first pass ends with the last page of RAM, and until then what is left is what has not come", () => {
  const scene = new Scene().begin();
  expect(scene.look()).toMatchObject({ iteration: 0, remainingBytes: 1200 * PAGE_BYTES });
  scene.pass(everyPage().slice(0, 1150), 1);
  expect(scene.look()).toMatchObject({ iteration: 0, remainingBytes: 50 * PAGE_BYTES });
  expect(scene.firstPasses).toBe(0);
  scene.pass(everyPage().slice(1150), 1);
  // What the guest has dirtied meanwhile nobody has seen yet.
  expect(scene.look()).toEqual({ iteration: 1, remainingBytes: undefined, dirtyPagesPerSecond: undefined });
  expect(scene.firstPasses).toBe(1);
});

test("what a pass finds was dirtied during the one before", () => {
  const scene = new Scene().begin().firstPass();
  // 1200 ms of the first pass have left 300 dirty pages; sending them takes 600 ms.
  scene.pass(some(300), 2).pass([[0, 1]], 0);
  const figures = scene.look();
  expect(figures).toMatchObject({ iteration: 2 });
  expect(figures?.dirtyPagesPerSecond).toBeCloseTo(250, 6);
  // Of the 150 that are expected one has come.
  expect(figures?.remainingBytes).toBeCloseTo(149 * PAGE_BYTES, 6);
  // While none comes, since we do not read, more become dirty.
  expect(scene.look(1000, false)?.remainingBytes).toBeCloseTo((149 + 250) * PAGE_BYTES, 6);
});

test("a hypervisor that keeps up with the guest has little left, however often it goes round", () => {
  const scene = new Scene().begin().firstPass();
  for (let i = 0; i < 500; i++) scene.pass(some(4), 1);
  const { iteration, remainingBytes = Number.NaN, dirtyPagesPerSecond } = scene.look()!;
  expect(iteration).toBeGreaterThan(450);
  expect(dirtyPagesPerSecond).toBeCloseTo(1000, -2);
  expect(remainingBytes).toBeLessThanOrEqual(5 * PAGE_BYTES);
});

test("an idle guest sends nothing, and so nothing is left", () => {
  const scene = new Scene().begin().firstPass();
  const figures = scene.look(2000);
  expect(figures?.iteration).toBeGreaterThan(1);
  expect(figures).toMatchObject({ remainingBytes: 0, dirtyPagesPerSecond: 0 });
});

test("silence says nothing as long as nobody reads", () => {
  const scene = new Scene().begin().firstPass();
  expect(scene.look(5000, false)).toMatchObject({ iteration: 1, remainingBytes: undefined });
});

test("a first pass that leaves out what the guest does not need ends all the same", () => {
  const scene = new Scene().begin().pass(everyPage().slice(0, 600), 1);
  expect(scene.look(1500)).toMatchObject({ iteration: 0 });
  expect(scene.look(1000)?.iteration).toBeGreaterThan(0);
});
