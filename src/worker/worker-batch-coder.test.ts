// The workers are compiled code, also here (base/worker-location.ts): test/support/build.ts sees to it.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, test } from "vitest";
import { batchCoderSuite, encodeWith } from "../../test/support/batch-coder-suite.ts";
import { fillPayload } from "../../test/support/batch-payloads.ts";
import { openFilesOf } from "../../test/support/open-files.ts";
import { PACKAGE_ROOT } from "../../test/support/package-root.ts";
import { DeltaveeError } from "../base/errors.ts";
import { workerLocation } from "../base/worker-location.ts";
import type { EncodedBatch } from "../codec/entropy/batch-coder.ts";
import { ENTROPY_LZ4, ENTROPY_NONE, ENTROPY_ZSTD } from "../codec/entropy/entropy-coder.ts";
import { loadKernel } from "../kernel/kernel.ts";
import { KernelMemory } from "../kernel/memory.ts";
import { WorkerBatchCoder, type WorkerBatchCoderOptions } from "./worker-batch-coder.ts";

const coders: WorkerBatchCoder[] = [];
afterEach(async () => {
  for (const coder of coders.splice(0)) await coder.close();
});

function setUp(options: WorkerBatchCoderOptions) {
  const memory = new KernelMemory();
  const coder = new WorkerBatchCoder(memory, loadKernel(memory), options);
  coders.push(coder);
  const fill = (slot: number, rawBytes: number) =>
    fillPayload(memory.bytes(coder.slots[slot]!.rawAddress, rawBytes), "text", slot + 1);
  return { memory, coder, fill };
}

describe("WorkerBatchCoder whose workers run", () => {
  batchCoderSuite(async (memory, slotCount) => {
    const coder = new WorkerBatchCoder(memory, loadKernel(memory), { slotCount, workerCount: 3 });
    await coder.start();
    return coder;
  });
});

test("threads are started for much to code, and not for little, nor for what needs no coding", () => {
  let started = 0;
  const { coder, fill } = setUp({
    slotCount: 1,
    workerCount: 1,
    makeWorker: (workerData) => {
      started++;
      return new Worker(workerLocation("worker/batch-worker"), { workerData });
    },
  });
  const slot = coder.acquire();
  fill(slot, 500_000);
  for (let i = 0; i < 500; i++) coder.encode(slot, 500_000, ENTROPY_NONE, 0, () => {});
  coder.encode(slot, 30_000, ENTROPY_LZ4, 1, () => {});
  expect(started).toBe(0);
  for (let i = 0; i < 500 && started === 0; i++) coder.encode(slot, 500_000, ENTROPY_ZSTD, 3, () => {});
  expect(started).toBe(1);
});

test("it says when threads do the work, and starts them when it is asked to", async () => {
  const { coder } = setUp({ slotCount: 1, workerCount: 1 });
  expect(coder.isReady).toBe(false);
  coder.prepare();
  coder.prepare();
  await coder.start();
  expect(coder.isReady).toBe(true);
  await coder.close();
});

describe("WorkerBatchCoder whose workers are still starting", () => {
  batchCoderSuite(
    (memory, slotCount) => new WorkerBatchCoder(memory, loadKernel(memory), { slotCount, workerCount: 2 }),
  );
});

test("a large batch is not coded on the calling thread once a worker runs, a small one is", async () => {
  const { coder, fill } = setUp({ slotCount: 2, workerCount: 1 });
  const [large, small] = [coder.acquire(), coder.acquire()];
  fill(large, 500_000);
  fill(small, 1000);
  let told = false;
  coder.encode(large, 500_000, ENTROPY_ZSTD, 1, () => {
    told = true;
  });
  expect(told).toBe(true);
  await coder.start();
  const order: string[] = [];
  const bothTold = new Promise<void>((resolve) => {
    coder.encode(large, 500_000, ENTROPY_ZSTD, 1, () => order.push("large"));
    expect(order).toEqual([]);
    coder.encode(small, 1000, ENTROPY_LZ4, 1, () => {
      order.push("small");
      resolve();
    });
    expect(order).toEqual([]);
  });
  await bothTold;
  expect(order).toEqual(["large", "small"]);
  told = false;
  coder.encode(small, 1000, ENTROPY_LZ4, 1, () => {
    told = true;
  });
  expect(told).toBe(true);
});

test("memory that was allocated after the workers started is as usable as before", async () => {
  const { memory, coder, fill } = setUp({ slotCount: 1, workerCount: 1 });
  await coder.start();
  memory.allocate(300 << 20);
  const slot = coder.acquire();
  fill(slot, 300_000);
  const encoded = await encodeWith(coder, slot, 300_000, ENTROPY_LZ4, 1);
  expect(encoded.codecId).toBe(ENTROPY_LZ4);
});

