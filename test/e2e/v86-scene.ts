// What the tests with two embedded VMs have in common: starting them, and what "moved" and "still at the source"
// mean, to the guest as much as to the engines. Everything started is ended with the test.

import { expect, onTestFinished } from "vitest";
import { V86Migration, type V86MigrationOptions, type V86MigrationResult } from "../support/v86-migration.ts";
import { OneGuest, V86Vm } from "../support/v86-vm.ts";

/** 8 MiB that no compression makes smaller: 1.4 s at 50 Mbit/s. */
export const SPARSE_LOAD = "ws=8192 rate=2000 pattern=sparse fill=random";
const MEMORY_MIB = 16;
export const HEARTBEATS = 20;

export interface Pair {
  guest: OneGuest;
  source: V86Vm;
  destination: V86Vm;
}

export async function openVm(guest: OneGuest, memoryMiB: number, commandLine?: string): Promise<V86Vm> {
  const vm = await V86Vm.open(guest, { memoryMiB, ...(commandLine === undefined ? {} : { commandLine }) });
  onTestFinished(() => vm.die());
  return vm;
}

/** A guest at work, and a VM that waits for it. */
export async function startPair(
  commandLine = SPARSE_LOAD,
  memoryMiB: number = MEMORY_MIB,
  destinationMiB: number = memoryMiB,
): Promise<Pair> {
  const guest = new OneGuest();
  const source = await openVm(guest, memoryMiB, commandLine);
  const destination = await openVm(guest, destinationMiB);
  await source.start();
  return { guest, source, destination };
}

export async function migrate(options: V86MigrationOptions): Promise<V86MigrationResult> {
  return (await V86Migration.start(options)).result();
}

/** The guest has left the source, whole, and counts on at the destination as if nothing had been. */
export async function expectMoved(result: V86MigrationResult, pair: Pair): Promise<void> {
  const { guest, source, destination } = pair;
  expect(result.source).toMatchObject({ outcome: "completed", vm: "with the destination" });
  expect(result.destination).toMatchObject({ outcome: "completed", vm: "running on destination" });
  expect(result.differing ?? []).toEqual([]);
  const counted = source.heartbeats.length;
  await destination.waitForHeartbeats(HEARTBEATS);
  expect(source.heartbeats).toHaveLength(counted);
  expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
  expectOneRuns(guest, destination);
}

/** The guest works on at the source, whole, and has never worked anywhere else. */
export async function expectKept(result: V86MigrationResult, pair: Pair): Promise<void> {
  const { guest, source, destination } = pair;
  expect(result.source.vm).toBe("running on source");
  await source.waitForHeartbeats(HEARTBEATS);
  expect(await source.verify()).toMatchObject({ ok: true, badPages: 0 });
  expect(destination.lines).toEqual([]);
  expectOneRuns(guest, source);
}

/** No two have ever run at a time, this one does now, and no heartbeat is missing or came twice. */
export function expectOneRuns(guest: OneGuest, vm: V86Vm): void {
  expect(guest.violations).toEqual([]);
  expect([...guest.running]).toEqual([vm.name]);
  const counters = guest.heartbeats;
  expect(counters).toEqual(counters.map((_, index) => index));
}
