// `deltavee demo`, which is what `npm start` runs: a VM moves between two processes over a slow link, first the
// standard way, then with delta compression, and what became of its heartbeat is put side by side.

import { writeFile } from "node:fs/promises";
import { Command, Option } from "commander";
import { CancelledError, DeltaveeError, UsageError } from "../base/errors.ts";
import { formatBytesPerSecond, formatMs, parseBytes, parseBytesPerSecond, parseMs } from "../base/units.ts";
import { type RunFigures, runFigures } from "../report/figures.ts";
import { htmlReport } from "../report/html/page.ts";
import { comparisonText } from "../report/summary.ts";
import { newBoard, onInterrupt } from "./common.ts";
import { type Display, openDisplay } from "./demo/display.ts";
import {
  expectedMs,
  guestOptions,
  guestText,
  WORKLOADS,
  type WorkloadName,
  workloadHelp,
} from "./demo/guest.ts";
import {
  type ChosenHypervisor,
  chooseHypervisor,
  type HypervisorChoice,
  QEMU_DEFAULT,
} from "./demo/hypervisor.ts";
import type { Method } from "./demo/messages.ts";
import { createDefaultFolder, createOutputFolder, type OutputFolder } from "./demo/output-folder.ts";
import { type RunPlan, type RunResult, runOnce } from "./demo/run.ts";
import { downtimeFactor, failureText, verdictText } from "./demo/verdict.ts";
import { livePageText, openLivePage, type UiAddress, uiOption } from "./live-page.ts";

interface Options {
  link: number;
  delay: number;
  workload: WorkloadName;
  hypervisor: HypervisorChoice;
  qemu: string;
  memory: number;
  maxDowntime: number;
  out?: string;
  json?: true;
  ui?: UiAddress;
}

const METHODS: readonly Method[] = ["standard", "delta"];
const LINK_DEFAULT = "20mbit";
const MEMORY_DEFAULT = "64MiB";
const MIB = 1024 * 1024;
/** The guest itself, and a working set worth moving. */
const MEMORY_BYTES_MIN = 8 * MIB;
const MAX_DOWNTIME_DEFAULT = "100ms";

const HELP = `
Workloads, in a quarter of the guest's memory:
${workloadHelp()}

Hypervisors:
  v86     embedded, needs nothing
  qemu    qemu-system-x86_64 (see --qemu), with KVM where that works; standard pre-copy is then
          QEMU's own, without anything of Deltavee's
  auto    v86; where that does not run a QEMU that keeps its guest whole: any with KVM, from
          version 10 on without it too

The report and both run records go into a new folder: ./deltavee-report-DATE-TIME, or the one
that --out names. Exit codes: 0 the guest has moved twice, whole; 1 it has not, and the message
says why; 2 wrong usage; 130 Ctrl-C.

Examples:
  npm start
  npm start -- --link 50mbit --workload hot
  npm start -- --ui                         # watch it in a browser, at http://127.0.0.1:9437/
  deltavee demo --hypervisor qemu --memory 256MiB --link 100mbit --delay 5ms
`;

export function demoCommand(): Command {
  return new Command("demo")
    .description("watch a running VM move over a slow link: the standard way, then with delta compression")
    .addOption(rateOption())
    .addOption(new Option("--delay <duration>", "of the link, one way").argParser(parseMs).default(0, "0ms"))
    .addOption(
      new Option("--workload <name>", "what the guest does")
        .choices(Object.keys(WORKLOADS))
        .default("sparse" satisfies WorkloadName),
    )
    .addOption(
      new Option("--hypervisor <name>", "what runs the guest")
        .choices(["auto", "v86", "qemu"])
        .default("auto"),
    )
    .option("--qemu <path>", "the QEMU to use", QEMU_DEFAULT)
    .addOption(
      new Option("--memory <size>", "of the guest")
        .argParser(parseMemory)
        .default(parseMemory(MEMORY_DEFAULT), MEMORY_DEFAULT),
    )
    .addOption(
      new Option("--max-downtime <duration>", "goal for the time that the guest stands still")
        .argParser(parseMs)
        .default(parseMs(MAX_DOWNTIME_DEFAULT), MAX_DOWNTIME_DEFAULT),
    )
    .option("--out <folder>", "where the report goes: a new or empty folder")
    .option("--json", "print the result as JSON")
    .addOption(uiOption())
    .addHelpText("after", HELP)
    .action(demo);
}

function parseMemory(text: string): number {
  const bytes = parseBytes(text);
  if (bytes >= MEMORY_BYTES_MIN && bytes % MIB === 0) return bytes;
  throw new UsageError(`Not a size for the guest's memory: "${text}" (whole MiB, at least 8MiB)`);
}

function rateOption(): Option {
  return new Option("--link <rate>", "of the link between the two processes")
    .argParser(parseBytesPerSecond)
    .default(parseBytesPerSecond(LINK_DEFAULT), LINK_DEFAULT);
}

