// Section "entropy": the entropy coders at their levels on batches as the tunnel sends them, one thread; then whole
// batches through BatchCoder, on the calling thread against workers, and what either costs the calling thread.
// Runs alone too: `npx tsc -p tsconfig.tools.json && node build/bench/entropy.js`.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { assert } from "../src/base/assert.ts";
import { DeltaveeError } from "../src/base/errors.ts";
import type { BatchCoder, EncodedBatch } from "../src/codec/entropy/batch-coder.ts";
import { SLOT_RAW_BYTES } from "../src/codec/entropy/batch-coder.ts";
import {
  ENTROPY_LZ4,
  ENTROPY_NONE,
  ENTROPY_ZSTD,
  type EntropyCodecId,
  type EntropyCoder,
} from "../src/codec/entropy/entropy-coder.ts";
import { InlineBatchCoder } from "../src/codec/entropy/inline-batch-coder.ts";
import { allocateLz4Table, Lz4 } from "../src/codec/entropy/lz4.ts";
import { hasNativeZstd, ZstdNative } from "../src/codec/entropy/zstd-native.ts";
import { ZstdWasm } from "../src/codec/entropy/zstd-wasm.ts";
import { type Kernel, loadKernel } from "../src/kernel/kernel.ts";
import { KernelMemory } from "../src/kernel/memory.ts";
import { WorkerBatchCoder } from "../src/worker/worker-batch-coder.ts";
import { fillPayload, type PayloadKind } from "../test/support/batch-payloads.ts";
import { plainText, type Table } from "./table.ts";

const BATCH_BYTES = 256 * 1024;
const PAYLOADS: readonly PayloadKind[] = ["text", "words", "random"];
const ZSTD_LEVELS = [-5, -1, 1, 3, 6, 12, 19];
const WORKER_COUNTS = [1, 2];
const SLOT_COUNT = 8;
/** How long one thing is measured in one turn. */
const TURN_MS = 60;
const WARM_UP_TURNS = 3;

interface CoderFigure {
  section: "entropy";
  coder: string;
  level: number;
  payload: PayloadKind;
  /** Raw bytes per CPU second. */
  encodeBytesPerSecond: number;
  decodeBytesPerSecond: number;
  /** Raw bytes per coded byte; 1 where coding did not help. */
  ratio: number;
}

interface BatchFigure {
  section: "entropy+threads";
  codec: string;
  payload: PayloadKind;
  batchBytes: number;
  /** 0: on the calling thread. */
  workerCount: number;
  /** Raw bytes per second of wall-clock time. */
  encodeBytesPerSecond: number;
  /** CPU time of the calling thread that one batch takes. */
  callerUs: number;
}

/** As the sections of the benchmark's runner. */
interface EntropySection {
  name: string;
  title: string;
  notes: readonly string[];
  tables: readonly { caption: string; table: Table }[];
  goals: readonly never[];
  lines: readonly object[];
}

export async function entropySection({ turns }: { turns: number }): Promise<EntropySection> {
  const coders = new CoderBench();
  const coderFigures = coders.run(turns);
  const batchFigures = await batches(turns);
  return {
    name: "entropy",
    title: "Entropy coders",
    notes: [
      `Batches of ${BATCH_BYTES / 1024} KiB; MB/s of raw bytes, median of ${turns} turns. ` +
        "Payloads are generated: text, words that changed (zeros, small numbers, addresses, floating point), random bytes.",
      "The calling thread's time is CPU time, with all that the event loop does; the workers' is not in it.",
    ],
    tables: [
      { caption: "One thread: MB/s coded, ratio, MB/s decoded (CPU time)", table: coderTable(coderFigures) },
      {
        caption: "Batches with their checksum, coded inline and by workers (wall clock)",
        table: batchTable(batchFigures),
      },
    ],
    goals: [],
    lines: [...coderFigures, ...batchFigures],
  };
}

class CoderBench {
  readonly #memory = new KernelMemory();
  readonly #raw = this.#memory.allocate(BATCH_BYTES);
  readonly #coded = this.#memory.allocate(2 * BATCH_BYTES);
  readonly #back = this.#memory.allocate(BATCH_BYTES);

