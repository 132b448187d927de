// When a migration's forecast is made and said, by what its record says of how far it is.

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { modelOf } from "../../../test/support/guest-model.ts";
import { openFilesOf } from "../../../test/support/open-files.ts";
import { PACKAGE_ROOT } from "../../../test/support/package-root.ts";
import { DeltaveeError } from "../../base/errors.ts";
import { planMigration } from "../../planner/forecast.ts";
import { NO_PAGES, type RecordEntry, type RecordEvent } from "../../record/schema.ts";
import type { SampledGuest } from "../guest.ts";
import { LiveForecast, sampleInWorker } from "./live-forecast.ts";

const GIB = 2 ** 30;

/** After so much time so much is left. */
const sampleEvent = (linkBytesPerSecond: number, atMs = 0, remainingBytes = GIB): RecordEvent => ({
  type: "sample",
  ...{ handedOverBytes: 0, wireBytes: 0, inFlightBytes: 0, windowBytes: 0, pages: NO_PAGES },
  ...{ linkBytesPerSecond, roundTripMs: 20, atMs, remainingBytes },
});
/** Whatever has been begun has gone on as far as it can. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
}

const MODEL = modelOf();
const GUEST: SampledGuest = {
  model: MODEL,
  plan: async (question) => planMigration({ ...question, guest: MODEL }),
};

function begin(sample: (signal: AbortSignal) => Promise<SampledGuest | undefined> = async () => GUEST) {
  const said: RecordEntry[] = [];
  const forecast = new LiveForecast({
    ...{ method: "tunnel", downtimeMsMax: 300, cacheBytes: 2 ** 32, sample },
    record: { add: (entry) => void said.push(entry) },
  });
  /** A GiB that will take more than a minute, of which half a second is over. */
  const lasts = (linkBytesPerSecond = 0) => {
    forecast.listener(sampleEvent(linkBytesPerSecond, 0));
    forecast.listener(sampleEvent(linkBytesPerSecond, 500, 0.995 * GIB));
  };
  return { said, forecast, lasts };
}

test("it is said once, when the guest is sampled and the link is known", async () => {
  const { said, forecast, lasts } = begin();
  forecast.listener(sampleEvent(12.5e6));
  await settled();
  expect(said).toEqual([]);
  lasts(12.5e6);
  await settled();
  expect(said).toMatchObject([
    { type: "forecast", method: "tunnel", converges: "yes", linkBytesPerSecond: 12.5e6, roundTripMs: 20 },
  ]);
  // Whoever reads it later can ask a later planner the same.
  expect(said).toMatchObject([
    { basis: { guest: MODEL, lossShare: 0, downtimeMsMax: 300, cacheBytes: 2 ** 32 } },
  ]);
  forecast.listener(sampleEvent(25e6));
  await settled();
  expect(said).toHaveLength(1);
});

test("a link that is not known yet is waited for", async () => {
  const { said, forecast, lasts } = begin();
  lasts();
  await settled();
  expect(said).toEqual([]);
  forecast.listener(sampleEvent(12.5e6));
  await settled();
  expect(said).toHaveLength(1);
});

test("a migration that is over by then is not forecast, nor is its guest sampled", async () => {
  let samples = 0;
  const { said, forecast, lasts } = begin(async () => {
    samples++;
    return GUEST;
  });
  forecast.listener(sampleEvent(12.5e6));
  forecast.end();
  lasts(12.5e6);
  await settled();
  expect([samples, said]).toEqual([0, []]);
});

test("one that will be over soon is not either, unless it turns out to last", async () => {
  let samples = 0;
  const { said, forecast } = begin(async () => {
    samples++;
    return GUEST;
  });
  forecast.listener(sampleEvent(400e6, 0, 2 * GIB));
  forecast.listener(sampleEvent(400e6, 400, 2 * GIB));
  forecast.listener(sampleEvent(400e6, 600, 1.5 * GIB));
  forecast.listener(sampleEvent(400e6, 2000, 0.2 * GIB));
  await settled();
  expect([samples, said]).toEqual([0, []]);
  // It dirties as much as it sends.
  for (let atMs = 2000; atMs <= 60_000; atMs += 250) forecast.listener(sampleEvent(400e6, atMs, 0.2 * GIB));
  await settled();
  expect(samples).toBe(1);
  expect(said).toHaveLength(1);
});

