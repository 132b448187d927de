// A guest whose memory changes as told, on a virtual clock: what the sample makes of it.

import { describe, expect, test } from "vitest";
import { seeded } from "../base/seeded.ts";
import { loadKernel } from "../kernel/kernel.ts";
import { KernelMemory } from "../kernel/memory.ts";
import type { GuestMemory } from "../memory/guest-memory.ts";
import { changedPages, meanDeltaSize } from "./guest-model.ts";
import { PageMeter } from "./page-meter.ts";
import { sampleGuest } from "./sampling.ts";

const PAGE_BYTES = 4096;
const PAGES = 20_000;
const ABSENT_FROM = 15_000;
const HOT_EVERY = 10;
const HOT_PERIOD_MS = 400;
const CHANGED_BYTES = 32;

/** Every tenth page is rewritten at random moments, about every 400 ms, in 32 bytes; a quarter of RAM is not there. */
class ScriptedGuest implements GuestMemory {
  readonly pageBytes = PAGE_BYTES;
  readonly pageCount = PAGES;
  nowMs = 0;
  reads = 0;
  readonly absentRead: number[] = [];

  /** Where RAM ends that the host holds anything for. */
  presentEnd: (nowMs: number) => number = () => ABSENT_FROM;

  present(pages: readonly number[]): number[] {
    return pages.filter((page) => page < this.presentEnd(this.nowMs));
  }

  read(page: number, target: Uint8Array): void {
    this.reads++;
    if (page >= this.presentEnd(this.nowMs)) this.absentRead.push(page);
    const random = seeded(page);
    for (let i = 0; i < PAGE_BYTES; i++) target[i] = random() * 256;
    if (page % HOT_EVERY !== 0) return;
    // Which of its versions: moments of change are a Poisson process, drawn anew from the page's own seed.
    let [version, atMs] = [0, -Math.log(1 - random()) * HOT_PERIOD_MS];
    while (atMs <= this.nowMs) {
      version++;
      atMs += -Math.log(1 - random()) * HOT_PERIOD_MS;
    }
    const content = seeded(page * 1000 + version);
    for (let i = 0; i < CHANGED_BYTES; i++) target[1024 + i] = content() * 256;
  }
}

async function sample(guest: ScriptedGuest) {
  const memory = new KernelMemory();
  const meter = new PageMeter(memory, loadKernel(memory), PAGE_BYTES, () => guest.nowMs);
  return sampleGuest(guest, meter, {
    samplePages: 4000,
    spanMs: 1500,
    random: seeded(3),
    nowMs: () => guest.nowMs,
    sleep: async (ms) => {
      guest.nowMs += ms;
    },
  });
}

describe("a sample of a running guest", () => {
  test("says how many pages change in a time, and how much of them", async () => {
    const model = await sample(new ScriptedGuest());
    const hotPages = ABSENT_FROM / HOT_EVERY;
    for (const ms of [100, 400, 1500]) {
      const truth = hotPages * (1 - Math.exp(-ms / HOT_PERIOD_MS));
      expect(changedPages(model, ms)).toBeGreaterThan(truth * 0.8);
      expect(changedPages(model, ms)).toBeLessThan(truth * 1.2);
    }
    const { xbzrleBytes, tunnelBytes, wholeCodedBytes } = meanDeltaSize(model, 400)!;
    expect(xbzrleBytes).toBeGreaterThan(CHANGED_BYTES);
    expect(xbzrleBytes).toBeLessThan(CHANGED_BYTES * 1.5);
    expect(tunnelBytes).toBeLessThan(CHANGED_BYTES * 1.5);
    expect(wholeCodedBytes).toBeGreaterThan(PAGE_BYTES * 0.95);
  });

  test("finds what is zero without reading pages that the host has nothing for", async () => {
    const guest = new ScriptedGuest();
    const model = await sample(guest);
    expect(guest.absentRead).toEqual([]);
    expect(model.zeroPages / PAGES).toBeCloseTo(1 - ABSENT_FROM / PAGES, 2);
    expect(model.codedShare.fast).toBeGreaterThan(0.95);
  });

  test("reads each page three times, and the busy ones more often", async () => {
    const guest = new ScriptedGuest();
    await sample(guest);
    const present = 4000 * (ABSENT_FROM / PAGES);
    expect(guest.reads).toBeGreaterThanOrEqual(3 * present);
    expect(guest.reads).toBeLessThan(3 * present + 3 * (present / HOT_EVERY));
  });

  test("counts pages that come to be meanwhile as changed", async () => {
    const guest = new ScriptedGuest();
    guest.presentEnd = (nowMs) => (nowMs > 1000 ? PAGES : ABSENT_FROM);
    const model = await sample(guest);
    const [cameToBe, hotPages] = [PAGES - ABSENT_FROM, ABSENT_FROM / HOT_EVERY];
    const truth = cameToBe + hotPages;
    expect(changedPages(model, 1500)).toBeGreaterThan(truth * 0.8);
    expect(changedPages(model, 1500)).toBeLessThan(truth * 1.2);
    expect(model.zeroPages).toBe(0);
  });

  test("of a guest that is smaller than the sample takes every page once", async () => {
    const pages = new Set<number>();
    const memory = new KernelMemory();
    const meter = new PageMeter(memory, loadKernel(memory), PAGE_BYTES, () => 0);
    const tiny: GuestMemory = {
      pageBytes: PAGE_BYTES,
      pageCount: 50,
      present: (pages) => pages,
      read: (page) => void pages.add(page),
    };
    let nowMs = 0;
    const model = await sampleGuest(tiny, meter, {
      samplePages: 4000,
      spanMs: 100,
      random: seeded(1),
      nowMs: () => nowMs,
      sleep: async (ms) => {
        nowMs += ms;
      },
    });
    expect(pages.size).toBe(50);
    expect(model.sampledPages).toBe(50);
    expect(changedPages(model, 100)).toBeLessThan(1);
  });
});

test("of a guest in which everything changes all the time no more than some pages are kept twice", async () => {
  const samplePages = 4000;
  let [nowMs, heldBytesMax] = [0, 0];
  const restless: GuestMemory = {
    pageBytes: PAGE_BYTES,
    pageCount: samplePages,
    present: (pages) => pages,
    read: (page, target) => {
      target.fill(page).set([nowMs & 255, nowMs >> 8]);
    },
  };
  const memory = new KernelMemory();
  const meter = new PageMeter(memory, loadKernel(memory), PAGE_BYTES, () => nowMs);
  const beforeBytes = process.memoryUsage().arrayBuffers;
  const model = await sampleGuest(restless, meter, {
    ...{ samplePages, spanMs: 1500, random: seeded(1), nowMs: () => nowMs },
    sleep: async (ms) => {
      nowMs += Math.ceil(ms);
      heldBytesMax = Math.max(heldBytesMax, process.memoryUsage().arrayBuffers - beforeBytes);
    },
  });
  expect(changedPages(model, 10_000)).toBeGreaterThan(samplePages * 0.99);
  expect(heldBytesMax).toBeLessThan(3 * samplePages * PAGE_BYTES);
});
