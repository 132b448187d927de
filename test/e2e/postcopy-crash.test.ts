// `migrate` or `receive` killed outright in a post-copy through the tunnel, between QEMUs 10.0: where the guest is, what
// is said, and that `deltavee status` and `deltavee recover` know, and do no harm. The table of docs/reliability.md is
// what these tests have seen. What the link does to a post-copy: postcopy.test.ts.

import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import type { RecordEvent } from "../../src/record/schema.ts";
import { contradictions, documentedTable, FaultTable } from "../support/fault-table.ts";
import { type Ended, ended, type Migration } from "../support/migration.ts";
import { runCli } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuVm } from "../support/qemu-vm.ts";
import { expectMoved, expectStillOnSource, migration, NOISE_LOAD, runsNow, startPair } from "./scene.ts";

const qemus = findQemus();

/** Time enough between the stop and READY; and fetching takes some 6 s. */
const LINK = { rate: "40mbit", delay: "100ms" };
const GOAL = ["--on-stall", "postcopy", "--max-downtime", "100ms"];
/** Nobody comes back here. */
const IMPATIENT = ["--reconnect-timeout", "1s"];
const EVENT_TIMEOUT_MS = 240_000;
/** Long enough for whoever runs the guest to show it. */
const SETTLE_MS = 1000;

const isSwitchover = (event: RecordEvent) => event.type === "phase" && event.phase === "switchover";

const MOMENTS = {
  "package on its way": { side: "migrate", isNow: isSwitchover },
  "READY on its way": { side: "receive", isNow: isSwitchover },
  fetching: {
    side: "migrate",
    isNow: (event: RecordEvent) => event.type === "sample" && (event.requestedBytes ?? 0) > 0,
  },
} as const;
type Moment = keyof typeof MOMENTS;

interface Case {
  killed: "migrate" | "receive";
  moment: Moment;
  /** In words; with the code that the one that lives says. */
  outcome: string;
  check: (scene: Scene) => Promise<void>;
  /** What is right, too, when what was on its way did not arrive. */
  otherwise?: Pick<Case, "outcome" | "check">;
}

interface Scene {
  source: QemuVm;
  destination: QemuVm;
  running: Migration;
}

interface Status {
  migrations: { side: "source" | "destination"; underWay: boolean; vm: string; advice: string }[];
}

const CASES: readonly Case[] = [
  {
    killed: "migrate",
    moment: "package on its way",
    outcome: "paused on source; recover: source LINK_LOST",
    async check({ source, destination, running }) {
      await destination.exited;
      await expectTakenBack(source, running);
    },
  },
  {
    killed: "migrate",
    moment: "READY on its way",
    outcome: "paused on source; recover: source LINK_LOST",
    async check({ source, destination, running }) {
      expect(await runsNow(destination)).toBe(false);
      await expectTakenBack(source, running);
      await expectGivenUp(destination, running);
      expect(await runsNow(source)).toBe(true);
    },
  },
  {
    killed: "receive",
    moment: "package on its way",
    outcome: "source LINK_LOST",
    async check({ source, destination, running }) {
      await expectStillOnSource(source, destination);
      const there = await known(running, "destination");
      expect(there).toMatchObject({ underWay: false, vm: "running on source" });
      const { path } = destination.toolQmp;
      expect(await recover(running, "--qmp", path)).toMatchObject({ code: 0, stderr: "" });
      expect((await status(running)).migrations).toEqual([]);
    },
  },
  {
    // Its READY may arrive without it: the guest is then given away to a destination that nobody lets run.
    killed: "receive",
    moment: "READY on its way",
    outcome: "paused, in part on each side; recover: destination POSTCOPY_INTERRUPTED",
    async check({ source, destination, running }) {
      expect(await destination.qmp.execute("query-status")).toMatchObject({ running: false });
      await expectInPart({ source, destination, running }, "unknown");
    },
    otherwise: {
      outcome: "source LINK_LOST",
      async check({ source, destination, running }) {
        await expectStillOnSource(source, destination);
        await expectGivenUp(destination, running);
      },
    },
  },
  {
    killed: "migrate",
    moment: "fetching",
    outcome: "destination, in part POSTCOPY_INTERRUPTED",
    check: (scene) => expectInPart(scene, "running on destination"),
  },
  {
    killed: "receive",
    moment: "fetching",
    outcome: "destination, in part POSTCOPY_INTERRUPTED",
    check: (scene) => expectInPart(scene, "running on destination"),
  },
];

