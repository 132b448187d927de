// The proof of test/support itself, on every QEMU found: what the other tests with real VMs stand on. Also the
// smoke test of the QMP client against real QEMUs.

import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { DeltaveeError, QmpCommandError, QmpInterruptedError } from "../../src/base/errors.ts";
import { QmpClient } from "../../src/hypervisor/qemu/qmp.ts";
import { QMP_RESULTS, type QmpEvent } from "../../src/hypervisor/qemu/qmp-types.ts";
import { usableAccelerator } from "../support/accelerator.ts";
import { contradictions, FaultTable, withRows } from "../support/fault-table.ts";
import { LineLog } from "../support/line-log.ts";
import { comparePages, dumpMemory } from "../support/memory.ts";
import { cpuSeconds, freePort, startProcess, tempFolder } from "../support/processes.ts";
import { findQemus, type QemuBinary } from "../support/qemu-binaries.ts";
import { type QemuOptions, type QemuVm, startQemu } from "../support/qemu-vm.ts";
import { heartbeatGap, heartbeatsOf } from "../support/serial.ts";

const MEMORY_MIB = 512;
const LIGHT_LOAD = "ws=16384 rate=500 fill=random";
const MIGRATION_TIMEOUT_MS = 240_000;

const qemus = findQemus();

async function start(binary: QemuBinary, options: Partial<QemuOptions> = {}): Promise<QemuVm> {
  const vm = await startQemu({ binary, memoryMiB: MEMORY_MIB, append: LIGHT_LOAD, ...options });
  onTestFinished(() => vm.stop());
  return vm;
}

