// Single migrations of `npm run bench:downtime`: a goal that can be kept, by QEMU or by the embedded hypervisor, and
// one that cannot, of which is told what was said and done. What is made of many of them is not its business.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WORKLOADS as DEMO_WORKLOADS, guestOptions } from "../src/cli/demo/guest.ts";
import { deltaveeMethod } from "../src/lab/method/deltavee.ts";
import { netnsOption } from "../src/lab/method/method.ts";
import { parseRecord } from "../src/record/reader.ts";
import type { RecordEvent } from "../src/record/schema.ts";
import { eventsOf, runFigures } from "../src/report/figures.ts";
import { destinationFor, listeningAddress, type Mode } from "../test/support/migration.ts";
import { PACKAGE_ROOT } from "../test/support/package-root.ts";
import { runCli } from "../test/support/processes.ts";
import { startQemu } from "../test/support/qemu-vm.ts";
import { heartbeatGap } from "../test/support/serial.ts";
import { measure, type Scene } from "./measure.ts";

/** What a migration came to that was to keep a goal. */
export interface KeptRun {
  /** It has arrived within the time limit. */
  arrived: boolean;
  totalMs: number;
  heartbeatGapMs?: number;
  /** From the vCPUs' stop to their resumption, as Deltavee has measured it. */
  downtimeMs?: number;
  forecastDowntimeMs?: number;
  verified?: boolean;
}

export async function keptByQemu(scene: Scene, mode: Mode, goalMs: number, run: number): Promise<KeptRun> {
  const goal = ["--max-downtime", `${goalMs}ms`];
  return withRecord(async (recordFile) => {
    const measured = await measure(scene, deltaveeMethod(mode, mode, goal), run, recordFile);
    const { converged: arrived, totalMs, heartbeatGapMs, verified } = measured;
    const { downtimeMs, forecastDowntimeMs } = figuresOf(recordFile);
    return present({ arrived, totalMs, heartbeatGapMs, downtimeMs, forecastDowntimeMs, verified });
  });
}

/** The embedded hypervisor's VMs, each in a process of its own, as the demo has them. */
export async function keptByV86(linkBytesPerSecond: number, goalMs: number): Promise<KeptRun> {
  // As it was built for use: its processes are programs beside it.
  const { runOnce }: typeof import("../src/cli/demo/run.ts") = await import(
    join(PACKAGE_ROOT, "dist/cli/demo/run.js")
  );
  return withRecord(async (recordPath) => {
    const { events, problems } = await runOnce({
      method: "delta",
      hypervisor: { kind: "v86" },
      memoryBytes: V86_MEMORY_BYTES,
      guestOptions: guestOptions(DEMO_WORKLOADS.sparse, V86_MEMORY_BYTES),
      linkBytesPerSecond,
      delayMs: 0,
      downtimeMsMax: goalMs,
      recordPath,
      signal: new AbortController().signal,
      show: () => () => {},
    });
    if (problems.length > 0) throw new Error(problems.join("; "));
    const figures = runFigures({ label: "", events });
    const { outcome, totalMs, heartbeatGapMs, downtimeMs, forecastDowntimeMs, memoryVerified } = figures;
    const arrived = outcome === "completed";
    return present({
      arrived,
      totalMs,
      heartbeatGapMs,
      downtimeMs,
      forecastDowntimeMs,
      verified: memoryVerified,
    });
  });
}

const V86_MEMORY_BYTES = 64 * 1024 * 1024;

/** What became of a migration whose goal could not be kept. */
export interface UnkeptRun {
  policy: string;
  outcome: string;
  exitCode: number | null;
  vm: string;
  totalMs: number;
  heartbeatGapMs?: number;
  /** All decisions of convergence and switchover, as they stand in the record. */
  said: string[];
  /** Settings of the source's QEMU are what they were, and so is its guest's memory, wherever it is. */
  restored: boolean;
  verified: boolean;
}

const READY_TIMEOUT_MS = 180_000;
const HEARTBEATS = 100;
const SUBJECTS: ReadonlySet<string> = new Set(["convergence", "switchover"]);

/** One migration with a goal that its guest's writes make impossible. An operator interrupts it after the limit. */
export async function unkeptByQemu(
  scene: Scene,
  mode: Mode,
  goalMs: number,
  policy: string,
): Promise<UnkeptRun> {
  const { binary, boot, link, limitMs, started } = scene;
  const start = async (options: object) => {
    const vm = await startQemu({ binary, ...boot, ...options });
    started.push(vm);
    return vm;
  };
  try {
    const source = await start(netnsOption(link.sourceNetns));
    const destination = await start({ ...netnsOption(link.destinationNetns), incoming: "defer" });
    await source.waitForReady(READY_TIMEOUT_MS);
    await source.waitForHeartbeats(HEARTBEATS);
    const settings = async () =>
      JSON.stringify([
        await source.qmp.execute("query-migrate-capabilities"),
        await source.qmp.execute("query-migrate-parameters"),
      ]);
    const settingsBefore = await settings();
    const { destinationAddress, destinationPort } = link;
    let to = `tcp:${destinationAddress}:${destinationPort}`;
    if (mode === "tunnel") {
      const listen = ["--listen", `${destinationAddress}:${destinationPort}`];
      const receive = await runCli(
        ["receive", ...listen, "--qmp", destination.toolQmp.path, "--json", "--insecure-plaintext"],
        netnsOption(link.destinationNetns),
      );
      started.push(receive);
      to = destinationFor(mode, await listeningAddress(receive));
    } else await destination.qmp.execute("migrate-incoming", { uri: to });
    return await withRecord(async (recordFile) => {
      const migrate = await runCli(
        [
          ...["migrate", "--qmp", source.toolQmp.path, "--to", to, "--quiet", "--record", recordFile],
          ...["--max-downtime", `${goalMs}ms`, "--on-stall", policy],
          ...(mode === "tunnel" ? ["--insecure-plaintext"] : []),
        ],
        netnsOption(link.sourceNetns),
      );
      started.push(migrate);
      const timer = setTimeout(() => migrate.kill("SIGINT"), limitMs);
      const { code } = await migrate.exited;
      clearTimeout(timer);
      const events = eventsIn(recordFile);
      const { outcome, vm, totalMs } = runFigures({ label: "", events });
      const moved = outcome === "completed";
      const guest = moved ? destination : source;
      await guest.waitForHeartbeats(HEARTBEATS);
      const heartbeatGapMs = moved ? heartbeatGap(source.serial, destination.serial).gapMs : undefined;
      return present({
        ...{ policy, outcome, exitCode: code, vm, totalMs, heartbeatGapMs },
        said: eventsOf(events, "decision")
          .filter(({ subject }) => SUBJECTS.has(subject))
          .map(({ subject, choice, reason }) => `${subject}: ${choice} (${reason})`),
        restored: (await settings()) === settingsBefore,
        verified: (await guest.verify()).ok,
      });
    });
  } finally {
    await Promise.all(started.splice(0).map((each) => each.stop()));
  }
}

async function withRecord<Result>(work: (recordFile: string) => Promise<Result>): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), "deltavee-downtime-"));
  try {
    return await work(join(folder, "run.ndjson"));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function eventsIn(recordFile: string): readonly RecordEvent[] {
  return parseRecord(readFileSync(recordFile, "utf8"), recordFile).events;
}

function figuresOf(recordFile: string): ReturnType<typeof runFigures> {
  return runFigures({ label: "", events: eventsIn(recordFile) });
}

/** Without the members that have no value. */
function present<T extends object>(members: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}
