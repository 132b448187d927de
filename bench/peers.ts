// `npm run bench:peers`: moves the same busy guest over the same slow link with each of QEMU's own methods and
// with Deltavee, and prints one table. Needs root: the link is made of network namespaces, which it removes.

import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { Command, CommanderError, Option } from "commander";
import { toError, UsageError } from "../src/base/errors.ts";
import { formatBytesPerSecond, formatMs, parseBytesPerSecond, parseMs } from "../src/base/units.ts";
import { METHODS } from "../src/lab/method/all.ts";
import type { Method } from "../src/lab/method/method.ts";
import { replaceSection } from "../src/report/section.ts";
import { findQemus, type QemuBinary } from "../test/support/qemu-binaries.ts";
import { type Measurement, measure, type Scene } from "./measure.ts";
import { makeLink } from "./network.ts";
import { markdown, plainText, tableOf } from "./table.ts";
import { median } from "./timing.ts";
import { GUESTS, type Guest, WORKLOADS, type Workload } from "./workloads.ts";

/** The method that bytes and times are given as ratios of: the best that QEMU has for this case. */
const REFERENCE_METHOD = "xbzrle-full";

interface Options {
  link: number;
  workload: Workload;
  guest: Guest;
  qemu: string;
  methods: readonly Method[];
  runs: number;
  timeLimit: number;
  limit: boolean;
  json?: string;
  markdown?: string;
  records?: string;
}

const program = new Command("bench:peers")
  .description("Deltavee against QEMU's own migration methods, over one link in one run. Needs root.")
  .addOption(withDefault("--link <rate>", "rate of the link, each way", parseBytesPerSecond, "100mbit"))
  .addOption(oneOf("--workload <name>", "what the guest does", WORKLOADS))
  .addOption(oneOf("--guest <name>", "what runs in the VM", GUESTS))
  .option("--qemu <version>", "7.2 or 10.0, on both sides", "10.0")
  .addOption(withDefault("--methods <names>", "which of them", parseMethods, namesOf(METHODS)))
  .option("--runs <count>", "runs per method, taken in turns", parseCount, 1)
  .addOption(
    withDefault("--time-limit <duration>", "what has not converged by then is cancelled", parseMs, "60s"),
  )
  .option("--no-limit", "do not work out the bytes that must cross")
  .option("--json <file>", "append each measurement, one JSON object a line")
  .option("--markdown <file>", "write the table into its section of this file")
  .option("--records <folder>", "keep Deltavee's run records")
  .exitOverride();

try {
  await main(program.parse().opts<Options>());
} catch (thrown) {
  const error = toError(thrown);
  const isUsage = error instanceof UsageError || error instanceof CommanderError;
  if (error instanceof UsageError) console.error(`bench:peers: ${error.message}`);
  else if (!(error instanceof CommanderError)) console.error(error);
  process.exitCode = error instanceof CommanderError && error.exitCode === 0 ? 0 : isUsage ? 2 : 1;
}

async function main(options: Options): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new UsageError("The link is made of network namespaces: run this command as root");
  }
  const binary = findQemus().get(options.qemu);
  if (binary === undefined) throw new UsageError(`There is no QEMU ${options.qemu} here`);
  if (options.records !== undefined) mkdirSync(options.records, { recursive: true });
  const boot = options.guest.boot(options.workload);
  const link = await makeLink(options.link);
  const scene: Scene = {
    ...{ binary, boot, link, limitMs: options.timeLimit, started: [] },
    limitOf: options.limit ? limitMethod(options.methods) : undefined,
  };
  cleanUpWhenInterrupted(scene);
  let results: Results;
  try {
    results = await measureAll(scene, options);
  } finally {
    await link.remove();
  }
  publish(results, options, binary);
  if (results.failures.length > 0) process.exitCode = 1;
}

interface Results {
  measurements: Measurement[];
  failures: string[];
}

/** The methods take turns, so that what else the machine does meets them all. */
async function measureAll(scene: Scene, options: Options): Promise<Results> {
  const { methods, runs, records, json } = options;
  const setting = {
    linkBytesPerSecond: options.link,
    workload: options.workload.name,
    guest: options.guest.name,
    qemu: options.qemu,
  };
  const measurements: Measurement[] = [];
  const failures: string[] = [];
  for (let run = 1; run <= runs; run++) {
    for (const method of methods) {
      console.error(`${method.title}, run ${run} of ${runs}`);
      const recordFile = records === undefined ? undefined : join(records, `${method.name}-${run}.ndjson`);
      try {
        const measurement = await measure(scene, method, run, recordFile);
        measurements.push(measurement);
        console.error(plainText(tableOf([method], [measurement], REFERENCE_METHOD).slice(1)));
        if (json !== undefined) appendFileSync(json, `${JSON.stringify({ ...setting, ...measurement })}\n`);
      } catch (thrown) {
        // A migration that failed does not take the others with it: it is told with the result.
        failures.push(`${method.title}, run ${run}, failed: ${toError(thrown).message}`);
        console.error(failures.at(-1));
      }
    }
  }
  return { measurements, failures };
}

