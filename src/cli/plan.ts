// `deltavee plan`: what a migration would take, method by method, before anything moves; for one guest, which is sampled
// while it runs, or for many. Only options and words are here: the forecasts are src/planner's.

import { writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Command, Option } from "commander";
import { DeltaveeError, toError, UsageError } from "../base/errors.ts";
import { seeded } from "../base/seeded.ts";
import { parseBytes, parseBytesPerSecond, parseMs } from "../base/units.ts";
import { DOWNTIME_MS_MAX_DEFAULT } from "../engine/switchover/switchover.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { SAMPLE_MS_DEFAULT, SAMPLE_PAGES_DEFAULT, sampleQemu } from "../library/forecast/sample.ts";
import { unoptimized } from "../library/forecast/unoptimized.ts";
import { parseQmpAddress } from "../library/parse-address.ts";
import { bestFleetPlan, type FleetGuest } from "../planner/fleet.ts";
import { type Plan, planMigration } from "../planner/forecast.ts";
import type { GuestModel } from "../planner/guest-model.ts";
import { randomFleet } from "../planner/kinds.ts";
import type { LinkModel } from "../planner/link-model.ts";
import { METHOD_NAMES, type MethodName } from "../planner/methods.ts";
import { onInterrupt } from "./common.ts";
import { readCalibration, readFleet, readModel } from "./plan/files.ts";
import { fleetText, planText } from "./plan/text.ts";
import { modelFromTrace } from "./plan/trace.ts";
import { bestLine, momentLine, watchGuest } from "./plan/watch.ts";

interface Options {
  qmp?: QmpAddress;
  pid?: number;
  model?: string;
  trace?: string;
  fleet?: string;
  link: number;
  rtt: number;
  loss: number;
  maxDowntime: number;
  cacheSize?: number;
  methods: readonly MethodName[];
  samplePages: number;
  sampleTime: number;
  rewritten?: number;
  saveModel?: string;
  calibrate?: string;
  watch?: number;
  watchFor?: number;
  seed: number;
  json?: true;
}

const FLEET_CONCURRENT = [1, 2, 4, 8, 16] as const;
/** Of `--fleet COUNT`. */
const FLEET_MEMORY_BYTES_MAX = 2 ** 40;

const HELP = `
The guest is sampled through /proc/PID/mem of its QEMU, which needs root or the right to trace that process. It is
neither stopped nor slowed down. What is written with the same content as before does not show in its memory: under
KVM, QEMU is asked for that (calc-dirty-rate); under TCG nobody counts it, and none is assumed. QEMU's own pre-copy then
looks better than it will be, where a guest does so a lot; --rewritten COUNT plans for so many such pages a second.

What is seen within the sample time is taken for random. A guest that goes through its memory in turn, and has not come
back to where it was by then, seems to have a larger working set than it has: --sample-time 10s tells more.

A page trace (deltavee trace record) says of each page when it was sent and how large its delta was: from it, a guest
is planned for that cannot be looked at here. Recorded with --contents it also says what coders make of its pages; without
them they are taken for incompressible.

A VM of the embedded hypervisor lives in the program that has started it, and is looked at from there: plan({ vm, ... }) of
the library gives the forecasts, and the model for --model.

Forecasts come with an interval: a guest that is a little calmer or busier than the sample lies at its ends. "unsure":
whether it converges depends on that. Records of migrations that were forecast make the next forecasts better
(--calibrate).

Examples:
  What moving this guest over a line of 100 Mbit/s would take:
    deltavee plan --qmp /run/vm.qmp --link 100mbit --rtt 20ms --max-downtime 100ms
  When in the day it would be easiest:
    deltavee plan --qmp /run/vm.qmp --link 100mbit --watch 10m --watch-for 24h
  The guest of which a migration was recorded, over another link:
    deltavee plan --trace vm.trace --link 1gbit
  In which order, and how many at a time, 200 guests leave over 10 Gbit/s:
    deltavee plan --fleet 200 --link 10gbit --methods tunnel
`;

