// Guest models from page traces: of guests whose pages are written at known rates, and what is no trace of such.

import { describe, expect, test } from "vitest";
import { seeded } from "../base/seeded.ts";
import { PageClass } from "../trace/format.ts";
import { changedPages, meanDeltaSize } from "./guest-model.ts";
import { TraceModelBuilder } from "./trace-model.ts";

const PAGE_BYTES = 4096;
const PAGES = 20_000;
const ITERATIONS_MS = [4000, 1500, 500, 200, 100, 50];
const NOTHING = new Uint8Array(0);

const builderOf = (pageCount: number) => {
  const builder = new TraceModelBuilder("x.trace", () => expect.unreachable("no contents, no meter"));
  builder.header({ pageBytes: PAGE_BYTES, blocks: [{ idstr: "ram", pageCount }], hasContents: false });
  return builder;
};

interface Part {
  readonly pages: number;
  readonly writesPerSecond: number;
  readonly deltaBytes: number;
  /** Written with what was there. */
  readonly isRewritten?: boolean;
}

/** What a migration with these iterations does with pages that are written at random moments; the last pages are zero. */
function traceOf(parts: readonly Part[]): TraceModelBuilder {
  const random = seeded(3);
  const builder = builderOf(PAGES);
  const pages = parts.flatMap((part) =>
    Array.from({ length: part.pages }, () => {
      const writes: number[] = [];
      for (let at = 0; at < 7000; writes.push(at))
        at -= (Math.log(1 - random()) / part.writesPerSecond) * 1000;
      return { part, writes };
    }),
  );
  let startMs = 0;
  const sentAtMs = new Float64Array(PAGES);
  for (const [iteration, ms] of ITERATIONS_MS.entries()) {
    builder.iteration();
    builder.time(startMs);
    const beforeMs = startMs - (ITERATIONS_MS[iteration - 1] ?? 0);
    for (let page = 0; page < PAGES; page++) {
      const { part, writes } = pages[page] ?? { part: undefined, writes: [] };
      if (iteration === 0) {
        sentAtMs[page] = (page / PAGES) * ms;
        builder.page(0, page, part === undefined ? PageClass.ZERO : PageClass.RAW, 0, NOTHING, 0);
        continue;
      }
      if (!writes.some((at) => at >= beforeMs && at < startMs)) continue;
      // Pages are sent in order: this one at the same share of every iteration, about.
      const nowMs = startMs + (page / PAGES) * ms;
      const isChanged = !part!.isRewritten && writes.some((at) => at >= sentAtMs[page]! && at < nowMs);
      sentAtMs[page] = nowMs;
      if (isChanged) builder.page(0, page, PageClass.DELTA, part!.deltaBytes, NOTHING, 0);
      else builder.page(0, page, PageClass.UNCHANGED, 0, NOTHING, 0);
    }
    startMs += ms;
  }
  return builder;
}

describe("a guest known from a page trace", () => {
  test("has the rates and the sizes with which its pages were written", () => {
    const model = traceOf([
      { pages: 1000, writesPerSecond: 20, deltaBytes: 2000 },
      { pages: 6000, writesPerSecond: 0.3, deltaBytes: 60 },
    ]).model();
    for (const ms of [100, 1000, 4000]) {
      const truth = 1000 * (1 - Math.exp(-0.02 * ms)) + 6000 * (1 - Math.exp(-0.0003 * ms));
      expect(changedPages(model, ms) / truth).toBeGreaterThan(0.9);
      expect(changedPages(model, ms) / truth).toBeLessThan(1.1);
    }
    const sizes = model.rateClasses.flatMap(({ changesPerSecond, deltaSizes }) =>
      deltaSizes.map(({ xbzrleBytes }) => ({ changesPerSecond, xbzrleBytes })),
    );
    for (const { changesPerSecond, xbzrleBytes } of sizes) {
      if (changesPerSecond > 8) expect(xbzrleBytes).toBeGreaterThan(1900);
      if (changesPerSecond > 0 && changesPerSecond < 1) expect(xbzrleBytes).toBeLessThan(200);
    }
    expect(model).toMatchObject({ pages: PAGES, zeroPages: 13_000, codedShare: { fast: 1, strong: 1 } });
    // Pages that were dirty and unchanged only because of the order in which pages are sent are no rewrites.
    expect(model.rewrittenPagesPerSecond).toBeLessThan(60);
  });

  test("has pages that are rewritten with what was there", () => {
    const model = traceOf([{ pages: 3000, writesPerSecond: 30, deltaBytes: 60, isRewritten: true }]).model();
    // In each of five iterations all of them were found dirty, of the last short ones most.
    expect(model.rewrittenPagesPerSecond).toBeGreaterThan(1500);
    expect(changedPages(model, 1000)).toBeLessThan(300);
    expect(meanDeltaSize(model, 1000)).toBeUndefined();
  });
});

describe("refused is", () => {
  test("a trace that ends in the first pass", () => {
    const builder = builderOf(2);
    builder.iteration();
    builder.time(0);
    builder.page(0, 0, PageClass.RAW, 0, NOTHING, 0);
    expect(() => builder.model()).toThrow(/x\.trace: it ends within the first pass/);
  });

  test("a trace without times", () => {
    const builder = builderOf(2);
    builder.iteration();
    builder.iteration();
    expect(() => builder.model()).toThrow(/does not say how long iterations took/);
  });
});
