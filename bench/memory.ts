// Section "memory": what Deltavee's processes hold, and what a GiB of guest costs them, for guests of three sizes
// moved between real QEMUs on this host's loopback, with QEMU to QEMU directly beside it. Nothing slows the link
// down: this is where a tool in the middle has nothing to win and must not lose.

import { UsageError } from "../src/base/errors.ts";
import { METHODS } from "../src/lab/method/all.ts";
import { deltaveeMethod } from "../src/lab/method/deltavee.ts";
import type { Method } from "../src/lab/method/method.ts";
import { findQemus } from "../test/support/qemu-binaries.ts";
import { GUEST_KERNEL } from "../test/support/qemu-vm.ts";
import { type Measurement, measure } from "./measure.ts";
import { loopback } from "./network.ts";
import type { Goal, SectionOptions, SectionResult } from "./report.ts";
import { median } from "./timing.ts";

const GUEST_MIB = [512, 2048, 8192];
/** A quarter of the RAM holds text, the rest is zero: the same for each size, so that a GiB is a GiB. */
const FILLED_SHARE = 0.25;
const CACHE_MIB = 512;
const BESIDE_CACHE_MIB_MAX = 150;
const TIME_RATIO_MAX = 1.15;
const FLAT_RATIO_MAX = 1.15;
const LIMIT_MS = 120_000;
const RUNS_MAX = 3;
const QEMU = "10.0";
const MIB = 1024 ** 2;

const DIRECTLY = METHODS.find(({ name }) => name === "vanilla")!;
const COMPARED: readonly Method[] = [
  DIRECTLY,
  deltaveeMethod("direct", "Deltavee: direct", ["--cache-size", `${CACHE_MIB}MiB`]),
  deltaveeMethod("tunnel", "Deltavee: tunnel", ["--cache-size", `${CACHE_MIB}MiB`]),
];

interface MemoryFigure {
  section: "memory";
  guestMiB: number;
  method: string;
  runs: number;
  totalMs: number;
  /** As QEMU reports it: without the start of our own processes. */
  migrationMs: number;
  /** Of `migrationMs`, against QEMU to QEMU. */
  timeRatio: number;
  cpuSecondsPerGiB: Record<"source" | "destination", { qemu: number; deltavee: number }>;
  residentBytesMax: Record<"source" | "destination", number>;
}

export async function memorySection({ turns }: SectionOptions): Promise<SectionResult> {
  const binary = findQemus().get(QEMU);
  if (binary === undefined)
    throw new UsageError(`Section memory needs QEMU ${QEMU} (scripts/fetch-qemu10.sh)`);
  const runs = Math.min(turns, RUNS_MAX);
  const figures: MemoryFigure[] = [];
  for (const guestMiB of GUEST_MIB) {
    const all = new Map<string, Measurement[]>(COMPARED.map(({ name }) => [name, []]));
    for (let run = 1; run <= runs; run++) {
      for (const method of COMPARED) {
        console.error(`memory: guest of ${guestMiB} MiB, ${method.title}, run ${run} of ${runs}`);
        const append = `ws=${guestMiB * 1024 * FILLED_SHARE} rate=1000 pattern=sparse fill=text`;
        const scene = {
          ...{ binary, link: await loopback(), limitMs: LIMIT_MS, limitOf: undefined, started: [] },
          boot: { kernel: GUEST_KERNEL, append, memoryMiB: guestMiB },
        };
        const measurement = await measure(scene, method, run, undefined);
        if (measurement.verified !== true) throw new Error(`${method.title} did not bring the guest over`);
        all.get(method.name)!.push(measurement);
      }
    }
    for (const { name } of COMPARED) figures.push(figureOf(guestMiB, name, all));
  }
  return {
    name: "memory",
    title: "Memory, and cost per GiB, on an unshaped loopback",
    notes: [
      `Bare-metal test guest under QEMU ${QEMU} (TCG), a quarter of its RAM filled with text, the rest zero, 1000 pages/s touched. ` +
        `Page cache limited to ${CACHE_MIB} MiB. Median of ${runs} runs, the methods in turns; every guest has verified its memory after arriving.`,
      "Total: from the command to the first heartbeat at the destination, start of Node.js included. Migration: as the source's QEMU reports it. " +
        "Resident: the most that the process held at once (VmHWM). QEMU's CPU time is without the guest's.",
    ],
    tables: [{ caption: "Guests of three sizes", table: tableOf(figures) }],
    goals: goalsOf(figures),
    lines: figures,
  };
}