describe.each([...qemus.values()].map((binary) => [binary.name, binary] as const))(
  "QEMU %s",
  (_name, binary) => {
    test("boots the guest, counts its heartbeats and has it verify its memory", async () => {
      const vm = await start(binary);
      await vm.waitForReady();
      await vm.waitForHeartbeats(50);
      const heartbeats = heartbeatsOf(vm.serial.lines);
      expect(heartbeats.map(({ counter }) => counter)).toEqual(heartbeats.map((_, index) => index));
      expect(heartbeats.at(-1)!.pagesWritten).toBeGreaterThan(0);
      expect(await vm.verify()).toMatchObject({ ok: true, pages: 4096, badPages: 0 });
      expect(vm.cpuSeconds()).toBeGreaterThan(0);

      vm.typeOnSerial("p");
      await vm.waitForHeartbeats(5);
      const paused = heartbeatsOf(vm.serial.lines).at(-1)!;
      await vm.waitForHeartbeats(10);
      expect(heartbeatsOf(vm.serial.lines).at(-1)!.pagesWritten).toBe(paused.pagesWritten);
    });

    test("loses no word of the guest while this process is busy with something else", async () => {
      const vm = await start(binary);
      await vm.waitForReady();
      await vm.waitForHeartbeats(10);
      for (const endMs = performance.now() + 1000; performance.now() < endMs; );
      await vm.waitForHeartbeats(50);
      const counters = heartbeatsOf(vm.serial.lines).map(({ counter }) => counter);
      expect(counters).toEqual(counters.map((_, index) => index));
    });

    test("a guest that cannot start is reported with its own words", async () => {
      const vm = await start(binary, { append: "ws=99999999999" });
      await expect(vm.waitForReady()).rejects.toThrow(/ws=99999999999/);
    });

    test("a QEMU that refuses its command line is reported with its own words", async () => {
      await expect(start(binary, { machine: "no-such-machine" })).rejects.toThrow(/unsupported machine type/);
    });

    test("answers and reports over QMP in the form we know, and knows all our commands", async () => {
      const vm = await start(binary, { incoming: "defer" });
      expect(vm.qmp.version).toMatchObject(binary.version);
      expect((await vm.qmp.execute("query-version")).qemu).toEqual(binary.version);
      expect(await vm.qmp.execute("query-target")).toEqual({ arch: "x86_64" });
      expect(await vm.qmp.execute("query-status")).toEqual({ status: "inmigrate", running: false });
      expect((await vm.qmp.execute("query-memory-size-summary"))["base-memory"]).toBe(vm.memoryBytes);
      expect(await vm.qmp.execute("query-migrate")).toEqual({});
      await vm.qmp.execute("migrate-set-parameters", { "max-bandwidth": 5_000_000_000 });
      expect((await vm.qmp.execute("query-migrate-parameters"))["max-bandwidth"]).toBe(5_000_000_000);
      await vm.qmp.execute("migrate-set-capabilities", {
        capabilities: [{ capability: "events", state: true }],
      });
      expect(await vm.qmp.execute("query-migrate-capabilities")).toContainEqual({
        capability: "events",
        state: true,
      });
      const commands = new Set((await vm.qmp.execute("query-commands")).map(({ name }) => name));
      expect(Object.keys(QMP_RESULTS).filter((name) => !commands.has(name))).toEqual([]);
      const listed = await vm.qmp.execute("human-monitor-command", { "command-line": "info ramblock" });
      expect(listed).toContain("pc.ram");
      await expect(vm.qmp.execute("migrate-incoming", { uri: "nonsense" })).rejects.toThrow(QmpCommandError);
    });

    test("reports stop and continue as events, with times in their order", async () => {
      const vm = await start(binary);
      const stopped = vm.qmp.waitForEvent("STOP", () => true, 120_000);
      const resumed = vm.qmp.waitForEvent("RESUME", () => true, 120_000);
      await vm.qmp.execute("stop");
      await vm.qmp.execute("cont");
      expect((await resumed).qemuTimeMs).toBeGreaterThanOrEqual((await stopped).qemuTimeMs);
      expect(Math.abs((await resumed).qemuTimeMs - Date.now())).toBeLessThan(120_000);
    });

    test("has a second monitor, which serves one client at a time", async () => {
      const vm = await start(binary);
      const tool = await QmpClient.connect(vm.toolQmp);
      expect((await tool.execute("query-status")).running).toBe(true);
      const second = QmpClient.connect(vm.toolQmp, { connectTimeoutMs: 500 });
      await expect(second).rejects.toThrow(/another client/);
      tool.close();
      const third = await QmpClient.connect(vm.toolQmp);
      expect((await third.execute("query-status")).running).toBe(true);
      third.close();
    });

    test("that is killed leaves a lost monitor and an interrupted command", async () => {
      const vm = await start(binary);
      // A stopped process takes the command and does not answer it.
      process.kill(vm.pid, "SIGSTOP");
      const interrupted = vm.qmp.execute("query-status");
      process.kill(vm.pid, "SIGKILL");
      await expect(interrupted).rejects.toThrow(QmpInterruptedError);
      expect(await vm.qmp.lost).toBeInstanceOf(DeltaveeError);
      await expect(vm.waitForHeartbeats(1000)).rejects.toThrow(/SIGKILL/);
      expect(await vm.exited).toEqual({ code: null, signal: "SIGKILL" });
    });

    test("boots the guest with the accelerator that was found usable", async () => {
      const accelerator = await usableAccelerator(binary);
      const vm = await start(binary, { accelerator });
      await vm.waitForReady();
      await vm.waitForHeartbeats(5);
    });
  },
);

