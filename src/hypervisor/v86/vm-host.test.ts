// The worker is compiled code, also here (base/worker-location.ts): test/support/build.ts sees to it.

import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { FATAL_GUEST } from "../../../test/support/tiny-guest.ts";
import type { DeltaveeError } from "../../base/errors.ts";
import { assertCompatible } from "./compatibility.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";
import { PAGES_PER_CALL_MAX } from "./protocol.ts";
import { VmHost, type VmHostOptions } from "./vm-host.ts";

const GUEST = readFileSync(new URL("../../../guest/guest.elf", import.meta.url));
const MEMORY_BYTES = 16 * 1024 * 1024;
const WAIT_MS_MAX = 30_000;

const hosts: VmHost[] = [];
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.dispose();
});

interface Watched {
  host: VmHost;
  lines: string[];
  times: number[];
}

async function open(options: Partial<VmHostOptions> = {}): Promise<Watched> {
  const lines: string[] = [];
  const times: number[] = [];
  const host = await VmHost.open({
    memoryBytes: MEMORY_BYTES,
    onSerialLine: (line, hostMs) => {
      lines.push(line);
      times.push(hostMs);
    },
    ...options,
  });
  hosts.push(host);
  return { host, lines, times };
}

function openSource(commandLine = "ws=4096 rate=2000 fill=random"): Promise<Watched> {
  return open({ kernel: { elf: GUEST, commandLine } });
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (
    const endMs = Date.now() + WAIT_MS_MAX;
    !isSo();
    await new Promise((resolve) => setTimeout(resolve, 5))
  ) {
    if (Date.now() > endMs) throw new Error(`Waited ${WAIT_MS_MAX} ms for ${what}`);
  }
}

function beats(lines: readonly string[]): number[] {
  return lines.filter((line) => line.startsWith("HB ")).map((line) => Number(line.split(" ")[1]));
}

const pages = Buffer.alloc(PAGES_PER_CALL_MAX * PAGE_BYTES);

async function read(host: VmHost, pageIndices: Uint32Array): Promise<Buffer> {
  const target = Buffer.alloc(pageIndices.length * PAGE_BYTES);
  await host.readPages(pageIndices, target);
  return target;
}

/** Copies what is dirty, in calls of the size allowed; returns how many pages that were. */
async function copyDirty(source: VmHost, destination: VmHost): Promise<number> {
  const dirty = await source.scan();
  for (let i = 0; i < dirty.length; i += PAGES_PER_CALL_MAX) {
    const pageIndices = dirty.subarray(i, i + PAGES_PER_CALL_MAX);
    await source.takePages(pageIndices, pages);
    await destination.writePages(pageIndices, pages);
  }
  return dirty.length;
}

function allPages(host: VmHost, from: number): Uint32Array {
  const count = Math.min(PAGES_PER_CALL_MAX, host.pageCount - from);
  return Uint32Array.from({ length: count }, (_, i) => from + i);
}

