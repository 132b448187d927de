// Section "sampling": what looking at a running guest costs (`deltavee plan`). A busy guest of QEMU beats its heart, and
// is sampled every other time; what the sampling takes in time and CPU is measured in a process of its own, which is new
// each time and has the modules of the command loaded, as it is for whoever calls the command: nothing is warm.

import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { UsageError } from "../src/base/errors.ts";
import { type GuestMemoryPlace, locateGuestMemory } from "../src/hypervisor/qemu/guest-memory.ts";
import { SAMPLE_MS_DEFAULT, SAMPLE_PAGES_DEFAULT, samplePlace } from "../src/library/forecast/sample.ts";
import { unoptimized } from "../src/library/forecast/unoptimized.ts";
import { dirtyPagesPerSecond } from "../src/planner/guest-model.ts";
import { findQemus } from "../test/support/qemu-binaries.ts";
import { type QemuVm, startQemu } from "../test/support/qemu-vm.ts";
import { heartbeatsOf } from "../test/support/serial.ts";
import type { SectionOptions, SectionResult } from "./report.ts";
import { median } from "./timing.ts";

const MEMORY_MIB = 2048;
const WORKING_SET_MIB = 1024;
const WRITES_PER_SECOND = 20_000;
const HEARTBEAT_MS = 10;
const SETTLE_MS = 1000;
const READY_TIMEOUT_MS = 300_000;
const LOCK_STEP_MS = 2000;
/** What was set out to reach. */
const TIME_GOAL_S = 2;
const CPU_GOAL = 0.05;
/** A difference in what the guest gets done that is as large between two times without sampling. */
const SPEED_GOAL = 0.97;

/** What this file is called with where it is the process that samples. */
const SAMPLE = "sample";

interface Cost {
  readonly seconds: number;
  /** Of the process, all of its threads, from the begin of the sample to its end; and before that, since it was started. */
  readonly cpuSeconds: number;
  readonly startCpuSeconds: number;
  readonly dirtyPagesPerSecond: number;
}

interface Beats {
  readonly gapMsMedian: number;
  readonly gapMsMax: number;
  readonly pagesPerSecond: number;
}

interface Turn {
  readonly cost: Cost;
  readonly sampled: Beats;
  readonly alone: Beats;
}

export async function samplingSection({ turns }: SectionOptions): Promise<SectionResult> {
  const binary = [...findQemus().values()].at(-1);
  if (binary === undefined) throw new UsageError("The section sampling needs a QEMU");
  console.error(`sampling: a guest of ${MEMORY_MIB} MiB fills ${WORKING_SET_MIB} MiB`);
  const append = `ws=${WORKING_SET_MIB * 1024} rate=${WRITES_PER_SECOND} fill=random hb=${HEARTBEAT_MS}`;
  const vm = await startQemu({ binary, memoryMiB: MEMORY_MIB, append });
  const measured: Turn[] = [];
  try {
    await vm.waitForReady(READY_TIMEOUT_MS);
    const place = await locateGuestMemory(vm.qmp, vm.pid);
    await sleep(SETTLE_MS);
    for (let turn = 0; turn < turns; turn++) {
      console.error(`sampling: turn ${turn + 1} of ${turns}`);
      const alone = () => beatsWhile(vm, () => sleep(LOCK_STEP_MS));
      const sampled = () => beatsWhile(vm, () => costOf(place));
      // Another one begins each turn.
      const first = turn % 2 === 0 ? await alone() : undefined;
      const [beats, cost] = await sampled();
      measured.push({ cost, sampled: beats, alone: (first ?? (await alone()))[0] });
    }
  } finally {
    await vm.stop();
  }
  return resultOf(measured, turns, binary.name);
}

/** In a new process. */
async function costOf(place: GuestMemoryPlace): Promise<Cost> {
  const child = fork(fileURLToPath(import.meta.url), [SAMPLE]);
  child.send(place);
  const [cost] = await Promise.race([
    once(child, "message"),
    once(child, "exit").then(() => {
      throw new Error("the process that samples has ended");
    }),
  ]);
  return cost as Cost;
}

