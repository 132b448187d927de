// `npm run fuzz`: rounds over all fuzz tests, each with a seed of its own, until so many inputs have been tried as
// FUZZ_INPUTS says. What was tried is kept in a file, so that a run that was stopped goes on where it was:
//   FUZZ_INPUTS=10000000 npm run fuzz          (FUZZ_LOG: the file; default .cache/fuzz.ndjson)

import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";

const MEBIBYTE = 1024 * 1024;

/** `runRound(environment)`: runs the tests once; ends the process when one fails. */
export function fuzz(root, runRound) {
  const log = process.env.FUZZ_LOG ?? join(root, ".cache/fuzz.ndjson");
  const wanted = Number(process.env.FUZZ_INPUTS ?? 1);
  mkdirSync(dirname(log), { recursive: true });
  const rounds = linesOf(log);
  const total = () => rounds.reduce((sum, { inputs }) => sum + inputs, 0);
  const before = total();
  while (total() < before + 1 || total() < wanted) {
    const round = rounds.length + 1;
    const report = `${log}.round`;
    rmSync(report, { force: true });
    const startMs = Date.now();
    runRound({ FUZZ_REPORT: report, FUZZ_SEED: String(round), FUZZ_RUNS: process.env.FUZZ_RUNS ?? "20000" });
    const parts = linesOf(report);
    rmSync(report, { force: true });
    const done = {
      round,
      inputs: parts.reduce((sum, { inputs }) => sum + inputs, 0),
      grownBytesMax: Math.max(...parts.map(({ grownBytes }) => grownBytes)),
      seconds: Math.round((Date.now() - startMs) / 1000),
    };
    if (done.inputs === 0) throw new Error("No fuzz test has told how much it tried");
    rounds.push(done);
    appendFileSync(log, `${JSON.stringify(done)}\n`);
    console.log(
      `fuzz: round ${round}: ${done.inputs} inputs in ${done.seconds} s, resident memory grew by at most ` +
        `${Math.round(done.grownBytesMax / MEBIBYTE)} MiB in one file; ${total()} inputs in all (${log})`,
    );
  }
}

function linesOf(file) {
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}
