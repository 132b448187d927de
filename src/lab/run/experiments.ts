// Experiments: which runs belong together. Each is a list of rows, a row being one scenario as it is moved over some
// links by some methods; made into plans here, in the order in which they are run. Numbers of rows are chosen for a
// machine that emulates its guests (docs/lab.md says from what).

import { UsageError } from "../../base/errors.ts";
import { METHODS, methodNamed } from "../method/all.ts";
import { DOWNTIME_MS_MAX_DEFAULT } from "../method/method.ts";
import type { Congestion, GuestShape, LabLink, Scenario, ScenarioParameters } from "../model.ts";
import type { RunPlan } from "./plan.ts";

export interface ExperimentRow {
  readonly scenario: string;
  /** What differs from the scenario's own. */
  readonly parameters?: ScenarioParameters;
  readonly guest?: GuestShape;
  readonly links: readonly LabLink[];
  /** By name. */
  readonly methods: readonly string[];
  readonly qemu?: string;
  readonly downtimeMsMax?: number;
  readonly forceAfterMs?: number;
  readonly limitMs?: number;
  /** With the scenario's smallest guest and parameters. */
  readonly isSmoke?: true;
}

export interface Experiment {
  readonly name: string;
  readonly description: string;
  readonly runs: number;
  readonly rows: readonly ExperimentRow[];
  readonly beforeMs?: number;
  readonly afterMs?: number;
}

export const QEMU_DEFAULT = "10.0";
export const FORCE_AFTER_MS_DEFAULT = 30_000;
export const LIMIT_MS_DEFAULT = 120_000;
export const BEFORE_MS_DEFAULT = 5000;
export const AFTER_MS_DEFAULT = 5000;

/** `mbit`: Mbit/s. */
export function labLink(mbit: number, roundTripMs = 0, lossShare = 0, congestion?: Congestion): LabLink {
  const link = { bytesPerSecond: (mbit * 1e6) / 8, roundTripMs, lossShare };
  return congestion === undefined ? link : { ...link, congestion };
}

const ALL_METHODS = METHODS.map(({ name }) => name);
/** The operator's choice without Deltavee, the best that XBZRLE can be, and Deltavee. */
const FEW_METHODS = ["vanilla", "xbzrle-full", "multifd-zstd", "direct", "tunnel"];

/** Without those that differ from others here in nothing that a large guest would notice. */
const LARGE_METHODS = ["vanilla", "xbzrle-tenth", "xbzrle-full", "multifd-zstd", "postcopy", "tunnel"];

/** The matrix of links, and when a method is forced and cancelled on each: what the link carries decides. */
const LINK_RATES: readonly { mbit: number; forceAfterMs: number; limitMs: number }[] = [
  { mbit: 10, forceAfterMs: 600_000, limitMs: 1_200_000 },
  { mbit: 50, forceAfterMs: 80_000, limitMs: 240_000 },
  { mbit: 100, forceAfterMs: 45_000, limitMs: 150_000 },
  { mbit: 300, forceAfterMs: 30_000, limitMs: 90_000 },
  { mbit: 1000, forceAfterMs: 20_000, limitMs: 60_000 },
];
const ROUND_TRIPS_MS = [0, 20, 100];
const LOSS_SHARES = [0, 0.001];

const DIRTY_PAGES_PER_SECOND = [500, 2000, 8000];
const BYTES_PER_PAGE = [1, 16, 64, 256, 1024, 4096];

/** A guest of 1 GiB has been sent once by half of the time, and has had several iterations by all of it. */
const FAST_LINK = { forceAfterMs: 15_000, limitMs: 60_000 };
const SLOW_LINK = { forceAfterMs: 45_000, limitMs: 150_000 };
/** Whose first pass alone takes some 150 s at 300 Mbit/s. */
const LARGE_GUEST = { forceAfterMs: 240_000, limitMs: 480_000 };
/** A database of 1 GiB, whose first pass takes some 200 s at 50 Mbit/s. */
const MIDDLE_GUEST = {
  guest: { memoryMiB: 2048, vcpus: 1 },
  parameters: { databaseMiB: 1024, workingSetMiB: 256 },
  forceAfterMs: 270_000,
  limitMs: 420_000,
};
/** A goal that a user would not notice, asked of every method. */
const SHORT_DOWNTIME_MS = 100;

const SMOKE: readonly (readonly [scenario: string, method: string])[] = [
  ["lmbench", "xbzrle-tenth"],
  ["writer", "tunnel"],
  ["video", "vanilla"],
  ["enterprise", "tunnel"],
  ["postgres", "multifd-zstd"],
  ["idle", "tunnel"],
  ["compile", "auto-converge"],
  ["keyvalue", "tunnel"],
];

