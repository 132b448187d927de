// Section "memory": what Deltavee's processes hold, and what a GiB of guest costs them, for guests of three sizes
// moved between real QEMUs on this host's loopback, with QEMU to QEMU directly beside it. Nothing slows the link
// down: this is where a tool in the middle has nothing to win and must not lose. What a migration costs whatever the
// guest's size, the start of a process above all, is told apart from what grows with the guest.

import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { UsageError } from "../src/base/errors.ts";
import { METHODS } from "../src/lab/method/all.ts";
import { deltaveeMethod } from "../src/lab/method/deltavee.ts";
import type { Method } from "../src/lab/method/method.ts";
import { findQemus } from "../test/support/qemu-binaries.ts";
import { GUEST_KERNEL } from "../test/support/qemu-vm.ts";
import { CARRIED } from "./carried.ts";
import { type Measurement, measure } from "./measure.ts";
import { loopback } from "./network.ts";
import type { Goal, SectionOptions, SectionResult } from "./report.ts";
import { median } from "./timing.ts";

interface Guest {
  mib: number;
  /** So much of the RAM holds text, the rest is zero. */
  filledShare: number;
}
/** A quarter holds text in each size, so that a GiB is a GiB. */
const SIZES: readonly Guest[] = [512, 2048, 8192].map((mib) => ({ mib, filledShare: 0.25 }));
/** And one in which there is little that need not be sent. */
const FULL: Guest = { mib: 2048, filledShare: 0.9 };
const CACHE_MIB = 512;
const BESIDE_CACHE_MIB_MAX = 150;
const TIME_RATIO_MAX = 1.15;
const FLAT_RATIO_MAX = 1.15;
const LIMIT_MS = 120_000;
const RUNS_MAX = 3;
const QEMU = "10.0";
/** What a Unix socket holds where nobody has set it. */
const SOCKET_BUFFER_BYTES_USUAL = 212_992;
const MIB = 1024 ** 2;
const CORES = availableParallelism();

const DIRECTLY = METHODS.find(({ name }) => name === "vanilla")!;
const OURS: readonly Method[] = [
  deltaveeMethod("direct", "Deltavee: direct", ["--cache-size", `${CACHE_MIB}MiB`]),
  deltaveeMethod("tunnel", "Deltavee: tunnel", ["--cache-size", `${CACHE_MIB}MiB`]),
];
const COMPARED: readonly Method[] = [DIRECTLY, CARRIED, ...OURS];

interface MemoryFigure {
  section: "memory";
  guest: Guest;
  method: string;
  runs: number;
  totalMs: number;
  /** As QEMU reports it: without the start of our own processes. */
  migrationMs: number;
  /** Of `migrationMs`, against QEMU to QEMU. */
  timeRatio: number;
  cpuSeconds: Record<Side, { qemu: number; deltavee: number }>;
  guestCpuSeconds: number;
  /** Everything above, and what it would take if all cores had worked on nothing else all the time. */
  cpuSecondsOfAll: number;
  secondsAtLeast: number;
  residentBytesMax: Record<Side, number>;
}

type Side = "source" | "destination";

/** CPU of the processes between the QEMUs, both sides: a straight line through the smallest and the largest guest. */
interface CostFigure {
  section: "memory";
  method: string;
  fixedCpuSeconds: Record<Side, number>;
  cpuSecondsPerGiB: Record<Side, number>;
  /** What a GiB more has cost from each size to the next, both sides. */
  stepCpuSecondsPerGiB: number[];
}

