// Replays against counting by hand, and the optimal policy against trying everything.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { QUIET_GUEST, synthesize } from "../../test/support/synthetic-trace.ts";
import { POLICIES } from "../memory/policy/all.ts";
import { HISTORY } from "../memory/policy/history.ts";
import { setAssociative } from "../memory/policy/set-associative.ts";
import { CodecReplay } from "./codec-replay.ts";
import { PageClass } from "./format.ts";
import { type PageTrace, PageTraceBuilder } from "./page-trace.ts";
import { replay } from "./replay.ts";

const NO_CONTENT = new Uint8Array(0);

function traceOf(
  pageCount: number,
  records: readonly (readonly [page: number, pageClass: PageClass, deltaBytes?: number])[],
): PageTrace {
  const builder = new PageTraceBuilder("test");
  builder.ramBlocks([{ idstr: "a", pageCount }], 4096);
  for (const [page, pageClass, deltaBytes] of records) {
    builder.observe(0, page, 0, pageClass, deltaBytes ?? 0);
  }
  return builder.trace;
}

describe("a replay", () => {
  test("counts what the cache finds, and the bytes of the records", () => {
    const trace = traceOf(4, [
      [0, PageClass.RAW],
      [1, PageClass.ZERO],
      [2, PageClass.RAW],
      [0, PageClass.DELTA, 100],
      [1, PageClass.DELTA, 50],
      [1, PageClass.UNCHANGED],
      [2, PageClass.OVERFLOW],
      [3, PageClass.ZERO],
      [3, PageClass.UNCHANGED],
    ]);
    expect(replay(trace, setAssociative(2), 4)).toEqual({
      slotCount: 4,
      pagesAgain: 3,
      hits: 3,
      evictions: 0,
      wholePages: 3,
      wireBytes: 3 * 4104 + 2 * 9 + (100 + 11) + (50 + 11),
      estimatedDeltas: 0,
    });
  });

  test("without a cache sends every page whole, and zero pages once", () => {
    const trace = traceOf(2, [
      [0, PageClass.RAW],
      [1, PageClass.ZERO],
      [0, PageClass.UNCHANGED],
      [1, PageClass.UNCHANGED],
    ]);
    expect(replay(trace, HISTORY, 0)).toMatchObject({ hits: 0, wholePages: 2, wireBytes: 2 * 4104 + 9 });
  });

  test("takes the average where the migration's own cache had missed", () => {
    const trace = traceOf(3, [
      [0, PageClass.RAW],
      [1, PageClass.RAW],
      [0, PageClass.DELTA, 200],
      [1, PageClass.RAW],
    ]);
    expect(replay(trace, HISTORY, 3)).toMatchObject({ estimatedDeltas: 1, wireBytes: 2 * 4104 + 2 * 211 });
  });

  test("knows the pages of several RAMBlocks apart", () => {
    const builder = new PageTraceBuilder("test");
    builder.ramBlocks(
      [
        { idstr: "a", pageCount: 2 },
        { idstr: "b", pageCount: 2 },
      ],
      4096,
    );
    builder.observe(0, 1, 0, PageClass.RAW, 0);
    builder.observe(1, 1, 0, PageClass.RAW, 0);
    builder.observe(1, 1, 1, PageClass.DELTA, 10);
    expect([...builder.trace.pages]).toEqual([1, 3, 3]);
    expect(replay(builder.trace, HISTORY, 4)).toMatchObject({ pagesAgain: 1, hits: 1 });
  });
});

/** The most hits that any choice can give: tries them all. */
function mostHits(trace: PageTrace, slots: number): number {
  const { pages, classes } = trace;
  const best = new Map<string, number>();
  const from = (record: number, held: readonly number[]): number => {
    if (record === pages.length) return 0;
    const key = `${record} ${held.join(",")}`;
    const known = best.get(key);
    if (known !== undefined) return known;
    const page = pages[record]!;
    const others = held.filter((other) => other !== page);
    let most = 0;
    if (classes[record] === PageClass.ZERO) most = from(record + 1, others);
    else {
      const hit = held.includes(page) ? 1 : 0;
      const choices =
        hit === 1 ? [held] : [held, ...others.map((out) => others.filter((each) => each !== out))];
      for (const choice of choices) {
        const kept = choice.includes(page) || choice.length === slots ? choice : [...choice, page].sort();
        most = Math.max(most, hit + from(record + 1, kept), hit + from(record + 1, choice));
      }
    }
    best.set(key, most);
    return most;
  };
  return from(0, []);
}