export const EXPERIMENTS: readonly Experiment[] = [
  {
    name: "headline",
    description:
      "the rows that docs/evaluation.md shows: each scenario, by every method that it asks something of",
    runs: 5,
    rows: [
      { scenario: "lmbench", links: [labLink(100)], methods: ALL_METHODS, ...SLOW_LINK },
      {
        scenario: "writer",
        links: [labLink(100)],
        methods: ALL_METHODS,
        downtimeMsMax: SHORT_DOWNTIME_MS,
        ...SLOW_LINK,
      },
      {
        scenario: "video",
        links: [labLink(100)],
        methods: ALL_METHODS,
        downtimeMsMax: SHORT_DOWNTIME_MS,
        ...SLOW_LINK,
      },
      { scenario: "enterprise", links: [labLink(50)], methods: LARGE_METHODS, ...MIDDLE_GUEST },
      {
        scenario: "postgres",
        parameters: { rows: 400, synchronousCommit: "off" },
        links: [labLink(100)],
        methods: FEW_METHODS,
        ...SLOW_LINK,
      },
      { scenario: "keyvalue", links: [labLink(300)], methods: ALL_METHODS },
      { scenario: "compile", links: [labLink(100)], methods: FEW_METHODS, ...SLOW_LINK },
      { scenario: "idle", links: [labLink(100)], methods: FEW_METHODS, ...SLOW_LINK },
    ],
  },
  {
    name: "large",
    description: "the enterprise system in a guest of 8 GiB",
    runs: 1,
    rows: [{ scenario: "enterprise", links: [labLink(300)], methods: LARGE_METHODS, ...LARGE_GUEST }],
  },
  {
    name: "memory-benchmark",
    description: "LMbench's writing benchmark on a fast and on a slow link, and one of zero pages beside it",
    runs: 3,
    rows: [
      { scenario: "lmbench", links: [labLink(1000)], methods: ALL_METHODS, ...FAST_LINK },
      {
        scenario: "lmbench",
        parameters: { workingSetMiB: 64 },
        links: [labLink(100)],
        methods: ALL_METHODS,
        ...SLOW_LINK,
      },
      {
        scenario: "lmbench",
        parameters: { benchmark: "bcopy" },
        links: [labLink(1000)],
        methods: FEW_METHODS,
        ...FAST_LINK,
      },
    ],
  },
  {
    name: "sweep",
    description: "the writer: dirty pages per second by bytes changed per dirtied page",
    runs: 1,
    rows: DIRTY_PAGES_PER_SECOND.flatMap((dirtyPagesPerSecond) =>
      BYTES_PER_PAGE.map((bytesPerPage) => ({
        scenario: "writer",
        parameters: { dirtyPagesPerSecond, bytesPerPage },
        links: [labLink(100)],
        methods: FEW_METHODS,
      })),
    ),
  },
  {
    name: "links",
    description: "the writer over every link: rate by round trip by loss",
    runs: 1,
    rows: LINK_RATES.map(({ mbit, forceAfterMs, limitMs }) => ({
      scenario: "writer",
      links: ROUND_TRIPS_MS.flatMap((roundTripMs) =>
        LOSS_SHARES.map((lossShare) => labLink(mbit, roundTripMs, lossShare)),
      ),
      methods: FEW_METHODS,
      ...{ forceAfterMs, limitMs },
    })),
  },
  {
    name: "lossy",
    description:
      "the writer over links that lose packets, with TCP's congestion control BBR in place of CUBIC",
    runs: 1,
    rows: [
      {
        scenario: "writer",
        links: [20, 100].flatMap((roundTripMs) =>
          [0.001, 0.01].map((lossShare) => labLink(100, roundTripMs, lossShare, "bbr")),
        ),
        methods: ["vanilla", "multifd-zstd", "tunnel"],
        ...SLOW_LINK,
      },
    ],
  },
  {
    name: "qemu-7.2",
    description: "the writer and LMbench on the older QEMU, by every method",
    runs: 1,
    rows: [
      { scenario: "writer", links: [labLink(100)], methods: ALL_METHODS, qemu: "7.2" },
      { scenario: "lmbench", links: [labLink(100)], methods: ALL_METHODS, qemu: "7.2" },
    ],
  },
  {
    name: "smoke",
    description:
      "each scenario once, small and short, QEMU's methods and the tunnel in turn: does the lab work?",
    runs: 1,
    rows: SMOKE.map(([scenario, method]) => ({
      scenario,
      links: [labLink(300)],
      methods: [method],
      isSmoke: true,
      ...{ forceAfterMs: 10_000, limitMs: 40_000 },
    })),
    ...{ beforeMs: 1000, afterMs: 1000 },
  },
];

