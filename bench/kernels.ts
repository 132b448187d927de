// How fast are the kernels? Every kernel over sets of pages, in turns in one process, and beside them the best
// plain JavaScript loop: what counts are the ratios within one run.
// `node scripts/run.mjs bench:kernels` measures the synthetic sets and prints a table.

import { pathToFileURL } from "node:url";
import { xbzrleEncode } from "../src/codec/xbzrle.ts";
import {
  ENTROPY_SCRATCH_BYTES,
  type KernelVariant,
  LZ4_TABLE_BYTES,
  loadKernel,
} from "../src/kernel/kernel.ts";
import { KernelMemory } from "../src/kernel/memory.ts";
import { type PageSet, syntheticSets } from "./page-sets.ts";
import { PlainLoopEncoder } from "./plain-loop.ts";

export interface KernelFigures {
  set: string;
  pageCount: number;
  /** Bytes that an encoder makes of a page, pages that overflow counted whole. */
  bytesPerPage: Record<"xbzrle" | "wordMask" | "xbrle" | "wordMaskLz4", number>;
  /**
   * Gigabytes of pages per second, of the median round; whatever the kernel reads or writes of them. Undefined for
   * a decoder that had nothing to do, since no page had been made smaller.
   */
  gigabytesPerSecond: Record<KernelName, number | undefined>;
  /** Encoders of one page, against the faster of the two plain loops (which encode) in the same rounds. */
  ratioToPlainLoop: Partial<Record<KernelName, number>>;
}

/** The JavaScript loops among them: words of 32 bits, and the readable reference. */
const PLAIN_LOOPS = ["plain loop", "reference"] as const;
const KERNEL_NAMES = [
  ...PLAIN_LOOPS,
  "isZero",
  "isEqual",
  "copy",
  "hash32",
  "xbzrleEncode",
  "xbzrleDecode",
  "wordMaskEncode",
  "wordMaskDecode",
  "wordMaskToXbzrle",
  "xbrleEncode",
  "xbrleDecode",
  "wordMaskEncode + lz4Compress",
  "lz4Decompress",
  "lz4Compress of pages",
  "sampledEntropy of pages",
] as const;
const ENCODERS: readonly KernelName[] = [...PLAIN_LOOPS, "xbzrleEncode", "wordMaskEncode", "xbrleEncode"];
export type KernelName = (typeof KERNEL_NAMES)[number];

/** What the tunnel puts into one block. */
const BATCH_PAGES = 64;
const ROUNDS = 9;
const WARM_UP_ROUNDS = 2;

/** Every round runs every kernel once over all pages, so that whatever else the machine does meets them all. */
export function measureKernels(sets: readonly PageSet[], variant: KernelVariant = "simd"): KernelFigures[] {
  return sets.map((set) => measureSet(set, variant));
}

