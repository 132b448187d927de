// A process of ours that is killed outright, around the switchover and before: the guest runs on one side at most,
// `deltavee status` says where it is as far as can be known, and `deltavee recover` finishes or undoes it, with a
// person's word where there is no other way. Each QEMU that there is, as source and destination.

import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { ALL_CASES } from "../support/all-cases.ts";
import { type Ended, ended, type Migration, type Mode } from "../support/migration.ts";
import { type CliRun, runCli } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuVm } from "../support/qemu-vm.ts";
import { expectStillOnSource, migration, runsNow, startPair } from "./scene.ts";

const LOAD = "ws=2048 rate=1000 fill=random";
/** Long enough for whoever has been told to run the guest to do so. */
const SETTLE_MS = 500;
/** Longer than it takes to take a guest back. */
const GIVE_UP_MS = 5000;
/** From the stop of the vCPUs to the guest's next beat some 60 ms pass on this link. */
const LINK = { rate: "20mbit", delay: "20ms" };

interface Status {
  migrations: {
    session: string;
    side: "source" | "destination";
    phase: string;
    underWay: boolean;
    vm: string;
    advice: string;
    wireBytes?: number;
  }[];
  ignored: string[];
}

describe.each([...findQemus()])("QEMU %s", (name, binary) => {
  const options = { binary, memoryMiB: 64, append: LOAD };

  /** Both sides at work; resolves when the source's vCPUs have stopped. */
  async function switchingOver(
    mode: Mode,
  ): Promise<{ source: QemuVm; destination: QemuVm; running: Migration }> {
    const { source, destination } = await startPair(options);
    const stopped = source.qmp.waitForEvent("STOP", () => true, 180_000);
    const running = await migration({ mode, source, destination, ...LINK });
    await stopped;
    return { source, destination, running };
  }

  describe("migrate is killed around the switchover", () => {
    const draws = name === "10.0" || ALL_CASES ? { direct: 4, tunnel: 2 } : { direct: 1, tunnel: 0 };
    const moments = (["direct", "tunnel"] as const).flatMap((mode) =>
      [0, ...Array.from({ length: draws[mode] }, drawnMs)].map((ms): [Mode, number] => [mode, ms]),
    );
    test.each(moments)(
      "%s, after %i ms: never both run, and never none without a way back",
      async (mode, afterMs) => {
        const { source, destination, running } = await switchingOver(mode);
        await sleep(afterMs);
        const guards = guardsOf(running);
        expect(guards).toHaveLength(mode === "direct" ? 1 : 0);
        running.migrate.kill("SIGKILL");
        await ended(running.migrate);
        await expectGone(guards);
        await sleep(SETTLE_MS);
        await expectRecoverable(running, source, destination);
      },
    );
  });

  test("migrate is killed in pre-copy: status says that the guest runs here, recover puts QEMU's settings back", async () => {
    const { source, destination } = await startPair({
      ...options,
      memoryMiB: 256,
      append: "ws=16384 rate=500 fill=random",
    });
    const settings = await settingsOf(source);
    const running = await migration({ mode: "direct", source, destination, rate: "10mbit" });
    await running.waitForWireBytes(5e5);
    const before = await status(running);
    expect(before).toMatchObject({
      migrations: [{ side: "source", phase: "iterating", underWay: true }],
      ignored: [],
    });
    const refused = await recover(running, "--qmp", source.toolQmp.path);
    expect(refused).toMatchObject({ code: 5 });
    expect(refused.stderr).toMatch(/^deltavee: RECOVERY_REFUSED: The migration is under way/);

    running.migrate.kill("SIGKILL");
    await ended(running.migrate);
    await sleep(SETTLE_MS);
    const after = await status(running, 4);
    expect(after).toMatchObject({ migrations: [{ underWay: false, vm: "running on source" }] });
    expect(await settingsOf(source)).not.toEqual(settings);
    expect(await recover(running, after.migrations[0]!.session.slice(0, 8))).toMatchObject({
      code: 0,
      stderr: "",
    });
    expect(await settingsOf(source)).toEqual(settings);
    expect((await status(running)).migrations).toEqual([]);
    await destination.exited;
    await expectStillOnSource(source, destination);
  });

  test("receive is killed in pre-copy: nothing is left of the guest there, and recover says so", async () => {
    const { source, destination } = await startPair({
      ...options,
      memoryMiB: 256,
      append: "ws=16384 rate=500 fill=random",
    });
    const running = await migration({ mode: "tunnel", source, destination, rate: "10mbit" });
    await running.waitForWireBytes(5e5);
    running.receive!.kill("SIGKILL");
    await destination.exited;
    const there = (await status(running, 4)).migrations.find(({ side }) => side === "destination");
    expect(there).toMatchObject({ underWay: false, vm: "running on source" });
    const { path } = destination.toolQmp;
    expect(await recover(running, "--qmp", path)).toMatchObject({ code: 0, stderr: "" });
    await giveUp(running.migrate);
    await expectStillOnSource(source, destination);
    expect(readdirSync(running.stateFolder)).toEqual([]);
  });

  test("receive is killed around the switchover: its copy waits for a person, who knows where the guest is", async () => {
    const { source, destination, running } = await switchingOver("tunnel");
    await sleep(drawnMs());
    running.receive!.kill("SIGKILL");
    const { code, signal } = await running.receive!.exited;
    await giveUp(running.migrate);
    await sleep(SETTLE_MS);
    const [sourceRuns, destinationRuns] = await Promise.all([runsNow(source), runsNow(destination)]);
    if (signal === null) {
      // It had come to its end before.
      expect([code, sourceRuns, destinationRuns]).toEqual([0, false, true]);
      return;
    }
    const known = await status(running, 4);
    const there = known.migrations.find(({ side }) => side === "destination");
    const story = JSON.stringify({ sourceRuns, destinationRuns, known });
    expect(sourceRuns && destinationRuns, story).toBe(false);
    expect(there, story).toMatchObject({ underWay: false });
    if (sourceRuns) {
      await endDestination(running, destination);
      await expectStillOnSource(source, destination);
      return;
    }
    if (!destinationRuns) {
      expect(there!.vm, story).toBe("paused on destination");
      expect(await recover(running, "--qmp", destination.toolQmp.path)).toMatchObject({ code: 4 });
      const resumed = await recover(running, "--qmp", destination.toolQmp.path, "--resume-here");
      expect(resumed, story).toMatchObject({ code: 0, stderr: "" });
    }
    await destination.waitForHeartbeats(10);
    expect(await source.qmp.execute("query-status"), story).toMatchObject({ status: "postmigrate" });
  });

  test("a migration that comes to its end leaves no state file, no guard and nothing to recover", async () => {
    const { source, destination } = await startPair(options);
    const running = await migration({ mode: "direct", source, destination, ...LINK });
    await running.waitForWireBytes(1e5);
    const guards = guardsOf(running);
    expect((await running.finish()).migrate).toEqual({ code: 0, signal: null, stderr: "" });
    expect(readdirSync(running.stateFolder)).toEqual([]);
    await expectGone(guards);
    const nothing = await recover(running, "--qmp", source.toolQmp.path);
    expect(nothing).toMatchObject({ code: 4 });
    expect(nothing.stderr).toMatch(/^deltavee: DECISION_NEEDED: QEMU here has given its guest away/);
  });
});

