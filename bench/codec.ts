// Section "codec": every codec of dirty pages on every set of pages, against a plain JavaScript loop for speed and
// against XBZRLE for bytes; then the codecs with an entropy coder behind them, in batches as the tunnel sends them.

import { assert } from "../src/base/assert.ts";
import type { EntropyCoder } from "../src/codec/entropy/entropy-coder.ts";
import { allocateLz4Table, Lz4 } from "../src/codec/entropy/lz4.ts";
import { hasNativeZstd, ZstdNative } from "../src/codec/entropy/zstd-native.ts";
import { ZstdWasm } from "../src/codec/entropy/zstd-wasm.ts";
import { type Kernel, loadKernel } from "../src/kernel/kernel.ts";
import { KernelMemory } from "../src/kernel/memory.ts";
import {
  BATCH_BYTES_MAX,
  BATCH_PAGES,
  type Codec,
  codecsOf,
  type LoadedSet,
  READABLE,
  SCRATCH_BYTES,
  SetMemory,
} from "./codecs.ts";
import { changeFigures, PAGE_BYTES, type PageSet, pageCountOf, SET_PAGES_MAX } from "./pages/page-set.ts";
import { pageSets } from "./pages/sets.ts";
import { PlainLoopEncoder } from "./plain-loop.ts";
import type { Goal, SectionOptions, SectionResult } from "./report.ts";
import { type Contender, geometricMean, takeTurns } from "./timing.ts";

const BASELINE = "JavaScript loop";
const REFERENCE_CODEC = "XBZRLE";
/** What nothing is coded with; the bytes of XBZRLE without an entropy coder are the reference. */
const NO_ENTROPY = "alone";
const SPEED_GOALS: Readonly<Record<string, number>> = { XBZRLE: 4, "word mask": 7 };
const BYTES_GOALS = { codec: "word mask", entropy: "zstd 1", vm: 0.6, heap: 0.35 };

interface Entropy {
  name: string;
  level: number;
  /** Undefined: nothing is coded. */
  coder: EntropyCoder | undefined;
}

/** What was measured of one codec on one set. */
interface CodecFigure {
  section: "codec";
  set: string;
  codec: string;
  encodeBytesPerSecond: number;
  /** Against the faster of the two loops in plain JavaScript. */
  encodeRatio: number;
  bytesPerPage?: number;
  decodeBytesPerSecond?: number;
}

interface EntropyFigure {
  section: "codec+entropy";
  set: string;
  codec: string;
  entropy: string;
  /** Both together. */
  encodeBytesPerSecond: number;
  bytesPerPage: number;
  /** Against XBZRLE alone. */
  bytesRatio: number;
}

export async function codecSection({ turns, rebuildPages }: SectionOptions): Promise<SectionResult> {
  const sets = await pageSets(rebuildPages);
  const bench = new CodecBench(turns);
  const codecFigures: CodecFigure[] = [];
  const entropyFigures: EntropyFigure[] = [];
  for (const set of sets) {
    console.error(`codec: set ${set.name}`);
    const loaded = bench.load(set);
    codecFigures.push(...bench.codecs(set, loaded));
    entropyFigures.push(...bench.entropy(set, loaded));
  }
  return {
    name: "codec",
    title: "Codecs of dirty pages",
    notes: [
      `Pages of ${PAGE_BYTES} bytes, one call per page; GB/s of input pages and CPU second, one thread; median of ${turns} turns. ` +
        `In brackets: multiple of the speed of plain JavaScript, the faster of the two loops in the same turn. A page whose delta would not be smaller counts as ${PAGE_BYTES} bytes.`,
      `With an entropy coder: batches of ${BATCH_PAGES} pages; of all words or deltas of a batch first, then its masks. ` +
        `zstd is ${hasNativeZstd() ? "Node's own" : "the WebAssembly build"}.`,
    ],
    tables: [
      { caption: "Sets of pages", table: setsTable(sets) },
      { caption: "Encode", table: encodeTable(sets, codecFigures) },
      { caption: "Bytes per dirty page, without an entropy coder", table: bytesTable(sets, codecFigures) },
      { caption: "Decode", table: decodeTable(sets, codecFigures) },
      {
        caption:
          "Codec and entropy coder: bytes per dirty page (ratio to XBZRLE alone), GB/s of both together",
        table: entropyTable(sets, entropyFigures),
      },
    ],
    goals: [...speedGoals(sets, codecFigures), ...bytesGoals(sets, entropyFigures)],
    lines: [...codecFigures, ...entropyFigures],
  };
}