test("the optimal policy has as many hits as trying everything finds", () => {
  const record = fc.tuple(fc.nat({ max: 4 }), fc.constantFrom(PageClass.RAW, PageClass.RAW, PageClass.ZERO));
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3 }), fc.array(record, { maxLength: 14 }), (slots, records) => {
      const trace = traceOf(5, records);
      // A page that was zero at the destination is known anyhow: no hit of the cache's slots.
      expect(replay(trace, "optimal", slots).hits).toBe(mostHits(trace, slots));
    }),
    { numRuns: 200 },
  );
});

describe("over synthetic guests", () => {
  const guests = {
    uniform: { uniformWrites: 1500 },
    "hot pages among cold ones": { hotPages: 600, uniformWrites: 400 },
    "hot pages that change": { hotPages: 500, uniformWrites: 100, phaseIterations: 5 },
    "a sweep": { sweptPages: 1000, uniformWrites: 60 },
  };
  const traces = Object.entries(guests).map(([name, guest]) => {
    const builder = new PageTraceBuilder(name);
    synthesize({ ...QUIET_GUEST, pageCount: 4096, zeroPages: 1024, ...guest }, builder);
    return builder.trace;
  });

  test.each(traces.map((trace) => [trace.name, trace] as const))(
    "%s: no policy beats the optimal one",
    (_, trace) => {
      for (const slots of [256, 512, 1024, 2048]) {
        const most = replay(trace, "optimal", slots);
        for (const kind of POLICIES) {
          const result = replay(trace, kind, slots);
          expect(result.hits).toBeLessThanOrEqual(most.hits);
          expect(result.pagesAgain).toBe(most.pagesAgain);
        }
      }
    },
  );

  test("history never falls far behind the best other policy, which is another one for each guest", () => {
    for (const trace of traces) {
      for (const slots of [512, 1024, 2048]) {
        const hits = POLICIES.map((kind) => replay(trace, kind, slots).hits);
        const mine = hits[POLICIES.indexOf(HISTORY)]!;
        expect(mine).toBeGreaterThan(0.6 * Math.max(...hits));
      }
    }
    for (const kind of POLICIES) {
      if (kind === HISTORY) continue;
      const worst = Math.min(
        ...traces.map((trace) => replay(trace, kind, 512).hits / replay(trace, HISTORY, 512).hits),
      );
      expect(worst).toBeLessThan(0.75);
    }
  });

  test("the same seed gives the same trace, another one another", () => {
    const pagesOf = (seed: number) => {
      const builder = new PageTraceBuilder("");
      synthesize({ ...QUIET_GUEST, pageCount: 1024, zeroPages: 0, uniformWrites: 100, seed }, builder);
      return Buffer.from(builder.trace.pages.slice().buffer);
    };
    expect(pagesOf(7).equals(pagesOf(7))).toBe(true);
    expect(pagesOf(7).equals(pagesOf(8))).toBe(false);
  });
});

describe("codecs over contents", () => {
  const changedBytes = {
    name: "changed",
    deltaBytes(old: Uint8Array, oldOffset: number, page: Uint8Array, offset: number, pageBytes: number) {
      let changed = 0;
      for (let i = 0; i < pageBytes; i++) if (old[oldOffset + i] !== page[offset + i]) changed++;
      return changed < pageBytes / 2 ? changed : undefined;
    },
  };

  test("are given each page and the one before, zeros included", () => {
    const replayed = new CodecReplay("test", [changedBytes]);
    replayed.header({ pageBytes: 512, hasContents: true, blocks: [{ idstr: "a", pageCount: 2 }] });
    const content = (changed: number) => new Uint8Array(515).fill(9, 3 + 512 - changed);
    const page = (pageClass: PageClass, changed: number) =>
      replayed.page(0, 1, pageClass, 1, content(changed), 3);
    page(PageClass.RAW, 10);
    page(PageClass.DELTA, 17);
    replayed.page(0, 1, PageClass.UNCHANGED, 0, NO_CONTENT, 0);
    page(PageClass.DELTA, 20);
    replayed.page(0, 1, PageClass.ZERO, 0, NO_CONTENT, 0);
    page(PageClass.RAW, 5);
    page(PageClass.OVERFLOW, 400);
    expect(replayed.results).toEqual([
      { name: "changed", deltaPages: 3, deltaBytes: 7 + 3 + 5, overflowPages: 1 },
    ]);
  });

  test("need a trace that has contents", () => {
    const header = { pageBytes: 512, hasContents: false, blocks: [] };
    expect(() => new CodecReplay("x", [changedBytes]).header(header)).toThrow(/Trace x has no contents/);
  });
});
