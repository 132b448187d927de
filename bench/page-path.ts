// What does a page cost beside the kernels that look at it? The rewriter over streams of one kind of page, and the
// kernels alone over the same pages, in turns in one process: the difference is reading the stream, looking pages
// up and writing down what is to be sent, all of it in JavaScript.
// `node scripts/run.mjs bench:page-path` prints a table.

import { DELTA_WORD_MASK } from "../src/codec/delta/delta-codec.ts";
import { makeDeltaCodec } from "../src/codec/delta/delta-codecs.ts";
import { InlineBatchCoder } from "../src/codec/entropy/inline-batch-coder.ts";
import { BatchSink } from "../src/engine/pages/batch-sink.ts";
import { StreamRewriter } from "../src/engine/pages/rewriter.ts";
import { loadKernel } from "../src/kernel/kernel.ts";
import { KernelMemory } from "../src/kernel/memory.ts";
import { PageCache } from "../src/memory/page-cache.ts";
import { SectionType } from "../src/stream/format.ts";
import { StreamReader } from "../src/stream/reader.ts";
import { OutputBuffer, StreamWriter } from "../src/stream/writer.ts";

const PAGE_BYTES = 4096;
const PAGES = 4096;
const SECTION_ID = 1;
const ROUNDS = 15;
const WARM_UP_ROUNDS = 5;
const BLOCKS = [{ idstr: "pc.ram", lengthBytes: PAGES * PAGE_BYTES }];

/** Every page whole, in one section; `change`: a word of each that is different from round to round. */
function pass(writer: StreamWriter, page: Uint8Array, change: number): void {
  const view = new DataView(page.buffer);
  writer.ramSection(SectionType.PART, SECTION_ID);
  for (let index = 0; index < PAGES; index++) {
    view.setFloat64(64, index + 1);
    view.setUint32(1024, change);
    writer.page(0, index, page, 0);
  }
  writer.ramSectionEnd();
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;

/** Microseconds per page: everything, and the kernels alone. */
function measure(changes: boolean): { pathUs: number; kernelsUs: number } {
  const memory = new KernelMemory();
  const kernel = loadKernel(memory);
  const coder = new InlineBatchCoder(memory, kernel, { slotCount: 3, nowMs: () => 0 });
  const codec = makeDeltaCodec(DELTA_WORD_MASK, memory, kernel, PAGE_BYTES)!;
  const sink = new BatchSink(memory, kernel, coder, () => ({
    delta: codec,
    window: undefined,
    windowPages: 0,
    baselinePages: 0,
  }));
  const none = () => {};
  const rewriter = new StreamRewriter({
    sink,
    memory,
    kernel,
    listener: { command: none, stopped: none, deviceState: none, opaque: none },
    cacheFactory: (pageBytes, home) =>
      new PageCache({ pageBytes, memory: home, limitBytes: 2 * PAGES * PAGE_BYTES }),
  });
  const reader = new StreamReader(rewriter);
  const inputBytes = PAGES * (PAGE_BYTES + 64) + 4096;
  const input = memory.bytes(memory.allocate(inputBytes), inputBytes);
  const old = memory.allocate(PAGES * PAGE_BYTES);
  const [control, data] = [memory.allocate(64 * 1024), memory.allocate(64 * 1024)];
  const page = new Uint8Array(PAGE_BYTES).map((_, i) => (i * 7919) >>> 3);
  const writer = new StreamWriter(new OutputBuffer(input));
  const feed = () => {
    const end = writer.output.length;
    for (let at = 0; at < end; ) {
      at = reader.consume(input, at, end);
      for (let batch = sink.takeSealed(); batch !== undefined; batch = sink.takeSealed()) {
        coder.release(batch.slot);
        sink.slotFreed();
      }
    }
    writer.output.moveTo(input);
  };
  writer.header("pc");
  writer.ramStart(SECTION_ID, BLOCKS);
  writer.ramSectionEnd();
  pass(writer, page, 0);
  feed();
  const [paths, alone]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS + WARM_UP_ROUNDS; round++) {
    pass(writer, page, changes ? round + 1 : 0);
    // The kernels on pages that lie as far apart as those of the input and of the cache do.
    const first = input.byteOffset + 5 + 8 + 1 + BLOCKS[0]!.idstr.length;
    for (let i = 0; i < PAGES; i++)
      kernel.copy(old + i * PAGE_BYTES, first + i * (PAGE_BYTES + 8), PAGE_BYTES);
    if (changes) for (let i = 0; i < PAGES; i++) kernel.fill(old + i * PAGE_BYTES + 1024, round, 4);
    const startMs = performance.now();
    for (let i = 0; i < PAGES; i++) {
      const [from, to] = [old + i * PAGE_BYTES, first + i * (PAGE_BYTES + 8)];
      kernel.isZero(to, PAGE_BYTES);
      if (codec.encode(from, to, control, data) > 0) kernel.copy(from, to, PAGE_BYTES);
    }
    const betweenMs = performance.now();
    feed();
    paths.push(performance.now() - betweenMs);
    alone.push(betweenMs - startMs);
  }
  const usPerPage = (ms: number[]) => (median(ms.slice(WARM_UP_ROUNDS)) * 1000) / PAGES;
  return { pathUs: usPerPage(paths), kernelsUs: usPerPage(alone) };
}

console.log(
  "us per page of 4 KiB".padEnd(24) +
    ["all", "kernels alone", "difference"].map((cell) => cell.padStart(16)).join(""),
);
for (const [name, changes] of [
  ["unchanged", false],
  ["a word changed", true],
] as const) {
  const { pathUs, kernelsUs } = measure(changes);
  const cells = [pathUs, kernelsUs, pathUs - kernelsUs].map((us) => us.toFixed(2).padStart(16));
  console.log(name.padEnd(24) + cells.join(""));
}