/** What must hold, and be said, wherever the guest is; then it is brought back to life where it is nowhere. */
async function expectRecoverable(running: Migration, source: QemuVm, destination: QemuVm): Promise<void> {
  const [sourceRuns, destinationRuns] = await Promise.all([runsNow(source), runsNow(destination)]);
  const known = await status(running, 4);
  const story = JSON.stringify({ sourceRuns, destinationRuns, known });
  expect(sourceRuns && destinationRuns, story).toBe(false);
  const here = known.migrations.find(({ side }) => side === "source");
  expect(here, story).toMatchObject({ underWay: false });
  expect(here!.vm === "running on source", story).toBe(sourceRuns);
  if (sourceRuns) {
    expect(await recover(running, "--qmp", source.toolQmp.path), story).toMatchObject({
      code: 0,
      stderr: "",
    });
    await expectStillOnSource(source);
    return;
  }
  // Only a person who has looked at the other side can tell.
  expect(here!.advice, story).toContain("--resume-here");
  const undecided = await recover(running, "--qmp", source.toolQmp.path);
  expect(undecided, story).toMatchObject({ code: 4 });
  expect(await source.qmp.execute("query-status"), story).toMatchObject({ running: false });
  if (destinationRuns) {
    // Not a word of its memory: stock QEMU 7.2 loses pages of its own (compatibility.test.ts).
    expect(await source.qmp.execute("query-status"), story).toMatchObject({ status: "postmigrate" });
    const givenUp = await recover(running, "--qmp", source.toolQmp.path, "--give-up-here");
    expect(givenUp, story).toMatchObject({ code: 0, stderr: "" });
    await source.exited;
  } else {
    const resumed = await recover(running, "--qmp", source.toolQmp.path, "--resume-here");
    expect(resumed, story).toMatchObject({ code: 0, stderr: "" });
    await expectStillOnSource(source);
  }
}

