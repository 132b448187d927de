// What the tests with two real QEMUs have in common: starting them, and what "moved" and "still at the source"
// mean, to the guest as much as to the hypervisors. Everything started is ended with the test.

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished } from "vitest";
import type { RecordEvent } from "../../src/record/schema.ts";
import { comparePages, dumpMemory, type PageComparison } from "../support/memory.ts";
import { type Migration, type MigrationOptions, startMigration } from "../support/migration.ts";
import { tempFolder } from "../support/processes.ts";
import { type QemuOptions, type QemuVm, startQemu } from "../support/qemu-vm.ts";
import { type HeartbeatGap, heartbeatGap, heartbeatsOf } from "../support/serial.ts";

export const MEMORY_MIB = 256;
/** 48 MiB that no compression makes smaller, 2000 of its 12,288 pages dirtied each second: some 5 s at 100 Mbit/s. */
export const HEAVY_LOAD = "ws=49152 rate=2000 pattern=sparse fill=random";
/** Whole pages rewritten with text: no delta is small, but all of it compresses. */
export const TEXT_LOAD = "ws=32768 rate=500 pattern=text fill=text";
/** The same, much more of it and of noise: 16 MB/s that nothing makes less, so that pre-copy never ends. */
export const NOISE_LOAD = "ws=32768 rate=4000 pattern=page fill=random";
/** What a guest does while something else is tested. */
export const LIGHT_LOAD = "ws=16384 rate=500 pattern=sparse fill=random";

/** As many as tell that a guest is at work. */
export const HEARTBEATS = 30;

export type VmOptions = Pick<QemuOptions, "binary"> & Partial<QemuOptions>;

export async function startVm(options: VmOptions): Promise<QemuVm> {
  const vm = await startQemu({ memoryMiB: MEMORY_MIB, append: HEAVY_LOAD, ...options });
  onTestFinished(() => vm.stop());
  return vm;
}

/** A guest at work on the source, and a QEMU that waits for it. */
export async function startPair(
  sourceOptions: VmOptions,
  destinationOptions: Partial<QemuOptions> = {},
): Promise<{ source: QemuVm; destination: QemuVm }> {
  const [source, destination] = await Promise.all([
    startVm(sourceOptions),
    // Its kernel and command line come with the guest's memory.
    startVm({ ...sourceOptions, incoming: "defer", ...destinationOptions }),
  ]);
  await source.waitForReady();
  await source.waitForHeartbeats(HEARTBEATS);
  return { source, destination };
}

export async function migration(options: MigrationOptions): Promise<Migration> {
  const started = await startMigration(options);
  onTestFinished(() => started.stop());
  return started;
}

/** Long enough for a heart that beats each 10 ms to show that it does. */
const SILENCE_MS = 500;

/** Whether the guest runs, not only what is said of it: where QEMU says that it does its heart beats, else it is silent. */
export async function runsNow(vm: QemuVm): Promise<boolean> {
  // A QEMU that has ended does not answer.
  const says = await vm.qmp.execute("query-status").catch(() => ({ running: false }));
  if (says.running) {
    await vm.waitForHeartbeats(1);
    return true;
  }
  const from = vm.serial.lines.length;
  await sleep(SILENCE_MS);
  expect(heartbeatsOf(vm.serial.lines.slice(from))).toEqual([]);
  return false;
}

/** The guest has left the source and counts on at the destination as if nothing had been. */
export async function expectMoved(source: QemuVm, destination: QemuVm): Promise<HeartbeatGap> {
  await destination.waitForHeartbeats(HEARTBEATS);
  expect(await source.qmp.execute("query-status")).toEqual({ status: "postmigrate", running: false });
  expect(await destination.qmp.execute("query-status")).toEqual({ status: "running", running: true });
  const gap = heartbeatGap(source.serial, destination.serial);
  expect(gap).toMatchObject({ missing: [], repeated: [] });
  return gap;
}

/** The guest works on at the source, whole, and has never worked anywhere else. */
export async function expectStillOnSource(source: QemuVm, destination?: QemuVm): Promise<void> {
  await source.waitForHeartbeats(HEARTBEATS);
  expect(await source.qmp.execute("query-status")).toEqual({ status: "running", running: true });
  expect(await source.verify()).toMatchObject({ ok: true, badPages: 0 });
  const counters = heartbeatsOf(source.serial.lines).map(({ counter }) => counter);
  expect(counters).toEqual(counters.map((_, index) => index));
  expect(destination?.serial.lines ?? []).toEqual([]);
}

/** Of a post-copy that was interrupted: nothing has gone, and QEMU's own recovery brings the rest. */
export async function goOnWithEachOther(source: QemuVm, destination: QemuVm): Promise<void> {
  expect(await source.qmp.execute("query-status")).toMatchObject({ running: false });
  expect(await source.qmp.execute("query-migrate")).toMatchObject({ status: "postcopy-paused" });
  expect(await destination.qmp.execute("query-status")).toMatchObject({ running: true });

  const uri = `unix:${source.folder}/recover`;
  await destination.qmp.execute("human-monitor-command", { "command-line": `migrate_recover ${uri}` });
  await source.qmp.execute("migrate", { uri, resume: true });
  const status = async () => (await source.qmp.execute("query-migrate")).status;
  await expect.poll(status, { timeout: 180_000 }).toBe("completed");
  await expectMoved(source, destination);
  expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
}

/** Page by page, both sides paused. */
export async function compareMemory(source: QemuVm, destination: QemuVm): Promise<PageComparison> {
  const folder = tempFolder();
  try {
    const [before, after] = [join(folder.path, "source"), join(folder.path, "destination")];
    await dumpMemory(source, before);
    await dumpMemory(destination, after);
    return comparePages(before, after);
  } finally {
    folder.remove();
  }
}

export const ALL_PAGES_EQUAL: PageComparison = {
  pages: (MEMORY_MIB * 1024) / 4,
  differingPages: 0,
  firstDiffering: [],
};

type EventOf<Type extends RecordEvent["type"]> = Extract<RecordEvent, { type: Type }>;

export function eventsOf<Type extends RecordEvent["type"]>(
  events: readonly RecordEvent[],
  type: Type,
): EventOf<Type>[] {
  return events.filter((event): event is EventOf<Type> => event.type === type);
}

export function summaryOf(events: readonly RecordEvent[]): EventOf<"summary"> {
  const summary = events.at(-1);
  if (summary?.type !== "summary") throw new Error(`A record that ends with ${summary?.type ?? "nothing"}`);
  return summary;
}
