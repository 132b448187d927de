// When a migration's forecast is made and said, on a virtual clock.

import { expect, test } from "vitest";
import { modelOf } from "../../../test/support/guest-model.ts";
import { VirtualClock } from "../../base/clock.ts";
import { DeltaveeError } from "../../base/errors.ts";
import { planMigration } from "../../planner/forecast.ts";
import { NO_PAGES, type RecordEntry, type RecordEvent } from "../../record/schema.ts";
import type { SampledGuest } from "../guest.ts";
import { LiveForecast } from "./live-forecast.ts";

const sampleEvent = (linkBytesPerSecond: number): RecordEvent => ({
  type: "sample",
  ...{ atMs: 1000, handedOverBytes: 0, wireBytes: 0, inFlightBytes: 0, windowBytes: 0, pages: NO_PAGES },
  ...{ linkBytesPerSecond, roundTripMs: 20 },
});
const settled = () => new Promise((resolve) => setImmediate(resolve));

const GUEST: SampledGuest = { plan: async (question) => planMigration({ ...question, guest: modelOf() }) };

function begin(sample: (signal: AbortSignal) => Promise<SampledGuest | undefined> = async () => GUEST) {
  const clock = new VirtualClock();
  const said: RecordEntry[] = [];
  const forecast = new LiveForecast({
    ...{ method: "tunnel", downtimeMsMax: 300, cacheBytes: 2 ** 32, clock, sample },
    record: { add: (entry) => void said.push(entry) },
  });
  return { clock, said, forecast };
}

test("it is said once, when the guest is sampled and the link is known", async () => {
  const { clock, said, forecast } = begin();
  forecast.listener(sampleEvent(12.5e6));
  await settled();
  expect(said).toEqual([]);
  clock.advance(500);
  await settled();
  expect(said).toMatchObject([
    { type: "forecast", method: "tunnel", converges: "yes", linkBytesPerSecond: 12.5e6, roundTripMs: 20 },
  ]);
  forecast.listener(sampleEvent(25e6));
  await settled();
  expect(said).toHaveLength(1);
});

test("a link that is not known yet is waited for", async () => {
  const { clock, said, forecast } = begin();
  clock.advance(500);
  await settled();
  forecast.listener(sampleEvent(0));
  await settled();
  expect(said).toEqual([]);
  forecast.listener(sampleEvent(12.5e6));
  await settled();
  expect(said).toHaveLength(1);
});

test("a migration that is over by then is not forecast, nor is its guest sampled", async () => {
  let samples = 0;
  const { clock, said, forecast } = begin(async () => {
    samples++;
    return GUEST;
  });
  forecast.listener(sampleEvent(12.5e6));
  forecast.end();
  clock.advance(1000);
  await settled();
  expect([samples, said]).toEqual([0, []]);
});

test("sampling stops with the migration", async () => {
  let stopped: AbortSignal | undefined;
  const { clock, said, forecast } = begin((signal) => {
    stopped = signal;
    return new Promise(() => {});
  });
  clock.advance(500);
  expect(stopped?.aborted).toBe(false);
  forecast.end();
  expect(stopped?.aborted).toBe(true);
  expect(said).toEqual([]);
});

test("memory that may not be read is said to be the reason for no forecast; the migration goes on", async () => {
  const { clock, said } = begin(async () => {
    throw new DeltaveeError("HYPERVISOR_FAILED", "The memory of process 7 may not be read");
  });
  clock.advance(500);
  await settled();
  expect(said).toEqual([{ type: "notice", message: "No forecast: The memory of process 7 may not be read" }]);
});

test("a forecast that cannot be made is said to be missing, and ends nothing else", async () => {
  const broken: SampledGuest = { plan: () => Promise.reject(new Error("the model is broken")) };
  const { clock, said, forecast } = begin(async () => broken);
  clock.advance(500);
  await settled();
  forecast.listener(sampleEvent(12.5e6));
  await settled();
  expect(said).toEqual([{ type: "notice", message: "No forecast: the model is broken" }]);
});

test("nothing is forecast behind the summary of what has been", async () => {
  const { clock, said, forecast } = begin();
  clock.advance(500);
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
  const { clock, said, forecast } = begin(async () => ({
    plan: async (question) => {
      await new Promise<void>((resolve) => {
        ready = resolve;
      });
      return GUEST.plan(question);
    },
  }));
  clock.advance(500);
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
  const { clock, forecast } = begin(async () => ({
    plan: () => {
      questions++;
      return new Promise(() => {});
    },
  }));
  clock.advance(500);
  await settled();
  for (let i = 0; i < 3; i++) forecast.listener(sampleEvent(12.5e6));
  await settled();
  expect(questions).toBe(1);
});