async function demo(options: Options): Promise<void> {
  const folder =
    options.out === undefined
      ? await createDefaultFolder(".", new Date())
      : await createOutputFolder(options.out);
  const interrupted = new AbortController();
  const release = onInterrupt(() =>
    interrupted.abort(new CancelledError("Interrupted: both VMs of the demo have been ended")),
  );
  try {
    const { results, warning } = await runAll(options, folder, interrupted.signal);
    interrupted.signal.throwIfAborted();
    await writeFile(folder.reportPath, htmlReport(results), { flag: "wx" });
    const figures = results.map(runFigures);
    const problems = results.flatMap((result) => result.problems.map((text) => `${result.label}: ${text}`));
    process.stdout.write(
      options.json ? jsonText({ figures, problems, warning, folder }) : endText(results, figures, folder),
    );
    if (problems.length > 0) {
      throw new DeltaveeError("MIGRATION_FAILED", failureText(problems, figures[0]?.hypervisor, warning));
    }
  } catch (thrown) {
    // Then there is nothing in it that anybody wants.
    const isNothing =
      thrown instanceof CancelledError || thrown instanceof UsageError || (await folder.isEmpty());
    if (isNothing) await folder.discard();
    throw thrown;
  } finally {
    release();
  }
}

async function runAll(
  options: Options,
  folder: OutputFolder,
  signal: AbortSignal,
): Promise<{ results: RunResult[]; warning: string | undefined }> {
  const workload = WORKLOADS[options.workload];
  const chosen = await chooseHypervisor(options.hypervisor, options.qemu);
  signal.throwIfAborted();
  process.stderr.write(introText(options, chosen));
  const board = options.ui && (await newBoard());
  const notice = (message: string) => process.stderr.write(`${message}\n`);
  const page = options.ui && board && (await openLivePage(options.ui, board, notice));
  if (page !== undefined) process.stderr.write(`${livePageText(page)}\n`);
  const display: Display = openDisplay(process.stderr, METHODS, process.env);
  const plan: Omit<RunPlan, "method" | "recordPath"> = {
    hypervisor: chosen.spec,
    memoryBytes: options.memory,
    guestOptions: guestOptions(workload, options.memory),
    linkBytesPerSecond: options.link,
    delayMs: options.delay,
    downtimeMsMax: options.maxDowntime,
    signal,
    show: (method, nowMs) => {
      const [line, feed] = [display.show(method, nowMs), board?.open({ label: method })];
      return (event) => {
        line(event);
        feed?.event(event);
      };
    },
  };
  const results: RunResult[] = [];
  try {
    for (const method of METHODS) {
      const result = await runOnce({ ...plan, method, recordPath: folder.recordPath(method) });
      results.push(result);
      // A guest that did not arrive is news enough.
      if (runFigures(result).outcome !== "completed") break;
    }
  } finally {
    display.close();
    await page?.close();
  }
  return { results, warning: chosen.warning };
}

function introText({ link, delay, workload, memory }: Options, { says, warning }: ChosenHypervisor): string {
  const delayText = delay === 0 ? "" : `, ${formatMs(delay)} each way`;
  const seconds = Math.round(expectedMs(WORKLOADS[workload], memory, link) / 5000) * 5;
  const time = seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
  return `
A running VM moves from one process to another over a slow link: first by
standard pre-copy, which sends every changed page whole, then with delta
compression. That takes about ${time}.

  link        ${formatBytesPerSecond(link)}${delayText}
  hypervisor  ${says}
  guest       ${guestText(memory)}
  workload    ${workload}: ${WORKLOADS[workload].says}
${warning === undefined ? "" : `\nNote: ${warning}\n`}
`;
}

function endText(
  results: readonly RunResult[],
  figures: readonly RunFigures[],
  folder: OutputFolder,
): string {
  const [standard, delta] = figures;
  const verdict = standard && delta && verdictText(standard, delta);
  const records = results.map(({ label }) => folder.recordPath(label));
  return [
    `\n${comparisonText(results)}`,
    ...(verdict === undefined ? [] : [`${verdict}\n`]),
    `Report:  ${folder.reportPath}`,
    ...records.map((path, index) => `${index === 0 ? "Records: " : "         "}${path}`),
    "",
  ].join("\n");
}

function jsonText({
  figures,
  problems,
  warning,
  folder,
}: {
  figures: readonly RunFigures[];
  problems: readonly string[];
  warning: string | undefined;
  folder: OutputFolder;
}): string {
  const [standard, delta] = figures;
  const factor = standard && delta && downtimeFactor(standard, delta);
  const result = {
    ok: problems.length === 0,
    problems,
    ...(warning === undefined ? {} : { warning }),
    ...(factor === undefined ? {} : { downtimeFactor: factor }),
    runs: figures,
    report: folder.reportPath,
    records: figures.map(({ label }) => folder.recordPath(label)),
  };
  return `${JSON.stringify(result, null, 2)}\n`;
}
