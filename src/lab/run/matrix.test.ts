// Many runs: their order, which of them are made, what becomes of those that fail, and how long the rest will take.

import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FakeStage, fakeMethod, fakeScenario } from "../../../test/support/fake-stage.ts";
import { CancelledError } from "../../base/errors.ts";
import { parseRecord } from "../../record/reader.ts";
import { METHODS } from "../method/all.ts";
import { EXPERIMENTS, type Experiment, labLink, plansOf } from "./experiments.ts";
import { estimateMs, type MatrixEvent, runMatrix } from "./matrix.ts";
import { runOnce } from "./one-run.ts";
import { type RunPlan, recordName } from "./plan.ts";
import { ResultStore } from "./store.ts";

const SCENARIOS = [fakeScenario(), fakeScenario({ name: "other" })];
const EXPERIMENT: Experiment = {
  name: "test",
  description: "two scenarios, two methods, twice",
  runs: 2,
  rows: [
    { scenario: "fake", links: [labLink(100)], methods: ["vanilla", "tunnel"] },
    {
      scenario: "other",
      links: [labLink(100, 20, 0.001)],
      methods: ["vanilla"],
      parameters: { bytesPerPage: 8 },
    },
  ],
  ...{ beforeMs: 0, afterMs: 0 },
};

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

class Scene {
  readonly made: string[] = [];
  readonly events: MatrixEvent[] = [];
  readonly store = new ResultStore(folder);
  nowMs = 0;
  /** Of runs whose migration fails, or which is interrupted. */
  failsAt: string | undefined;
  interruptedAt: string | undefined;

  run(plans: readonly RunPlan[] = plansOf(EXPERIMENT, SCENARIOS)) {
    return runMatrix({
      plans,
      store: this.store,
      on: (event) => this.events.push(event),
      nowMs: () => this.nowMs,
      runOnce: async (plan) => {
        const name = recordName(plan);
        this.made.push(name);
        this.nowMs += 2 * estimateMs(plan);
        if (name === this.interruptedAt) throw new CancelledError("Interrupted");
        const stage = new FakeStage();
        const method = fakeMethod(async () => {
          if (name === this.failsAt) throw new Error("QEMU's migration has failed");
          stage.arrive();
          return { arrived: true };
        });
        const openStage = async () => stage;
        const context = { openStage, methodOf: () => method, machine: "", command: "", notice: () => {} };
        return runOnce(plan, { ...context, signal: new AbortController().signal });
      },
    });
  }
}

const NAMES = [
  "fake-vanilla-100mbit-10.0-default-1.ndjson",
  "fake-tunnel-100mbit-10.0-default-1.ndjson",
  "other-vanilla-100mbit-rtt20-loss0.1-10.0-bytesPerPage=8-1.ndjson",
  "fake-vanilla-100mbit-10.0-default-2.ndjson",
  "fake-tunnel-100mbit-10.0-default-2.ndjson",
  "other-vanilla-100mbit-rtt20-loss0.1-10.0-bytesPerPage=8-2.ndjson",
];
const records = () => readdirSync(join(folder, "test")).sort();

describe("runs", () => {
  test("are taken in turns: the first of everything, then the second", async () => {
    const scene = new Scene();
    expect(await scene.run()).toEqual({ made: 6, failed: 0, broken: 0 });
    expect(scene.made).toEqual(NAMES);
    expect(records()).toEqual([...NAMES].sort());
  });

  test("whose records are there are not made again", async () => {
    const first = new Scene();
    first.interruptedAt = NAMES[3];
    await expect(first.run()).rejects.toThrow("Interrupted");
    const second = new Scene();
    expect(await second.run()).toMatchObject({ made: 3 });
    expect(second.made).toEqual(NAMES.slice(3));
    expect(second.events[0]).toMatchObject({ type: "matrix", runs: 6, madeBefore: 3, failedBefore: 0 });
  });

  test("that fail are written down, the others are made, and they are not tried again", async () => {
    const first = new Scene();
    first.failsAt = NAMES[1];
    expect(await first.run()).toEqual({ made: 6, failed: 1, broken: 1 });
    const { events } = parseRecord(readFileSync(join(folder, "test", NAMES[1]!), "utf8"), "");
    expect(events.find(({ type }) => type === "verdict")).toMatchObject({
      succeeded: false,
      failures: ["QEMU's migration has failed"],
    });
    const second = new Scene();
    expect(await second.run()).toMatchObject({ made: 0 });
    expect(second.events[0]).toMatchObject({ madeBefore: 6, failedBefore: 1 });
  });

  test("whose record was cut off, or is none, are made again", async () => {
    await new Scene().run();
    truncateSync(join(folder, "test", NAMES[0]!), 1500);
    writeFileSync(join(folder, "test", NAMES[4]!), "no record\n");
    const second = new Scene();
    await second.run();
    expect(second.made).toEqual([NAMES[0], NAMES[4]]);
  });

  test("with other limits are not taken for those that were made, which is found before anything is run", async () => {
    await new Scene().run();
    const rows = EXPERIMENT.rows.map((row) => ({ ...row, forceAfterMs: 10_000 }));
    const second = new Scene();
    await expect(second.run(plansOf({ ...EXPERIMENT, rows, runs: 3 }, SCENARIOS))).rejects.toMatchObject({
      code: "USAGE",
      message: expect.stringContaining("other limits"),
    });
    expect(second.made).toEqual([]);
  });
});