class CodecBench {
  readonly #turns: number;
  readonly #memory = new KernelMemory();
  readonly #kernel: Kernel;
  readonly #sets: SetMemory;
  readonly #scratch: number;
  /** One batch laid out, and one coded. */
  readonly #raw: number;
  readonly #coded: number;
  /** All batches of a set, for decoding. */
  readonly #stored: number;
  readonly #entropies: readonly Entropy[];

  constructor(turns: number) {
    this.#turns = turns;
    const memory = this.#memory;
    this.#kernel = loadKernel(memory);
    this.#sets = new SetMemory(memory, SET_PAGES_MAX);
    this.#scratch = memory.allocate(SCRATCH_BYTES);
    this.#raw = memory.allocate(BATCH_BYTES_MAX);
    this.#coded = memory.allocate(BATCH_BYTES_MAX);
    this.#stored = memory.allocate((SET_PAGES_MAX / BATCH_PAGES) * BATCH_BYTES_MAX);
    const lz4 = new Lz4(this.#kernel, allocateLz4Table(memory));
    const zstd = hasNativeZstd() ? new ZstdNative(memory) : new ZstdWasm(memory, BATCH_BYTES_MAX);
    this.#entropies = [
      { name: NO_ENTROPY, level: 0, coder: undefined },
      { name: "lz4", level: 1, coder: lz4 },
      { name: "zstd -5", level: -5, coder: zstd },
      { name: "zstd -1", level: -1, coder: zstd },
      { name: "zstd 1", level: 1, coder: zstd },
      { name: "zstd 3", level: 3, coder: zstd },
    ];
  }

  load(set: PageSet): LoadedSet {
    return this.#sets.load(set);
  }

