// One run, with a stage of nothing: what becomes of it in its record, whatever happens on the way.

import { describe, expect, test } from "vitest";
import { FakeStage, fakeMethod, fakePlan, fakeScenario, RAM } from "../../../test/support/fake-stage.ts";
import { CancelledError } from "../../base/errors.ts";
import type { RecordEntry } from "../../record/schema.ts";
import type { Method, MethodSetting, MigrationEnd } from "../method/method.ts";
import type { ClientView } from "../model.ts";
import type { Forecast } from "./forecast.ts";
import { type FinishedRun, runOnce } from "./one-run.ts";
import type { RunPlan } from "./plan.ts";
import { epochNowMs } from "./timed.ts";

interface Scene {
  stage?: FakeStage;
  plan?: RunPlan;
  method?: Method;
  migrate?: (setting: MethodSetting) => Promise<MigrationEnd>;
  forecast?: Forecast;
  abort?: AbortController;
}

async function run({
  stage = new FakeStage(),
  plan = fakePlan(),
  migrate,
  method,
  forecast,
  abort = new AbortController(),
}: Scene): Promise<FinishedRun> {
  const arrive = async (): Promise<MigrationEnd> => {
    stage.arrive();
    return { arrived: true };
  };
  return runOnce(plan, {
    openStage: async () => stage,
    methodOf: () => method ?? fakeMethod(migrate ?? arrive),
    ...(forecast === undefined ? {} : { forecast }),
    machine: "a machine",
    command: "deltavee lab run fake",
    notice: () => {},
    signal: abort.signal,
  });
}

function entryOf<Type extends RecordEntry["type"]>(finished: FinishedRun, type: Type) {
  const found = finished.entries.filter(({ entry }) => entry.type === type);
  expect(found).toHaveLength(1);
  return found[0]!.entry as Extract<RecordEntry, { type: Type }>;
}

test("a good run tells what it was, what happened in order, its verdict, and its summary last", async () => {
  const told: string[] = [];
  const scenario = fakeScenario({ told, view: { metrics: { frozenMs: 12 } } });
  const stage = new FakeStage();
  const finished = await run({ stage, plan: fakePlan({ scenario }) });
  const types = finished.entries.map(({ entry }) => entry.type);
  expect(types.slice(0, 2)).toEqual(["run", "lab"]);
  expect(types.slice(-2)).toEqual(["verdict", "summary"]);
  expect(entryOf(finished, "lab")).toEqual({
    type: "lab",
    ...fakePlan({ scenario }).setting,
    ...{ forcedAfterMs: 30_000, limitMs: 120_000, machine: "a machine", command: "deltavee lab run fake" },
  });
  expect(entryOf(finished, "run")).toMatchObject({
    mode: "stock",
    hypervisor: "QEMU 10.0.2 (TCG)",
    downtimeMsMax: 300,
  });
  const phases = finished.entries.flatMap(({ entry }) => (entry.type === "phase" ? [entry.phase] : []));
  expect(phases).toEqual(["setup", "completed"]);
  expect(finished.verdict).toMatchObject({ converged: true, forced: false, succeeded: true, failures: [] });
  expect(finished.verdict.metrics).toMatchObject({ frozenMs: 12, heartbeatGapMs: 120 });
  expect(entryOf(finished, "summary")).toMatchObject({ outcome: "completed", vm: "running on destination" });
  expect(told).toEqual(["begins", "ended"]);
  expect(stage.told).toEqual(["heartbeat: migration-begins", "heartbeat: migration-ended"]);
  expect(stage.closed).toBeGreaterThan(0);
});

test("bytes on the wire are those of the migration alone", async () => {
  const stage = new FakeStage();
  const { verdict } = await run({
    stage,
    migrate: async () => {
      stage.sentBytes = { bySource: 51_000, byDestination: 2100 };
      stage.arrive();
      return { arrived: true };
    },
  });
  expect(verdict.metrics).toMatchObject({ wireBytes: 50_000, wireBytesBack: 2000 });
});

test("CPU time is that of the migration alone, not of what its QEMUs have done before it", async () => {
  const begin = fakeScenario().begin;
  const scenario = fakeScenario({
    begin: async (...given) => {
      // The fake stage's QEMUs are this very process.
      for (const endMs = performance.now() + 400; performance.now() < endMs; );
      return begin(...given);
    },
  });
  const { verdict } = await run({ plan: fakePlan({ scenario }) });
  expect(verdict.metrics.sourceCpuMs).toBeLessThan(200);
});

test("its total time ends when the guest runs at the destination, not when the source is done", async () => {
  const stage = new FakeStage();
  const { verdict } = await run({
    stage,
    migrate: async () => {
      stage.arrive();
      await new Promise((resolve) => setTimeout(resolve, 50));
      return { arrived: true };
    },
  });
  expect(verdict.metrics.migrationMs! - verdict.metrics.totalMs!).toBeGreaterThan(40);
});