function publish({ measurements, failures }: Results, options: Options, binary: QemuBinary): void {
  const table = tableOf(options.methods, measurements, REFERENCE_METHOD);
  const setting = [...settingOf(options, binary), ...limitText(measurements)];
  console.log(["", ...setting, "", plainText(table), ...failures].join("\n"));
  if (options.markdown === undefined) return;
  const { workload, guest, qemu } = options;
  const name = `${workload.name}, ${formatBytesPerSecond(options.link)}, QEMU ${qemu}, guest ${guest.name}`;
  const list = [...setting, ...failures].map((line) => `- ${line}`).join("\n");
  const content = `### ${name}\n\n${list}\n\n${markdown(table)}`;
  const before = existsSync(options.markdown) ? readFileSync(options.markdown, "utf8") : "";
  writeFileSync(options.markdown, replaceSection(before, `bench:peers ${name}`, content));
}

/** The limit is for the tunnel to be measured by; a guest that travels longer has written more meanwhile. */
function limitMethod(methods: readonly Method[]): string {
  return (methods.find(({ name }) => name === "tunnel") ?? methods[0]!).name;
}

/** The bytes that must cross, and how near the tunnel comes to them. */
function limitText(measurements: readonly Measurement[]): string[] {
  const limit = measurements.find(({ limitBytes }) => limitBytes !== undefined)?.limitBytes;
  if (limit === undefined) return [];
  const of = (name: string) =>
    measurements
      .filter(({ method, converged }) => method === name && converged)
      .map(({ wireBytes }) => wireBytes);
  const [reference, tunnel] = [of(REFERENCE_METHOD), of("tunnel")];
  const parts = [`bytes that must cross: ${(limit / 1e6).toFixed(1)} MB`];
  if (reference.length > 0) parts.push(`${(limit / median(reference)).toFixed(2)} of xbzrle with full cache`);
  if (tunnel.length > 0) parts.push(`the tunnel sent ${(median(tunnel) / limit).toFixed(2)} of it`);
  return [parts.join("; ")];
}

/** What the table's numbers hold for. */
function settingOf(options: Options, { version }: QemuBinary): string[] {
  const { link, workload, guest, runs, timeLimit } = options;
  const runsText = runs === 1 ? "one run each" : `median (lowest–highest) of ${runs} runs, taken in turns`;
  return [
    `command: npm run bench:peers -- ${process.argv.slice(2).join(" ")}`,
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ` +
      `Node ${process.versions.node}, QEMU ${version.major}.${version.minor}.${version.micro} under TCG`,
    `link: ${formatBytesPerSecond(link)} each way; ${runsText}; cancelled after ${formatMs(timeLimit)}`,
    `guest: ${guest.description}; ${workload.description}`,
  ];
}

/** A benchmark that is killed cannot do this: what it leaves behind is removed by the next one. */
function cleanUpWhenInterrupted({ started, link }: Scene): void {
  const cleanUp = (exitCode: number) => {
    console.error("bench:peers: interrupted");
    void Promise.allSettled(started.map((each) => each.stop()))
      .then(() => link.remove())
      .finally(() => process.exit(exitCode));
  };
  process.once("SIGINT", () => cleanUp(130));
  process.once("SIGTERM", () => cleanUp(143));
}

/** Shows its default as it would be typed. */
function withDefault<Value>(
  flags: string,
  what: string,
  parse: (text: string) => Value,
  text: string,
): Option {
  return new Option(flags, what).argParser(parse).default(parse(text), text);
}

/** Of several named things one, the first being the default. */
function oneOf<Named extends { name: string }>(
  flags: string,
  what: string,
  choices: readonly Named[],
): Option {
  const parse = (text: string) => find(choices, text);
  return withDefault(flags, `${what}: ${namesOf(choices)}`, parse, choices[0]!.name);
}

function namesOf(choices: readonly { name: string }[]): string {
  return choices.map(({ name }) => name).join(",");
}

function parseMethods(text: string): Method[] {
  return text.split(",").map((name) => find(METHODS, name.trim()));
}

function find<Named extends { name: string }>(choices: readonly Named[], name: string): Named {
  const found = choices.find((choice) => choice.name === name);
  if (found === undefined) throw new UsageError(`There is no "${name}" (${namesOf(choices)})`);
  return found;
}

function parseCount(text: string): number {
  if (!/^[1-9]\d{0,2}$/.test(text)) throw new UsageError(`Not a number of runs: "${text}"`);
  return Number(text);
}