describe("a worker dies", () => {
  /** Encodes in all slots; gives what was told, in order of the jobs. */
  function encodeAll(
    coder: WorkerBatchCoder,
    fill: (slot: number, rawBytes: number) => void,
    slotCount: number,
  ): Promise<(EncodedBatch | DeltaveeError)[]> {
    const results: (EncodedBatch | DeltaveeError)[] = [];
    return new Promise((resolve) => {
      for (let slot = coder.acquire(); slot !== -1; slot = coder.acquire()) {
        fill(slot, 1_000_000);
        // Long ones: they must not all have ended before this thread hears of the death.
        coder.encode(slot, 1_000_000, ENTROPY_ZSTD, 19, (result) => {
          results.push(result);
          if (results.length === slotCount) resolve(results);
        });
      }
    });
  }

  test("every job under way and every later one is told, whatever the other worker does", async () => {
    const workers: Worker[] = [];
    const { coder, fill } = setUp({
      slotCount: 5,
      workerCount: 2,
      makeWorker: (workerData) => {
        const worker = new Worker(workerLocation("worker/batch-worker"), { workerData });
        workers.push(worker);
        return worker;
      },
    });
    await coder.start();
    const told = encodeAll(coder, fill, 5);
    void workers[1]!.terminate();
    const results = await told;
    const failed = results.filter((result) => result instanceof DeltaveeError);
    expect(failed.length).toBeGreaterThan(0);
    // What had ended before is told as it is, and nothing after a failure.
    expect(results.slice(-failed.length)).toEqual(failed);
    expect(failed[0]).toMatchObject({ code: "INTERNAL" });
    expect(failed[0]!.message).toContain("thread that codes batches");

    coder.release(0);
    fill(coder.acquire(), 100);
    await expect(encodeWith(coder, 0, 100, ENTROPY_NONE, 0)).rejects.toBe(failed[0]);
  });

  test("a mistake in its code is told with its cause", async () => {
    const ringWithoutHandler = `
      const { parentPort, workerData } = require("node:worker_threads");
      parentPort.postMessage("ready");
      Atomics.wait(new Int32Array(workerData.ring), 16, 0);
      throw new Error("a mistake");`;
    const { coder, fill } = setUp({
      slotCount: 2,
      workerCount: 1,
      makeWorker: (workerData) => new Worker(ringWithoutHandler, { eval: true, workerData }),
    });
    await coder.start();
    const results = await encodeAll(coder, fill, 2);
    for (const result of results) {
      expect(result).toBeInstanceOf(DeltaveeError);
      expect((result as DeltaveeError).cause).toMatchObject({ message: "a mistake" });
    }
  });

  test("one that cannot start is told to the first batch that comes after", async () => {
    const { coder, fill } = setUp({
      slotCount: 1,
      workerCount: 1,
      makeWorker: () => new Worker(`throw new Error("no start")`, { eval: true }),
    });
    await coder.start();
    const slot = coder.acquire();
    fill(slot, 1000);
    await expect(encodeWith(coder, slot, 1000, ENTROPY_ZSTD, 1)).rejects.toMatchObject({
      code: "INTERNAL",
    });
  });
});

test("closed while its workers are still starting it leaves no file open", async () => {
  for (const delayMs of [10, 20, 30, 40, 50, 60, 80, 100, 120, 150, 180, 220, 260, 300, 350, 400]) {
    const { coder } = setUp({ slotCount: 1, workerCount: 2 });
    void coder.start();
    await sleep(delayMs);
    await coder.close();
  }
  expect(openFilesOf(join(PACKAGE_ROOT, "dist"))).toEqual([]);
});

test("a process with an idle coder ends by itself, and one with a job under way is kept until it is told", () => {
  const folder = mkdtempSync(join(tmpdir(), "deltavee-"));
  const dist = (path: string) => JSON.stringify(pathToFileURL(join(PACKAGE_ROOT, "dist", path)).href);
  writeFileSync(
    join(folder, "program.mjs"),
    `import { KernelMemory } from ${dist("kernel/memory.js")};
    import { loadKernel } from ${dist("kernel/kernel.js")};
    import { WorkerBatchCoder } from ${dist("worker/worker-batch-coder.js")};
    const memory = new KernelMemory();
    const coder = new WorkerBatchCoder(memory, loadKernel(memory), { slotCount: 2, workerCount: 2 });
    await coder.start();
    const slot = coder.acquire();
    coder.encode(slot, 1_000_000, ${ENTROPY_ZSTD}, 19, ({ codecId }) => console.log("told", codecId));
    console.log("submitted");`,
  );
  const { stdout, stderr, status } = spawnSync(process.execPath, [join(folder, "program.mjs")], {
    encoding: "utf8",
    timeout: 60_000,
  });
  rmSync(folder, { recursive: true });
  expect(stderr).toBe("");
  expect(stdout).toBe(`submitted\ntold ${ENTROPY_ZSTD}\n`);
  expect(status).toBe(0);
}, 90_000);