export function planCommand(): Command {
  return new Command("plan")
    .description(
      "forecast a migration before anything moves: converges or not, time, downtime, bytes, by method",
    )
    .option("--qmp <socket>", "QMP socket of the guest to be sampled", parseQmpAddress)
    .option("--pid <pid>", "process of its QEMU (default: found by the socket)", parsePid)
    .option("--model <file>", "a guest that was sampled before (--save-model), instead of --qmp")
    .option("--trace <file>", "a guest as a page trace of its migration shows it (deltavee trace record)")
    .option(
      "--fleet <count|file>",
      "many guests: so many made-up ones of mixed kinds, or a JSON list of models",
    )
    .requiredOption("--link <rate>", "of the link, e.g. 100mbit", parseBytesPerSecond)
    .addOption(new Option("--rtt <duration>", "its round trip").argParser(parseMs).default(1, "1ms"))
    .addOption(
      new Option("--loss <share>", "of its packets, e.g. 0.1%, as CUBIC takes it")
        .argParser(parseShare)
        .default(0, "none"),
    )
    .addOption(
      new Option("--max-downtime <duration>", "the longest standstill to be accepted")
        .argParser(parseMs)
        .default(DOWNTIME_MS_MAX_DEFAULT, `${DOWNTIME_MS_MAX_DEFAULT}ms`),
    )
    .option("--cache-size <size>", "page cache of delta methods (default: all of RAM)", parseBytes)
    .addOption(
      new Option("--methods <names>", "which of them")
        .argParser(parseMethods)
        .default(METHOD_NAMES, METHOD_NAMES.join(",")),
    )
    .option("--sample-pages <count>", "pages of the guest to look at", parseSamplePages, SAMPLE_PAGES_DEFAULT)
    .addOption(
      new Option("--sample-time <duration>", "for how long to look")
        .argParser(parseSampleTime)
        .default(SAMPLE_MS_DEFAULT, `${SAMPLE_MS_DEFAULT}ms`),
    )
    .option(
      "--rewritten <count>",
      "assume so many pages a second to be written with what they hold already",
      parseRewritten,
    )
    .option("--save-model <file>", "keep what was seen of the guest")
    .option("--calibrate <folder>", "run records (--record of migrate) to learn from")
    .option(
      "--watch <interval>",
      "look again and again, one line each time; names the best moment at the end",
      parseInterval,
    )
    .option("--watch-for <duration>", "end that by itself", parseMs)
    .option("--seed <number>", "of --fleet COUNT", parseSeed, 1)
    .option("--json", "print the plan as JSON")
    .addHelpText("after", HELP)
    .action(plan);
}

async function plan(options: Options): Promise<void> {
  const { qmp, model, trace, fleet } = options;
  const given = [qmp, model, trace, fleet].filter((each) => each !== undefined).length;
  if (given !== 1) throw new UsageError("Say which guest: one of --qmp, --model, --trace and --fleet");
  refuseUseless(options);
  if (options.fleet !== undefined) return planFleet(options, options.fleet);
  if (options.watch !== undefined) return watch(options, options.watch);
  const seen = await guestOf(options);
  if (options.saveModel !== undefined) writeModel(options.saveModel, seen);
  const guest = withAssumption(options, seen);
  const made = planFor(options, guest);
  if (options.json) print({ guest, link: linkOf(options), ...made });
  else process.stdout.write(planText(guest, linkOf(options), made));
}

/** What would change nothing was meant to change something. @throws UsageError */
function refuseUseless(options: Options): void {
  const { qmp, pid, fleet, watch, watchFor, saveModel, calibrate, cacheSize, rewritten } = options;
  if (pid !== undefined && qmp === undefined) throw new UsageError("--pid goes with --qmp");
  if (watchFor !== undefined && watch === undefined) throw new UsageError("--watch-for goes with --watch");
  if (watch !== undefined && qmp === undefined)
    throw new UsageError("--watch looks at a running guest: --qmp");
  if (watch !== undefined && saveModel !== undefined)
    throw new UsageError("--save-model keeps one sample, and --watch takes many");
  const ofOneGuest = {
    ...{ "--save-model": saveModel, "--calibrate": calibrate, "--cache-size": cacheSize },
    "--rewritten": rewritten,
  };
  const [useless] = Object.entries(ofOneGuest).find(([, value]) => value !== undefined) ?? [];
  if (fleet !== undefined && useless !== undefined) throw new UsageError(`${useless} is not for --fleet`);
}

const linkOf = ({ link, rtt, loss }: Options): LinkModel => ({
  bytesPerSecond: link,
  roundTripMs: rtt,
  lossShare: loss,
});

async function guestOf(options: Options): Promise<GuestModel> {
  if (options.model !== undefined) return readModel(options.model);
  if (options.trace !== undefined) return modelFromTrace(options.trace);
  return unoptimized(() =>
    sampleQemu({
      qmp: options.qmp!,
      ...(options.pid === undefined ? {} : { pid: options.pid }),
      samplePages: options.samplePages,
      spanMs: options.sampleTime,
    }),
  );
}

function withAssumption({ rewritten }: Options, guest: GuestModel): GuestModel {
  if (rewritten === undefined) return guest;
  return { ...guest, rewrittenPagesPerSecond: rewritten, rewrittenIsKnown: true };
}

