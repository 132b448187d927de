// `deltavee lab`: moves real VMs between test hosts by every method there is, and tells what their users saw. Parses and
// prints; what is done is in src/lab.

import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { CancelledError, DeltaveeError, UsageError } from "../base/errors.ts";
import { formatMs, parseBytesPerSecond, parseMs } from "../base/units.ts";
import { labCacheFolder } from "../lab/cache.ts";
import { buildImage } from "../lab/image/image.ts";
import { METHODS } from "../lab/method/all.ts";
import { DOWNTIME_MS_MAX_DEFAULT } from "../lab/method/method.ts";
import { CONGESTIONS, type Scenario } from "../lab/model.ts";
import { clean } from "../lab/run/clean.ts";
import {
  AFTER_MS_DEFAULT,
  BEFORE_MS_DEFAULT,
  EXPERIMENTS,
  FORCE_AFTER_MS_DEFAULT,
  LIMIT_MS_DEFAULT,
  plansOf,
  QEMU_DEFAULT,
} from "../lab/run/experiments.ts";
import { forecast } from "../lab/run/forecast.ts";
import { openLabStage, requireQemu } from "../lab/run/lab-stage.ts";
import { takeLock } from "../lab/run/lock.ts";
import { estimateMs, type MatrixResult, runMatrix } from "../lab/run/matrix.ts";
import { runOnce } from "../lab/run/one-run.ts";
import { planText, type RunPlan } from "../lab/run/plan.ts";
import { ResultStore } from "../lab/run/store.ts";
import { scenarios } from "../lab/scenario/index.ts";
import { onInterrupt } from "./common.ts";
import { openMatrixDisplay, planAsJson } from "./lab/display.ts";
import {
  LINK_DEFAULT,
  METHODS_DEFAULT,
  NAME_DEFAULT,
  parseAboveZeroMs,
  parseForceAfter,
  parseLoss,
  parseMemoryMiB,
  parseMethods,
  parseName,
  parseParameter,
  parseRoundTrip,
  parseRuns,
  parseVcpus,
  plansFor,
  type RunOptions,
} from "./lab/request.ts";
import { compareCommand, reportCommand } from "./lab/results.ts";

const RESULTS_DEFAULT = "lab/results";

const HELP = `
The lab needs root (test hosts are network namespaces), QEMU, and once mmdebstrap for the guest's image. See docs/lab.md.

Examples:
  What there is to be run:
    deltavee lab list
  A streaming video, moved by the tunnel five times over a link that loses packets:
    deltavee lab run video --method tunnel --link 100mbit --rtt 20ms --loss 0.1% --runs 5
  Content for which delta compression is of no use, against QEMU's ways:
    deltavee lab run writer --set bytesPerPage=4096 --method vanilla,multifd-zstd,tunnel
  What docs/evaluation.md is made of, as far as it is not there yet; and how long that would take:
    deltavee lab run --experiment headline
    deltavee lab run --experiment headline --dry-run
`;

const RUN_HELP = `
A run whose record is there is not made again, so that a command that was interrupted goes on where it was. A run that
failed is written down as such, and not tried again either: remove its record for that.

All methods are ended alike: --force-after the migration began any downtime is allowed, whatever the method, and at --limit
what has still not ended is cancelled, which counts as failed.

Exit codes: 0 all runs were made, however they went; 1 one could not be made, or its migration broke; 2 wrong usage; 130
interrupted: everything was taken down, and what had been made before is kept.

Example:
  deltavee lab run memory --method vanilla,tunnel --link 100mbit --runs 5
`;
/** Behind the default of what an experiment has several of, of which one may be asked for. */
const ALL_OF_EXPERIMENT = ", or all of the experiment's";
const IMAGE_HELP = "\nExample:\n  deltavee lab image";
const CLEAN_HELP = "\nExamples:\n  deltavee lab clean\n  deltavee lab clean --all";
const LIST_HELP = "\nExamples:\n  deltavee lab list\n  deltavee lab list --json";

export function labCommand(): Command {
  const command = new Command("lab").description(
    "move real VMs between test hosts by every method there is, and see what their users saw",
  );
  for (const part of [runCommand(), imageCommand(), listCommand(), cleanCommand()]) command.addCommand(part);
  for (const part of [compareCommand(RESULTS_DEFAULT), reportCommand(RESULTS_DEFAULT)])
    command.addCommand(part);
  return command.addHelpText("after", HELP);
}

interface LabRunOptions extends RunOptions {
  results: string;
  dryRun?: true;
  json?: true;
}

