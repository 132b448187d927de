// `deltavee demo` as a newcomer runs it: the command, its processes, what it prints and leaves behind. Needs no
// QEMU but for the last test.

import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { readRecordFile } from "../../src/record/file-reader.ts";
import { eventsOf, runFigures } from "../../src/report/figures.ts";
import { htmlReport } from "../../src/report/html/page.ts";
import { type CliRun, runCli, tempFolder } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";

/** Small and fast: a few seconds instead of a minute. */
const SHORT = ["--link", "200mbit", "--memory", "16MiB"];
const BEGUN_TIMEOUT_MS = 180_000;
const GONE_TIMEOUT_MS = 60_000;
/** In the environment of everything that a demo starts. */
const MARK = "DELTAVEE_DEMO_TEST";

interface Demo {
  run: CliRun;
  /** Named by --out; the demo makes it. */
  out: string;
  /** Processes that the demo has started and that live, itself among them. */
  processes(): number[];
}

function startDemo(...commandArguments: string[]): Promise<Demo> {
  return startDemoWith({}, ...commandArguments);
}

async function startDemoWith(env: Record<string, string>, ...commandArguments: string[]): Promise<Demo> {
  const folder = tempFolder();
  const out = join(folder.path, "report");
  const mark = folder.path;
  const run = await runCli(["demo", "--out", out, ...commandArguments], {
    env: { ...process.env, ...env, [MARK]: mark },
  });
  onTestFinished(async () => {
    await run.stop();
    folder.remove();
  });
  return { run, out, processes: () => processesMarked(mark) };
}

function processesMarked(mark: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => readProcess(pid, "environ").split("\0").includes(`${MARK}=${mark}`));
}

/** Empty for one that has ended. */
function readProcess(pid: number, file: "environ" | "cmdline"): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch {
    return "";
  }
}

async function migrating({ run }: Demo): Promise<void> {
  await run.stderr.waitFor(({ text }) => text.includes("iteration 0"), "first iteration", {
    timeoutMs: BEGUN_TIMEOUT_MS,
  });
}

async function expectNoProcesses(demo: Demo): Promise<void> {
  const endMs = performance.now() + GONE_TIMEOUT_MS;
  while (demo.processes().length > 0 && performance.now() < endMs) await sleep(50);
  expect(demo.processes().map((pid) => readProcess(pid, "cmdline"))).toEqual([]);
}

const textOf = (lines: CliRun["stdout"]) => lines.lines.map(({ text }) => text).join("\n");

test("The demo moves a guest twice, whole, puts both runs side by side and leaves a report", async () => {
  const demo = await startDemo(...SHORT);
  expect(await demo.run.exited, demo.run.stderrTail()).toEqual({ code: 0, signal: null });

  const text = textOf(demo.run.stdout);
  expect(text).toMatch(/^ +standard +delta\ndowntime: heartbeat gap +[\d.]+ m?s +[\d.]+ m?s\n/m);
  expect(text).toMatch(/^memory verified +yes +yes$/m);
  expect(text).toMatch(/^The guest stood still for .* standard pre-copy,\nfor .* with delta compression: /m);
  expect(text).toContain(join(demo.out, "report.html"));
  expect(readdirSync(demo.out).sort()).toEqual(["delta.ndjson", "report.html", "standard.ndjson"]);

  const runs = [];
  for (const label of ["standard", "delta"] as const) {
    const { events, notices } = await readRecordFile(join(demo.out, `${label}.ndjson`));
    expect(notices).toEqual([]);
    const run = { label, events };
    runs.push(run);
    const figures = runFigures(run);
    expect(figures).toMatchObject({ method: label, outcome: "completed", vm: "running on destination" });
    expect(figures.memoryVerified).toBe(true);
    expect(figures.heartbeatGapMs).toBeGreaterThan(0);
    expect(figures.pages.deltaPages > 0).toBe(label === "delta");
    const beats = eventsOf(events, "heartbeat");
    expect(new Set(beats.map(({ side }) => side))).toEqual(new Set(["source", "destination"]));
    const first = beats[0]?.counter ?? 0;
    expect(beats.map(({ counter }) => counter)).toEqual(beats.map((_, index) => first + index));
  }
  const report = readFileSync(join(demo.out, "report.html"), "utf8");
  expect(report).toBe(htmlReport(runs));
  expect(report).not.toMatch(/(?:src|href)=|https?:/);
  await expectNoProcesses(demo);
});

test("With --json stdout is one JSON object, and the report command draws the same figures again", async () => {
  const demo = await startDemo(...SHORT, "--json", "--workload", "text", "--delay", "2ms");
  expect(await demo.run.exited, demo.run.stderrTail()).toEqual({ code: 0, signal: null });
  const result = JSON.parse(textOf(demo.run.stdout)) as Record<string, unknown>;
  expect(result).toMatchObject({ ok: true, problems: [], report: join(demo.out, "report.html") });

  const again = await runCli(["report", "--json", ...(result.records as string[])]);
  expect(await again.exited).toEqual({ code: 0, signal: null });
  expect(JSON.parse(textOf(again.stdout))).toEqual(result.runs);
});

