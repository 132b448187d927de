// Each defect of v86 is first shown to exist (should a new release cure it, the work-around can go), then to be
// cured. The last group goes through Machine: it fails if a work-around is no longer called.

import { afterEach, describe, expect, it } from "vitest";
import { COUNTER_ADDRESS, FLAGS_GUEST, ROUNDING_GUEST } from "../../../test/support/tiny-guest.ts";
import { clearUndescribedBars, rememberCpuState, zeroFreshMemory } from "./defects.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";
import { type Emulator, startEmulator } from "./emulator.ts";
import { Machine } from "./machine.ts";

const MEMORY_BYTES = 4 * 1024 * 1024;
const RUN_MS = 100;
const HOPS = 4;

const started: { destroy(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of started.splice(0)) await each.destroy();
});

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function start(elf?: Uint8Array): Promise<Emulator> {
  const emulator = await startEmulator(MEMORY_BYTES, elf && { elf, commandLine: "" });
  started.push(emulator.v86);
  return emulator;
}

function listen({ v86 }: Emulator): () => string {
  let output = "";
  v86.add_listener("serial0-output-byte", (byte) => {
    output += String.fromCharCode(byte);
  });
  return () => output;
}

async function runFor(emulator: Emulator, ms: number): Promise<void> {
  await emulator.v86.run();
  await sleep(ms);
  await emulator.v86.stop();
}

function memoryOf({ loop: { cpu } }: Emulator): Buffer {
  return Buffer.from(cpu.wasm_memory.buffer, cpu.mem8.byteOffset, cpu.mem8.length);
}

/** What a guest prints after its state, RAM included, has gone to a second v86; `repair` as in Machine. */
async function outputAfterMove(elf: Uint8Array, repair: boolean): Promise<string> {
  const source = await start(elf);
  const destination = await start();
  clearUndescribedBars(source.loop.cpu);
  clearUndescribedBars(destination.loop.cpu);
  const repairCpuState = rememberCpuState(destination.loop.cpu);
  await runFor(source, RUN_MS);
  const output = listen(destination);
  await destination.v86.restore_state(await source.v86.save_state());
  if (repair) repairCpuState();
  await runFor(destination, RUN_MS);
  return output();
}

describe("flags that are live when the guest is stopped", () => {
  it("are lost by v86's restore: the guest takes the wrong branch", async () => {
    expect(await outputAfterMove(FLAGS_GUEST, false)).toBe("Z\n");
  });

  it("survive with the work-around", async () => {
    expect(await outputAfterMove(FLAGS_GUEST, true)).toBe("");
  });

  it("are back in the CPU's own memory, with the x87 and SSE status, so that a second save finds them", async () => {
    const { loop, v86 } = await start();
    clearUndescribedBars(loop.cpu);
    const repairCpuState = rememberCpuState(loop.cpu);
    const { last_result, fpu_status_word, mxcsr } = loop.cpu;
    last_result[0] = 0x1234567;
    fpu_status_word[0] = 0x41;
    mxcsr[0] = 0x1fa0;
    const state = await v86.save_state();
    for (const view of [last_result, fpu_status_word, mxcsr]) view[0] = 0;
    await v86.restore_state(state);
    expect([last_result[0], fpu_status_word[0], mxcsr[0]]).toEqual([0, 0, 0]);
    repairCpuState();
    expect([last_result[0], fpu_status_word[0], mxcsr[0]]).toEqual([0x1234567, 0x41, 0x1fa0]);
    expect(loop.cpu.last_result).toBe(last_result);
    expect(loop.cpu.fpu_status_word).toBe(fpu_status_word);
    expect(loop.cpu.mxcsr).toBe(mxcsr);
  });
});

describe("the rounding mode of the x87", () => {
  it("is lost by v86's restore: the guest computes a wrong integer", async () => {
    expect(await outputAfterMove(ROUNDING_GUEST, false)).toBe("R\n");
  });

  it("survives with the work-around", async () => {
    expect(await outputAfterMove(ROUNDING_GUEST, true)).toBe("");
  });
});

describe("the address ranges that v86 does not describe", () => {
  it("make its restore throw when there is no BIOS", async () => {
    const { v86 } = await start();
    const state = await v86.save_state();
    await expect(v86.restore_state(state)).rejects.toThrow("original_bar");
  });

  it("do not when they have been cleared before the save", async () => {
    const { v86, loop } = await start();
    clearUndescribedBars(loop.cpu);
    const state = await v86.save_state();
    await expect(v86.restore_state(state)).resolves.toBeUndefined();
  });
});

describe("the RAM of a fresh v86", () => {
  it("is not all zeros, until it is made so", async () => {
    const emulator = await start();
    const zeros = Buffer.alloc(MEMORY_BYTES);
    expect(memoryOf(emulator).equals(zeros)).toBe(false);
    zeroFreshMemory(memoryOf(emulator), PAGE_BYTES);
    expect(memoryOf(emulator).equals(zeros)).toBe(true);
  });
});

describe("a machine", () => {
  it.each([
    ["flags", FLAGS_GUEST],
    ["its rounding mode", ROUNDING_GUEST],
  ])("keeps %s over several moves and goes on counting", async (_what, elf) => {
    const lines: string[] = [];
    const options = { memoryBytes: MEMORY_BYTES, onSerialLine: (line: string) => lines.push(line) };
    let machine = await Machine.create({ ...options, kernel: { elf, commandLine: "" } });
    try {
      for (let hop = 0; hop < HOPS; hop++) {
        await machine.run();
        await sleep(RUN_MS);
        await machine.stop();
        const next = await Machine.create(options);
        machine.memory().copy(next.memory());
        await next.restoreDeviceState(await machine.saveDeviceState());
        await machine.dispose();
        machine = next;
      }
      const before = machine.memory().readUInt32LE(COUNTER_ADDRESS);
      await machine.run();
      await sleep(RUN_MS);
      await machine.stop();
      expect(machine.memory().readUInt32LE(COUNTER_ADDRESS)).toBeGreaterThan(before);
      expect(lines).toEqual([]);
    } finally {
      await machine.dispose();
    }
  });
});