test("a record is a record: the reader takes it, whole", async () => {
  await new Scene().run();
  for (const name of NAMES) {
    const { events, notices } = parseRecord(readFileSync(join(folder, "test", name), "utf8"), name);
    expect(notices).toEqual([]);
    expect(events[0]).toMatchObject({ type: "run", label: expect.stringMatching(/^test: (fake|other), /) });
    expect(events[1]).toMatchObject({ type: "lab" });
    expect(events.filter(({ type }) => type === "notice" || type === "error")).toEqual([]);
  }
});

test("what is left is told from how long runs have taken against what was thought", async () => {
  const scene = new Scene();
  await scene.run();
  const ended = scene.events.filter((event) => event.type === "run-ended");
  const plans = plansOf(EXPERIMENT, SCENARIOS);
  const thoughtMs = plans.slice(1).reduce((sum, plan) => sum + estimateMs(plan), 0);
  expect(ended[0]?.leftMs).toBeCloseTo(2 * thoughtMs);
  expect(ended.at(-1)?.leftMs).toBe(0);
});

describe("an experiment", () => {
  test("is cut down to a scenario, methods, a QEMU and runs", () => {
    const plans = plansOf(EXPERIMENT, SCENARIOS, {
      scenario: "fake",
      methods: ["tunnel"],
      qemu: "7.2",
      runs: 1,
    });
    expect(plans.map(recordName)).toEqual(["fake-tunnel-100mbit-7.2-default-1.ndjson"]);
  });

  test("of which nothing is left is refused", () => {
    expect(() => plansOf(EXPERIMENT, SCENARIOS, { methods: ["direct"] })).toThrow("has no such runs");
  });

  test("with a parameter that the scenario does not have, or of another kind, is refused", () => {
    const withParameters = (parameters: Record<string, string | number>) => ({
      ...EXPERIMENT,
      rows: [{ ...EXPERIMENT.rows[0]!, parameters }],
    });
    expect(() => plansOf(withParameters({ bytesPrePage: 1 }), SCENARIOS)).toThrow(
      'no parameter "bytesPrePage"',
    );
    expect(() => plansOf(withParameters({ bytesPerPage: "few" }), SCENARIOS)).toThrow("must be a number");
    expect(() => plansOf(withParameters({ toString: 1 }), SCENARIOS)).toThrow('no parameter "toString"');
  });

  test("says everything of a run in the name of its record", () => {
    for (const experiment of EXPERIMENTS) {
      for (const row of experiment.rows) {
        const { name, parameters = {} } = { name: row.scenario, ...row };
        const scenario = fakeScenario({ name, parameters: { ...parameters, own: 1 } });
        const names = plansOf({ ...experiment, rows: [row] }, [scenario]).map(recordName);
        expect(new Set(names).size).toBe(names.length);
      }
    }
  });

  test("forces every method of a row at the same time", () => {
    for (const row of EXPERIMENTS.flatMap(({ rows }) => rows)) {
      const scenario = fakeScenario({ name: row.scenario, parameters: row.parameters ?? {} });
      const experiment = { name: "one", description: "", runs: 1, rows: [row] };
      const limits = plansOf(experiment, [scenario]).map(
        ({ forceAfterMs, limitMs }) => `${forceAfterMs} ${limitMs}`,
      );
      expect(new Set(limits).size).toBe(1);
    }
  });
});

test("the headline has every method", () => {
  const headline = EXPERIMENTS.find(({ name }) => name === "headline");
  const methods = new Set(headline?.rows.flatMap((row) => row.methods));
  expect([...methods].sort()).toEqual(METHODS.map(({ name }) => name).sort());
});