  run(turns: number): CoderFigure[] {
    const wasm = new ZstdWasm(this.#memory, BATCH_BYTES);
    const native = hasNativeZstd() ? new ZstdNative(this.#memory) : undefined;
    const lz4 = new Lz4(loadKernel(this.#memory), allocateLz4Table(this.#memory));
    const figures: CoderFigure[] = [];
    for (const payload of PAYLOADS) {
      fillPayload(this.#memory.bytes(this.#raw, BATCH_BYTES), payload, 1);
      figures.push(this.#measure("lz4", lz4, 1, payload, turns));
      for (const level of ZSTD_LEVELS) {
        figures.push(this.#measure("zstd (WebAssembly)", wasm, level, payload, turns));
        if (native !== undefined) figures.push(this.#measure("zstd (Node)", native, level, payload, turns));
      }
    }
    return figures;
  }

  #measure(
    name: string,
    coder: EntropyCoder,
    level: number,
    payload: PayloadKind,
    turns: number,
  ): CoderFigure {
    const code = () => coder.compress(this.#raw, BATCH_BYTES, this.#coded, BATCH_BYTES - 1, level);
    const codedBytes = code();
    // What does not get smaller is not decoded either.
    const decode = () => coder.decompress(this.#coded, codedBytes, this.#back, BATCH_BYTES);
    // WebAssembly gets its better code when it has run for a while.
    for (const run of codedBytes === -1 ? [code] : [code, decode]) cpuSeconds(run, WARM_UP_TURNS);
    return {
      section: "entropy",
      coder: name,
      level,
      payload,
      encodeBytesPerSecond: BATCH_BYTES / cpuSeconds(code, turns),
      decodeBytesPerSecond: codedBytes === -1 ? 0 : BATCH_BYTES / cpuSeconds(decode, turns),
      ratio: codedBytes === -1 ? 1 : BATCH_BYTES / codedBytes,
    };
  }
}

/** CPU seconds of one run, the median over the turns. */
function cpuSeconds(run: () => void, turns: number): number {
  const seconds: number[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const start = process.cpuUsage();
    const endMs = performance.now() + TURN_MS;
    let runs = 0;
    do {
      run();
      runs++;
    } while (performance.now() < endMs);
    const { user, system } = process.cpuUsage(start);
    seconds.push((user + system) / 1e6 / runs);
  }
  return median(seconds);
}

interface Contender {
  workerCount: number;
  coder: BatchCoder;
  memory: KernelMemory;
}

async function batches(turns: number): Promise<BatchFigure[]> {
  const contenders: Contender[] = [];
  const make = (workerCount: number, of: (memory: KernelMemory, kernel: Kernel) => BatchCoder) => {
    const memory = new KernelMemory();
    contenders.push({ workerCount, memory, coder: of(memory, loadKernel(memory)) });
  };
  make(0, (memory, kernel) => {
    const nowMs = () => performance.now();
    // Deferred, so that it gives other events a turn after each batch, as a socket would have it.
    const defer = (callback: () => void) => void setImmediate(callback);
    return new InlineBatchCoder(memory, kernel, { slotCount: SLOT_COUNT, nowMs, defer });
  });
  for (const workerCount of WORKER_COUNTS)
    make(
      workerCount,
      (memory, kernel) => new WorkerBatchCoder(memory, kernel, { slotCount: SLOT_COUNT, workerCount }),
    );
  for (const { coder } of contenders) if (coder instanceof WorkerBatchCoder) await coder.start();

  const figures: BatchFigure[] = [];
  const codecs: { name: string; codecId: EntropyCodecId; level: number }[] = [
    { name: "none", codecId: ENTROPY_NONE, level: 0 },
    { name: "lz4", codecId: ENTROPY_LZ4, level: 1 },
    { name: "zstd -5", codecId: ENTROPY_ZSTD, level: -5 },
    { name: "zstd 1", codecId: ENTROPY_ZSTD, level: 1 },
    { name: "zstd 3", codecId: ENTROPY_ZSTD, level: 3 },
  ];
  for (const { coder, memory } of contenders)
    for (const { rawAddress } of coder.slots)
      fillPayload(memory.bytes(rawAddress, SLOT_RAW_BYTES), "words", 7);
  for (const batchBytes of [4, 16, 64, 256].map((kib) => kib * 1024)) {
    for (const { name, codecId, level } of codecs) {
      const measured = contenders.map(() => ({ bytesPerSecond: [] as number[], callerUs: [] as number[] }));
      for (let turn = 0; turn < turns; turn++) {
        for (const [index, { coder }] of contenders.entries()) {
          const { bytesPerSecond, callerUs } = await encodeFor(TURN_MS, coder, batchBytes, codecId, level);
          measured[index]!.bytesPerSecond.push(bytesPerSecond);
          measured[index]!.callerUs.push(callerUs);
        }
      }
      figures.push(
        ...contenders.map(({ workerCount }, index) => ({
          section: "entropy+threads" as const,
          codec: name,
          payload: "words" as const,
          batchBytes,
          workerCount,
          encodeBytesPerSecond: median(measured[index]!.bytesPerSecond),
          callerUs: median(measured[index]!.callerUs),
        })),
      );
    }
  }
  for (const { coder } of contenders) await coder.close();
  return figures;
}

/** Keeps all slots busy for so long. */
async function encodeFor(
  durationMs: number,
  coder: BatchCoder,
  batchBytes: number,
  codecId: EntropyCodecId,
  level: number,
): Promise<{ bytesPerSecond: number; callerUs: number }> {
  const startMs = performance.now();
  const startCpuUs = threadCpuUs();
  let ended = 0;
  let underWay = 0;
  await new Promise<void>((resolve) => {
    function told(slot: number, result: EncodedBatch | DeltaveeError): void {
      assert(!(result instanceof DeltaveeError), "batches are coded");
      ended++;
      underWay--;
      coder.release(slot);
      // Results that are told at once would nest.
      if (!scheduled) setImmediate(submit);
      scheduled = true;
    }
    let scheduled = false;
    function submit(): void {
      scheduled = false;
      while (performance.now() - startMs < durationMs) {
        const slot = coder.acquire();
        if (slot === -1) return;
        underWay++;
        coder.encode(slot, batchBytes, codecId, level, (result) => told(slot, result));
      }
      if (underWay === 0) resolve();
    }
    submit();
  });
  const seconds = (performance.now() - startMs) / 1000;
  return { bytesPerSecond: (ended * batchBytes) / seconds, callerUs: (threadCpuUs() - startCpuUs) / ended };
}

/** CPU time of this thread alone (Linux). */
function threadCpuUs(): number {
  return Number(readFileSync("/proc/thread-self/schedstat", "utf8").split(" ")[0]) / 1000;
}

function coderTable(figures: readonly CoderFigure[]): Table {
  const rows = new Map<string, CoderFigure[]>();
  for (const figure of figures) {
    const key = `${figure.coder} ${figure.level}`;
    rows.set(key, [...(rows.get(key) ?? []), figure]);
  }
  return [
    ["coder, level", ...PAYLOADS],
    ...[...rows].map(([name, row]) => [
      name,
      ...row.map(({ encodeBytesPerSecond, ratio, decodeBytesPerSecond }) =>
        [megabytes(encodeBytesPerSecond), ratio.toFixed(2), megabytes(decodeBytesPerSecond)].join(", "),
      ),
    ]),
  ];
}

function batchTable(figures: readonly BatchFigure[]): Table {
  const kinds = [0, ...WORKER_COUNTS];
  const rows = new Map<string, BatchFigure[]>();
  for (const figure of figures) {
    const key = `${figure.codec}, ${figure.batchBytes / 1024} KiB`;
    rows.set(key, [...(rows.get(key) ?? []), figure]);
  }
  const name = (workerCount: number) => (workerCount === 0 ? "inline" : `${workerCount} workers`);
  return [
    ["batch", ...kinds.flatMap((kind) => [`${name(kind)}: MB/s`, "calling thread, us a batch"])],
    ...[...rows].map(([batch, row]) => [
      batch,
      ...row.flatMap(({ encodeBytesPerSecond, callerUs }) => [
        megabytes(encodeBytesPerSecond),
        callerUs.toFixed(0),
      ]),
    ]),
  ];
}

function megabytes(bytesPerSecond: number): string {
  return (bytesPerSecond / 1e6).toFixed(0);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { notes, tables } = await entropySection({ turns: Number(process.argv[2] ?? 3) });
  console.log(notes.join("\n"));
  for (const { caption, table } of tables) console.log(`\n${caption}\n${plainText(table)}`);
}