export async function memorySection({ turns }: SectionOptions): Promise<SectionResult> {
  const binary = findQemus().get(QEMU);
  if (binary === undefined)
    throw new UsageError(`Section memory needs QEMU ${QEMU} (scripts/fetch-qemu10.sh)`);
  const runs = Math.min(turns, RUNS_MAX);
  const socketBufferBytes = Number(readFileSync("/proc/sys/net/core/wmem_default", "utf8"));
  const figures: MemoryFigure[] = [];
  for (const guest of [...SIZES, FULL]) {
    const all = new Map<string, Measurement[]>(COMPARED.map(({ name }) => [name, []]));
    // The first guest of a size gets memory that the machine has to find first: it is moved, and not measured.
    for (let run = 0; run <= runs; run++) {
      for (const method of run === 0 ? [DIRECTLY] : rotated(COMPARED, run)) {
        console.error(`memory: ${guestText(guest)}, ${method.title}, run ${run} of ${runs}`);
        const workingSetKiB = Math.round(guest.mib * 256 * guest.filledShare) * 4;
        const append = `ws=${workingSetKiB} rate=1000 pattern=sparse fill=text`;
        const scene = {
          ...{ binary, link: await loopback(), limitMs: LIMIT_MS, limitOf: undefined, started: [] },
          boot: { kernel: GUEST_KERNEL, append, memoryMiB: guest.mib },
        };
        const measurement = await measure(scene, method, run, undefined);
        if (measurement.verified !== true) throw new Error(`${method.title} did not bring the guest over`);
        if (run > 0) all.get(method.name)!.push(measurement);
      }
    }
    for (const { name } of COMPARED) figures.push(figureOf(guest, name, all));
  }
  const costs = [CARRIED, ...OURS].map(({ name }) => costOf(name, figures));
  const buffers = `${socketBufferBytes / 1024} KiB`;
  const isUsual = socketBufferBytes === SOCKET_BUFFER_BYTES_USUAL;
  return {
    name: isUsual ? "memory" : `memory, sockets of ${buffers}`,
    title: `Memory, and cost per GiB, on an unshaped loopback, with Unix sockets that hold ${buffers}`,
    notes: [
      isUsual
        ? `Unix sockets hold ${buffers}, as Linux has them (net.core.wmem_default).`
        : `Before it: \`sysctl -w net.core.wmem_default=${socketBufferBytes}\`. Linux has ${SOCKET_BUFFER_BYTES_USUAL / 1024} KiB.`,
      `Bare-metal test guest under QEMU ${QEMU} (TCG), so much of its RAM filled with text as is said, the rest zero, 1000 pages/s touched. ` +
        `Page cache limited to ${CACHE_MIB} MiB. Median of ${runs} runs, the methods in turns that begin with another one each time; every guest has verified its memory after arriving.`,
      "Total: from the command to the first heartbeat at the destination, start of Node.js included. Migration: as the source's QEMU reports it. " +
        "Resident: the most that the process held at once (VmHWM). CPU is that of the QEMUs' own threads + that of the processes between them.",
      `At least: the CPU seconds of all of them and of the guest, from the command to its end, over the ${CORES} cores of this machine. ` +
        "Where that is close to the total, it was the machine that was the limit, and every CPU second of Deltavee's is time; where it is not, somebody has waited.",
      "Carried: the stream goes through two processes of Node that read and write it and do nothing else. " +
        `The tunnel has taken ${againstCarried(figures).join(", ")} times as long as that: it does not send zeros to a QEMU that has never touched that RAM, and what it does send costs more.`,
      "What a start costs and what a GiB adds: the line through the smallest and the largest guest. Until 2026-11-25 the CPU of each size was divided " +
        "by its GiB and these were compared, start included: the goal for flatness is now for what a GiB adds from one size to the next, and the start is told by itself.",
    ],
    tables: [
      { caption: "Guests of three sizes", table: tableOf(figures) },
      {
        caption: "CPU seconds of the processes between the QEMUs: of a start, and of each GiB",
        table: costTable(costs),
      },
    ],
    goals: OURS.flatMap(({ name }) => goalsOf(name, figures, costs)),
    lines: [...figures, ...costs],
  };
}

/** Nobody is always the one that comes behind the same other. */
function rotated<Item>(items: readonly Item[], by: number): Item[] {
  const from = by % items.length;
  return [...items.slice(from), ...items.slice(0, from)];
}

function guestText({ mib, filledShare }: Guest): string {
  return `${mib} MiB, ${(100 * filledShare).toFixed(0)} % text`;
}

function figureOf(
  guest: Guest,
  method: string,
  all: ReadonlyMap<string, readonly Measurement[]>,
): MemoryFigure {
  const of = (name: string, value: (run: Measurement) => number) => median(all.get(name)!.map(value));
  const migrationMs = ({ migrationMsReported, totalMs }: Measurement) => migrationMsReported ?? totalMs;
  const cpuOf = (side: Side) => ({
    qemu: of(method, (run) => run.cpuSeconds[side].qemu),
    deltavee: of(method, (run) => run.cpuSeconds[side].deltavee),
  });
  const cpuSeconds = { source: cpuOf("source"), destination: cpuOf("destination") };
  const guestCpuSeconds = of(method, (run) => run.guestCpuSeconds);
  const cpuSecondsOfAll = [cpuSeconds.source, cpuSeconds.destination].reduce(
    (sum, { qemu, deltavee }) => sum + qemu + deltavee,
    guestCpuSeconds,
  );
  return {
    section: "memory",
    guest,
    method,
    runs: all.get(method)!.length,
    totalMs: of(method, ({ totalMs }) => totalMs),
    migrationMs: of(method, migrationMs),
    timeRatio: of(method, migrationMs) / of(DIRECTLY.name, migrationMs),
    cpuSeconds,
    guestCpuSeconds,
    cpuSecondsOfAll,
    secondsAtLeast: cpuSecondsOfAll / CORES,
    residentBytesMax: {
      source: of(method, ({ residentBytesMax }) => residentBytesMax.source),
      destination: of(method, ({ residentBytesMax }) => residentBytesMax.destination),
    },
  };
}

