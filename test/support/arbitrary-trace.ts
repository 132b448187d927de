// Any page trace, as the calls that make it; what a writer and a reader are tested with.

import fc from "fast-check";
import { PageClass, type TraceBlock } from "../../src/trace/format.ts";
import type { TraceHandler } from "../../src/trace/reader.ts";
import { TraceWriter } from "../../src/trace/writer.ts";

export const TRACE_PAGE_BYTES = 512;

export interface TracedPage {
  block: number;
  page: number;
  iteration: number;
  pageClass: PageClass;
  deltaBytes: number;
  fill: number;
  codec: string;
}

export interface TracePlan {
  contents: boolean;
  blocks: TraceBlock[];
  pages: TracedPage[];
}

const blocks = fc.array(
  fc.record({ idstr: fc.stringMatching(/^[a-z0-9.@/]{0,20}$/), pageCount: fc.integer({ min: 1, max: 300 }) }),
  { minLength: 1, maxLength: 4 },
);

export const arbitraryTracePlan: fc.Arbitrary<TracePlan> = blocks.chain((list) =>
  fc.record({
    contents: fc.boolean(),
    blocks: fc.constant(list),
    pages: fc
      .array(
        fc.record({
          block: fc.nat({ max: list.length - 1 }),
          page: fc.nat({ max: 299 }),
          later: fc.constantFrom(0, 0, 0, 1, 200),
          pageClass: fc.constantFrom(...Object.values(PageClass)),
          deltaBytes: fc.integer({ min: 1, max: TRACE_PAGE_BYTES }),
          fill: fc.integer({ min: 1, max: 255 }),
          codec: fc.constantFrom("xbzrle", "xbzrle", "xbzrle", "word-mask"),
        }),
        { maxLength: 40 },
      )
      .map((pages) => {
        let iteration = 0;
        return pages.map(({ later, page, deltaBytes, ...rest }) => {
          iteration += later;
          return {
            ...rest,
            iteration,
            page: page % list[rest.block]!.pageCount,
            deltaBytes: rest.pageClass === PageClass.DELTA ? deltaBytes : 0,
          };
        });
      }),
  }),
);

/** The trace as a file would hold it, with its end. */
export function traceBytes({ contents, blocks, pages }: TracePlan): Buffer {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter((chunk) => chunks.push(chunk), { contents });
  writer.ramBlocks(blocks, TRACE_PAGE_BYTES);
  for (const { block, page, iteration, pageClass, deltaBytes, fill, codec } of pages) {
    // Not at the begin of its buffer, as in a migration.
    const content = new Uint8Array(TRACE_PAGE_BYTES + 7).fill(fill, 7);
    writer.codec(codec);
    writer.observe(block, page, iteration, pageClass, deltaBytes, content, 7);
  }
  writer.end();
  return Buffer.concat(chunks);
}

/** What a reader says, as lines that can be compared. */
export class SaidOfTrace implements TraceHandler {
  readonly lines: string[] = [];
  #pageBytes = 0;
  #hasContents = false;

  header({ pageBytes, blocks, hasContents }: Parameters<TraceHandler["header"]>[0]): void {
    [this.#pageBytes, this.#hasContents] = [pageBytes, hasContents];
    this.lines.push(`header ${pageBytes} ${hasContents} ${JSON.stringify(blocks)}`);
  }
  iteration(iteration: number): void {
    this.lines.push(`iteration ${iteration}`);
  }
  codec(name: string): void {
    this.lines.push(`codec ${name}`);
  }
  time(atMs: number): void {
    this.lines.push(`time ${atMs}`);
  }
  page(
    block: number,
    page: number,
    pageClass: PageClass,
    deltaBytes: number,
    content: Uint8Array,
    offset: number,
  ): void {
    let text = "";
    if (this.#hasContents && pageClass >= PageClass.DELTA) {
      text = ` ${Buffer.from(content.subarray(offset, offset + this.#pageBytes)).toString("hex")}`;
    }
    this.lines.push(`page ${block}/${page} ${pageClass} ${deltaBytes}${text}`);
  }
}

/** The same, from the plan. */
export function linesOfPlan({ contents, blocks, pages }: TracePlan): string[] {
  const lines = [`header ${TRACE_PAGE_BYTES} ${contents} ${JSON.stringify(blocks)}`];
  let [iteration, codec] = [-1, ""];
  for (const each of pages) {
    if (each.codec !== codec) lines.push(`codec ${each.codec}`);
    codec = each.codec;
    if (each.iteration !== iteration) lines.push(`iteration ${each.iteration}`);
    iteration = each.iteration;
    const hasContent = contents && each.pageClass >= PageClass.DELTA;
    const text = hasContent ? ` ${Buffer.alloc(TRACE_PAGE_BYTES, each.fill).toString("hex")}` : "";
    lines.push(`page ${each.block}/${each.page} ${each.pageClass} ${each.deltaBytes}${text}`);
  }
  return lines;
}