describe("a VM in its own thread", () => {
  it("boots, runs and tells when each line ended, on the clock that all processes share", async () => {
    const beforeMs = Number(process.hrtime.bigint()) / 1e6;
    const { host, lines, times } = await openSource();
    await host.run();
    await until("heartbeats", () => beats(lines).length >= 5);
    const afterMs = Number(process.hrtime.bigint()) / 1e6;
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(times[0]).toBeGreaterThan(beforeMs);
    expect(times.at(-1)).toBeLessThan(afterMs);
  });

  it("moves while it runs: every page arrives, no heartbeat is lost, the guest finds its memory good", async () => {
    const { host: source, lines: sourceLines } = await openSource();
    const { host: destination, lines } = await open();
    assertCompatible(source.compatibility, destination.compatibility);
    await source.run();
    await until("heartbeats", () => beats(sourceLines).length >= 3);
    expect(await copyDirty(source, destination)).toBeGreaterThan(1000);
    for (let iteration = 0; iteration < 3; iteration++) {
      const beat = beats(sourceLines).at(-1)!;
      await until("a heartbeat", () => beats(sourceLines).at(-1)! > beat);
      expect(await copyDirty(source, destination)).toBeGreaterThan(0);
    }
    await source.stop();
    await copyDirty(source, destination);
    expect(await source.scan()).toHaveLength(0);
    await destination.restoreDeviceState(await source.saveDeviceState());
    for (let from = 0; from < source.pageCount; from += PAGES_PER_CALL_MAX) {
      const pageIndices = allPages(source, from);
      const [sent, arrived] = await Promise.all([read(source, pageIndices), read(destination, pageIndices)]);
      expect(Buffer.compare(sent, arrived)).toBe(0);
    }
    await destination.run();
    await destination.sendSerial("v");
    await until("the guest's verdict", () => lines.some((line) => line.startsWith("VERIFY")));
    expect(lines.find((line) => line.startsWith("VERIFY"))).toMatch(/^VERIFY ok/);
    const all = beats([...sourceLines, ...lines]);
    expect(all).toEqual(all.map((_, i) => i));
  });

  it("can be looked at without a page counting as taken, until all is forgotten", async () => {
    const { host } = await openSource();
    const dirty = await host.scan();
    expect(dirty.length).toBeGreaterThan(0);
    const seen = await read(host, dirty);
    expect([...(await host.scan())]).toEqual([...dirty]);
    await host.takePages(dirty, pages);
    expect(pages.subarray(0, seen.length).equals(seen)).toBe(true);
    expect(await host.scan()).toHaveLength(0);
    await host.resetScan();
    expect([...(await host.scan())]).toEqual([...dirty]);
  });

  it("carries out calls that are made at once one after another", async () => {
    const { host, lines } = await openSource();
    const [, , first, , second, state] = await Promise.all([
      host.run(),
      host.stop(),
      host.scan(),
      host.takePages(Uint32Array.of(0), pages),
      host.scan(),
      host.saveDeviceState(), // which only a machine that has come to a stop can do
      host.run(),
    ]);
    expect([...second]).toEqual([...first].filter((pageIndex) => pageIndex !== 0));
    expect(state.length).toBeGreaterThan(0);
    await until("a heartbeat", () => beats(lines).length > 0);
  });

  it("gives each of several calls made at once its own pages", async () => {
    const { host } = await open();
    const pool = Buffer.alloc(3 * PAGE_BYTES);
    for (let i = 0; i < 3; i++) pool.fill(i + 1, i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
    await Promise.all([
      host.writePages(Uint32Array.of(7, 5), pool),
      host.writePages(Uint32Array.of(6), pool.subarray(2 * PAGE_BYTES)),
    ]);
    const each = await Promise.all([5, 6, 7].map((pageIndex) => read(host, Uint32Array.of(pageIndex))));
    expect(each.map((page) => new Set(page))).toEqual([new Set([2]), new Set([3]), new Set([1])]);
  });

  it("keeps its RAM to itself once it could run", async () => {
    const { host } = await openSource();
    await expect(host.writePages(Uint32Array.of(1), Buffer.alloc(PAGE_BYTES))).rejects.toMatchObject({
      code: "INTERNAL",
      message: expect.stringContaining("the RAM of a machine that is stopped is its guest's"),
    });
  });

  it("refuses pages that do not exist, and goes on", async () => {
    const { host } = await open();
    const behindTheLast = Uint32Array.of(host.pageCount);
    for (const call of [
      host.readPages(behindTheLast, pages),
      host.takePages(behindTheLast, pages),
      host.writePages(behindTheLast, pages),
    ]) {
      await expect(call).rejects.toMatchObject({ code: "INTERNAL" });
    }
    const tooMany = new Uint32Array(PAGES_PER_CALL_MAX + 1);
    await expect(read(host, tooMany)).rejects.toThrow("in one call");
    await expect(host.readPages(Uint32Array.of(0), Buffer.alloc(PAGE_BYTES - 1))).rejects.toThrow("no room");
    expect(await host.scan()).toHaveLength(0);
  });
});

describe("errors of a VM in its own thread", () => {
  it("arrive with their code: a kernel that cannot boot", async () => {
    const kernel = { elf: new Uint8Array(64), commandLine: "" };
    await expect(VmHost.open({ memoryBytes: MEMORY_BYTES, kernel })).rejects.toMatchObject({ code: "USAGE" });
  });

  it("arrive with their code: a device state of a VM with other options", async () => {
    const { host: source } = await openSource();
    const { host: destination } = await open({ memoryBytes: 2 * MEMORY_BYTES });
    await expect(destination.restoreDeviceState(await source.saveDeviceState())).rejects.toMatchObject({
      code: "HYPERVISOR_INCOMPATIBLE",
    });
    await expect(destination.run()).rejects.toMatchObject({ code: "INTERNAL" });
  });

  it("include its death, which is told once and fails every call", async () => {
    const failures: DeltaveeError[] = [];
    const { host } = await open({
      kernel: { elf: FATAL_GUEST, commandLine: "" },
      onFailure: (error) => failures.push(error),
    });
    // The guest may be quicker than the answer.
    host.run().catch(() => {});
    await until("the death", () => failures.length > 0);
    await expect(host.scan()).rejects.toBe(failures[0]);
    await expect(host.stop()).rejects.toBe(failures[0]);
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatchObject({ code: "HYPERVISOR_FAILED", message: "The thread of the VM died" });
  });

  it("include being disposed of while a call is under way, which is no failure", async () => {
    const failures: DeltaveeError[] = [];
    const { host } = await open({ onFailure: (error) => failures.push(error) });
    const scan = host.scan();
    scan.catch(() => {});
    await host.dispose();
    await expect(scan).rejects.toMatchObject({ code: "HYPERVISOR_FAILED" });
    await expect(host.run()).rejects.toMatchObject({ code: "HYPERVISOR_FAILED" });
    await host.dispose();
    expect(failures).toHaveLength(0);
  });
});