function costOf(method: string, figures: readonly MemoryFigure[]): CostFigure {
  const own = figures.filter((figure) => figure.method === method && figure.guest !== FULL);
  const [smallest, largest] = [own[0]!, own.at(-1)!];
  const gib = ({ guest: { mib } }: MemoryFigure) => mib / 1024;
  const slope = (from: MemoryFigure, to: MemoryFigure, cpu: (figure: MemoryFigure) => number) =>
    (cpu(to) - cpu(from)) / (gib(to) - gib(from));
  const perGiB = (side: Side) => slope(smallest, largest, ({ cpuSeconds }) => cpuSeconds[side].deltavee);
  const fixed = (side: Side) => smallest.cpuSeconds[side].deltavee - perGiB(side) * gib(smallest);
  return {
    section: "memory",
    method,
    fixedCpuSeconds: { source: fixed("source"), destination: fixed("destination") },
    cpuSecondsPerGiB: { source: perGiB("source"), destination: perGiB("destination") },
    stepCpuSecondsPerGiB: own.slice(1).map((figure, i) => slope(own[i]!, figure, ofDeltavee)),
  };
}

function ofDeltavee({ cpuSeconds: { source, destination } }: MemoryFigure): number {
  return source.deltavee + destination.deltavee;
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
      "CPU s source",
      "CPU s destination",
      "at least s",
      "resident MiB source",
      "resident MiB destination",
    ],
    ...figures.map((figure) => [
      `${guestText(figure.guest)}, ${titleOf(figure.method)}`,
      (figure.totalMs / 1000).toFixed(2),
      (figure.migrationMs / 1000).toFixed(2),
      (figure.migrationMs / 1000 / (figure.guest.mib / 1024)).toFixed(2),
      figure.timeRatio.toFixed(2),
      cpu(figure.cpuSeconds.source),
      cpu(figure.cpuSeconds.destination),
      figure.secondsAtLeast.toFixed(2),
      mib(figure.residentBytesMax.source),
      mib(figure.residentBytesMax.destination),
    ]),
  ];
}

function costTable(costs: readonly CostFigure[]): string[][] {
  const steps = SIZES.slice(1).map(
    ({ mib }, i) => `s per GiB from ${SIZES[i]!.mib / 1024} to ${mib / 1024} GiB`,
  );
  return [
    ["method", "start source", "start destination", "s per GiB source", "s per GiB destination", ...steps],
    ...costs.map(({ method, fixedCpuSeconds, cpuSecondsPerGiB, stepCpuSecondsPerGiB }) => [
      titleOf(method),
      ...[fixedCpuSeconds.source, fixedCpuSeconds.destination].map((seconds) => seconds.toFixed(2)),
      ...[cpuSecondsPerGiB.source, cpuSecondsPerGiB.destination].map((seconds) => seconds.toFixed(2)),
      ...stepCpuSecondsPerGiB.map((seconds) => seconds.toFixed(2)),
    ]),
  ];
}

function goalsOf(method: string, figures: readonly MemoryFigure[], costs: readonly CostFigure[]): Goal[] {
  const goals = figures
    .filter((figure) => figure.method === method)
    .flatMap((figure): Goal[] => {
      const what = `${titleOf(figure.method)}, ${guestText(figure.guest)}`;
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
  const steps = costs.find((cost) => cost.method === method)!.stepCpuSecondsPerGiB;
  const mean = steps.reduce((sum, step) => sum + step, 0) / steps.length;
  goals.push({
    what: `${titleOf(method)}: CPU that a GiB adds, dearest step between sizes against the mean`,
    // A GiB that seems to cost nothing says that the machine was too busy to measure anything.
    value: mean > 0 ? Math.max(...steps) / mean : Number.POSITIVE_INFINITY,
    atMost: FLAT_RATIO_MAX,
    unit: "×",
  });
  return goals;
}

/** Migration time of the tunnel over that of carrying alone, for each guest. */
function againstCarried(figures: readonly MemoryFigure[]): string[] {
  const msOf = (name: string, of: Guest) =>
    figures.find(({ method, guest }) => method === name && guest === of)!.migrationMs;
  return [...SIZES, FULL].map((guest) => (msOf("tunnel", guest) / msOf(CARRIED.name, guest)).toFixed(2));
}