function measureSet({ name, pageBytes, oldPages, newPages }: PageSet, variant: KernelVariant): KernelFigures {
  const memory = new KernelMemory();
  const kernel = loadKernel(memory, variant);
  const totalBytes = newPages.length;
  const pageCount = totalBytes / pageBytes;
  const put = (bytes: Uint8Array) => {
    const address = memory.allocate(bytes.length);
    memory.bytes(address, bytes.length).set(bytes);
    return address;
  };
  const oldAt = put(oldPages);
  const newAt = put(newPages);
  const targetAt = put(newPages);
  /** Applying an XBRLE delta again takes it back, so these pages are now the old, now the new ones. */
  const xorTargetAt = put(oldPages);
  const zerosAt = put(new Uint8Array(totalBytes));
  const scratchAt = memory.allocate(Math.max(LZ4_TABLE_BYTES, ENTROPY_SCRATCH_BYTES));
  const resultAt = memory.allocate(8);
  const outAt = memory.allocate(2 * pageBytes + 64);

  // Encoded once for the decoders: [address, length] of each page's delta, masks or words.
  const arena = memory.allocate(4 * totalBytes + 64 * pageCount);
  let arenaNext = arena;
  const keep = (address: number, lengthBytes: number) => {
    kernel.copy(arenaNext, address, lengthBytes);
    arenaNext += lengthBytes;
    return arenaNext - lengthBytes;
  };
  const deltas = new Uint32Array(pageCount * 2);
  const xbrleDeltas = new Uint32Array(pageCount * 2);
  const masks = new Uint32Array(pageCount * 2);
  const words = new Uint32Array(pageCount * 2);
  const batchBytes = BATCH_PAGES * pageBytes;
  const masksAt = memory.allocate(batchBytes);
  const wordsAt = memory.allocate(batchBytes + pageBytes);
  const blockAt = memory.allocate(batchBytes * 2);

  const plainOld = Uint8Array.from(oldPages);
  const plainNew = Uint8Array.from(newPages);
  const plain = new PlainLoopEncoder(plainOld, plainNew, pageBytes);
  const plainOut = new Uint8Array(pageBytes);

  let xbzrleBytes = 0;
  let wordMaskBytes = 0;
  let xbrleBytes = 0;
  for (let i = 0; i < pageCount; i++) {
    const start = i * pageBytes;
    const deltaBytes = kernel.xbzrleEncode(oldAt + start, newAt + start, pageBytes, outAt, pageBytes);
    if (plain.encode(start, pageBytes) !== deltaBytes) throw new Error(`Page ${i} of ${name}: loops differ`);
    const plainDelta = Buffer.from(plain.out.buffer, 0, Math.max(0, deltaBytes));
    if (plainDelta.compare(memory.bytes(outAt, plainDelta.length)) !== 0) {
      throw new Error(`Page ${i} of ${name}: the loops' deltas differ`);
    }
    deltas.set([keep(outAt, Math.max(0, deltaBytes)), Math.max(0, deltaBytes)], i * 2);
    xbzrleBytes += deltaBytes < 0 ? pageBytes : deltaBytes;
    const both = kernel.wordMaskEncode(oldAt + start, newAt + start, pageBytes, masksAt, wordsAt, pageBytes);
    masks.set([keep(masksAt, both & 0xffff), both & 0xffff], i * 2);
    words.set([keep(wordsAt, both >>> 16), both >>> 16], i * 2);
    wordMaskBytes += (both & 0xffff) + (both >>> 16);
    const xbrle = kernel.xbrleEncode(oldAt + start, newAt + start, pageBytes, outAt, pageBytes);
    xbrleDeltas.set([keep(outAt, Math.max(0, xbrle)), Math.max(0, xbrle)], i * 2);
    xbrleBytes += xbrle < 0 ? pageBytes : xbrle;
  }
  let blockBytesTotal = 0;
  const blocks: [address: number, lengthBytes: number, outBytes: number][] = [];
  const compressWords = (): void => {
    for (let first = 0; first < pageCount; first += BATCH_PAGES) {
      let mask = masksAt;
      let word = wordsAt;
      for (let i = first; i < Math.min(pageCount, first + BATCH_PAGES); i++) {
        const start = i * pageBytes;
        const both = kernel.wordMaskEncode(oldAt + start, newAt + start, pageBytes, mask, word, pageBytes);
        mask += both & 0xffff;
        word += both >>> 16;
      }
      const blockBytes = kernel.lz4Compress(wordsAt, word - wordsAt, blockAt, word - wordsAt, scratchAt);
      blockBytesTotal += mask - masksAt + (blockBytes < 0 ? word - wordsAt : blockBytes);
      if (blocks.length < Math.ceil(pageCount / BATCH_PAGES)) {
        blocks.push([keep(blockAt, Math.max(0, blockBytes)), blockBytes, word - wordsAt]);
      }
    }
  };
  compressWords();
  const wordMaskLz4Bytes = blockBytesTotal;

  const eachPage = (action: (start: number, i: number) => void) => () => {
    for (let i = 0; i < pageCount; i++) action(i * pageBytes, i);
  };
  const eachBatch = (action: (start: number, lengthBytes: number) => void) => () => {
    for (let start = 0; start < totalBytes; start += batchBytes) {
      action(start, Math.min(batchBytes, totalBytes - start));
    }
  };
  const runs: Record<KernelName, () => void> = {
    "plain loop": eachPage((start) => plain.encode(start, pageBytes)),
    reference: eachPage((start) =>
      xbzrleEncode(plainOld, start, plainNew, start, pageBytes, plainOut, 0, pageBytes),
    ),
    isZero: eachPage((start) => kernel.isZero(zerosAt + start, pageBytes)),
    isEqual: eachPage((start) => kernel.isEqual(newAt + start, targetAt + start, pageBytes)),
    copy: eachPage((start) => kernel.copy(targetAt + start, newAt + start, pageBytes)),
    hash32: eachPage((start) => kernel.hash32(newAt + start, pageBytes)),
    xbzrleEncode: eachPage((start) =>
      kernel.xbzrleEncode(oldAt + start, newAt + start, pageBytes, outAt, pageBytes),
    ),
    xbzrleDecode: eachPage((start, i) => {
      if (deltas[i * 2 + 1]! > 0)
        kernel.xbzrleDecode(deltas[i * 2]!, deltas[i * 2 + 1]!, targetAt + start, pageBytes);
    }),
    wordMaskEncode: eachPage((start) =>
      kernel.wordMaskEncode(oldAt + start, newAt + start, pageBytes, masksAt, wordsAt, pageBytes),
    ),
    wordMaskDecode: eachPage((start, i) =>
      kernel.wordMaskDecode(
        masks[i * 2]!,
        masks[i * 2 + 1]!,
        words[i * 2]!,
        words[i * 2 + 1]!,
        targetAt + start,
        pageBytes,
        resultAt,
      ),
    ),
    wordMaskToXbzrle: eachPage((_start, i) =>
      kernel.wordMaskToXbzrle(
        masks[i * 2]!,
        masks[i * 2 + 1]!,
        words[i * 2]!,
        words[i * 2 + 1]!,
        pageBytes,
        outAt,
        resultAt,
      ),
    ),
    xbrleEncode: eachPage((start) =>
      kernel.xbrleEncode(oldAt + start, newAt + start, pageBytes, outAt, pageBytes),
    ),
    xbrleDecode: eachPage((start, i) => {
      if (xbrleDeltas[i * 2 + 1]! > 0)
        kernel.xbrleDecode(xbrleDeltas[i * 2]!, xbrleDeltas[i * 2 + 1]!, xorTargetAt + start, pageBytes);
    }),
    "wordMaskEncode + lz4Compress": compressWords,
    lz4Decompress: () => {
      for (const [address, lengthBytes, outBytes] of blocks) {
        if (lengthBytes > 0) kernel.lz4Decompress(address, lengthBytes, wordsAt, outBytes);
      }
    },
    "lz4Compress of pages": eachBatch((start, lengthBytes) =>
      kernel.lz4Compress(newAt + start, lengthBytes, blockAt, lengthBytes, scratchAt),
    ),
    "sampledEntropy of pages": eachBatch((start, lengthBytes) =>
      kernel.sampledEntropy(newAt + start, lengthBytes, scratchAt),
    ),
  };

  const seconds = timeInTurns(runs);
  const [first, second] = PLAIN_LOOPS.map((loop) => seconds[loop]);
  const plainSeconds = first!.map((each, i) => Math.min(each, second![i]!));
  const smaller = (lengths: Uint32Array) => lengths.filter((value, i) => i % 2 === 1 && value > 0).length;
  /** Of those that do not work on all pages. */
  const workedOnBytes: Partial<Record<KernelName, number>> = {
    xbzrleDecode: smaller(deltas) * pageBytes,
    xbrleDecode: smaller(xbrleDeltas) * pageBytes,
    lz4Decompress: Math.min(
      totalBytes,
      blocks.filter(([, lengthBytes]) => lengthBytes > 0).length * batchBytes,
    ),
  };
  const rate = (kernelName: KernelName): number | undefined => {
    const bytes = workedOnBytes[kernelName] ?? totalBytes;
    return bytes === 0 ? undefined : bytes / median(seconds[kernelName]) / 1e9;
  };
  return {
    set: name,
    pageCount,
    bytesPerPage: {
      xbzrle: xbzrleBytes / pageCount,
      wordMask: wordMaskBytes / pageCount,
      xbrle: xbrleBytes / pageCount,
      wordMaskLz4: wordMaskLz4Bytes / pageCount,
    },
    gigabytesPerSecond: forAll(rate),
    ratioToPlainLoop: Object.fromEntries(
      ENCODERS.map((encoder) => [encoder, median(plainSeconds) / median(seconds[encoder])]),
    ),
  };
}