/** Each takes half a minute: the whole table is made when it is renewed, or asked for. */
const isWhole = process.env.UPDATE_RELIABILITY === "1" || process.env.ALL_FAULTS === "1";
const cases = CASES.filter(
  ({ killed, moment }) => isWhole || (killed === "receive") === (moment === "fetching"),
);
const rowOf = ({ killed }: Pick<Case, "killed">) => `${killed} killed`;

const table = new FaultTable("QEMU 10.0, tunnel", Object.keys(MOMENTS));
const seen = new Set<Case>();
/** Of a case that may have one outcome or the other: until it has had the first. */
const ATTEMPTS_MAX = 5;

describe.skipIf(!qemus.has("10.0"))("post-copy of QEMU 10.0 in a tunnel", () => {
  test.each(cases)("$killed is killed, $moment", async (which) => {
    let isMet = await killed(which, "10.0");
    for (let attempt = 1; !isMet && attempt < ATTEMPTS_MAX; attempt++) isMet = await killed(which, "10.0");
    const { moment, outcome, otherwise } = which;
    const text = [outcome, ...(otherwise === undefined ? [] : [otherwise.outcome])]
      .map((each) => each.replace(/ ([A-Z_]+)$/, ", `$1`"))
      .join("; or ");
    if (isMet) table.note(rowOf(which), moment, text);
    else table.noteNotMet(rowOf(which), moment);
    seen.add(which);
  });

  test("docs/reliability.md shows what this run has seen", ({ skip }) => {
    skip(seen.size < CASES.length, "not all of it was asked for, or not all of it came out as expected");
    const content = table.markdown([...new Set(CASES.map(rowOf))]);
    expect(contradictions(documentedTable("postcopy-faults", content), content)).toEqual([]);
  });
});

/** What is taken back has stayed where it is: that QEMU 7.2 loses updates of pages on the way says nothing of it. */
const TAKEN_BACK = CASES.filter(({ outcome }) => outcome.startsWith("paused on source"));

describe.skipIf(!qemus.has("7.2"))("post-copy of QEMU 7.2 in a tunnel", () => {
  test.each(TAKEN_BACK.filter(({ moment }) => isWhole || moment === "READY on its way"))(
    "$killed is killed, $moment",
    async (which) => void (await killed(which, "7.2")),
  );
});

/** Kills one of them at the moment, and looks at what has become of the guest: whether that is the first that is right. */
async function killed({ killed, moment, otherwise, ...first }: Case, version: string): Promise<boolean> {
  const { source, destination } = await startPair({ binary: qemus.get(version)!, append: NOISE_LOAD });
  const running = await migration({
    ...{ mode: "tunnel", source, destination, ...LINK },
    migrateArguments: [...GOAL, ...IMPATIENT],
    receiveArguments: IMPATIENT,
  });
  const { side, isNow } = MOMENTS[moment];
  await running[side]!.stdout.waitFor(
    ({ text }) => text.startsWith("{") && isNow(JSON.parse(text) as RecordEvent),
    moment,
    { timeoutMs: EVENT_TIMEOUT_MS },
  );
  running[killed]!.kill("SIGKILL");
  const [migrate, receive] = await Promise.all([ended(running.migrate), ended(running.receive!)]);
  const said = (killed === "migrate" ? receive : migrate).stderr;
  const isSaid = ({ outcome }: Pick<Case, "outcome">) =>
    said.includes(`deltavee: ${outcome.slice(outcome.lastIndexOf(" ") + 1)}: `);
  const isMet = isSaid(first);
  if (!isMet) expect(otherwise !== undefined && isSaid(otherwise), said).toBe(true);
  await sleep(SETTLE_MS);
  await (isMet ? first : otherwise!).check({ source, destination, running });
  await Promise.all([running.stop(), source.stop(), destination.stop()]);
  return isMet;
}