// QEMU 7.2 loses page updates of its own under TCG (with no Deltavee anywhere): equality is asked of 10.0 alone.
const qemu10 = qemus.get("10.0");
describe.skipIf(qemu10 === undefined)("a plain migration of QEMU 10.0", () => {
  const binary = qemu10!;

  async function migrate(source: QemuVm, destination: QemuVm): Promise<void> {
    const uri = `unix:${join(destination.folder, "migration.sock")}`;
    const capabilities = [{ capability: "events" as const, state: true }];
    const isEnd = (status: string) => status === "completed" || status === "failed";
    const ended: Promise<QmpEvent<"MIGRATION">>[] = [];
    for (const { qmp } of [source, destination]) {
      await qmp.execute("migrate-set-capabilities", { capabilities });
      ended.push(qmp.waitForEvent("MIGRATION", ({ data }) => isEnd(data.status), MIGRATION_TIMEOUT_MS));
    }
    await destination.qmp.execute("migrate-incoming", { uri });
    await source.qmp.execute("migrate", { uri });
    const statuses = (await Promise.all(ended)).map(({ data }) => data.status);
    expect(statuses).toEqual(["completed", "completed"]);
  }

  test("under light load keeps the heartbeat unbroken and every page right", async () => {
    const source = await start(binary);
    const destination = await start(binary, { incoming: "defer" });
    await source.waitForReady();
    await source.waitForHeartbeats(20);
    await migrate(source, destination);
    await destination.waitForHeartbeats(20);

    const gap = heartbeatGap(source.serial, destination.serial);
    expect(gap).toMatchObject({ missing: [], repeated: [] });
    expect(gap.firstOfDestination.counter).toBe(gap.lastOfSource.counter + 1);
    expect(gap.firstOfDestination.pagesWritten).toBeGreaterThanOrEqual(gap.lastOfSource.pagesWritten);
    expect(gap.gapMs).toBeGreaterThan(0);
    expect(await destination.verify()).toMatchObject({ ok: true });
    console.log(`heartbeat gap of a plain migration: ${gap.gapMs.toFixed(1)} ms`);
  });

  test("with both sides paused leaves equal memory, and a guest that ran on has other memory", async () => {
    const source = await start(binary);
    const destination = await start(binary, { incoming: "defer", paused: true });
    await source.waitForReady();
    await source.waitForHeartbeats(20);
    await migrate(source, destination);

    const dumps = tempFolder();
    onTestFinished(() => dumps.remove());
    const [before, after] = [join(dumps.path, "source"), join(dumps.path, "destination")];
    await dumpMemory(source, before);
    await dumpMemory(destination, after);
    expect(comparePages(before, after)).toEqual({
      pages: (MEMORY_MIB * 1024) / 4,
      differingPages: 0,
      firstDiffering: [],
    });

    await destination.qmp.execute("cont");
    await destination.waitForHeartbeats(20);
    expect(heartbeatGap(source.serial, destination.serial)).toMatchObject({ missing: [], repeated: [] });
    expect(await destination.verify()).toMatchObject({ ok: true });
    await expect(dumpMemory(destination, after)).rejects.toThrow(/running/);
    await destination.qmp.execute("stop");
    await dumpMemory(destination, after);
    expect(comparePages(before, after).differingPages).toBeGreaterThan(0);
  });
});

describe("reading the guest's lines", () => {
  const log = (text: string): LineLog => {
    const lines = new LineLog();
    lines.push(Buffer.from(text));
    return lines;
  };

  test("a heartbeat cut in two by the switchover counts once", () => {
    const source = log("READY ws=4\nHB 7 8 10\nHB 8 9 20\nHB 9 1");
    const destination = log("0 30\nHB 10 11 40\n");
    const gap = heartbeatGap(source, destination);
    expect([gap.lastOfSource.counter, gap.firstOfDestination.counter]).toEqual([8, 9]);
    expect(gap).toMatchObject({ missing: [], repeated: [] });
  });

  test("missing and repeated heartbeats are named", () => {
    const gap = heartbeatGap(log("HB 1 1 0\nHB 2 2 0\nHB 4 4 0\n"), log("HB 4 4 0\nHB 5 5 0\nHB 8 8 0\n"));
    expect(gap).toMatchObject({ missing: [3, 6, 7], repeated: [4] });
  });

  test("no heartbeat after the switchover is no gap of some length but an error", () => {
    expect(() => heartbeatGap(log("HB 1 1 0\n"), log(""))).toThrow(/0 after/);
  });
});