test("QEMU's own migration is told of in samples and iterations, with the dirty rate in the middle", async () => {
  const stage = new FakeStage();
  const { source } = stage.monitors;
  const finished = await run({
    stage,
    migrate: async () => {
      const look = async (ram: Partial<typeof RAM>) => {
        source.migration = { status: "active", ram: { ...RAM, ...ram }, "xbzrle-cache": XBZRLE };
        await new Promise((resolve) => setTimeout(resolve, 250));
      };
      await look({ remaining: 4096e3 });
      await look({ "dirty-sync-count": 2, "dirty-pages-rate": 900, remaining: 4096 });
      stage.arrive();
      source.migration = { ...source.migration, status: "completed", downtime: 77 };
      return { arrived: true };
    },
  });
  const iterations = finished.entries.flatMap(({ entry }) =>
    entry.type === "iteration" ? [entry.iteration] : [],
  );
  expect(iterations).toEqual([0, 1]);
  const sample = finished.entries.map(({ entry }) => entry).findLast((entry) => entry.type === "sample");
  expect(sample).toMatchObject({
    ...{ linkBytesPerSecond: 10e6, dirtyPagesPerSecond: 900 },
    pages: { zeroPages: 10, rawPages: 15, overflowPages: 5, deltaPages: 7, deltaBytes: 99 },
  });
  expect(finished.verdict.metrics).toMatchObject({
    ...{ dirtyPagesPerSecond: 900, iterations: 2, downtimeMsReported: 77 },
  });
});

const XBZRLE = { "cache-size": 1, bytes: 99, pages: 7, "cache-miss": 1, overflow: 5 };

test.each([
  ["the guest's own work", { throughputBefore: 200, throughputDuring: 150 }, 0.25],
  ["a counter in its heartbeat, where its work has no speed", {}, 0.5],
])("its loss of speed is that of %s", async (_what, metrics, share) => {
  const stage = new FakeStage();
  stage.beats = { metrics: { slowdownShare: 0.5 }, failures: [], series: [] };
  const { verdict } = await run({ stage, plan: fakePlan({ scenario: fakeScenario({ view: { metrics } }) }) });
  expect(verdict.metrics.slowdownShare).toBe(share);
});

test("what clients saw over time is in the record, thinned, in order, never before its beginning", async () => {
  const nowMs = epochNowMs();
  const points = Array.from({ length: 1000 }, (_, index) => ({ epochMs: nowMs - 50 + index, value: index }));
  const view: Partial<ClientView> = { series: [{ name: "delay of the picture", unit: "ms", points }] };
  const finished = await run({ plan: fakePlan({ scenario: fakeScenario({ view }) }) });
  const values = finished.entries.flatMap(({ entry }) => (entry.type === "client" ? [entry.value] : []));
  expect(values.length).toBe(100);
  expect([values[0], values.at(-1)]).toEqual([0, 999]);
  const times = finished.entries.map(({ epochMs }) => epochMs);
  expect(times).toEqual([...times].sort((one, other) => one - other));
});

test("a guest of which nothing could be forecast is moved all the same, and its record says why", async () => {
  const finished = await run({ forecast: async () => JSON.parse("no plan") });
  expect(finished.verdict.succeeded).toBe(true);
  expect(entryOf(finished, "notice").message).toContain("No forecast: Unexpected token");
});

