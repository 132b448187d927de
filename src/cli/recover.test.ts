// `deltavee status` and `deltavee recover` on a monitor that has a state, and remembers what it was told to do.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { FakeQemu } from "../../test/support/fake-qemu.ts";
import { DeltaveeError } from "../base/errors.ts";
import type { JournalEntry } from "../state/journal.ts";
import { ownIdentity } from "../state/process-identity.ts";
import { StateFolder } from "../state/state-folder.ts";
import { migrateCommand } from "./migrate.ts";
import { recoverCommand } from "./recover.ts";
import { statusCommand } from "./status.ts";

const SESSION = "00112233445566778899aabbccddeeff";
const SETTINGS = {
  capabilities: [{ capability: "return-path", state: false }],
  parameters: { "max-bandwidth": 5e6, "downtime-limit": 250 },
};
let folder: string;
let states: string;
let monitor: string;
let qemu: FakeQemu | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-recover-"));
  states = join(folder, "state");
  monitor = join(folder, "vm.qmp");
  qemu = undefined;
});
afterEach(() => {
  qemu?.close();
  process.exitCode = undefined;
  rmSync(folder, { recursive: true });
});

type Life = "dead" | "alive";

function migration(changes: Partial<JournalEntry>, life: Life = "dead"): void {
  const { pid } = spawnSync("true");
  const side = changes.side ?? "source";
  const entry: JournalEntry = {
    version: 1,
    session: SESSION,
    side,
    mode: "direct",
    process: life === "alive" ? ownIdentity() : { pid: pid! },
    qmp: `unix:${monitor}`,
    peer: "host2:4444",
    startedAt: "2026-11-25T10:00:00.000Z",
    phase: "iterating",
    phaseAt: "2026-11-25T10:00:01.000Z",
    ...(side === "source" ? { guestWasRunning: true, settings: SETTINGS } : {}),
    ...changes,
  };
  StateFolder.create(states).write(`${entry.session}-${entry.side}`, JSON.stringify(entry));
}

async function run(command: Command, ...given: string[]): Promise<{ stdout: string; error?: DeltaveeError }> {
  const stdout: string[] = [];
  const spy = vi.spyOn(process.stdout, "write").mockImplementation((text) => stdout.push(String(text)) > 0);
  try {
    await command.exitOverride().parseAsync([...given, "--state-dir", states], { from: "user" });
    return { stdout: stdout.join("") };
  } catch (thrown) {
    if (thrown instanceof DeltaveeError) return { stdout: stdout.join(""), error: thrown };
    throw thrown;
  } finally {
    spy.mockRestore();
  }
}
const recover = (...given: string[]) => run(recoverCommand(), ...given);
const status = (...given: string[]) => run(statusCommand(), ...given);
const isForgotten = () => readdirSync(states).length === 0;
const PUT_BACK = ["migrate-set-parameters", "migrate-set-capabilities"];

