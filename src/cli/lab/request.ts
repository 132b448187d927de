// What `deltavee lab run` is asked for, as runs: a scenario with everything that can be varied of it, or an experiment
// (of which a scenario, methods, links, a QEMU and the number of runs may be chosen). Nonsense is refused here, before anything
// is set up.

import { UsageError } from "../../base/errors.ts";
import { formatMs, parseBytes, parseBytesPerSecond, parseMs } from "../../base/units.ts";
import { methodNamed } from "../../lab/method/all.ts";
import type { Congestion, Scenario, ScenarioParameters } from "../../lab/model.ts";
import {
  AFTER_MS_DEFAULT,
  BEFORE_MS_DEFAULT,
  type Experiment,
  experimentNamed,
  FORCE_AFTER_MS_DEFAULT,
  LIMIT_MS_DEFAULT,
  plansOf,
  QEMU_DEFAULT,
  scenarioOf,
} from "../../lab/run/experiments.ts";
import type { RunPlan } from "../../lab/run/plan.ts";

/** As commander gives them: parsed, or not there. */
export interface RunOptions {
  experiment?: string;
  name?: string;
  method?: readonly string[];
  runs?: number;
  qemu?: string;
  link?: number;
  rtt?: number;
  loss?: number;
  congestion?: Congestion;
  set?: ScenarioParameters;
  memory?: number;
  vcpus?: number;
  maxDowntime?: number;
  forceAfter?: number;
  limit?: number;
  before?: number;
  after?: number;
}

export const LINK_DEFAULT = "100mbit";
export const NAME_DEFAULT = "single";
export const METHODS_DEFAULT = ["vanilla", "tunnel"];
const MIB = 1024 * 1024;
/** A kernel and what it needs; more than any machine of today has processors for. */
const MEMORY_MIB_MIN = 128;
const VCPUS_MAX = 64;
const RUNS_MAX = 1000;
/** deltavee migrate must have been started by then. */
const FORCE_AFTER_MS_MIN = 5000;
const ROUND_TRIP_MS_MAX = 10_000;

/** What an experiment fixes. */
const OF_SCENARIO = [
  ...["name", "set", "memory", "vcpus"],
  ...["maxDowntime", "forceAfter", "limit", "before", "after"],
] as const;

/** @throws UsageError */
export function plansFor(
  scenarioName: string | undefined,
  options: RunOptions,
  scenarios: readonly Scenario[],
): RunPlan[] {
  const { experiment, method: methods, runs, qemu } = options;
  if (experiment !== undefined) {
    const fixed = OF_SCENARIO.find((name) => options[name as keyof RunOptions] !== undefined);
    if (fixed !== undefined)
      throw new UsageError(`${flagOf(fixed)} is not for an experiment, which says it itself`);
    if (scenarioName !== undefined) scenarioOf(scenarios, scenarioName);
    const { link: bytesPerSecond, rtt: roundTripMs, loss: lossShare, congestion } = options;
    const link = { bytesPerSecond, roundTripMs, lossShare, congestion };
    const selection = { scenario: scenarioName, methods, runs, qemu, link };
    return plansOf(experimentNamed(experiment), scenarios, selection);
  }
  if (scenarioName === undefined) {
    throw new UsageError("What is to be run? A scenario, or --experiment (deltavee lab list shows both)");
  }
  return plansOf(single(scenarioOf(scenarios, scenarioName), options), scenarios);
}

