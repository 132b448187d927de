import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { FLAG_ADDRESS, FLAGS_GUEST, HALF_LINE_GUEST } from "../../../test/support/tiny-guest.ts";
import { DirtyScan, PAGE_BYTES } from "./dirty-scan.ts";
import { Machine, type MachineOptions } from "./machine.ts";

const GUEST = readFileSync(new URL("../../../guest/guest.elf", import.meta.url));
const MEMORY_BYTES = 16 * 1024 * 1024;
const WAIT_MS_MAX = 30_000;

/** A machine with what it has printed so far. */
interface Watched {
  machine: Machine;
  lines: string[];
}

const machines: Machine[] = [];
afterEach(async () => {
  for (const machine of machines.splice(0)) await machine.dispose();
});

async function create(options: Partial<MachineOptions> = {}): Promise<Watched> {
  const lines: string[] = [];
  const machine = await Machine.create({
    memoryBytes: MEMORY_BYTES,
    onSerialLine: (line) => lines.push(line),
    ...options,
  });
  machines.push(machine);
  return { machine, lines };
}

function createSource(commandLine = "ws=4096 rate=2000"): Promise<Watched> {
  return create({ kernel: { elf: GUEST, commandLine } });
}

async function move(source: Machine, destination: Machine): Promise<void> {
  source.memory().copy(destination.memory());
  await destination.restoreDeviceState(await source.saveDeviceState());
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const endMs = Date.now() + WAIT_MS_MAX; !isSo(); await sleep(5)) {
    if (Date.now() > endMs) throw new Error(`Waited ${WAIT_MS_MAX} ms for ${what}`);
  }
}

/** Numbers of the heartbeats "HB n ticks writes". */
function beats(lines: readonly string[]): number[] {
  return lines.filter((line) => line.startsWith("HB ")).map((line) => Number(line.split(" ")[1]));
}

async function verify({ machine, lines }: Watched): Promise<string> {
  machine.sendSerial("v");
  await until("the guest's verdict", () => lines.some((line) => line.startsWith("VERIFY")));
  return lines.find((line) => line.startsWith("VERIFY"))!;
}

