// A BatchCoder whose batches are coded by worker threads, several at a time, while the calling thread goes on. It
// wakes the calling thread only when the oldest batch is done. Batches too small to be worth the way to another
// thread are coded at once, and all of them until the first worker has started.

import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { DeltaveeError } from "../base/errors.ts";
import { workerLocation } from "../base/worker-location.ts";
import {
  type BatchCoder,
  type BatchSlot,
  type DecodedBatch,
  type EncodedBatch,
  SLOT_RAW_BYTES,
} from "../codec/entropy/batch-coder.ts";
import { BatchJobs, checkDecodeJob, checkEncodeJob } from "../codec/entropy/batch-job.ts";
import { BatchSlots } from "../codec/entropy/batch-slots.ts";
import {
  ENTROPY_CODECS,
  ENTROPY_LZ4,
  ENTROPY_NONE,
  ENTROPY_ZSTD,
  type EntropyCodecId,
} from "../codec/entropy/entropy-coder.ts";
import { allocateLz4Table } from "../codec/entropy/lz4.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { KernelMemory } from "../kernel/memory.ts";
import { BatchRing } from "./batch-ring.ts";
import type { BatchWorkerData, BatchWorkerMessage } from "./batch-worker.ts";

/**
 * Raw bytes up to which a batch is coded on the calling thread, since the handing over and the waking would cost it
 * as much: 5 to 15 us in quick succession, 40 to 80 us when both threads wake up for it. bench/entropy.ts measures
 * both ways. Without coding there is only a checksum to be made, which is never worth it.
 */
const INLINE_BYTES: Readonly<Record<EntropyCodecId, { encode: number; decode: number }>> = {
  [ENTROPY_NONE]: { encode: SLOT_RAW_BYTES, decode: SLOT_RAW_BYTES },
  [ENTROPY_LZ4]: { encode: 24 << 10, decode: 48 << 10 },
  [ENTROPY_ZSTD]: { encode: 8 << 10, decode: 24 << 10 },
};

const WORKERS_MAX_DEFAULT = 2;

/**
 * What the calling thread has spent on batches that were worth a worker before there is one: a worker's start takes
 * some 100 to 200 ms of a core, which a migration over a fast link, with a few deltas to code at its end, never earns.
 */
const START_AFTER_MS = 50;

export interface WorkerBatchCoderOptions {
  slotCount: number;
  /** Default: 2, but a core is left to the calling thread where there are two. */
  workerCount?: number;
  /** For tests of what happens when one dies. */
  makeWorker?: (workerData: BatchWorkerData) => Worker;
}

function makeBatchWorker(workerData: BatchWorkerData): Worker {
  return new Worker(workerLocation("worker/batch-worker"), { workerData });
}

interface PendingJob {
  readonly slot: number;
  /** In the ring; undefined for a job that was done on the calling thread and waits for its turn. */
  readonly position: number | undefined;
  readonly tell: (failure: DeltaveeError | undefined) => void;
}

export class WorkerBatchCoder implements BatchCoder {
  readonly #slots: BatchSlots;
  readonly #jobs: BatchJobs;
  readonly #ring: BatchRing;
  readonly #memory: KernelMemory;
  readonly #lz4TableAddresses: readonly number[];
  readonly #makeWorker: (workerData: BatchWorkerData) => Worker;
  /** The oldest first; as many as there are slots at most. */
  readonly #pending: PendingJob[] = [];
  #workers: Worker[] = [];
  #started: Promise<void> | undefined;
  #readyWorkers = 0;
  /** Spent on batches that a worker would have coded, had there been one. */
  #missedMs = 0;
  /** Jobs in the ring. While there are any, the process is kept alive. */
  #handedOver = 0;
  #telling = false;
  #failure: DeltaveeError | undefined;
  #closed = false;

  /** `kernel`: the calling thread's. */
  constructor(memory: KernelMemory, kernel: Kernel, options: WorkerBatchCoderOptions) {
    const workerCount =
      options.workerCount ?? Math.max(1, Math.min(WORKERS_MAX_DEFAULT, availableParallelism() - 1));
    this.#memory = memory;
    this.#makeWorker = options.makeWorker ?? makeBatchWorker;
    this.#slots = new BatchSlots(memory, options.slotCount);
    this.#jobs = new BatchJobs(memory, kernel, allocateLz4Table(memory), () => performance.now());
    this.#ring = new BatchRing(options.slotCount);
    this.#lz4TableAddresses = Array.from({ length: workerCount }, () => allocateLz4Table(memory));
  }

  get slots(): readonly BatchSlot[] {
    return this.#slots.slots;
  }