type LinkSelection = { readonly [Name in keyof LabLink]?: LabLink[Name] | undefined };

/** What a command line may ask for of an experiment. */
export interface Selection {
  readonly scenario?: string | undefined;
  readonly methods?: readonly string[] | undefined;
  readonly runs?: number | undefined;
  readonly qemu?: string | undefined;
  /** Only over links that are like this, in what is said of them. */
  readonly link?: LinkSelection;
}

/** Run 1 of everything, then run 2 of everything: what else the machine does meets all alike. */
export function plansOf(
  experiment: Experiment,
  scenarios: readonly Scenario[],
  selection: Selection = {},
): RunPlan[] {
  const plans: RunPlan[] = [];
  for (let run = 1; run <= (selection.runs ?? experiment.runs); run++) {
    for (const row of experiment.rows) {
      if (selection.scenario !== undefined && selection.scenario !== row.scenario) continue;
      const scenario = scenarioOf(scenarios, row.scenario);
      for (const link of row.links) {
        if (!isLike(link, selection.link)) continue;
        for (const method of row.methods) {
          methodNamed(method);
          if (selection.methods !== undefined && !selection.methods.includes(method)) continue;
          plans.push(planOf(experiment, row, { scenario, link, method, run, qemu: selection.qemu }));
        }
      }
    }
  }
  if (plans.length === 0) throw new UsageError(`Experiment "${experiment.name}" has no such runs`);
  return plans;
}

function isLike(
  link: LabLink,
  { bytesPerSecond, roundTripMs, lossShare, congestion }: LinkSelection = {},
): boolean {
  return (
    (bytesPerSecond ?? link.bytesPerSecond) === link.bytesPerSecond &&
    (roundTripMs ?? link.roundTripMs) === link.roundTripMs &&
    (lossShare ?? link.lossShare) === link.lossShare &&
    (congestion ?? link.congestion ?? "cubic") === (link.congestion ?? "cubic")
  );
}

interface Chosen {
  scenario: Scenario;
  link: LabLink;
  method: string;
  run: number;
  qemu: string | undefined;
}

function planOf(
  experiment: Experiment,
  row: ExperimentRow,
  { scenario, link, method, run, qemu }: Chosen,
): RunPlan {
  const base = row.isSmoke ? scenario.smoke : { guest: scenario.guest, parameters: {} };
  const own = { ...scenario.parameters, ...base.parameters };
  return {
    experiment: experiment.name,
    scenario,
    setting: {
      scenario: scenario.name,
      parameters: { ...own, ...checkedParameters(scenario, row.parameters ?? {}) },
      guest: row.guest ?? base.guest,
      method,
      link,
      qemu: qemu ?? row.qemu ?? QEMU_DEFAULT,
      run,
    },
    downtimeMsMax: row.downtimeMsMax ?? DOWNTIME_MS_MAX_DEFAULT,
    forceAfterMs: row.forceAfterMs ?? FORCE_AFTER_MS_DEFAULT,
    limitMs: row.limitMs ?? LIMIT_MS_DEFAULT,
    beforeMs: experiment.beforeMs ?? BEFORE_MS_DEFAULT,
    afterMs: experiment.afterMs ?? AFTER_MS_DEFAULT,
  };
}

/** @throws UsageError */
export function experimentNamed(name: string): Experiment {
  const experiment = EXPERIMENTS.find((candidate) => candidate.name === name);
  if (experiment !== undefined) return experiment;
  const names = EXPERIMENTS.map((candidate) => candidate.name).join(", ");
  throw new UsageError(`There is no experiment "${name}" (${names})`);
}

/** @throws UsageError for one that the scenario does not have, or that is a word where it must be a number */
export function checkedParameters(scenario: Scenario, asked: ScenarioParameters): ScenarioParameters {
  for (const [name, value] of Object.entries(asked)) {
    const own = Object.hasOwn(scenario.parameters, name) ? scenario.parameters[name] : undefined;
    if (own === undefined) {
      const names = Object.keys(scenario.parameters).join(", ");
      throw new UsageError(
        `Scenario "${scenario.name}" has no parameter "${name}" (${names || "it has none"})`,
      );
    }
    if (typeof own !== typeof value) {
      throw new UsageError(`${name} of "${scenario.name}" must be a ${typeof own}: "${value}"`);
    }
  }
  return asked;
}

/** @throws UsageError */
export function scenarioOf(scenarios: readonly Scenario[], name: string): Scenario {
  const scenario = scenarios.find((candidate) => candidate.name === name);
  if (scenario !== undefined) return scenario;
  const names = scenarios.map((candidate) => candidate.name).join(", ");
  throw new UsageError(`There is no scenario "${name}" (${names})`);
}