test("zero pages that go first do not make a migration one that will be over soon", async () => {
  const MIB = 2 ** 20;
  let samples = 0;
  const { forecast } = begin(async () => {
    samples++;
    return GUEST;
  });
  forecast.listener(sampleEvent(1e6, 0, 32 * MIB));
  forecast.listener(sampleEvent(1e6, 500, 4 * MIB));
  await settled();
  expect(samples).toBe(0);
  forecast.listener(sampleEvent(1e6, 750, 3.95 * MIB));
  forecast.listener(sampleEvent(1e6, 1250, 3.8 * MIB));
  await settled();
  expect(samples).toBe(1);
});

test("nor do pages that are found dirty anew make it one that lasts", async () => {
  let samples = 0;
  const { forecast } = begin(async () => {
    samples++;
    return GUEST;
  });
  // At 2000 ms, and again, almost as much is found dirty as was sent in the half second before.
  const left = [2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, 0.49, 0.25, 0.1, 0.05, 0.09, 0];
  for (const [i, gib] of left.entries()) forecast.listener(sampleEvent(400e6, i * 250, gib * GIB));
  await settled();
  expect(samples).toBe(0);
});

test("sampling stops with the migration", async () => {
  let stopped: AbortSignal | undefined;
  const { said, forecast, lasts } = begin((signal) => {
    stopped = signal;
    return new Promise(() => {});
  });
  lasts();
  await settled();
  expect(stopped?.aborted).toBe(false);
  forecast.end();
  expect(stopped?.aborted).toBe(true);
  expect(said).toEqual([]);
});

test("memory that may not be read is said to be the reason for no forecast; the migration goes on", async () => {
  const { said, lasts } = begin(async () => {
    throw new DeltaveeError("HYPERVISOR_FAILED", "The memory of process 7 may not be read");
  });
  lasts();
  await settled();
  expect(said).toEqual([{ type: "notice", message: "No forecast: The memory of process 7 may not be read" }]);
});

test("a forecast that cannot be made is said to be missing, and ends nothing else", async () => {
  const broken: SampledGuest = { model: MODEL, plan: () => Promise.reject(new Error("the model is broken")) };
  const { said, forecast, lasts } = begin(async () => broken);
  lasts();
  await settled();
  forecast.listener(sampleEvent(12.5e6));
  await settled();
  expect(said).toEqual([{ type: "notice", message: "No forecast: the model is broken" }]);
});

test("nothing is forecast behind the summary of what has been", async () => {
  const { said, forecast, lasts } = begin();
  lasts();
  await settled();
  forecast.listener(sampleEvent(12.5e6));
  forecast.listener({
    ...{ type: "summary", atMs: 1000, outcome: "completed", vm: "with the destination", totalMs: 1000 },
    ...{ handedOverBytes: 0, wireBytes: 0, pages: NO_PAGES },
  });
  await settled();
  expect(said).toEqual([]);
});

test("a forecast that is ready only when the migration is over is none", async () => {
  let ready: () => void = () => {};
  const { said, forecast, lasts } = begin(async () => ({
    model: MODEL,
    plan: async (question) => {
      await new Promise<void>((resolve) => {
        ready = resolve;
      });
      return GUEST.plan(question);
    },
  }));
  lasts();
  await settled();
  forecast.listener(sampleEvent(12.5e6));
  await settled();
  forecast.end();
  ready();
  await settled();
  expect(said).toEqual([]);
});

test("the link is asked about once, however often it is measured while the answer is not there", async () => {
  let questions = 0;
  const { forecast, lasts } = begin(async () => ({
    model: MODEL,
    plan: () => {
      questions++;
      return new Promise(() => {});
    },
  }));
  lasts();
  await settled();
  for (let i = 0; i < 3; i++) forecast.listener(sampleEvent(12.5e6));
  await settled();
  expect(questions).toBe(1);
});

test("a thread that samples ends when it is told to, however early, and leaves no file open", async () => {
  // Of no process: the thread says so, once it has begun.
  const place = { pid: 0, ranges: [{ firstPage: 0, pageCount: 1, hostAddress: 4096 }] };
  for (const delayMs of [10, 20, 30, 40, 50, 60, 80, 100, 120, 150, 180, 220, 260, 300, 350, 400]) {
    const stop = new AbortController();
    const sampled = sampleInWorker(place)(stop.signal).catch((thrown) => thrown);
    await sleep(delayMs);
    stop.abort();
    await sampled;
  }
  expect(openFilesOf(join(PACKAGE_ROOT, "dist"))).toEqual([]);
});