/** All of the guest is there, paused, and nobody else was told that it is his: `recover` needs no word of a person. */
async function expectTakenBack(source: QemuVm, running: Migration): Promise<void> {
  expect(await source.qmp.execute("query-migrate")).toMatchObject({ status: "postcopy-paused" });
  expect(await runsNow(source)).toBe(false);
  const here = await known(running, "source");
  expect(here).toMatchObject({ underWay: false, vm: "paused on source" });
  expect(here!.advice).toContain("Do not end the QEMU here");
  const { path } = source.toolQmp;
  expect((await recover(running, "--qmp", path, "--give-up-here")).code).toBe(5);
  expect(await recover(running, "--qmp", path)).toMatchObject({ code: 0, stderr: "" });
  expect(await runsNow(source)).toBe(true);
  expect(await source.verify()).toMatchObject({ ok: true, badPages: 0 });
  expect(await source.qmp.execute("query-migrate-parameters")).toMatchObject({ "downtime-limit": 300 });
  expect(await known(running, "source")).toBeUndefined();
}

/** A part of it, which never ran: a person who has seen that the source has it says so. */
async function expectGivenUp(destination: QemuVm, running: Migration): Promise<void> {
  const there = await known(running, "destination");
  expect(there).toMatchObject({ underWay: false, vm: "unknown" });
  expect(there!.advice).toContain("--give-up-here");
  const { path } = destination.toolQmp;
  expect((await recover(running, "--qmp", path)).code).toBe(4);
  expect((await recover(running, "--qmp", path, "--resume-here")).code).toBe(5);
  expect(await recover(running, "--qmp", path, "--give-up-here")).toMatchObject({ code: 0, stderr: "" });
  await destination.exited;
  expect((await status(running)).migrations).toEqual([]);
}

/** Nobody has lost anything: status says so on both sides, and recover leaves both alone until it is told to connect them. */
async function expectInPart({ source, destination, running }: Scene, there: string): Promise<void> {
  expect(await source.qmp.execute("query-migrate")).toMatchObject({ status: "postcopy-paused" });
  const known = (await status(running)).migrations;
  expect(known.find(({ side }) => side === "source")).toMatchObject({ underWay: false, vm: "unknown" });
  expect(known.find(({ side }) => side === "destination")).toMatchObject({ underWay: false, vm: there });
  for (const { advice } of known) expect(advice).toMatch(/End neither QEMU.*recover --listen.*recover --to/);
  await expectNothingDone(running, source);
  // A part that never ran could be ended, by whoever has seen that the source goes on: it does not.
  await expectNothingDone(running, destination, ["--resume-here"]);
  await expectGoneOn({ source, destination, running });
}

/** What was on two sides is whole at the destination, and runs there. */
async function expectGoneOn({ source, destination, running }: Scene): Promise<void> {
  const address = `unix:${source.folder}/rest`;
  const start = (vm: QemuVm, word: string) =>
    runCli(["recover", "--state-dir", running.stateFolder, "--qmp", vm.toolQmp.path, word, address]);
  const there = await start(destination, "--listen");
  onTestFinished(async () => void (await there.stop()));
  await there.stdout.waitFor(({ text }) => text.includes("listens at"), "that it listens", {
    timeoutMs: EVENT_TIMEOUT_MS,
  });
  const here = await start(source, "--to");
  onTestFinished(async () => void (await here.stop()));
  for (const run of [here, there]) expect(await ended(run)).toMatchObject({ code: 0, stderr: "" });
  await expectMoved(source, destination);
  expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
  expect((await status(running)).migrations).toEqual([]);
}

/** Whatever it is told: each QEMU may have what nobody else has. */
async function expectNothingDone(
  running: Migration,
  vm: QemuVm,
  words: readonly string[] = ["--resume-here", "--give-up-here"],
): Promise<void> {
  const before = await vm.qmp.execute("query-status");
  const { path } = vm.toolQmp;
  expect(await recover(running, "--qmp", path)).toMatchObject({ code: 4 });
  for (const word of words) expect((await recover(running, "--qmp", path, word)).code).not.toBe(0);
  expect(await vm.qmp.execute("query-status")).toEqual(before);
}

async function known(running: Migration, side: "source" | "destination") {
  return (await status(running)).migrations.find((each) => each.side === side);
}

async function status({ stateFolder }: Migration): Promise<Status> {
  const run = await runCli(["status", "--state-dir", stateFolder, "--json"]);
  onTestFinished(async () => void (await run.stop()));
  expect((await ended(run)).stderr).toBe("");
  return JSON.parse(run.stdout.tail()) as Status;
}

async function recover({ stateFolder }: Migration, ...what: string[]): Promise<Ended> {
  const run = await runCli(["recover", "--state-dir", stateFolder, ...what]);
  onTestFinished(async () => void (await run.stop()));
  return ended(run);
}