describe("a machine", () => {
  it("boots without a BIOS and gives heartbeats", async () => {
    const source = await createSource();
    await source.machine.run();
    await until("heartbeats", () => beats(source.lines).length >= 5);
    expect(source.lines.some((line) => line.startsWith("READY"))).toBe(true);
    expect(await verify(source)).toMatch(/^VERIFY ok/);
  });

  it.each(["busy=0", "busy=1"])("stands still from stop to run, then goes on (%s)", async (options) => {
    const { machine, lines } = await createSource(`ws=4096 rate=2000 ${options}`);
    await machine.run();
    await until("heartbeats", () => beats(lines).length >= 3);
    for (let round = 0; round < 3; round++) {
      await machine.stop();
      const before = Buffer.from(machine.memory());
      const count = lines.length;
      await sleep(150);
      expect(machine.memory().equals(before)).toBe(true);
      expect(lines).toHaveLength(count);
      await machine.run();
      await until("another heartbeat", () => lines.length > count);
    }
    expect(beats(lines)).toEqual(beats(lines).map((_, i) => beats(lines)[0]! + i));
  });

  it("goes on where it was after a chain of moves, with no heartbeat lost or repeated", async () => {
    let at = await createSource();
    const all: string[] = [];
    for (let hop = 0; hop < 4; hop++) {
      await at.machine.run();
      await until("heartbeats", () => beats(at.lines).length >= 3);
      await at.machine.stop();
      all.push(...at.lines);
      const next = await create();
      await move(at.machine, next.machine);
      await at.machine.dispose();
      at = next;
    }
    await at.machine.run();
    expect(await verify(at)).toMatch(/^VERIFY ok/);
    all.push(...at.lines);
    expect(beats(all)).toEqual(beats(all).map((_, i) => i));
  });

  it("can be saved and run on as if nothing had been", async () => {
    const source = await createSource();
    await source.machine.run();
    await until("heartbeats", () => beats(source.lines).length >= 3);
    await source.machine.stop();
    await source.machine.saveDeviceState();
    await source.machine.run();
    expect(await verify(source)).toMatch(/^VERIFY ok/);
    expect(beats(source.lines)).toEqual(beats(source.lines).map((_, i) => i));
  });

  it("does not touch the destination's RAM by being restored", async () => {
    const source = await createSource();
    await source.machine.run();
    await until("heartbeats", () => beats(source.lines).length >= 1);
    await source.machine.stop();
    const { machine } = await create();
    await move(source.machine, machine);
    expect(machine.memory().equals(source.machine.memory())).toBe(true);
  });

  it("begins as a destination with all its RAM zero", async () => {
    const { machine } = await create();
    expect(machine.memory().equals(Buffer.alloc(MEMORY_BYTES))).toBe(true);
  });

  it("finishes on the destination the line that the guest began on the source", async () => {
    const source = await create({ kernel: { elf: HALF_LINE_GUEST, commandLine: "" } });
    await source.machine.run();
    await sleep(50);
    await source.machine.stop();
    const destination = await create();
    source.machine.memory().writeUInt32LE(1, FLAG_ADDRESS);
    await move(source.machine, destination.machine);
    await destination.machine.run();
    await until("the line", () => destination.lines.length > 0);
    expect(source.lines).toEqual([]);
    expect(destination.lines).toEqual(["AB"]);
  });

  it("refuses the state of a VM with other options, and never runs after that", async () => {
    const { machine: source } = await createSource();
    const { machine: destination } = await create({ memoryBytes: 2 * MEMORY_BYTES });
    expect(destination.compatibility).not.toBe(source.compatibility);
    await expect(destination.restoreDeviceState(await source.saveDeviceState())).rejects.toMatchObject({
      code: "HYPERVISOR_INCOMPATIBLE",
      message: expect.stringContaining("memoryBytes is 33554432 here and 16777216 there"),
    });
    await expect(destination.run()).rejects.toThrow("broken");
  });

  it("refuses a damaged state, and never runs after that", async () => {
    const { machine: source } = await createSource();
    const { machine: destination } = await create();
    const state = await source.saveDeviceState();
    state[state.length - 1]! ^= 1; // in the checksum
    await expect(destination.restoreDeviceState(state)).rejects.toMatchObject({ code: "STREAM_CORRUPT" });
    await expect(destination.run()).rejects.toThrow("broken");
  });

  it("does nothing out of order", async () => {
    const { machine: source } = await createSource();
    const { machine: destination } = await create();
    const state = await source.saveDeviceState();
    await expect(source.stop()).rejects.toThrow("stopped cannot stop");
    await expect(source.restoreDeviceState(state)).rejects.toThrow("stopped cannot be restored");
    await expect(destination.run()).rejects.toThrow("incoming cannot run");
    await expect(destination.saveDeviceState()).rejects.toThrow("incoming cannot be saved");
    await source.run();
    await expect(source.run()).rejects.toThrow("running cannot run");
    await expect(source.saveDeviceState()).rejects.toThrow("running cannot be saved");
  });

  it("is not made of a kernel that v86 cannot boot, nor of an odd amount of RAM", async () => {
    const kernel = { elf: FLAGS_GUEST.subarray(0, 60), commandLine: "" };
    await expect(Machine.create({ memoryBytes: MEMORY_BYTES, kernel })).rejects.toMatchObject({
      code: "USAGE",
    });
    for (const memoryBytes of [0, 4096, MEMORY_BYTES + 4096, 2 ** 40, Number.NaN]) {
      await expect(Machine.create({ memoryBytes })).rejects.toMatchObject({ code: "USAGE" });
    }
  });
});

describe("a dirty scan of a running guest", () => {
  it("finds exactly the pages that changed between two stops", async () => {
    const { machine, lines } = await createSource();
    const scan = new DirtyScan(MEMORY_BYTES);
    const page = Buffer.alloc(PAGE_BYTES);
    await machine.run();
    await until("heartbeats", () => beats(lines).length >= 1);
    for (let round = 0; round < 5; round++) {
      await machine.stop();
      for (const pageIndex of scan.scan(machine.memory()).slice()) {
        scan.take(machine.memory(), pageIndex, page, 0);
      }
      const before = Buffer.from(machine.memory());
      const count = lines.length;
      await machine.run();
      await until("a heartbeat", () => lines.length > count);
      await machine.stop();
      machine.memory()[MEMORY_BYTES - 1]! ^= 0xff; // the host writes too
      const memory = machine.memory();
      const changed: number[] = [];
      for (let i = 0; i < memory.length / PAGE_BYTES; i++) {
        const bytes = memory.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
        if (!bytes.equals(before.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES))) changed.push(i);
      }
      expect([...scan.scan(memory)]).toEqual(changed);
      expect(changed.length).toBeGreaterThan(1);
      expect(changed.at(-1)).toBe(MEMORY_BYTES / PAGE_BYTES - 1);
      await machine.run();
    }
  });
});