async function beatsWhile<Result>(vm: QemuVm, work: () => Promise<Result>): Promise<[Beats, Result]> {
  const from = vm.serial.lines.length;
  const result = await work();
  const beats = heartbeatsOf(vm.serial.lines.slice(from));
  const gaps = beats.slice(1).map(({ receivedMs }, i) => receivedMs - beats[i]!.receivedMs);
  const [first, last] = [beats[0], beats.at(-1)];
  if (first === undefined || last === undefined || gaps.length === 0)
    throw new Error("the guest's heart does not beat");
  const pagesPerSecond =
    ((last.pagesWritten - first.pagesWritten) / (last.receivedMs - first.receivedMs)) * 1000;
  return [{ gapMsMedian: median(gaps), gapMsMax: Math.max(...gaps), pagesPerSecond }, result];
}

function resultOf(measured: readonly Turn[], turns: number, qemu: string): SectionResult {
  const of = (value: (turn: Turn) => number) => median(measured.map(value));
  const row = (name: string, beats: (turn: Turn) => Beats) => [
    name,
    of((turn) => beats(turn).gapMsMedian).toFixed(1),
    of((turn) => beats(turn).gapMsMax).toFixed(1),
    Math.max(...measured.map((turn) => beats(turn).gapMsMax)).toFixed(1),
    of((turn) => beats(turn).pagesPerSecond).toFixed(0),
  ];
  const seconds = of(({ cost }) => cost.seconds);
  const share = of(({ cost }) => cost.cpuSeconds / cost.seconds);
  const speed = of(({ sampled, alone }) => sampled.pagesPerSecond / alone.pagesPerSecond);
  return {
    name: "sampling",
    title: "Looking at a running guest",
    notes: [
      `A guest of QEMU ${qemu} (TCG) with ${MEMORY_MIB} MiB that writes to ${WRITES_PER_SECOND} pages a second in ` +
        `${WORKING_SET_MIB} MiB of them; ${SAMPLE_PAGES_DEFAULT} pages are looked at, for ${SAMPLE_MS_DEFAULT} ms, as ` +
        "`deltavee plan` does unless told otherwise.",
      `Its heart beats every ${HEARTBEAT_MS} ms; gaps are as they were received here. Medians of ${turns} turns, with ` +
        "sampling and without one after the other. CPU time is that of the process, all of its threads, as it is added " +
        "between begin and end of the sample; what it took to start Node.js and load the command stands beside it.",
    ],
    tables: [
      {
        caption: "The guest meanwhile",
        table: [
          ["", "gap, median ms", "longest gap, median ms", "longest of all, ms", "pages/s written"],
          row("sampled", ({ sampled }) => sampled),
          row("alone", ({ alone }) => alone),
        ],
      },
      {
        caption: "The sampling",
        table: [
          ["time s", "CPU s", "CPU, of one core", "changed pages/s found", "CPU s before, to start"],
          [
            seconds.toFixed(2),
            of(({ cost }) => cost.cpuSeconds).toFixed(3),
            `${(100 * share).toFixed(1)} %`,
            of(({ cost }) => cost.dirtyPagesPerSecond).toFixed(0),
            of(({ cost }) => cost.startCpuSeconds).toFixed(3),
          ],
        ],
      },
    ],
    goals: [
      { what: "time", value: seconds, atMost: TIME_GOAL_S, unit: "s" },
      { what: "CPU, of one core", value: share, atMost: CPU_GOAL, unit: "" },
      { what: "what the guest gets done, of that when alone", value: speed, atLeast: SPEED_GOAL, unit: "" },
    ],
    lines: measured.map((turn, index) => ({ section: "sampling", turn: index + 1, ...turn })),
  };
}

/** As the command does. */
async function sampleHere(place: GuestMemoryPlace): Promise<Cost> {
  await import("../src/cli/plan.ts");
  const [startMs, before] = [performance.now(), process.cpuUsage()];
  const how = { samplePages: SAMPLE_PAGES_DEFAULT, spanMs: SAMPLE_MS_DEFAULT };
  const model = await unoptimized(() => samplePlace(place, how));
  const seconds = (performance.now() - startMs) / 1000;
  const { user, system } = process.cpuUsage(before);
  return {
    seconds,
    cpuSeconds: (user + system) / 1e6,
    startCpuSeconds: (before.user + before.system) / 1e6,
    dirtyPagesPerSecond: dirtyPagesPerSecond(model),
  };
}

if (process.argv[2] === SAMPLE && process.send !== undefined) {
  const [place] = await once(process, "message");
  process.send(await sampleHere(place as GuestMemoryPlace), () => process.exit());
}