function figureOf(
  guestMiB: number,
  method: string,
  all: ReadonlyMap<string, readonly Measurement[]>,
): MemoryFigure {
  const of = (name: string, value: (run: Measurement) => number) => median(all.get(name)!.map(value));
  const perGiB = (value: (run: Measurement) => number) => of(method, value) / (guestMiB / 1024);
  const migrationMs = ({ migrationMsReported, totalMs }: Measurement) => migrationMsReported ?? totalMs;
  return {
    section: "memory",
    guestMiB,
    method,
    runs: all.get(method)!.length,
    totalMs: of(method, ({ totalMs }) => totalMs),
    migrationMs: of(method, migrationMs),
    timeRatio: of(method, migrationMs) / of(DIRECTLY.name, migrationMs),
    cpuSecondsPerGiB: {
      source: {
        qemu: perGiB(({ cpuSeconds }) => cpuSeconds.source.qemu),
        deltavee: perGiB(({ cpuSeconds }) => cpuSeconds.source.deltavee),
      },
      destination: {
        qemu: perGiB(({ cpuSeconds }) => cpuSeconds.destination.qemu),
        deltavee: perGiB(({ cpuSeconds }) => cpuSeconds.destination.deltavee),
      },
    },
    residentBytesMax: {
      source: of(method, ({ residentBytesMax }) => residentBytesMax.source),
      destination: of(method, ({ residentBytesMax }) => residentBytesMax.destination),
    },
  };
}

const titleOf = (method: string) => COMPARED.find(({ name }) => name === method)!.title;

function tableOf(figures: readonly MemoryFigure[]): string[][] {
  const mib = (bytes: number) => (bytes === 0 ? "-" : (bytes / MIB).toFixed(0));
  const cpu = ({ qemu, deltavee }: { qemu: number; deltavee: number }) =>
    deltavee === 0 ? qemu.toFixed(2) : `${qemu.toFixed(2)} + ${deltavee.toFixed(2)}`;
  return [
    [
      "guest, method",
      "total s",
      "migration s",
      "migration s per GiB",
      "against QEMU to QEMU",
      "CPU s per GiB source",
      "CPU s per GiB destination",
      "resident MiB source",
      "resident MiB destination",
    ],
    ...figures.map((figure) => [
      `${figure.guestMiB} MiB, ${titleOf(figure.method)}`,
      (figure.totalMs / 1000).toFixed(2),
      (figure.migrationMs / 1000).toFixed(2),
      (figure.migrationMs / 1000 / (figure.guestMiB / 1024)).toFixed(2),
      figure.timeRatio.toFixed(2),
      cpu(figure.cpuSecondsPerGiB.source),
      cpu(figure.cpuSecondsPerGiB.destination),
      mib(figure.residentBytesMax.source),
      mib(figure.residentBytesMax.destination),
    ]),
  ];
}

function goalsOf(figures: readonly MemoryFigure[]): Goal[] {
  const ours = figures.filter(({ method }) => method !== DIRECTLY.name);
  const goals = ours.flatMap((figure): Goal[] => {
    const what = `${titleOf(figure.method)}, guest of ${figure.guestMiB} MiB`;
    const held = Math.max(figure.residentBytesMax.source, figure.residentBytesMax.destination) / MIB;
    return [
      { what: `${what}: resident`, value: held, atMost: CACHE_MIB + BESIDE_CACHE_MIB_MAX, unit: "MiB" },
      {
        what: `${what}: time against QEMU to QEMU`,
        value: figure.timeRatio,
        atMost: TIME_RATIO_MAX,
        unit: "×",
      },
    ];
  });
  for (const method of new Set(ours.map((figure) => figure.method))) {
    const costs = ours
      .filter((figure) => figure.method === method)
      .map(
        ({ cpuSecondsPerGiB }) => cpuSecondsPerGiB.source.deltavee + cpuSecondsPerGiB.destination.deltavee,
      );
    goals.push({
      what: `${titleOf(method)}: CPU per GiB, dearest size against the median`,
      value: Math.max(...costs) / median(costs),
      atMost: FLAT_RATIO_MAX,
      unit: "×",
    });
  }
  return goals;
}