  /**
   * Starts the workers in the background, unless they are; so does enough to code. Settles when all of them run, or
   * cannot, of which the jobs are told.
   */
  start(): Promise<void> {
    this.#started ??= Promise.all(
      this.#lz4TableAddresses.map((lz4TableAddress) => this.#startWorker(lz4TableAddress)),
    ).then(() => {});
    return this.#started;
  }

  get concurrency(): number {
    return this.#lz4TableAddresses.length;
  }

  get isReady(): boolean {
    return this.#readyWorkers > 0;
  }

  prepare(): void {
    if (!this.#closed) void this.start();
  }

  acquire(): number {
    return this.#slots.acquire();
  }

  release(slot: number): void {
    this.#slots.release(slot);
  }

  encode(
    slot: number,
    rawBytes: number,
    codecId: EntropyCodecId,
    level: number,
    done: (result: EncodedBatch | DeltaveeError) => void,
  ): void {
    checkEncodeJob(rawBytes, codecId, level);
    const place = this.#slots.beginJob(slot);
    if (this.#handOver(rawBytes, INLINE_BYTES[codecId].encode)) {
      const position = this.#ring.submitEncode(slot, rawBytes, codecId, level);
      const tell = (failure?: DeltaveeError) => done(failure ?? this.#ring.encoded(slot));
      this.#push({ slot, position, tell });
    } else {
      const result = this.#jobs.encode(place, rawBytes, codecId, level);
      if (rawBytes > INLINE_BYTES[codecId].encode) this.#missed(result.encodeMs);
      this.#push({ slot, position: undefined, tell: (failure) => done(failure ?? result) });
    }
  }

  decode(
    slot: number,
    codedBytes: number,
    codecId: number,
    rawBytes: number,
    rawChecksum: number,
    done: (result: DecodedBatch | DeltaveeError) => void,
  ): void {
    checkDecodeJob(codedBytes);
    const place = this.#slots.beginJob(slot);
    // Descriptions that no job can have are refused at once.
    const codec = ENTROPY_CODECS.find(({ id }) => id === codecId);
    const possible = Number.isInteger(rawBytes) && rawBytes <= SLOT_RAW_BYTES;
    if (possible && codec !== undefined && this.#handOver(rawBytes, INLINE_BYTES[codec.id].decode)) {
      const position = this.#ring.submitDecode(slot, codedBytes, codec.id, rawBytes, rawChecksum);
      const tell = (failure?: DeltaveeError) => done(failure ?? this.#ring.decoded(slot));
      this.#push({ slot, position, tell });
    } else {
      const result = this.#jobs.decode(place, codedBytes, codecId, rawBytes, rawChecksum);
      if (codec !== undefined && rawBytes > INLINE_BYTES[codec.id].decode && "decodeMs" in result)
        this.#missed(result.decodeMs);
      this.#push({ slot, position: undefined, tell: (failure) => done(failure ?? result) });
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    // A thread that is ended while it reads its modules leaves their files open in this process (Node 20).
    await this.#started;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #handOver(rawBytes: number, inlineBytes: number): boolean {
    return rawBytes > inlineBytes && this.#failure === undefined && this.#readyWorkers > 0;
  }

  #missed(ms: number): void {
    this.#missedMs += ms;
    if (this.#missedMs >= START_AFTER_MS) this.prepare();
  }

  #push(job: PendingJob): void {
    this.#pending.push(job);
    if (job.position !== undefined && this.#handedOver++ === 0) this.#workers[0]!.ref();
    this.#tellEnded();
  }

  /** Tells the results of what has ended, up to the oldest job that has not. */
  #tellEnded(): void {
    // `done` may submit further jobs: the loop under way finds them.
    if (this.#telling) return;
    this.#telling = true;
    try {
      for (let job = this.#pending[0]; job !== undefined && !this.#closed; job = this.#pending[0]) {
        const { slot, position } = job;
        if (position !== undefined && this.#failure === undefined) {
          if (!this.#ring.endedOrAwaited(position, slot)) return;
        }
        this.#pending.shift();
        if (position !== undefined && --this.#handedOver === 0) this.#workers[0]!.unref();
        this.#slots.endJob(slot);
        job.tell(this.#failure);
      }
    } finally {
      this.#telling = false;
    }
  }

  /** Resolves when it runs or has ended. */
  #startWorker(lz4TableAddress: number): Promise<void> {
    const data: BatchWorkerData = {
      memory: this.#memory.wasm,
      ring: this.#ring.buffer,
      slots: this.slots,
      lz4TableAddress,
    };
    const worker = this.#makeWorker(data);
    this.#workers.push(worker);
    return new Promise((settle) => {
      worker.on("message", (message: BatchWorkerMessage) => {
        if (message === "ready") {
          this.#readyWorkers++;
          if (this.#handedOver === 0 || worker !== this.#workers[0]) worker.unref();
          settle();
        } else this.#tellEnded();
      });
      worker.on("error", (cause) => this.#fail("A thread that codes batches died", cause));
      worker.on("exit", (exitCode) => {
        this.#fail(`A thread that codes batches ended with code ${exitCode}`);
        settle();
      });
    });
  }

  /** What has ended is told as it is, everything else with the failure; so will be what comes later. */
  #fail(message: string, cause?: unknown): void {
    if (this.#closed || this.#failure !== undefined) return;
    this.#tellEnded();
    this.#failure = new DeltaveeError("INTERNAL", message, { cause });
    for (const worker of this.#workers) void worker.terminate();
    this.#tellEnded();
  }
}