function runCommand(): Command {
  const option = (flags: string, what: string, parse: (text: string) => unknown, shown: string) =>
    new Option(flags, `${what} (default: ${shown})`).argParser(parse);
  return new Command("run")
    .description("run a scenario, or an experiment, and write down what was seen")
    .argument("[scenario]", "what the guest does (deltavee lab list)")
    .option("--experiment <name>", "runs that belong together (deltavee lab list)")
    .addOption(
      new Option(
        "--method <names>",
        `how it is moved, several with commas (default: ${METHODS_DEFAULT.join(",")}; of an experiment: its own)`,
      ).argParser(parseMethods),
    )
    .addOption(option("--runs <count>", "how often, in turns", parseRuns, "1, or the experiment's"))
    .option(
      "--qemu <version>",
      `of both sides, "7.2" or "10.0" (default: ${QEMU_DEFAULT}, or the experiment's)`,
    )
    .addOption(
      option(
        "--link <rate>",
        "of the link, each way",
        parseBytesPerSecond,
        `${LINK_DEFAULT}${ALL_OF_EXPERIMENT}`,
      ),
    )
    .addOption(option("--rtt <duration>", "its round trip", parseRoundTrip, `0ms${ALL_OF_EXPERIMENT}`))
    .addOption(
      option("--loss <percent>", "of its packets, each way, e.g. 0.1%", parseLoss, `0%${ALL_OF_EXPERIMENT}`),
    )
    .addOption(
      new Option(
        "--congestion <name>",
        `how TCP finds out what it carries (default: cubic, as Linux's${ALL_OF_EXPERIMENT})`,
      ).choices(CONGESTIONS),
    )
    .addOption(
      new Option("--set <name=value>", "a parameter of the scenario; again for others").argParser(
        parseParameter,
      ),
    )
    .addOption(option("--memory <size>", "of the guest", parseMemoryMiB, "the scenario's"))
    .addOption(option("--vcpus <count>", "of the guest", parseVcpus, "the scenario's"))
    .addOption(
      option(
        "--max-downtime <duration>",
        "asked of every method",
        parseAboveZeroMs,
        `${DOWNTIME_MS_MAX_DEFAULT}ms`,
      ),
    )
    .addOption(
      option(
        "--force-after <duration>",
        "any downtime will do then",
        parseForceAfter,
        formatMs(FORCE_AFTER_MS_DEFAULT),
      ),
    )
    .addOption(
      option("--limit <duration>", "it is cancelled then", parseAboveZeroMs, formatMs(LIMIT_MS_DEFAULT)),
    )
    .addOption(
      option("--before <duration>", "the guest is watched before", parseMs, formatMs(BEFORE_MS_DEFAULT)),
    )
    .addOption(option("--after <duration>", "and after it", parseMs, formatMs(AFTER_MS_DEFAULT)))
    .addOption(option("--name <name>", "of the folder of its records", parseName, NAME_DEFAULT))
    .option("--results <folder>", "where records go, a folder for each experiment", RESULTS_DEFAULT)
    .option("--dry-run", "only tell which runs there are, and how long they will take")
    .option("--json", "print what happens as JSON, one event a line")
    .addHelpText("after", RUN_HELP)
    .action(run);
}

async function run(scenarioName: string | undefined, options: LabRunOptions): Promise<void> {
  const plans = plansFor(scenarioName, options, scenarios);
  const store = new ResultStore(options.results);
  if (options.dryRun === true) dryRun(plans, store, options.json === true);
  else {
    const result = await runAll(plans, store, options);
    const where = join(options.results, plans[0]!.experiment);
    if (options.json !== true) process.stdout.write(`${result.made} runs made; records in ${where}\n`);
    if (result.broken > 0) {
      throw new DeltaveeError(
        "MIGRATION_FAILED",
        `${result.broken} of ${result.made} runs broke: see their records in ${where}`,
      );
    }
  }
}

function dryRun(plans: readonly RunPlan[], store: ResultStore, json: boolean): void {
  let leftMs = 0;
  for (const plan of plans) {
    const state = store.state(plan);
    const estimatedMs = estimateMs(plan);
    if (state === "missing") leftMs += estimatedMs;
    const line = json
      ? JSON.stringify({ ...planAsJson(plan), state, estimatedMs, record: store.path(plan) })
      : `${planText(plan)}: ${state === "missing" ? `about ${formatMs(estimatedMs)}` : `made before, ${state}`}`;
    process.stdout.write(`${line}\n`);
  }
  if (!json) process.stdout.write(`${plans.length} runs, about ${formatMs(leftMs)} to go\n`);
}

