// Forecast and truth without a machine that has other things to do: a simulated guest is sampled on a clock of its own,
// and its twin is moved by the production engines on another. Bytes, time and downtime are what the planner said, within
// what it may be off by; and so they are when the guest is known from the page trace of an earlier migration alone.

import { beforeAll, describe, expect, test } from "vitest";
import { DELTA_WORD_MASK } from "../../src/codec/delta/delta-codec.ts";
import { ENTROPY_NONE, ENTROPY_ZSTD } from "../../src/codec/entropy/entropy-coder.ts";
import { DEVICE_STATE_BYTES } from "../../src/engine/switchover/switchover-control.ts";
import { loadKernel } from "../../src/kernel/kernel.ts";
import { KernelMemory } from "../../src/kernel/memory.ts";
import type { GuestMemory } from "../../src/memory/guest-memory.ts";
import { planMigration } from "../../src/planner/forecast.ts";
import type { GuestModel } from "../../src/planner/guest-model.ts";
import { PageMeter } from "../../src/planner/page-meter.ts";
import { sampleGuest } from "../../src/planner/sampling.ts";
import { TraceModelBuilder } from "../../src/planner/trace-model.ts";
import { TraceReader } from "../../src/trace/reader.ts";
import { TraceWriter } from "../../src/trace/writer.ts";
import { drawPlan, type Plan } from "./plan.ts";
import { Random } from "./random.ts";
import { SimClock } from "./sim-clock.ts";
import { PAGE_BYTES, SimGuest, type Workload } from "./sim-guest.ts";
import { Simulation } from "./simulation.ts";

const HOOK_TIMEOUT_MS = 600_000;
const MIB = 2 ** 20;
const PAGES = 8192;
const DOWNTIME_MS_MAX = 300;
const ROUND_TRIP_MS = 2;
/** Of a page's delta, or of a batch's zstd. */
const CODING_MS = 0.005;
/** Shares of the truth, and of the downtime that many ms where that is more. */
const BYTES_OFF_MAX = 0.15;
const TIME_OFF_MAX = 0.15;
const DOWNTIME_OFF_MAX = 0.3;
const DOWNTIME_OFF_MS_MAX = 30;

interface Case {
  readonly name: string;
  readonly mode: "direct" | "tunnel";
  readonly bytesPerSecond: number;
  readonly workload: Workload;
}

const workload = (parts: Partial<Workload>): Workload => ({
  ...{ pageCount: PAGES, zeroShare: 0.4, untilMs: 1e9, hotShare: 0.2, sparseShare: 1, writesPerMs: 0.5 },
  isDense: false,
  ...parts,
});

const TUNNEL = { mode: "tunnel", bytesPerSecond: 2 * MIB } as const;
const CASES: readonly Case[] = [
  {
    name: "a calm guest, direct",
    mode: "direct",
    bytesPerSecond: 4 * MIB,
    workload: workload({ writesPerMs: 0.05 }),
  },
  { name: "a calm guest, by tunnel", ...TUNNEL, workload: workload({ writesPerMs: 0.05 }) },
  { name: "a busy one, a few words at a time", ...TUNNEL, workload: workload({ writesPerMs: 1.2 }) },
  {
    name: "hot pages, and now and then a whole one",
    ...{ ...TUNNEL, workload: workload({ hotShare: 0.03, sparseShare: 0.8, writesPerMs: 0.3 }) },
  },
];

/** Nothing goes wrong, and nothing is slow but the link. */
function planOf({ mode, bytesPerSecond, workload }: Case): Plan {
  const line = {
    ...{ bytesPerSecond, delayMs: ROUND_TRIP_MS / 2, jitterMs: 0, pieceBytesMax: 16_384 },
    ...{ systemBytesMax: 65_536, highWaterBytes: 16_384 },
  };
  const socket = { ...line, bytesPerSecond: 1e9, delayMs: 0 };
  return {
    ...drawPlan(1),
    ...{ seed: 1, mode, hypervisor: "qemu", guestRuns: true, workload, downtimeMsMax: DOWNTIME_MS_MAX },
    postcopy: undefined,
    ...{ onStall: "switchover", timeMsMax: undefined, wireBytesMax: undefined, faults: [] },
    ...{
      cacheBytes: 2 * PAGES * PAGE_BYTES,
      deltaCodec: DELTA_WORD_MASK,
      entropyCodecs: [ENTROPY_ZSTD, ENTROPY_NONE],
    },
    ...{
      baselineBytesMax: 2 ** 30,
      coderMsMax: 0,
      sourceCoderFailsAt: undefined,
      destinationCoderFailsAt: undefined,
    },
    ...{ pacedBytesPerSecond: undefined, destinationSlots: 6, toDestination: line, toSource: line },
    outgoing: {
      ...{
        control: "ack",
        saysSwitchover: true,
        monitorMsMax: 1,
        eventMsMax: 1,
        deviceStateBytes: DEVICE_STATE_BYTES,
      },
      ...{ opaqueAfterPasses: undefined, sectionPages: 16, isGuarded: mode === "direct", socket },
    },
    outgoingFaults: { refusesToBegin: false, cancel: "works", statusFails: false, limitFails: false },
    incoming: { saysWhy: true, hasDescription: true, monitorMsMax: 1, eventMsMax: 1, loadMsMax: 5, socket },
    incomingFaults: {
      ...{ refusesToBegin: false, failsAfterBytes: undefined, isMute: false },
      ...{ resume: "works", discardFails: false },
    },
    ...{ staysPaused: false, resumption: undefined, otherHypervisor: false, otherVersion: false },
    ...{ sourceDiskLines: undefined, destinationDiskLines: undefined },
  };
}

