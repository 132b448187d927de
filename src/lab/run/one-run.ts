// One run: a guest that does what its scenario says and has clients, moved by one method over one link, watched before,
// during and after. Everything seen becomes entries of its record, whatever happens: only an interrupted run leaves none.

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../base/clock.ts";
import { DeltaveeError, toError, type VmWhere } from "../../base/errors.ts";
import { version } from "../../base/version.ts";
import { NO_PAGES, type RecordEntry } from "../../record/schema.ts";
import { methodNamed } from "../method/all.ts";
import type { Method, MigrationEnd, Side } from "../method/method.ts";
import type { Activity, ClientView } from "../model.ts";
import { ownedTempFolder } from "../ownership.ts";
import type { Forecast } from "./forecast.ts";
import type { OpenedStage, OpenStage } from "./opened-stage.ts";
import { planText, type RunPlan } from "./plan.ts";
import { StockWatch } from "./stock-watch.ts";
import { epochNowMs, type TimedEntry, thinned } from "./timed.ts";
import { readToolRecord, type ToolRecord } from "./tool-record.ts";
import { UsageWatch } from "./usage-watch.ts";
import { judge, type Seen, type Verdict } from "./verdict.ts";
import { findGuest } from "./whereabouts.ts";

export interface RunContext {
  readonly openStage: OpenStage;
  /** Undefined: by its name. */
  readonly methodOf?: (name: string) => Method;
  /** Undefined: none is made. */
  readonly forecast?: Forecast;
  /** Processors, memory, system, in words. */
  readonly machine: string;
  /** That has asked for this run. */
  readonly command: string;
  readonly notice: (text: string) => void;
  /** @see runOnce */
  readonly signal: AbortSignal;
}

export interface FinishedRun {
  /** In the order of a record: what is run first, the summary last. */
  readonly entries: readonly TimedEntry[];
  readonly verdict: Verdict;
}

const USAGE_EVERY_MS = 1000;
const STOCK_SAMPLES_MAX = 120;
const ITERATIONS_MAX = 60;
const USAGES_MAX = 80;
const POINTS_MAX = 100;
/** Last acknowledgements and farewells, which are counted too. */
const LAST_PACKETS_MS = 200;

/** Never rejects for what happens to the guest. @throws whatever `signal` was aborted with; all has been ended then */
export async function runOnce(plan: RunPlan, context: RunContext): Promise<FinishedRun> {
  const run = new Run(plan, context);
  try {
    await run.go();
  } catch (thrown) {
    context.signal.throwIfAborted();
    run.fail(toError(thrown));
  }
  return run.finish();
}

class Run {
  readonly #plan: RunPlan;
  readonly #context: RunContext;
  readonly #method: Method;
  readonly #startedMs = epochNowMs();
  readonly #entries: TimedEntry[] = [];
  readonly #failures: string[] = [];
  #hypervisor: string;
  #vm: VmWhere = "unknown";
  #seen: Partial<Seen> = {};
  #tool: ToolRecord = { entries: [], summary: undefined };

  constructor(plan: RunPlan, context: RunContext) {
    this.#plan = plan;
    this.#context = context;
    this.#method = (context.methodOf ?? methodNamed)(plan.setting.method);
    this.#hypervisor = `QEMU ${plan.setting.qemu}`;
  }

  async go(): Promise<void> {
    const { openStage, notice, signal } = this.#context;
    const { scenario, setting } = this.#plan;
    const { parameters, guest, link, qemu } = setting;
    const opened = await openStage({ scenario, parameters, guest, link, qemu, notice, signal });
    // Whoever waits for anything of the stage's hears of its end.
    const close = () => void opened.close();
    signal.addEventListener("abort", close, { once: true });
    const usage = new UsageWatch();
    const folder = ownedTempFolder();
    try {
      signal.throwIfAborted();
      this.#hypervisor = await describeHypervisor(opened);
      const activity = await this.#untilAborted(scenario.begin(opened.stage, parameters));
      await this.#untilAborted(this.#move(opened, activity, usage, folder.path));
    } finally {
      signal.removeEventListener("abort", close);
      usage.end();
      await opened.close();
      folder.remove();
    }
  }

  fail(error: Error): void {
    this.#failures.push(error.message);
    const code = error instanceof DeltaveeError ? error.code : "INTERNAL";
    const because = error.cause === undefined ? "" : ` (because: ${toError(error.cause).message})`;
    this.#add({ type: "error", code, message: `${error.message}${because}` });
  }