describe("Nothing stays behind", () => {
  test("after Ctrl-C half way: exit code 130, no process, no folder", async () => {
    const demo = await startDemo();
    await migrating(demo);
    expect(demo.processes().length).toBeGreaterThanOrEqual(3);
    demo.run.kill("SIGINT");
    expect(await demo.run.exited).toEqual({ code: 130, signal: null });
    expect(existsSync(demo.out)).toBe(false);
    await expectNoProcesses(demo);
  });

  test("when the demo itself is killed: no process", async () => {
    const demo = await startDemo();
    await migrating(demo);
    demo.run.kill("SIGKILL");
    await demo.run.exited;
    await expectNoProcesses(demo);
  });

  test("when a host of a VM is killed: exit code 1, no process, and a report of what there was", async () => {
    const demo = await startDemo();
    await migrating(demo);
    const host = demo.processes().find((pid) => readProcess(pid, "cmdline").includes("host-process"));
    process.kill(host!, "SIGKILL");
    expect(await demo.run.exited).toEqual({ code: 1, signal: null });
    expect(demo.run.stderrTail()).toMatch(/MIGRATION_FAILED: standard: /);
    expect(
      runFigures({ label: "x", ...(await readRecordFile(join(demo.out, "standard.ndjson"))) }).outcome,
    ).toBe("failed");
    expect(readdirSync(demo.out)).toContain("report.html");
    await expectNoProcesses(demo);
  });
});

describe("Wrong usage ends with exit code 2 before anything is started", () => {
  test.each([
    ["a rate without unit", ["--link", "20"]],
    ["an unknown workload", ["--workload", "heavy"]],
    ["an unknown hypervisor", ["--hypervisor", "xen"]],
    ["an unknown option", ["--fast"]],
    ["a QEMU that is none", ["--hypervisor", "qemu", "--qemu", "/nonexistent/qemu"]],
    ["memory that the hypervisor cannot have", ["--memory", "1MiB"]],
  ])("%s", async (_what, commandArguments) => {
    const demo = await startDemo(...commandArguments);
    expect(await demo.run.exited).toEqual({ code: 2, signal: null });
    expect(demo.run.stderrTail()).not.toBe("");
    expect(existsSync(demo.out)).toBe(false);
  });

  test("a folder that is not empty, which stays as it was", async () => {
    const folder = tempFolder();
    onTestFinished(() => folder.remove());
    writeFileSync(join(folder.path, "precious"), "");
    const run = await runCli(["demo", "--out", folder.path]);
    expect(await run.exited).toEqual({ code: 2, signal: null });
    expect(run.stderrTail()).toContain("--out");
    expect(readdirSync(folder.path)).toEqual(["precious"]);
  });
});

test("Where v86 does not run, a QEMU that would damage the guest is not taken: it says so, and nothing begins", async () => {
  const folder = tempFolder();
  onTestFinished(() => folder.remove());
  const old = join(folder.path, "qemu");
  writeFileSync(old, '#!/bin/sh\necho "QEMU emulator version 7.2.22"\n');
  chmodSync(old, 0o755);
  // Takes WebAssembly away from the demo's processes.
  const demo = await startDemoWith({ NODE_OPTIONS: "--jitless" }, "--qemu", old);
  expect(await demo.run.exited).toEqual({ code: 1, signal: null });
  const said = demo.run.stderrTail();
  expect(said).toContain("HYPERVISOR_FAILED: No hypervisor that keeps the guest whole");
  expect(said).toContain("WebAssembly is not defined");
  expect(said).toContain("--hypervisor qemu takes it all the same");
  expect(existsSync(demo.out)).toBe(false);
  await expectNoProcesses(demo);
});

// Not with 7.2, which loses writes of a guest under TCG in migrations of its own (see hypervisor.ts).
const qemu = findQemus().get("10.0");

test.skipIf(qemu === undefined)("The demo runs on QEMU too, against QEMU's own migration", async () => {
  const folder = tempFolder();
  onTestFinished(() => folder.remove());
  const wrapper = join(folder.path, "qemu");
  writeFileSync(
    wrapper,
    `#!/bin/sh\nexec ${[qemu?.path, ...(qemu?.leadingArguments ?? [])].join(" ")} "$@"\n`,
  );
  chmodSync(wrapper, 0o755);
  const demo = await startDemo("--hypervisor", "qemu", "--qemu", wrapper, "--link", "200mbit");
  expect(await demo.run.exited, demo.run.stderrTail()).toEqual({ code: 0, signal: null });
  expect(textOf(demo.run.stdout)).toMatch(/^memory verified +yes +yes$/m);
  const [standard] = eventsOf((await readRecordFile(join(demo.out, "standard.ndjson"))).events, "run");
  expect(standard).toMatchObject({ mode: "direct", method: "standard" });
  expect(standard?.hypervisor).toMatch(/^QEMU 10\.0/);
  await expectNoProcesses(demo);
});