  codecs(set: PageSet, loaded: LoadedSet): CodecFigure[] {
    const codecs = codecsOf(this.#memory, this.#kernel, loaded, this.#scratch);
    const bytes = loaded.pages * PAGE_BYTES;
    const encoded = new Map(codecs.map((codec) => [codec.name, this.#encodedBytes(codec, loaded)]));
    const contenders: Contender[] = codecs.map((codec) => ({
      name: codec.name,
      bytes,
      run: () => forEachBatch(loaded.pages, (first, count) => codec.encode(first, count, this.#raw, false)),
    }));
    const baseline = this.#baseline(set);
    assert(baseline.encodedBytes === encoded.get(REFERENCE_CODEC), "the JavaScript loop writes XBZRLE");
    const encode = takeTurns([baseline, ...contenders], this.#turns, [BASELINE, READABLE]);
    const decode = new Map(codecs.map((codec) => [codec.name, this.#decodeBytesPerSecond(codec, loaded)]));
    return encode.map(({ name, bytesPerSecond, ratio }) => {
      const of = encoded.get(name);
      const decodeBytesPerSecond = decode.get(name);
      return {
        section: "codec",
        set: set.name,
        codec: name,
        encodeBytesPerSecond: bytesPerSecond,
        encodeRatio: ratio!,
        ...(of === undefined ? {} : { bytesPerPage: of / loaded.pages }),
        ...(decodeBytesPerSecond === undefined ? {} : { decodeBytesPerSecond }),
      };
    });
  }

  /** Pages and output in memory of its own: plain JavaScript would not keep its pages in a WebAssembly memory. */
  #baseline(set: PageSet): Contender & { encodedBytes: number } {
    const pages = pageCountOf(set);
    const loop = new PlainLoopEncoder(new Uint8Array(set.oldPages), new Uint8Array(set.newPages), PAGE_BYTES);
    const encodeBatch = (first: number, count: number): number => {
      let bytes = 0;
      for (let page = first; page < first + count; page++) {
        const deltaBytes = loop.encode(page * PAGE_BYTES, PAGE_BYTES);
        bytes += deltaBytes < 0 ? PAGE_BYTES : deltaBytes;
      }
      return bytes;
    };
    let encodedBytes = 0;
    forEachBatch(pages, (first, count) => {
      encodedBytes += encodeBatch(first, count);
    });
    return {
      name: BASELINE,
      bytes: pages * PAGE_BYTES,
      run: () => forEachBatch(pages, encodeBatch),
      encodedBytes,
    };
  }

  #encodedBytes(codec: Codec, { pages }: LoadedSet): number {
    let bytes = 0;
    forEachBatch(pages, (first, count) => {
      bytes += codec.encode(first, count, this.#raw, false) + codec.omittedBytes;
    });
    return bytes;
  }

  /** Onto the target again and again: it is the new pages after the first time; what needs the old page makes others of it. */
  #decodeBytesPerSecond(codec: Codec, loaded: LoadedSet): number {
    const starts: number[] = [];
    let at = this.#stored;
    forEachBatch(loaded.pages, (first, count) => {
      starts.push(at);
      at += codec.encode(first, count, at, true);
    });
    const decodeAll = () =>
      forEachBatch(loaded.pages, (first, count) => codec.decode(first, count, starts[first / BATCH_PAGES]!));
    this.#sets.resetTarget(loaded);
    decodeAll();
    assert(this.#sets.isTargetNew(loaded), `${codec.name} gives back what it encoded`);
    const contender = { name: codec.name, bytes: loaded.pages * PAGE_BYTES, run: decodeAll };
    return takeTurns([contender], this.#turns)[0]!.bytesPerSecond;
  }

  entropy(set: PageSet, loaded: LoadedSet): EntropyFigure[] {
    const codecs = codecsOf(this.#memory, this.#kernel, loaded, this.#scratch).filter(
      ({ isCodedAgain }) => isCodedAgain,
    );
    const combinations = codecs.flatMap((codec) =>
      this.#entropies.map((entropy) => {
        let sentBytes = 0;
        const contender: Contender = {
          name: `${codec.name} + ${entropy.name}`,
          bytes: loaded.pages * PAGE_BYTES,
          run: () => {
            sentBytes = 0;
            forEachBatch(loaded.pages, (first, count) => {
              sentBytes += this.#codeBatch(codec, entropy, first, count);
            });
          },
        };
        return { codec, entropy, contender, sentBytes: () => sentBytes };
      }),
    );
    const timings = takeTurns(
      combinations.map(({ contender }) => contender),
      this.#turns,
    );
    const reference = combinations.find(
      ({ codec, entropy }) => codec.name === REFERENCE_CODEC && entropy.name === NO_ENTROPY,
    )!;
    return combinations.map(({ codec, entropy, sentBytes }, index) => ({
      section: "codec+entropy",
      set: set.name,
      codec: codec.name,
      entropy: entropy.name,
      encodeBytesPerSecond: timings[index]!.bytesPerSecond,
      bytesPerPage: sentBytes() / loaded.pages,
      bytesRatio: sentBytes() / reference.sentBytes(),
    }));
  }

  /** @returns what would be sent: the batch as it is where coding does not make it smaller */
  #codeBatch(codec: Codec, { coder, level }: Entropy, first: number, count: number): number {
    const rawBytes = codec.encode(first, count, this.#raw, true);
    if (coder === undefined) return rawBytes;
    const codedBytes = coder.compress(this.#raw, rawBytes, this.#coded, rawBytes - 1, level);
    return codedBytes === -1 ? rawBytes : codedBytes;
  }
}

function forEachBatch(pages: number, work: (first: number, count: number) => void): void {
  for (let first = 0; first < pages; first += BATCH_PAGES) work(first, Math.min(BATCH_PAGES, pages - first));
}

// ---- tables and goals ----

const REAL_KINDS: readonly PageSet["kind"][] = ["vm", "heap"];
const realSets = (sets: readonly PageSet[]) => sets.filter(({ kind }) => REAL_KINDS.includes(kind));
const gigabytes = (bytesPerSecond: number) => (bytesPerSecond / 1e9).toPrecision(3);
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
const MEAN = "real sets";
const NONE = "-";

function setsTable(sets: readonly PageSet[]): string[][] {
  return [
    [
      ...["set", "what", "pages", "unchanged", "≤ 128 B changed", "> 2 KiB changed", "was zero"],
      ...["bytes changed", "of these, hexadecimal digits"],
    ],
    ...sets.map((set) => {
      const figures = changeFigures(set);
      return [
        set.name,
        set.description,
        `${figures.pages}`,
        figures.unchangedShare === undefined ? NONE : percent(figures.unchangedShare),
        percent(figures.smallChangeShare),
        percent(figures.largeChangeShare),
        percent(figures.wasZeroShare),
        figures.changedBytesMean.toFixed(0),
        figures.changedDigitsMean.toFixed(0),
      ];
    }),
  ];
}

/** A row per codec, a column per set, and the geometric mean of the real ones. */
function perSet(
  sets: readonly PageSet[],
  figures: readonly CodecFigure[],
  valuesOf: (figure: CodecFigure) => number[] | undefined,
  show: (values: number[]) => string,
): string[][] {
  const codecs = [...new Set(figures.map(({ codec }) => codec))];
  const rows = codecs.flatMap((codec) => {
    const of = (set: PageSet) =>
      valuesOf(figures.find((figure) => figure.codec === codec && figure.set === set.name)!);
    if (of(sets[0]!) === undefined) return [];
    const real = realSets(sets).map((set) => of(set)!);
    const mean =
      real.length === 0 ? undefined : real[0]!.map((_, i) => geometricMean(real.map((v) => v[i]!)));
    return [[codec, ...sets.map((set) => show(of(set)!)), mean === undefined ? NONE : show(mean)]];
  });
  return [["codec", ...sets.map(({ name }) => name), MEAN], ...rows];
}

function encodeTable(sets: readonly PageSet[], figures: readonly CodecFigure[]): string[][] {
  return perSet(
    sets,
    figures,
    ({ encodeBytesPerSecond, encodeRatio }) => [encodeBytesPerSecond, encodeRatio],
    ([speed, ratio]) => `${gigabytes(speed!)} (${ratio!.toFixed(2)})`,
  );
}

function bytesTable(sets: readonly PageSet[], figures: readonly CodecFigure[]): string[][] {
  return perSet(
    sets,
    figures,
    ({ bytesPerPage }) => (bytesPerPage === undefined ? undefined : [bytesPerPage]),
    ([bytes]) => bytes!.toFixed(0),
  );
}

function decodeTable(sets: readonly PageSet[], figures: readonly CodecFigure[]): string[][] {
  return perSet(
    sets,
    figures,
    ({ decodeBytesPerSecond }) => (decodeBytesPerSecond === undefined ? undefined : [decodeBytesPerSecond]),
    ([speed]) => gigabytes(speed!),
  );
}

function entropyTable(sets: readonly PageSet[], figures: readonly EntropyFigure[]): string[][] {
  const names = [...new Set(figures.map(({ codec, entropy }) => `${codec} + ${entropy}`))];
  return [
    ["format", ...sets.map(({ name }) => name)],
    ...names.map((name) => [
      name,
      ...sets.map((set) => {
        const { bytesPerPage, bytesRatio, encodeBytesPerSecond } = figures.find(
          (figure) => figure.set === set.name && `${figure.codec} + ${figure.entropy}` === name,
        )!;
        return `${bytesPerPage.toFixed(0)} (${bytesRatio.toFixed(2)}), ${gigabytes(encodeBytesPerSecond)}`;
      }),
    ]),
  ];
}

function speedGoals(sets: readonly PageSet[], figures: readonly CodecFigure[]): Goal[] {
  const real = realSets(sets).map(({ name }) => name);
  if (real.length === 0) return [];
  return Object.entries(SPEED_GOALS).map(([codec, goal]) => ({
    what: `${codec} encode against plain JavaScript, geometric mean of ${real.join(", ")}`,
    value: geometricMean(
      figures
        .filter((figure) => figure.codec === codec && real.includes(figure.set))
        .map((f) => f.encodeRatio),
    ),
    atLeast: goal,
    unit: "×",
  }));
}

function bytesGoals(sets: readonly PageSet[], figures: readonly EntropyFigure[]): Goal[] {
  const { codec, entropy } = BYTES_GOALS;
  return realSets(sets).map((set) => ({
    what: `bytes of ${codec} + ${entropy} against XBZRLE alone, set ${set.name}`,
    value: figures.find((f) => f.codec === codec && f.entropy === entropy && f.set === set.name)!.bytesRatio,
    atMost: set.kind === "vm" ? BYTES_GOALS.vm : BYTES_GOALS.heap,
    unit: "×",
  }));
}