  async #move(opened: OpenedStage, activity: Activity, usage: UsageWatch, folder: string): Promise<void> {
    const { beforeMs, afterMs } = this.#plan;
    const { source, destination, heartbeat } = opened;
    const processes: { stop(): Promise<unknown> }[] = [];
    const recordFile = join(folder, "deltavee.ndjson");
    let arrivedAtMs: number | undefined;
    let stockWatch: StockWatch | undefined;
    const releaseResume = destination.qmp.on("RESUME", ({ receivedMs }) => {
      arrivedAtMs ??= receivedMs;
    });
    try {
      const migrate = await this.#method.prepare({
        ...{
          source,
          destination,
          link: opened.link,
          recordFile,
          clock: systemClock,
          signal: this.#context.signal,
        },
        ...this.#limits(),
        stateFolder: join(folder, "state"),
        started: (side: Side, run) => {
          processes.push(run);
          usage.deltavee(side, run.pid);
        },
      });
      await this.#forecast(opened);
      await sleep(beforeMs, undefined, { signal: this.#context.signal });
      const wireBefore = opened.wireBytes();
      const wire = () => {
        const now = opened.wireBytes();
        return {
          bySource: now.bySource - wireBefore.bySource,
          byDestination: now.byDestination - wireBefore.byDestination,
        };
      };
      if (this.#method.mode === "stock") stockWatch = new StockWatch(source.qmp, () => wire().bySource);
      // From here on: what a QEMU has done for its guest's disk and network before is no cost of the migration.
      usage.qemu("source", source.pid);
      usage.qemu("destination", destination.pid);
      const usageTimer = setInterval(() => this.#noteUsage(usage), USAGE_EVERY_MS);
      activity.migrationBegins();
      heartbeat.tell("migration-begins");
      this.#add({ type: "phase", phase: "setup" });
      const startMs = performance.now();
      let end: MigrationEnd | undefined;
      try {
        end = await migrate();
      } catch (thrown) {
        this.#context.signal.throwIfAborted();
        // The view of clients after a migration that failed is what there is to be seen.
        this.fail(toError(thrown));
      } finally {
        clearInterval(usageTimer);
      }
      const migrationMs = performance.now() - startMs;
      activity.migrationEnded();
      heartbeat.tell("migration-ended");
      const phase = end === undefined ? "failed" : end.arrived ? "completed" : "cancelled";
      this.#add({ type: "phase", phase });
      this.#noteUsage(usage);
      const lastPacketsMs = Math.min(LAST_PACKETS_MS, afterMs);
      await sleep(lastPacketsMs);
      this.#seen = { ...this.#seen, end, migrationMs, wire: wire(), usages: usage.usages };
      await stockWatch?.end().catch(() => {});
      this.#keep(stockWatch?.entries ?? []);
      if (end !== undefined && !end.arrived)
        this.#failures.push(`it has not ended within ${this.#plan.limitMs / 1000} s`);
      await sleep(afterMs - lastPacketsMs, undefined, { signal: this.#context.signal });
      const { downtime } = await source.qmp.execute("query-migrate").catch(() => ({ downtime: undefined }));
      const { vm, failures } = await findGuest(opened, end?.arrived ?? false);
      this.#vm = vm;
      this.#failures.push(...failures);
      await sleep(activity.afterMs, undefined, { signal: this.#context.signal });
      const clients = await activity.finish();
      const beats = await heartbeat.finish();
      this.#points(clients);
      this.#points(beats);
      this.#seen = {
        ...this.#seen,
        ...{ clients, heartbeat: beats, downtimeMsReported: downtime },
        totalMs: arrivedAtMs === undefined ? migrationMs : arrivedAtMs - startMs,
      };
    } finally {
      releaseResume();
      stockWatch?.stop();
      await Promise.all(processes.map((each) => each.stop()));
      if (this.#method.mode !== "stock") this.#keepTool(recordFile);
    }
  }

  /** A guest of which nothing can be said is moved all the same. */
  async #forecast(opened: OpenedStage): Promise<void> {
    const { forecast, signal } = this.#context;
    try {
      if (forecast !== undefined) this.#add(await forecast(opened, this.#plan, signal));
    } catch (thrown) {
      signal.throwIfAborted();
      this.#add({ type: "notice", message: `No forecast: ${toError(thrown).message}` });
    }
  }

  #limits() {
    const { setting, downtimeMsMax, forceAfterMs, limitMs } = this.#plan;
    return { memoryBytes: setting.guest.memoryMiB * 1024 ** 2, downtimeMsMax, forceAfterMs, limitMs };
  }

  finish(): FinishedRun {
    const { experiment, setting, downtimeMsMax, forceAfterMs, limitMs } = this.#plan;
    const { machine, command } = this.#context;
    const entries = [...this.#entries].sort((one, other) => one.epochMs - other.epochMs);
    const told = entries.map(({ entry }) => entry);
    const summary = this.#tool.summary;
    const verdict = judge({
      ...NOTHING_SEEN,
      iterations: summary?.iterations,
      ...this.#seen,
      ...{ entries: told, failures: this.#failures },
    });
    const head: RecordEntry[] = [
      {
        ...{ type: "run", version: 1, startedAt: new Date(this.#startedMs).toISOString(), deltavee: version },
        ...{ side: "source", mode: this.#method.mode, method: this.#method.sends },
        ...{
          hypervisor: this.#hypervisor,
          guestRamBytes: setting.guest.memoryMiB * 1024 ** 2,
          downtimeMsMax,
        },
        label: `${experiment}: ${planText(this.#plan)}`,
      },
      { type: "lab", ...setting, forcedAfterMs: forceAfterMs, limitMs, machine, command },
    ];
    const endMs = Math.max(epochNowMs(), entries.at(-1)?.epochMs ?? 0);
    const at = (epochMs: number) => (entry: RecordEntry) => ({ epochMs, entry });
    return {
      entries: [
        ...head.map(at(this.#startedMs)),
        ...entries,
        ...[verdict, this.#summary(verdict, told)].map(at(endMs)),
      ],
      verdict,
    };
  }

  #summary({ metrics }: Verdict, told: readonly RecordEntry[]): RecordEntry {
    const { end } = this.#seen;
    const last = told.findLast((entry) => entry.type === "sample");
    const own = this.#tool.summary;
    const { downtimeMsReported, heartbeatGapMs, iterations, wireBytes = 0, totalMs, migrationMs } = metrics;
    return {
      type: "summary",
      outcome: end === undefined ? "failed" : end.arrived ? "completed" : "cancelled",
      vm: this.#vm,
      totalMs: totalMs ?? migrationMs ?? 0,
      ...(own?.downtimeMs === undefined ? {} : { downtimeMs: own.downtimeMs }),
      ...(own?.forecastDowntimeMs === undefined ? {} : { forecastDowntimeMs: own.forecastDowntimeMs }),
      ...(downtimeMsReported === undefined ? {} : { downtimeMsReported }),
      ...(heartbeatGapMs === undefined ? {} : { heartbeatGapMs }),
      handedOverBytes: own?.handedOverBytes ?? last?.handedOverBytes ?? 0,
      wireBytes,
      ...(iterations === undefined ? {} : { iterations }),
      pages: own?.pages ?? last?.pages ?? NO_PAGES,
      ...(own?.cache === undefined ? {} : { cache: own.cache }),
    };
  }

  #add(entry: RecordEntry): void {
    this.#entries.push({ epochMs: epochNowMs(), entry });
  }

  #noteUsage(usage: UsageWatch): void {
    for (const each of usage.usages) this.#add({ type: "usage", ...each });
  }

  #keep(stock: readonly TimedEntry[]): void {
    const of = (type: RecordEntry["type"]) => stock.filter(({ entry }) => entry.type === type);
    this.#entries.push(
      ...thinned(of("sample"), STOCK_SAMPLES_MAX),
      ...thinned(of("iteration"), ITERATIONS_MAX),
    );
    const usages = this.#entries.filter(({ entry }) => entry.type === "usage");
    const kept = new Set(thinned(usages, USAGES_MAX));
    const others = this.#entries.filter((each) => each.entry.type !== "usage" || kept.has(each));
    this.#entries.splice(0, this.#entries.length, ...others);
  }

  /** Phases are the lab's own, and its forecast was made earlier; Deltavee's phases say more of the same, in between. */
  #keepTool(path: string): void {
    try {
      this.#tool = readToolRecord(path);
    } catch (thrown) {
      this.#add({
        type: "notice",
        message: `Deltavee's own record is of no use: ${toError(thrown).message}`,
      });
      return;
    }
    const inBetween = this.#tool.entries.filter(
      ({ entry }) =>
        entry.type !== "forecast" &&
        (entry.type !== "phase" || !["setup", "completed", "failed", "cancelled"].includes(entry.phase)),
    );
    this.#entries.push(...inBetween);
  }

  #points({ series }: ClientView): void {
    for (const { name, unit, points } of series) {
      for (const { epochMs, value } of thinned(points, POINTS_MAX)) {
        // A client may have begun to note before the run was named.
        const atMs = Math.max(epochMs, this.#startedMs);
        this.#entries.push({ epochMs: atMs, entry: { type: "client", series: name, unit, value } });
      }
    }
  }

  /** What waits for a guest that is gone might wait for long. */
  #untilAborted<Value>(work: Promise<Value>): Promise<Value> {
    const { signal } = this.#context;
    return new Promise<Value>((resolve, reject) => {
      const onAbort = () => reject(signal.reason);
      signal.addEventListener("abort", onAbort, { once: true });
      work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
    });
  }
}

const NOTHING_SEEN: Seen = {
  ...{ end: undefined, totalMs: undefined, migrationMs: undefined, downtimeMsReported: undefined },
  ...{ iterations: undefined, wire: undefined, usages: [], entries: [], failures: [] },
  ...{ heartbeat: undefined, clients: undefined },
};

async function describeHypervisor({ source }: OpenedStage): Promise<string> {
  const { qemu } = await source.qmp.execute("query-version");
  const kvm = await source.qmp.execute("human-monitor-command", { "command-line": "info kvm" });
  const accelerator = kvm.includes("enabled") ? "KVM" : "TCG";
  return `QEMU ${qemu.major}.${qemu.minor}.${qemu.micro} (${accelerator})`;
}
