#!/usr/bin/env node
// What the npm scripts of this project run: sets the checkout up when it is not (dependencies, build), then
// does the task. Plain Node without dependencies, since in a fresh clone there are none yet.

import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { audit } from "./audit.mjs";
import { bin, build } from "./build.mjs";
import { fuzz } from "./fuzz.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const NODE_MIN = [20, 19];
/** Lines of a failed test's message that are shown again at the end. */
const FAILURE_LINES = 12;

const [task, ...rest] = process.argv.slice(2);

const tasks = {
  /** The demonstration: a running VM moves, standard against delta. */
  start: () => run(process.execPath, ["dist/cli/main.js", "demo", ...rest]),
  /** Everything that must hold: format, lint, layers, dead code, types, unit, property and short fuzz tests, simulated migrations, then real VMs. */
  test: () => {
    check();
    // What is computed only takes all of the cores, and real VMs come after it.
    const some = rest.length > 0 ? ["--passWithNoTests", ...rest] : [];
    vitest(["--project", "unit", "--project", "sim", ...some], ["--project", "e2e*", ...some]);
  },
  /** The part of `test` that takes under a minute. */
  check: () => {
    check();
    vitest(["--project", "unit", ...rest]);
  },
  e2e: () => vitest(["--project", "e2e*", ...rest]),
  /** Fuzz tests only, with many more inputs (FUZZ_INPUTS in all; FUZZ_RUNS for each property): scripts/fuzz.mjs. */
  fuzz: () =>
    fuzz(root, (file, environment) => {
      Object.assign(process.env, environment);
      vitest(["--project", "unit", file, "--testTimeout=0", ...rest]);
    }),
  /** Simulated migrations in which something goes wrong: one seed with its log, or many. */
  sim: () => {
    compileTools();
    run(process.execPath, ["build/test/sim/main.js", ...rest]);
  },
  /** VMs moved again and again, and peers that come and go: what must not grow is watched (test/soak/main.ts). */
  soak: () => {
    compileTools();
    run(process.execPath, ["build/test/soak/main.js", ...rest]);
  },
  /** The parts of the fast path, each against what it must beat. */
  bench: () => bench("main"),
  /** The migration path against QEMU's own methods, over one link in one run (needs root: test hosts). */
  "bench:peers": () => bench("peers"),
  /** How well the promise of a downtime is kept (needs root for QEMU: test hosts). */
  "bench:downtime": () => bench("downtime"),
  /** When delta compression pays: docs/when-it-pays.md. */
  analysis: () => bench("when-it-pays"),
  /** The kernels against a plain JavaScript loop, on synthetic pages. */
  "bench:kernels": () => bench("kernels"),
  /** What a page costs beside the kernels that look at it. */
  "bench:page-path": () => bench("page-path"),
  /** Policies of the page cache over page traces of migrations. */
  "bench:cache": () => bench("cache"),
  /** Known weaknesses of dependencies; no answer of the registry is no clean audit: scripts/audit.mjs. */
  audit: () => process.exit(audit(root)),
  setup: () => console.log("deltavee: ready"),
};

if (task === undefined || !Object.hasOwn(tasks, task)) {
  console.error(`usage: node scripts/run.mjs ${Object.keys(tasks).join("|")} [arguments]`);
  process.exit(2);
}
setUp();
tasks[task]();

function setUp() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1])) {
    console.error(`deltavee needs Node ${NODE_MIN.join(".")} or newer; this is ${process.versions.node}`);
    process.exit(1);
  }
  // npm writes this file last: without it, or with an older one, an installation is missing or cut short.
  const installed = join(root, "node_modules/.package-lock.json");
  if (
    !existsSync(installed) ||
    statSync(join(root, "package-lock.json")).mtimeMs > statSync(installed).mtimeMs
  ) {
    console.error("deltavee: installing dependencies (npm ci)");
    run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
  }
  build({ onlyIfNeeded: true });
}

function check() {
  run(process.execPath, [bin("@biomejs/biome", "biome"), "check", "--error-on-warnings"]);
  run(process.execPath, [bin("typescript", "tsc"), "-p", "tsconfig.json"]);
  run(process.execPath, [bin("typescript", "tsc"), "-p", "tsconfig.page.json", "--noEmit"]);
  run(process.execPath, [bin("knip", "knip")]);
}

/** Benchmarks and the simulation use the sources and the test harness: all are compiled into build/. */
function compileTools() {
  run(process.execPath, [bin("typescript", "tsc"), "-p", "tsconfig.tools.json"]);
}

function bench(name) {
  compileTools();
  run(process.execPath, [`build/bench/${name}.js`, ...rest]);
}

/**
 * Runs the tests, once with each list of arguments. Closes with what failed, since that is easily lost in a long log,
 * and with their count, alone on a line.
 */
function vitest(...runs) {
  const count = { passed: 0, failed: 0, skipped: 0 };
  const failures = [];
  let status = 0;
  for (const args of runs) status = runVitest(args, count, failures) || status;
  for (const { what, why } of failures) console.log(`\nfailed: ${what}\n${why}`);
  const skipped = count.skipped > 0 ? `, ${count.skipped} skipped` : "";
  console.log(`${count.passed} passed, ${count.failed} failed${skipped}`);
  if (status !== 0) process.exit(status);
}

/** Returns its exit status. */
function runVitest(args, count, failures) {
  const folder = mkdtempSync(join(tmpdir(), "deltavee-test-"));
  const report = join(folder, "report.json");
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const status = run(process.execPath, [bin("vitest", "vitest"), "run", ...reporters, ...args], {
    mayFail: true,
  });
  if (existsSync(report)) {
    const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(
      readFileSync(report, "utf8"),
    );
    failures.push(...testResults.flatMap(failuresOf));
    count.passed += numPassedTests;
    count.failed += numFailedTests;
    count.skipped += numPendingTests;
  }
  rmSync(folder, { recursive: true, force: true });
  return status;
}

/** Of a file of tests in Vitest's report: its failed tests, or the file itself when it could not be run. */
function failuresOf({ name, status, message, assertionResults }) {
  const file = relative(root, name);
  const head = (text) => text.split("\n").slice(0, FAILURE_LINES).join("\n");
  const tests = assertionResults
    .filter((test) => test.status === "failed")
    .map((test) => ({ what: `${file} > ${test.fullName}`, why: head(test.failureMessages.join("\n")) }));
  return tests.length === 0 && status === "failed" ? [{ what: file, why: head(message) }] : tests;
}

/** Ends this process with the command's own exit code when it fails. */
function run(command, args, { mayFail = false } = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error !== undefined) console.error(`deltavee: ${command} could not be started: ${error.message}`);
  const code = status ?? 1;
  if (code !== 0 && !mayFail) process.exit(code);
  return code;
}
