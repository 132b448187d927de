// `npm run fuzz`: the fuzz tests, one file after another, each with seeds of its own, until so many inputs have been
// tried in all as FUZZ_INPUTS says. Every file gets about the same CPU time, so that a slow parser is tried as hard as a fast
// one. What was tried is kept in a file, so that a run that was stopped goes on where it was:
//   FUZZ_INPUTS=10000000 npm run fuzz          (FUZZ_LOG: the file; default .cache/fuzz.ndjson)
// Without FUZZ_INPUTS every file gets one round. At the end it says what was tried of each, from the log alone; with
// UPDATE_RELIABILITY=1 SECURITY.md has it, too.

import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";

const MEBIBYTE = 1024 * 1024;
/** Of resident memory, in one round: a parser that keeps something of each input is past it soon. */
const GROWN_BYTES_MAX = 512 * MEBIBYTE;
/** CPU time that a round of one file should take: much longer than a test file takes to begin. */
const ROUND_SECONDS = 20;
/** Inputs for each property of a file of which nothing is known yet; and bounds for what follows. */
const RUNS_FIRST = 20_000;
const RUNS_MAX = 4_000_000;

/** `runRound(file, environment)`: runs the tests of a file once; ends the process when one fails. */
export function fuzz(root, runRound) {
  const log = process.env.FUZZ_LOG ?? join(root, ".cache/fuzz.ndjson");
  const { FUZZ_INPUTS } = process.env;
  const wanted = Number(FUZZ_INPUTS ?? 0);
  // As it was asked for: each round has its own there.
  const runsAsked = process.env.FUZZ_RUNS;
  mkdirSync(dirname(log), { recursive: true });
  const rounds = linesOf(log);
  const files = fuzzFiles(root);
  const isNew = (file) => roundsOf(rounds, file).length === 0;
  const missing = new Set(FUZZ_INPUTS === undefined ? files : files.filter(isNew));
  const total = () => sum(rounds, "inputs");
  while (missing.size > 0 || total() < wanted) {
    const file = [...(missing.size > 0 ? missing : files)].sort(
      (a, b) => sum(roundsOf(rounds, a), "cpuSeconds") - sum(roundsOf(rounds, b), "cpuSeconds"),
    )[0];
    const done = oneRound(file, roundsOf(rounds, file), { report: `${log}.round`, runsAsked, runRound });
    if (done.grownBytes > GROWN_BYTES_MAX)
      throw new Error(`${file} has grown by ${Math.round(done.grownBytes / MEBIBYTE)} MiB in one round`);
    missing.delete(file);
    rounds.push(done);
    appendFileSync(log, `${JSON.stringify(done)}\n`);
    console.log(
      `fuzz: ${file}: ${done.inputs} inputs in ${done.cpuSeconds} s of CPU time; ${total()} in all (${log})`,
    );
  }
  console.log(fuzzTable(rounds));
  if (process.env.UPDATE_RELIABILITY !== "1") return;
  writeBetween(join(root, "SECURITY.md"), "<!-- fuzz -->\n", "\n<!-- /fuzz -->", fuzzTable(rounds));
}

function writeBetween(page, begin, end, text) {
  const [before, rest] = readFileSync(page, "utf8").split(begin);
  const after = rest?.split(end)[1];
  if (after === undefined) throw new Error(`${page} has no place between ${begin.trim()} and ${end.trim()}`);
  writeFileSync(page, `${before}${begin}${text}${end}${after}`);
}

function oneRound(file, before, { report, runsAsked, runRound }) {
  const last = before.at(-1);
  const perSecond = last === undefined ? 0 : last.runs / Math.max(0.1, last.cpuSeconds);
  const runs = Math.round(perSecond * ROUND_SECONDS);
  rmSync(report, { force: true });
  const environment = {
    FUZZ_REPORT: report,
    FUZZ_SEED: String(before.length + 1),
    FUZZ_RUNS: runsAsked ?? String(Math.min(RUNS_MAX, Math.max(RUNS_FIRST, runs))),
  };
  runRound(file, environment);
  const [part] = linesOf(report);
  rmSync(report, { force: true });
  if (!(part?.inputs > 0)) throw new Error(`${file} has not told how much it tried`);
  return {
    file,
    round: before.length + 1,
    runs: Number(environment.FUZZ_RUNS),
    inputs: part.inputs,
    grownBytes: part.grownBytes,
    cpuSeconds: Math.round(part.cpuSeconds * 10) / 10,
  };
}

/** Markdown, as SECURITY.md has it. */
function fuzzTable(rounds) {
  const row = (name, of) => {
    const grownMiB = Math.round(Math.max(...of.map(({ grownBytes }) => grownBytes)) / MEBIBYTE);
    return `| ${name} | ${of.length} | ${sum(of, "inputs")} | ${Math.round(sum(of, "cpuSeconds"))} | ${grownMiB} |`;
  };
  const files = [...new Set(rounds.map(({ file }) => file))].sort();
  return [
    "| test | rounds | inputs | CPU seconds | resident memory grew by at most, MiB |",
    "|---|---|---|---|---|",
    ...files.map((file) => row(`\`${file}\``, roundsOf(rounds, file))),
    row("all", rounds),
  ].join("\n");
}

function fuzzFiles(root) {
  const files = readdirSync(join(root, "src"), { recursive: true, withFileTypes: true });
  return files
    .filter(({ name }) => name.endsWith(".fuzz.test.ts"))
    .map((file) => relative(root, join(file.parentPath ?? file.path, file.name)));
}

function roundsOf(rounds, file) {
  return rounds.filter((round) => round.file === file);
}

function sum(rounds, key) {
  return rounds.reduce((total, round) => total + round[key], 0);
}

function linesOf(file) {
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}