/** The twin of the guest that is moved, before that. */
function sampled({ workload }: Case): Promise<GuestModel> {
  const clock = new SimClock(new Random(7));
  const guest = new SimGuest(clock, new Random(8), workload, true);
  const memory: GuestMemory = {
    pageBytes: PAGE_BYTES,
    pageCount: workload.pageCount,
    present: (pages) => pages,
    read: (page, target) => target.set(guest.page(page)),
  };
  const random = new Random(9);
  return sampleGuest(memory, newMeter(PAGE_BYTES), {
    ...{ samplePages: PAGES, spanMs: 1500, random: () => random.share(), nowMs: () => clock.nowMs() },
    sleep: async (ms) => {
      // It works off what it has to do in steps: of what is left of a long time at once it does only a part.
      for (const endMs = clock.nowMs() + ms; clock.nowMs() < endMs; guest.work()) {
        clock.after(Math.min(50, endMs - clock.nowMs()), () => {});
        clock.step();
      }
    },
  });
}

/** On a clock of its own too: what coding costs on a machine that does other things would lead to other forecasts. */
function newMeter(pageBytes: number): PageMeter {
  const memory = new KernelMemory();
  let nowMs = 0;
  return new PageMeter(memory, loadKernel(memory), pageBytes, () => (nowMs += CODING_MS));
}

interface Truth {
  readonly totalMs: number;
  readonly downtimeMs: number;
  readonly wireBytes: number;
  readonly trace: Buffer;
}

async function moved(each: Case, contents: boolean): Promise<Truth> {
  const chunks: Uint8Array[] = [];
  let writer: TraceWriter | undefined;
  const simulation = new Simulation(planOf(each), {
    observer: (clock) => {
      writer = new TraceWriter((chunk) => chunks.push(chunk), { contents, nowMs: () => clock.nowMs() });
      return writer;
    },
  });
  try {
    const { violations } = await simulation.run();
    expect(violations).toEqual([]);
  } finally {
    simulation.close();
  }
  writer?.end();
  const summary = simulation.sourceEvents.findLast((event) => event.type === "summary");
  expect(summary).toMatchObject({ outcome: "completed" });
  const { totalMs, downtimeMs, wireBytes } = summary!;
  return { totalMs, downtimeMs: downtimeMs!, wireBytes, trace: Buffer.concat(chunks) };
}

function forecast(guest: GuestModel, { mode, bytesPerSecond }: Case) {
  // What crosses the simulated link has no headers: it carries more than one of that rate would.
  const link = { bytesPerSecond: bytesPerSecond * (1514 / 1448), roundTripMs: ROUND_TRIP_MS, lossShare: 0 };
  return planMigration({ guest, link, downtimeMsMax: DOWNTIME_MS_MAX, methods: [mode] }).forecasts[0]!;
}

function modelFrom(trace: Buffer): GuestModel {
  const builder = new TraceModelBuilder("simulated", newMeter);
  const reader = new TraceReader("simulated", builder);
  reader.push(trace);
  expect(reader.end()).toBeUndefined();
  return builder.model();
}

function expectNear(made: ReturnType<typeof forecast>, truth: Truth): void {
  expect(made.converges).toBe("yes");
  const off = (expected: number, real: number) => Math.abs(expected - real) / real;
  expect(off(made.wireBytes.expected, truth.wireBytes)).toBeLessThan(BYTES_OFF_MAX);
  expect(off(made.totalMs.expected, truth.totalMs)).toBeLessThan(TIME_OFF_MAX);
  const downtimeOffMs = Math.abs(made.downtimeMs.expected - truth.downtimeMs);
  expect(downtimeOffMs).toBeLessThan(Math.max(DOWNTIME_OFF_MS_MAX, DOWNTIME_OFF_MAX * truth.downtimeMs));
}

describe.each(CASES)("$name", (each) => {
  let truth: Truth;
  beforeAll(async () => {
    truth = await moved(each, true);
  }, HOOK_TIMEOUT_MS);

  test("is moved as was forecast from a sample of it", async () => {
    const made = forecast(await sampled(each), each);
    expectNear(made, truth);
  });

  test("is moved as is to be expected from the trace of a migration", () => {
    const made = forecast(modelFrom(truth.trace), each);
    expectNear(made, truth);
  });
});