function timeInTurns(runs: Record<KernelName, () => void>): Record<KernelName, number[]> {
  const seconds = forAll(() => [] as number[]);
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    for (const name of KERNEL_NAMES) {
      const startMs = performance.now();
      runs[name]();
      if (round >= 0) seconds[name].push((performance.now() - startMs) / 1000);
    }
  }
  return seconds;
}

function forAll<T>(of: (name: KernelName) => T): Record<KernelName, T> {
  return Object.fromEntries(KERNEL_NAMES.map((name) => [name, of(name)])) as Record<KernelName, T>;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

function print(figures: readonly KernelFigures[]): void {
  const row = (title: string, cells: readonly string[]) =>
    console.log(title.padEnd(30) + cells.map((cell) => cell.padStart(16)).join(""));
  row(
    "GB/s of pages (x plain loop)",
    figures.map(({ set }) => set),
  );
  for (const name of KERNEL_NAMES) {
    row(
      name,
      figures.map(({ gigabytesPerSecond, ratioToPlainLoop }) => {
        const ratio = ratioToPlainLoop[name];
        return `${gigabytesPerSecond[name]?.toFixed(2) ?? "-"}${ratio === undefined ? "" : ` (${ratio.toFixed(1)})`}`;
      }),
    );
  }
  for (const format of ["xbzrle", "wordMask", "xbrle", "wordMaskLz4"] as const) {
    row(
      `${format}, bytes per page`,
      figures.map((each) => each.bytesPerPage[format].toFixed(0)),
    );
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const pageCount = 4096;
  print(measureKernels(syntheticSets(pageCount), (process.argv[2] ?? "simd") as KernelVariant));
}