describe("recover", () => {
  test("a source that died in pre-copy: QEMU gets its settings back, the guest is not touched", async () => {
    migration({});
    qemu = new FakeQemu(monitor, "running", "failed");
    const { stdout, error } = await recover(SESSION.slice(0, 6));
    expect(error).toBeUndefined();
    expect(qemu.done).toEqual(PUT_BACK);
    expect(qemu.parameters).toEqual(SETTINGS.parameters);
    expect(stdout).toContain("the VM is: running on source");
    expect(isForgotten()).toBe(true);
  });

  test("a program is told the same as JSON", async () => {
    migration({});
    qemu = new FakeQemu(monitor, "running", "failed");
    const { stdout, error } = await recover(SESSION, "--json");
    expect(error).toBeUndefined();
    expect(JSON.parse(stdout)).toEqual({
      session: SESSION,
      actions: ["Put QEMU's migration settings back"],
      vm: "running on source",
      explanation: expect.any(String),
    });
  });

  test("a migration that nobody carries any more is cancelled, and the guest goes on in QEMU's own time", async () => {
    migration({ phase: "switchover" });
    qemu = new FakeQemu(monitor, "finish-migrate", "device");
    expect((await recover("--qmp", monitor)).error).toBeUndefined();
    expect(qemu.done).toEqual(["migrate_cancel", ...PUT_BACK]);
    expect(qemu.status).toBe("running");
  });

  test("a migration that completes while it is being cancelled is a person's to decide", async () => {
    migration({ phase: "switchover", mode: "tunnel" });
    qemu = new FakeQemu(monitor, "finish-migrate", "device");
    qemu.cancelEnds = { migration: "completed", status: "postmigrate" };
    expect((await recover("--qmp", monitor)).error?.code).toBe("DECISION_NEEDED");
    expect(qemu.done).toEqual(["migrate_cancel"]);
    expect(isForgotten()).toBe(false);
  });

  test.each([
    [true, ["cont", ...PUT_BACK]],
    [false, PUT_BACK],
  ])("a guest that never left is as it was before (running: %s)", async (guestWasRunning, done) => {
    migration({ guestWasRunning });
    qemu = new FakeQemu(monitor, "paused", "failed");
    expect((await recover("--qmp", monitor)).error).toBeUndefined();
    expect(qemu.done).toEqual(done);
  });

  test("a guest that was given away is never resumed without a person's word, and then it is", async () => {
    migration({ phase: "committed" });
    qemu = new FakeQemu(monitor, "postmigrate", "completed");
    const { error } = await recover(SESSION);
    expect(error).toMatchObject({ code: "DECISION_NEEDED", vm: "unknown" });
    expect(error!.message).toContain("--resume-here");
    expect(qemu.done).toEqual([]);
    expect(isForgotten()).toBe(false);
    const { stdout, error: failed } = await recover(SESSION, "--resume-here");
    expect(failed).toBeUndefined();
    expect(stdout).toContain("If it runs on the other side, too, stop one of them at once");
    expect(qemu.done).toEqual(["cont", ...PUT_BACK]);
    expect(isForgotten()).toBe(true);
  });

  test("QEMU that is about to finish is waited for", async () => {
    migration({ phase: "committed" });
    qemu = new FakeQemu(monitor, "finish-migrate", "device");
    const vm = qemu;
    setTimeout(() => Object.assign(vm, { status: "postmigrate", migration: "completed" }), 150);
    const { error } = await recover("--qmp", monitor);
    expect(error?.code).toBe("DECISION_NEEDED");
    expect(error?.message).toContain("has given it away");
    expect(vm.done).toEqual([]);
  });

  test.each(["source", "destination"] as const)(
    "--give-up-here ends the QEMU of a %s, once",
    async (side) => {
      migration({ side, phase: "committed" });
      qemu = new FakeQemu(monitor, side === "source" ? "postmigrate" : "paused", "completed");
      expect((await recover("--qmp", monitor, "--give-up-here")).error).toBeUndefined();
      expect(qemu.done).toEqual(["quit"]);
      expect(isForgotten()).toBe(true);
    },
  );

  test.each<[string, Partial<JournalEntry>, [string, string], string]>([
    ["a guest that runs is not given up", { phase: "committed" }, ["running", "failed"], "--give-up-here"],
    [
      "nor one of which a part is missing there",
      { phase: "committed" },
      ["finish-migrate", "postcopy-paused"],
      "--give-up-here",
    ],
    ["nor is that let run", { phase: "committed" }, ["finish-migrate", "postcopy-paused"], "--resume-here"],
    ["nor one that never left", { phase: "switchover" }, ["paused", "failed"], "--give-up-here"],
    ["a part of a guest is not resumed", { side: "destination" }, ["inmigrate", "none"], "--resume-here"],
  ])("%s", async (_what, entry, [inStatus, inMigration], wish) => {
    migration(entry);
    qemu = new FakeQemu(monitor, inStatus, inMigration);
    expect((await recover("--qmp", monitor, wish)).error?.code).toBe("RECOVERY_REFUSED");
    expect(qemu.done).toEqual([]);
    expect(isForgotten()).toBe(false);
  });

  test("a destination that died before it had everything: its QEMU is ended", async () => {
    migration({ side: "destination", mode: "tunnel" });
    qemu = new FakeQemu(monitor, "inmigrate", "active");
    const { stdout, error } = await recover(SESSION);
    expect(error).toBeUndefined();
    expect(qemu.done).toEqual(["quit"]);
    expect(stdout).toContain("the VM is: running on source");
  });

  test.each(["switchover", "committed"] as const)(
    "a destination that died in %s: its copy stays, paused, until a person has looked at the source",
    async (phase) => {
      migration({ side: "destination", mode: "tunnel", phase });
      qemu = new FakeQemu(monitor, "paused", "completed");
      expect((await recover(SESSION)).error).toMatchObject({
        code: "DECISION_NEEDED",
        vm: "paused on destination",
      });
      expect(qemu.done).toEqual([]);
      expect((await recover(SESSION, "--resume-here")).error).toBeUndefined();
      expect(qemu.done).toEqual(["cont"]);
    },
  );

  describe("a post-copy that left a part of the guest on each side", () => {
    const GOES_ON = ["postcopy-paused", "postcopy-recover", "postcopy-active", "completed"];

    test.each([
      ["was never let run, and is then", "paused", ["migrate-recover", "cont"]],
      ["runs already", "running", ["migrate-recover"]],
    ])("the destination waits for the rest of a guest that %s", async (_what, inStatus, done) => {
      migration({ side: "destination", mode: "tunnel", phase: "switchover" });
      qemu = new FakeQemu(monitor, inStatus, "postcopy-paused");
      qemu.looks = [...GOES_ON];
      const { stdout, error } = await recover(SESSION, "--listen", "192.0.2.2:4446");
      expect(error).toBeUndefined();
      expect([qemu.uri, qemu.done]).toEqual(["tcp:192.0.2.2:4446", done]);
      expect(stdout).toContain("the VM is: running on destination");
      expect(isForgotten()).toBe(true);
    });

    test("the source sends the rest, and never lets the guest run", async () => {
      migration({ phase: "committed", mode: "tunnel" });
      qemu = new FakeQemu(monitor, "postmigrate", "postcopy-paused");
      qemu.looks = [...GOES_ON];
      expect((await recover(SESSION, "--to", "unix:/run/rest")).error).toBeUndefined();
      expect([qemu.uri, qemu.done]).toEqual(["unix:/run/rest", ["migrate", ...PUT_BACK]]);
      expect(isForgotten()).toBe(true);
    });

    test.each([
      ["breaks again", ["postcopy-recover", "postcopy-paused"], /connection broke.*try again/],
      ["fails", ["postcopy-recover", "failed"], /migration is failed/],
    ])("what %s is said, the guest is not let run, and it can be tried again", async (_what, looks, said) => {
      migration({ side: "destination", mode: "tunnel", phase: "switchover" });
      qemu = new FakeQemu(monitor, "paused", "postcopy-paused");
      qemu.looks = looks;
      const { error } = await recover(SESSION, "--listen", "unix:/run/rest");
      expect(error).toMatchObject({ code: "POSTCOPY_INTERRUPTED", message: expect.stringMatching(said) });
      expect(qemu.done).toEqual(["migrate-recover"]);
      expect(isForgotten()).toBe(false);
    });

    test.each<[string, Partial<JournalEntry>, [string, string], string]>([
      [
        "a source whose guest was not given away",
        { phase: "switchover" },
        ["paused", "postcopy-paused"],
        "--to",
      ],
      ["a source", { phase: "committed" }, ["paused", "postcopy-paused"], "--listen"],
      ["a destination", { side: "destination" }, ["paused", "postcopy-paused"], "--to"],
      ["one that was not cut off", { side: "destination" }, ["paused", "postcopy-active"], "--listen"],
      ["one that is over", { phase: "committed" }, ["postmigrate", "completed"], "--to"],
    ])("%s is not told to", async (_what, changes, [inStatus, inMigration], word) => {
      migration({ mode: "tunnel", ...changes });
      qemu = new FakeQemu(monitor, inStatus, inMigration);
      expect((await recover(SESSION, word, "unix:/run/rest")).error?.code).toBe("RECOVERY_REFUSED");
      expect(qemu.done).toEqual([]);
      expect(isForgotten()).toBe(false);
    });
  });

  test.each([
    ["source", "finish-migrate", "postcopy-paused"],
    ["source", "finish-migrate", "postcopy-active"],
    ["nothing known", "finish-migrate", "postcopy-paused"],
    ["nothing known", "running", "postcopy-paused"],
  ])(
    "in post-copy each QEMU has a part of the guest, and whatever is said none is touched: %s, %s, %s",
    async (known, inStatus, inMigration) => {
      qemu = new FakeQemu(monitor, inStatus, inMigration);
      if (known === "source") migration({ phase: "committed" });
      const { error } = await recover("--qmp", monitor);
      expect(error).toMatchObject({
        code: "DECISION_NEEDED",
        message: expect.stringContaining("End neither QEMU"),
      });
      for (const word of ["--resume-here", "--give-up-here"]) {
        expect((await recover("--qmp", monitor, word)).error).toMatchObject({ code: "RECOVERY_REFUSED" });
      }
      expect(qemu.done).toEqual([]);
      if (known === "source") expect(readdirSync(states)).toHaveLength(1);
    },
  );

  test("nobody at the monitor of a VM of which nothing is known was not given up: the address may be wrong", async () => {
    const { stdout, error } = await recover("--qmp", monitor, "--give-up-here");
    expect(error).toMatchObject({ code: "QMP_UNAVAILABLE" });
    expect(stdout).toBe("");
  });

  test("a guest that ended with its QEMU before it was given away is not said to be the other side's", async () => {
    migration({ phase: "iterating" });
    const { stdout } = await recover(SESSION, "--give-up-here");
    expect(stdout).toContain("the destination never had all of it");
    expect(stdout).not.toContain("the other side's");
  });

  test("nothing is done while the process lives", async () => {
    migration({ phase: "committed" }, "alive");
    qemu = new FakeQemu(monitor, "postmigrate", "completed");
    for (const wish of [[], ["--resume-here"], ["--give-up-here"]]) {
      const { error } = await recover("--qmp", monitor, ...wish);
      expect(error).toMatchObject({ code: "RECOVERY_REFUSED" });
      expect(error!.message).toContain(`process ${process.pid}`);
    }
    expect(qemu.done).toEqual([]);
    expect(isForgotten()).toBe(false);
  });

  test("one that has ended undecided can be recovered although its process may live", async () => {
    migration({ phase: "committed", endedBecause: "the link broke" }, "alive");
    qemu = new FakeQemu(monitor, "postmigrate", "completed");
    expect((await recover("--qmp", monitor, "--resume-here")).error).toBeUndefined();
    expect(qemu.done[0]).toBe("cont");
  });

  test("a QEMU of which nothing is known gets the defaults back where it has settings of ours", async () => {
    qemu = new FakeQemu(monitor, "running", "failed");
    expect((await recover("--qmp", monitor)).error).toBeUndefined();
    expect(qemu.parameters).toMatchObject({ "max-bandwidth": 128 * 1024 * 1024, "downtime-limit": 300 });
    qemu.done.length = 0;
    expect((await recover("--qmp", monitor)).error).toBeUndefined();
    expect(qemu.done).toEqual([]);
  });

  test("a next migration that cannot connect puts the settings back, keeps the dead one's file and leaves none", async () => {
    qemu = new FakeQemu(monitor, "running", "failed");
    migration({ phase: "iterating" });
    const nobody = `unix:${join(folder, "nobody")}`;
    const { error } = await run(migrateCommand(), "--qmp", monitor, "--to", nobody, "--quiet");
    expect(error).toMatchObject({ code: "LINK_FAILED" });
    expect(qemu.parameters).toMatchObject(SETTINGS.parameters);
    expect(readdirSync(states)).toEqual([`${SESSION}-source.json`]);
  });

  test("a QEMU that is gone: nothing is left to do", async () => {
    migration({ side: "destination", mode: "tunnel" });
    const { stdout, error } = await recover(SESSION);
    expect(error).toBeUndefined();
    expect(stdout).toContain("the VM is: running on source");
    expect(isForgotten()).toBe(true);
  });

  test("a monitor that gives no answer leaves everything as it is", async () => {
    migration({ phase: "committed" });
    const server = createServer((socket) => socket.destroy()).listen(monitor);
    try {
      for (const wish of [[], ["--resume-here"], ["--give-up-here"]]) {
        expect((await recover(SESSION, ...wish)).error?.code).toBe("QMP_UNAVAILABLE");
      }
    } finally {
      server.close();
    }
    expect(isForgotten()).toBe(false);
  });

  test.each([
    [[]],
    [[SESSION, "--qmp", "/x.qmp"]],
    [["001"]],
    [["ffff"]],
    [[SESSION, "--resume-here", "--give-up-here"]],
    [[SESSION, "--to", "unix:/x", "--give-up-here"]],
  ])("wrong usage: %j", async (given) => {
    migration({});
    migration({ side: "destination" });
    expect((await recover(...given)).error?.code).toBe("USAGE");
    // Both sides of it are on this host.
    expect((await recover(SESSION)).error?.code).toBe("USAGE");
  });
});