async function runAll(
  plans: readonly RunPlan[],
  store: ResultStore,
  options: LabRunOptions,
): Promise<MatrixResult> {
  return inLab(async (signal) => {
    const display = openMatrixDisplay(process.stderr, options.json === true ? process.stdout : undefined);
    const notice = (text: string) => display.notice(text);
    try {
      for (const { setting } of plans) requireQemu(setting.qemu);
      const context = {
        openStage: openLabStage,
        forecast,
        machine: machineText(),
        command: commandText(),
        notice,
        signal,
      };
      return await runMatrix({
        ...{ plans, store, nowMs: () => performance.now() },
        on: (event) => display.show(event),
        runOnce: (plan) => runOnce(plan, context),
      });
    } finally {
      display.close();
    }
  });
}

/** As root, alone, without what a killed run has left, and until Ctrl-C. */
async function inLab<Result>(work: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
  if (process.getuid?.() !== 0) {
    throw new UsageError("The lab's hosts are network namespaces: run this command as root");
  }
  const lock = takeLock(join(labCacheFolder(), "lock"));
  const interrupted = new AbortController();
  const text = "Interrupted: hosts and guests have been taken down; records of runs that were made are kept";
  const release = onInterrupt(() => interrupted.abort(new CancelledError(text)));
  try {
    return await work(interrupted.signal);
  } finally {
    release();
    lock.release();
  }
}

function imageCommand(): Command {
  return new Command("image")
    .description("make the guest's image from Debian's packages; runs do it themselves when it is missing")
    .addHelpText("after", IMAGE_HELP)
    .action(async () => {
      const image = await inLab((signal) => buildImage((text) => process.stderr.write(`${text}\n`), signal));
      process.stdout.write(`${image.disk}\n`);
    });
}

function cleanCommand(): Command {
  return new Command("clean")
    .description("remove what killed runs have left, and the warm states of guests; results are kept")
    .option("--all", "the guest's image too: it takes minutes to be made again")
    .addHelpText("after", CLEAN_HELP)
    .action(async (options: { all?: true }) => {
      const removed = await inLab((signal) => clean(options.all === true, signal));
      for (const name of removed) process.stdout.write(`removed ${name}\n`);
    });
}

function machineText(): string {
  const [first] = cpus();
  const memory = `${Math.round(totalmem() / 1024 ** 3)} GiB`;
  return `${cpus().length} × ${first?.model.trim() ?? "unknown processor"}, ${memory}, Linux ${release()}`;
}

function commandText(): string {
  return `deltavee ${process.argv.slice(2).join(" ")}`;
}

function listCommand(): Command {
  return new Command("list")
    .description("tell which scenarios, methods and experiments there are, with their parameters")
    .option("--json", "as JSON")
    .addHelpText("after", LIST_HELP)
    .action(list);
}

function list(options: { json?: true }): void {
  const experiments = EXPERIMENTS.map(({ name, description, runs, ...experiment }) => {
    const plans = plansOf({ name, description, runs, ...experiment }, scenarios);
    const estimatedMs = plans.reduce((sum, plan) => sum + estimateMs(plan), 0);
    return { name, description, runs: plans.length, estimatedMs };
  });
  if (options.json === true) {
    const shown = scenarios.map(({ warmUp: _warmUp, begin: _begin, ...scenario }) => scenario);
    const methods = METHODS.map(({ name, title, mode }) => ({ name, title, mode }));
    process.stdout.write(`${JSON.stringify({ scenarios: shown, methods, experiments }, null, 2)}\n`);
    return;
  }
  const lines = [
    ...["Scenarios", ...scenarios.flatMap(scenarioLines)],
    ...["", "Methods", ...METHODS.map(({ name, title }) => `  ${name.padEnd(14)} ${title}`)],
    ...["", "Experiments"],
    ...experiments.flatMap(({ name, description, runs, estimatedMs }) => [
      `  ${name.padEnd(16)} ${description}`,
      `  ${"".padEnd(16)} ${runs} runs, about ${formatMs(estimatedMs)}`,
    ]),
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

function scenarioLines({ name, title, description, guest, parameters }: Scenario): string[] {
  const shown = Object.entries(parameters).map(([parameter, value]) => `${parameter}=${value}`);
  return [
    `  ${name.padEnd(14)} ${title} (${guest.memoryMiB} MiB, ${guest.vcpus} vCPU${guest.vcpus === 1 ? "" : "s"})`,
    `  ${"".padEnd(14)} ${description}`,
    ...(shown.length === 0 ? [] : [`  ${"".padEnd(14)} --set ${shown.join(" ")}`]),
  ];
}
