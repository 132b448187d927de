// `deltavee plan` on a real guest that is running: what it says of a workload that is known, what it costs, and that the
// guest goes on undisturbed.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import {
  EmbeddedVm,
  migrate as migrateGuest,
  plan as planGuest,
  type RecordEvent,
  receive,
} from "../../src/library/index.ts";
import { forecastAndTruth } from "../../src/planner/calibration.ts";
import type { Plan } from "../../src/planner/forecast.ts";
import { changedPages, type GuestModel, meanDeltaSize } from "../../src/planner/guest-model.ts";
import { summaryText } from "../../src/report/summary.ts";
import { startMigration } from "../support/migration.ts";
import { runCli, tempFolder } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { type QemuVm, startQemu } from "../support/qemu-vm.ts";

const WORKING_SET_KIB = 65_536;
const WORKING_SET_PAGES = WORKING_SET_KIB / 4;
/** Far below what an emulated CPU on a busy machine can do: what the guest is asked for is what it does. */
const WRITES_PER_SECOND = 3000;
const TIMEOUT_MS = 480_000;

const qemus = [...findQemus().values()];

describe.skipIf(qemus.length === 0).each(qemus)("a plan for a guest of QEMU $name", (binary) => {
  let vm: QemuVm;
  beforeAll(async () => {
    vm = await startQemu({
      binary,
      memoryMiB: 256,
      append: `ws=${WORKING_SET_KIB} rate=${WRITES_PER_SECOND} fill=random`,
    });
    await vm.waitForReady();
    await sleep(500);
  });
  afterAll(() => vm?.stop());

  const plan = async (...more: string[]) => {
    const run = await runCli(["plan", "--qmp", vm.toolQmp.path, "--link", "100mbit", ...more]);
    const { code } = await run.exited;
    return { code, text: run.stdout.lines.map(({ text }) => text).join("\n"), stderr: run.stderrTail() };
  };

  test(
    "sees how much there is, how much of it changes, and how small the changes are",
    async () => {
      const { code, text, stderr } = await plan("--json");
      expect(stderr).toBe("");
      expect(code).toBe(0);
      const { guest } = JSON.parse(text) as Plan & { guest: GuestModel };
      expect(guest.pages * guest.pageBytes).toBeGreaterThan(254 * 2 ** 20);
      expect(guest.pages - guest.zeroPages).toBeGreaterThan(WORKING_SET_PAGES * 0.9);
      expect(guest.pages - guest.zeroPages).toBeLessThan(WORKING_SET_PAGES * 1.3);
      const changed = changedPages(guest, 1000);
      expect(changed).toBeGreaterThan(WRITES_PER_SECOND * 0.3);
      expect(changed).toBeLessThan(WRITES_PER_SECOND * 2);
      // Eight words of a page are written anew (guest/README.md).
      expect(meanDeltaSize(guest, 1000)!.tunnelBytes).toBeLessThan(200);
      expect(guest.codedShare.fast).toBeGreaterThan(0.9);
    },
    TIMEOUT_MS,
  );

  test(
    "recommends a method that converges, in words",
    async () => {
      const { code, text } = await plan("--rtt", "20ms", "--max-downtime", "100ms");
      expect(code).toBe(0);
      expect(text).toMatch(
        /^Recommended: (tunnel|direct|xbzrle-full)\. Dirty rate .* converges in \d+ iterations?/m,
      );
      expect(text).toMatch(/^QEMU: pre-copy +(yes|no|unsure) /m);
    },
    TIMEOUT_MS,
  );

  test(
    "leaves the guest as it was: its heart beats on and its memory is whole",
    async () => {
      const before = vm.serial.lines.length;
      await plan();
      await vm.waitForHeartbeats(5);
      expect(vm.serial.lines.length).toBeGreaterThan(before);
      expect((await vm.verify()).ok).toBe(true);
    },
    TIMEOUT_MS,
  );
});

describe.skipIf(qemus.length === 0)("a migration", () => {
  test(
    "forecasts itself soon after it has begun, and tells at the end how it came out",
    async () => {
      const boot = { binary: qemus.at(-1)!, memoryMiB: 256, append: "ws=65536 rate=2000 fill=random" };
      const source = await startQemu(boot);
      onTestFinished(() => source.stop());
      const destination = await startQemu({ ...boot, incoming: "defer" });
      onTestFinished(() => destination.stop());
      await source.waitForReady();
      const migration = await startMigration({ mode: "tunnel", source, destination, rate: "100mbit" });
      onTestFinished(() => migration.stop());
      const { migrate, events } = await migration.finish();
      expect(migrate).toMatchObject({ code: 0 });
      expect(events.filter((event) => event.type === "forecast")).toHaveLength(1);
      const run = forecastAndTruth(events);
      expect(run).toBeDefined();
      const { forecast, truth } = run!;
      // On a busy machine time is anybody's guess; bytes are not.
      expect(truth.wireBytes / forecast.wireBytes).toBeGreaterThan(0.5);
      expect(truth.wireBytes / forecast.wireBytes).toBeLessThan(2);
      expect(summaryText(events)).toMatch(/forecast +\S+ s +in all \(.*\), in truth /);
    },
    TIMEOUT_MS,
  );
});