function single(scenario: Scenario, options: RunOptions): Experiment {
  const forceAfterMs = options.forceAfter ?? FORCE_AFTER_MS_DEFAULT;
  const limitMs = options.limit ?? LIMIT_MS_DEFAULT;
  if (limitMs <= forceAfterMs) {
    throw new UsageError(
      `--limit (${formatMs(limitMs)}) must be later than --force-after (${formatMs(forceAfterMs)})`,
    );
  }
  return {
    name: options.name ?? NAME_DEFAULT,
    description: scenario.title,
    runs: options.runs ?? 1,
    rows: [
      {
        scenario: scenario.name,
        parameters: options.set ?? {},
        guest: {
          memoryMiB: options.memory ?? scenario.guest.memoryMiB,
          vcpus: options.vcpus ?? scenario.guest.vcpus,
        },
        links: [
          {
            bytesPerSecond: options.link ?? parseBytesPerSecond(LINK_DEFAULT),
            roundTripMs: options.rtt ?? 0,
            lossShare: options.loss ?? 0,
            ...(options.congestion === undefined ? {} : { congestion: options.congestion }),
          },
        ],
        methods: options.method ?? METHODS_DEFAULT,
        qemu: options.qemu ?? QEMU_DEFAULT,
        ...(options.maxDowntime === undefined ? {} : { downtimeMsMax: options.maxDowntime }),
        ...{ forceAfterMs, limitMs },
      },
    ],
    beforeMs: options.before ?? BEFORE_MS_DEFAULT,
    afterMs: options.after ?? AFTER_MS_DEFAULT,
  };
}

function flagOf(name: string): string {
  return `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** "vanilla,tunnel", again and again. @throws UsageError */
export function parseMethods(text: string, before: readonly string[] = []): string[] {
  const names = text.split(",").map((name) => methodNamed(name.trim()).name);
  return [...new Set([...before, ...names])];
}

/** "bytesPerPage=64", again and again; whether there is such a parameter only the scenario knows. @throws UsageError */
export function parseParameter(text: string, before: ScenarioParameters = {}): ScenarioParameters {
  const [, name, value] = /^([A-Za-z]\w*)=(.+)$/.exec(text) ?? [];
  if (name === undefined || value === undefined)
    throw new UsageError(`Not a parameter: "${text}" (expected e.g. bytesPerPage=64)`);
  const number = Number(value);
  return { ...before, [name]: Number.isFinite(number) && value.trim() !== "" ? number : value };
}

/** "0.1%". @throws UsageError */
export function parseLoss(text: string): number {
  const percent = Number(/^(\d+(?:\.\d+)?)%$/.exec(text)?.[1] ?? Number.NaN);
  if (percent >= 0 && percent < 100) return Number((percent / 100).toPrecision(6));
  throw new UsageError(`Not a share of packets lost: "${text}" (expected e.g. 0.1%)`);
}

/** The folder of its records, so no path. @throws UsageError */
export function parseName(text: string): string {
  if (/^[\w][\w.-]*$/.test(text)) return text;
  throw new UsageError(`Not a name for an experiment: "${text}" (letters, digits, "-", "_" and ".")`);
}

/** @throws UsageError */
export const parseRuns = (text: string): number => parseCount(text, "number of runs", 1, RUNS_MAX);
/** @throws UsageError */
export const parseVcpus = (text: string): number => parseCount(text, "number of vCPUs", 1, VCPUS_MAX);

function parseCount(text: string, what: string, min: number, max: number): number {
  const count = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (count >= min && count <= max) return count;
  throw new UsageError(`Not a ${what}: "${text}" (${min} to ${max})`);
}

/** @throws UsageError */
export function parseMemoryMiB(text: string): number {
  const bytes = parseBytes(text);
  if (bytes % MIB === 0 && bytes >= MEMORY_MIB_MIN * MIB) return bytes / MIB;
  throw new UsageError(
    `Not a size for the guest's memory: "${text}" (whole MiB, at least ${MEMORY_MIB_MIN}MiB)`,
  );
}

/** @throws UsageError */
export function parseForceAfter(text: string): number {
  const forceAfterMs = parseMs(text);
  if (forceAfterMs >= FORCE_AFTER_MS_MIN) return forceAfterMs;
  throw new UsageError(`Must be at least ${formatMs(FORCE_AFTER_MS_MIN)}: "${text}"`);
}

/** @throws UsageError */
export function parseRoundTrip(text: string): number {
  const roundTripMs = parseMs(text);
  if (roundTripMs <= ROUND_TRIP_MS_MAX) return roundTripMs;
  throw new UsageError(`No link takes that long: "${text}" (at most ${formatMs(ROUND_TRIP_MS_MAX)})`);
}

/** @throws UsageError */
export function parseAboveZeroMs(text: string): number {
  const ms = parseMs(text);
  if (ms > 0) return ms;
  throw new UsageError(`Must be above zero: "${text}"`);
}