/** Ctrl-C, unless it has ended. What it has handed over it cannot take back: it may then go on waiting for a word. */
async function giveUp(migrate: CliRun): Promise<void> {
  migrate.kill("SIGINT");
  await Promise.race([migrate.exited, sleep(GIVE_UP_MS)]);
}

/** The copy there, if it is still held, must go: the guest runs at the source. */
async function endDestination(running: Migration, destination: QemuVm): Promise<void> {
  const plain = await recover(running, "--qmp", destination.toolQmp.path);
  if (plain.code === 4) {
    const givenUp = await recover(running, "--qmp", destination.toolQmp.path, "--give-up-here");
    expect(givenUp).toMatchObject({ code: 0, stderr: "" });
  } else expect(plain).toMatchObject({ code: 0, stderr: "" });
  await destination.exited;
}

/** Anywhere between the stop of the guest and its resumption. A failure names the moment that was drawn. */
function drawnMs(): number {
  return Math.floor(Math.random() * 70);
}

/** Processes that guard a migration: children of `migrate` as long as that lives. */
function guardsOf({ migrate }: Migration): string[] {
  return processes().filter((pid) => {
    const isChild = new RegExp(`^PPid:\\s*${migrate.pid}$`, "m").test(readProcess(pid, "status"));
    return isChild && isGuard(pid);
  });
}

/** They go by themselves, soon after the migration or its process has ended. */
async function expectGone(guards: readonly string[]): Promise<void> {
  await expect.poll(() => guards.filter(isGuard)).toEqual([]);
}

function isGuard(pid: string): boolean {
  return readProcess(pid, "cmdline").includes("/hypervisor/qemu/guard-");
}

function processes(): string[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name));
}

/** Empty for one that has ended. */
function readProcess(pid: string, file: "status" | "cmdline"): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch {
    return "";
  }
}

async function settingsOf(vm: QemuVm): Promise<object> {
  const parameters = await vm.qmp.execute("query-migrate-parameters");
  const capabilities = await vm.qmp.execute("query-migrate-capabilities");
  return { parameters, capabilities };
}

async function status({ stateFolder }: Migration, code = 0): Promise<Status> {
  const run = await runCli(["status", "--state-dir", stateFolder, "--json"]);
  onTestFinished(async () => void (await run.stop()));
  expect(await ended(run)).toEqual({ code, signal: null, stderr: "" });
  return JSON.parse(run.stdout.tail()) as Status;
}

async function recover({ stateFolder }: Migration, ...what: string[]): Promise<Ended> {
  const run = await runCli(["recover", "--state-dir", stateFolder, ...what]);
  onTestFinished(async () => void (await run.stop()));
  return ended(run);
}