describe("a migration of the embedded hypervisor's guest", () => {
  test(
    "forecasts itself as QEMU's does, from pages that its own program reads",
    async () => {
      const lines: string[] = [];
      const source = await EmbeddedVm.boot({
        commandLine: "ws=4096 rate=200 pattern=sparse fill=random",
        onSerialLine: (line) => lines.push(line),
      });
      onTestFinished(() => source.close());
      const destination = await EmbeddedVm.empty();
      onTestFinished(() => destination.close());
      await vi.waitFor(() => expect(lines.some((line) => line.startsWith("READY"))).toBe(true), 60_000);
      let received: Promise<unknown> = Promise.resolve();
      const to = await new Promise<string>((resolve, reject) => {
        received = receive({ vm: destination, listen: "127.0.0.1:0", onListening: resolve });
        received.catch(reject);
      });
      const events: RecordEvent[] = [];
      await migrateGuest({
        ...{ vm: source, to, maxBytesPerSecond: 200_000, maxDowntimeMs: 2000 },
        onEvent: (event) => events.push(event),
      });
      await received;
      expect(events.filter((event) => event.type === "forecast")).toMatchObject([
        { method: "tunnel", converges: "yes" },
      ]);
      const { forecast, truth } = forecastAndTruth(events)!;
      expect(truth.wireBytes / forecast.wireBytes).toBeGreaterThan(0.5);
      expect(truth.wireBytes / forecast.wireBytes).toBeLessThan(2);
      expect(summaryText(events)).toMatch(/forecast +\S+ s +in all \(.*\), in truth /);
    },
    TIMEOUT_MS,
  );
});

describe("a plan for a guest of the embedded hypervisor", () => {
  const KIB = 1024;
  const WORKING_SET_BYTES = 8192 * KIB;
  const EMBEDDED_WRITES_PER_SECOND = 500;
  const PAGE_BYTES = 4096;

  test(
    "is made by the program that it runs in, and says what the command says of the model that comes with it",
    async () => {
      const lines: string[] = [];
      const vm = await EmbeddedVm.boot({
        commandLine: `ws=${WORKING_SET_BYTES / KIB} rate=${EMBEDDED_WRITES_PER_SECOND} pattern=sparse fill=random`,
        onSerialLine: (line) => lines.push(line),
      });
      onTestFinished(() => vm.close());
      await vi.waitFor(() => expect(lines.some((line) => line.startsWith("READY"))).toBe(true), 60_000);
      const { guest, forecasts } = await planGuest({ vm, linkBytesPerSecond: 1.25e6, roundTripMs: 20 });
      expect(guest.pages * guest.pageBytes).toBe(32 * KIB * KIB);
      expect((guest.pages - guest.zeroPages) * PAGE_BYTES).toBeGreaterThan(WORKING_SET_BYTES * 0.8);
      // All of its pages are looked at: what is emulated keeps up with what is asked for, or does not by far.
      expect(changedPages(guest, 1000)).toBeGreaterThan(EMBEDDED_WRITES_PER_SECOND * 0.4);
      expect(changedPages(guest, 1000)).toBeLessThan(EMBEDDED_WRITES_PER_SECOND * 1.5);
      expect(meanDeltaSize(guest, 1000)!.tunnelBytes).toBeLessThan(300);
      expect(forecasts).toMatchObject([{ method: "tunnel", converges: "yes" }]);

      const folder = tempFolder();
      onTestFinished(() => folder.remove());
      const file = join(folder.path, "guest.json");
      writeFileSync(file, JSON.stringify(guest));
      const options = ["--link", "10mbit", "--rtt", "20ms", "--methods", "tunnel", "--json"];
      const run = await runCli(["plan", "--model", file, ...options]);
      expect((await run.exited).code).toBe(0);
      expect((JSON.parse(run.stdout.lines[0]!.text) as Plan).forecasts).toEqual(forecasts);

      // It has gone on, undisturbed.
      await vm.type("v");
      await vi.waitFor(
        () => expect(lines.find((line) => line.startsWith("VERIFY"))).toMatch(/^VERIFY ok/),
        60_000,
      );
    },
    TIMEOUT_MS,
  );
});

test(
  "a monitor that nobody listens on is an error that says so, with exit code 1",
  async () => {
    const run = await runCli(["plan", "--qmp", "/nowhere/qmp", "--link", "100mbit"]);
    expect((await run.exited).code).toBe(1);
    expect(run.stderrTail()).toContain("/nowhere/qmp");
  },
  TIMEOUT_MS,
);