describe("status", () => {
  test("where nothing is known it says so", async () => {
    expect(await status()).toEqual({ stdout: "No migration is known on this host.\n" });
    expect(process.exitCode).toBeUndefined();
  });

  test("a migration under way: phase and progress; its monitor is left alone", async () => {
    const progress = {
      at: "2026-11-25T10:00:02.000Z",
      iteration: 2,
      wireBytes: 5_000_000,
      linkBytesPerSecond: 1e6,
    };
    migration({ progress }, "alive");
    const { stdout } = await status();
    expect(stdout).toContain(`${SESSION}  source, direct: unix:${monitor} to host2:4444`);
    expect(stdout).toMatch(/under way \(process \d+\): iterating since .*, iteration 2, .* sent/);
    expect(process.exitCode).toBeUndefined();
  });

  test("a dead one: where the guest is, how it is known, what to do; nothing is changed", async () => {
    migration({ phase: "committed" });
    qemu = new FakeQemu(monitor, "postmigrate", "completed");
    const { stdout } = await status();
    expect(stdout).toContain("has died, in phase committed");
    expect(stdout).toContain("the VM is: unknown");
    expect(stdout).toContain("deltavee recover --resume-here");
    expect(process.exitCode).toBe(4);
    expect(qemu.done).toEqual([]);
    const { migrations } = JSON.parse((await status("--json")).stdout);
    expect(migrations).toMatchObject([
      { session: SESSION, underWay: false, vm: "unknown", phase: "committed" },
    ]);
    expect(migrations[0]).not.toHaveProperty("settings");
  });

  test("files that cannot be used are named", async () => {
    StateFolder.create(states);
    writeFileSync(join(states, "junk.json"), "{}");
    expect(JSON.parse((await status("--json")).stdout)).toEqual({
      migrations: [],
      ignored: ["junk: it is no state file of this version"],
    });
  });
});