function planFor(options: Options, guest: GuestModel): Plan {
  return planMigration({
    guest,
    link: linkOf(options),
    downtimeMsMax: options.maxDowntime,
    methods: options.methods,
    ...(options.cacheSize === undefined ? {} : { cacheBytes: options.cacheSize }),
    ...(options.calibrate === undefined ? {} : { calibration: readCalibration(options.calibrate) }),
  });
}

/** Until the time is over or the operator has seen enough. */
async function watch(options: Options, intervalMs: number): Promise<void> {
  const stop = new AbortController();
  const release = onInterrupt(() => stop.abort());
  const endMs = performance.now() + (options.watchFor ?? Number.POSITIVE_INFINITY);
  try {
    await watchGuest({
      look: async () => withAssumption(options, await guestOf(options)),
      plan: (guest) => planFor(options, guest),
      now: () => new Date(),
      show: (moment) => {
        if (!options.json) process.stdout.write(momentLine(moment));
        else
          print({
            ...moment.plan,
            at: moment.at.toISOString(),
            dirtyBytesPerSecond: moment.dirtyBytesPerSecond,
          });
      },
      showFailure: (at, message) => process.stderr.write(`${at.toISOString()}  not looked at: ${message}\n`),
      showBest: (moment) => {
        if (!options.json) process.stdout.write(bestLine(moment));
      },
      wait: async () => {
        if (stop.signal.aborted || performance.now() + intervalMs > endMs) return false;
        await sleep(intervalMs, undefined, { signal: stop.signal }).catch(() => {});
        return !stop.signal.aborted;
      },
    });
  } finally {
    release();
  }
}

function planFleet(options: Options, fleet: string): void {
  const guests: FleetGuest[] = /^\d+$/.test(fleet)
    ? randomFleet(fleetCount(fleet), FLEET_MEMORY_BYTES_MAX, seeded(options.seed))
    : readFleet(fleet);
  const made = options.methods.map((method) => ({
    method,
    plans: bestFleetPlan(
      { guests, link: linkOf(options), method, downtimeMsMax: options.maxDowntime },
      FLEET_CONCURRENT,
    ),
  }));
  if (options.json) {
    print({ link: linkOf(options), methods: made });
    return;
  }
  for (const { method, plans } of made) process.stdout.write(`${method}\n${fleetText(plans)}\n`);
}

function fleetCount(text: string): number {
  const count = Number(text);
  if (count < 1 || count > 10_000) throw new UsageError(`Not a number of guests from 1 to 10000: "${text}"`);
  return count;
}

const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);

function writeModel(path: string, guest: GuestModel): void {
  try {
    writeFileSync(path, `${JSON.stringify(guest, null, 2)}\n`);
  } catch (thrown) {
    throw new DeltaveeError("USAGE", `Cannot write the model to ${path}: ${toError(thrown).message}`);
  }
}

function parseMethods(text: string): MethodName[] {
  return text.split(",").map((name) => {
    const known = METHOD_NAMES.find((each) => each === name.trim());
    if (known === undefined)
      throw new UsageError(`There is no method "${name}" (${METHOD_NAMES.join(", ")})`);
    return known;
  });
}

/** "0.1%" or "0.001". */
function parseShare(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(%?)$/.exec(text);
  const share = match === null ? Number.NaN : Number(match[1]) / (match[2] === "%" ? 100 : 1);
  if (!(share >= 0 && share < 0.5)) throw new UsageError(`Not a share of packets below a half: "${text}"`);
  return share;
}

function parsePid(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new UsageError(`Not a process: "${text}"`);
}

function parseSamplePages(text: string): number {
  const count = Number(text);
  // One copy of each is kept.
  if (Number.isInteger(count) && count >= 64 && count <= 1_000_000) return count;
  throw new UsageError(`Not a number of pages from 64 to 1000000: "${text}"`);
}

function parseRewritten(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new UsageError(`Not a number of pages a second: "${text}"`);
}

function parseSampleTime(text: string): number {
  const ms = parseMs(text);
  if (ms >= 100 && ms <= 600_000) return ms;
  throw new UsageError(`Not a time from 100ms to 10m: "${text}"`);
}

/** Node has no longer timer than some 24 days. */
function parseInterval(text: string): number {
  const ms = parseMs(text);
  if (ms >= 1000 && ms <= 24 * 86_400_000) return ms;
  throw new UsageError(`Not an interval from 1s to 24 days: "${text}"`);
}

function parseSeed(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new UsageError(`Not a seed: "${text}"`);
}