describe("a run has not succeeded", () => {
  test("when a client lost something, although the guest has arrived", async () => {
    const scenario = fakeScenario({ view: { failures: ["3 sessions lost"] } });
    const { verdict } = await run({ plan: fakePlan({ scenario }) });
    expect(verdict).toMatchObject({ converged: true, succeeded: false, failures: ["3 sessions lost"] });
  });

  test("when it had to be forced and a client lost something; being forced alone is not a failure", async () => {
    const stage = new FakeStage();
    const migrate = async () => {
      stage.arrive();
      return { arrived: true, forcedAtMs: 30_001 };
    };
    const { verdict } = await run({ stage, migrate });
    expect(verdict).toMatchObject({ converged: false, forced: true, succeeded: true });
    expect(verdict.metrics.forcedAtMs).toBe(30_001);
  });

  test("when it did not end: the guest goes on at the source, and there is no downtime to tell", async () => {
    const finished = await run({ migrate: async () => ({ arrived: false, forcedAtMs: 30_000 }) });
    expect(finished.verdict).toMatchObject({ converged: false, forced: false, succeeded: false });
    expect(finished.verdict.failures).toEqual(["it has not ended within 120 s"]);
    expect(finished.verdict.metrics).not.toHaveProperty("totalMs");
    expect(finished.verdict.metrics).not.toHaveProperty("heartbeatGapMs");
    expect(entryOf(finished, "summary")).toMatchObject({ outcome: "cancelled", vm: "running on source" });
  });

  test("when the guest runs on both sides", async () => {
    const stage = new FakeStage();
    const migrate = async () => {
      stage.arrive();
      stage.monitors.source.running = true;
      return { arrived: true };
    };
    const finished = await run({ stage, migrate });
    expect(finished.verdict).toMatchObject({
      succeeded: false,
      failures: ["the guest runs at the source as well"],
    });
    expect(entryOf(finished, "summary").vm).toBe("unknown");
  });

  test("when the migration fails after the guest has arrived, which is where it is then", async () => {
    const stage = new FakeStage();
    const migrate = async () => {
      stage.arrive();
      throw new Error("deltavee receive ended with exit code 1");
    };
    const finished = await run({ stage, migrate });
    expect(finished.verdict.failures).toEqual([
      "deltavee receive ended with exit code 1",
      "the guest does not run at the source",
      "the guest runs at the destination",
    ]);
    expect(entryOf(finished, "summary").vm).toBe("running on destination");
  });

  test("when it does not answer, although QEMU says that it runs", async () => {
    const stage = new FakeStage();
    stage.answers = false;
    const { verdict } = await run({ stage });
    expect(verdict.failures).toEqual([
      expect.stringMatching(/^the guest does not answer.*no route to host$/),
    ]);
  });

  test("when the migration fails; what clients saw of it is told all the same", async () => {
    const scenario = fakeScenario({ view: { metrics: { frozenMs: 5 } } });
    const migrate = async () => Promise.reject(new Error("QEMU's migration has failed"));
    const finished = await run({ plan: fakePlan({ scenario }), migrate });
    expect(finished.verdict).toMatchObject({ succeeded: false, failures: ["QEMU's migration has failed"] });
    expect(finished.verdict.metrics.frozenMs).toBe(5);
    expect(entryOf(finished, "summary")).toMatchObject({ outcome: "failed", vm: "running on source" });
    expect(entryOf(finished, "error").message).toContain("QEMU's migration has failed");
  });

  test("when it could not even begin: that is written down as such", async () => {
    const stage = new FakeStage();
    const scenario = fakeScenario({
      begin: async () => Promise.reject(new Error("redis-server did not start")),
    });
    const finished = await run({ stage, plan: fakePlan({ scenario }) });
    expect(finished.verdict.failures).toEqual(["redis-server did not start"]);
    expect(entryOf(finished, "summary").outcome).toBe("failed");
    expect(stage.closed).toBeGreaterThan(0);
  });
});

test("an interrupted run leaves no result, and nothing open", async () => {
  const stage = new FakeStage();
  const abort = new AbortController();
  const finished = run({
    ...{ stage, abort },
    migrate: () => {
      abort.abort(new CancelledError("Interrupted"));
      return new Promise(() => {});
    },
  });
  await expect(finished).rejects.toThrow("Interrupted");
  expect(stage.closed).toBeGreaterThan(0);
});

test("a run that is interrupted while its clients' view is waited for ends at once, and keeps no timer", async () => {
  const abort = new AbortController();
  const stage = new FakeStage();
  const scenario = fakeScenario({ afterMs: 60_000 });
  const before = await timersLeft();
  stage.heartbeat.tell = (word) => {
    if (word === "migration-ended") setTimeout(() => abort.abort(new CancelledError("Interrupted")), 400);
  };
  const finished = run({ stage, abort, plan: fakePlan({ scenario }) });
  await expect(finished).rejects.toThrow("Interrupted");
  expect(await timersLeft()).toBeLessThanOrEqual(before);
});

/** The fewest that were seen for a while: those of the test's own frame, and of what has just ended, come and go. */
async function timersLeft(): Promise<number> {
  const seen: number[] = [];
  for (let look = 0; look < 40; look++) {
    seen.push(process.getActiveResourcesInfo().filter((name) => name === "Timeout").length);
    // Not a timer of our own.
    await new Promise((resolve) => setImmediate(resolve));
    if (look % 10 === 9) await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return Math.min(...seen);
}

test("an interrupted run keeps no timer, which would keep the whole program from ending", async () => {
  const before = await timersLeft();
  const abort = new AbortController();
  const finished = run({
    abort,
    migrate: async () => {
      abort.abort(new CancelledError("Interrupted"));
      // The run waits for its method no more, which notices some time later that the guest's QEMU is gone.
      await new Promise((resolve) => setTimeout(resolve, 300));
      throw new Error("QEMU closed the connection");
    },
  });
  await expect(finished).rejects.toThrow("Interrupted");
  await new Promise((resolve) => setTimeout(resolve, 600));
  // That of the run's limit would be there for two minutes.
  expect(await timersLeft()).toBeLessThanOrEqual(before);
});