describe("comparing memory", () => {
  test("finds single bytes, also in the first, last and a partly filled page", () => {
    const folder = tempFolder();
    onTestFinished(() => folder.remove());
    const [a, b] = [join(folder.path, "a"), join(folder.path, "b")];
    const memory = Buffer.alloc(600 * 4096 + 10, 0x5a);
    writeFileSync(a, memory);
    for (const offset of [0, 256 * 4096 - 1, 256 * 4096, 600 * 4096 + 9]) memory[offset] = 1;
    writeFileSync(b, memory);
    expect(comparePages(a, b)).toEqual({
      pages: 601,
      differingPages: 4,
      firstDiffering: [0, 255, 256, 600],
    });
    writeFileSync(b, memory.subarray(1));
    expect(() => comparePages(a, b)).toThrow(/different sizes/);
  });
});

describe("processes", () => {
  test("one that does not hear SIGTERM is killed, and its stderr is kept", async () => {
    const script = 'process.on("SIGTERM", () => {}); console.error("deaf"); setInterval(() => {}, 1000)';
    const stderr = new LineLog();
    const child = await startProcess(process.execPath, ["-e", script], {
      onStderr: (chunk) => stderr.push(chunk),
    });
    await stderr.waitFor(({ text }) => text === "deaf", "a word", { timeoutMs: 120_000 });
    expect(await child.stop()).toEqual({ code: null, signal: "SIGKILL" });
    expect(child.stderrTail()).toBe("deaf");
    expect(() => cpuSeconds(child.pid)).toThrow();
  });

  test("one is ended by the kernel when its parent is", async () => {
    const stdout = new LineLog();
    const child = await startProcess("setpriv", ["--dump"], { onStdout: (chunk) => stdout.push(chunk) });
    await child.exited;
    expect(stdout.lines.map(({ text }) => text)).toContain("Parent death signal: KILL");
  });

  test("a command that does not exist ends with code 127", async () => {
    const child = await startProcess("no-such-command", []);
    expect((await child.exited).code).toBe(127);
    expect(child.stderrTail()).toContain("no-such-command");
  });

  test("CPU time of this very process grows as it works", () => {
    const before = cpuSeconds(process.pid);
    for (const endMs = performance.now() + 300; performance.now() < endMs; );
    expect(cpuSeconds(process.pid)).toBeGreaterThan(before);
  });

  test("a free port is one that can be listened on, and that nobody gets unasked", async () => {
    const [, lowest] = /^(\d+)/.exec(readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "latin1"))!;
    const port = await freePort();
    expect(port).toBeGreaterThan(1023);
    expect(port).toBeLessThan(Number(lowest));
    const server = createServer();
    onTestFinished(() => void server.close());
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  });
});

test("a moment that was not met contradicts nothing, neither in the document nor in this run; anything else does", () => {
  const tableOf = (first: string | undefined, second: string | undefined) => {
    const table = new FaultTable("QEMU", ["pre-copy", "committed"]);
    for (const [column, outcome] of [["pre-copy", first] as const, ["committed", second] as const]) {
      if (outcome === undefined) table.noteNotMet("link cut", column);
      else table.note("link cut", column, outcome);
    }
    return table.markdown(["link cut"]);
  };
  const documented = tableOf("source LINK_LOST", "destination");
  expect(documented).toContain("| link cut | source, `LINK_LOST` | destination |");
  expect(tableOf(undefined, "x")).toContain("| link cut | moment not met in this run | x |");
  expect(contradictions(documented, documented)).toEqual([]);
  expect(contradictions(documented, tableOf(undefined, "destination"))).toEqual([]);
  expect(contradictions(tableOf("source LINK_LOST", undefined), documented)).toEqual([]);
  const other = tableOf(undefined, "source");
  expect(contradictions(documented, other)).toEqual([other.split("\n").at(-1)]);
  expect(contradictions(documented, documented.replace("link cut", "link silent"))).toHaveLength(1);
});

test("a table is renewed row by row: what this run has not seen stays as it is", () => {
  const [head, line, first, second] = ["| QEMU | a |", "|---|---|", "| cut | x |", "| silent | y |"];
  const documented = [head, line, first, second].join("\n");
  const seen = [head, line, "| silent | z |", "| killed | w |"].join("\n");
  expect(withRows(documented, seen).split("\n")).toEqual([
    head,
    line,
    first,
    "| silent | z |",
    "| killed | w |",
  ]);
});
