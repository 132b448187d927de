// A v86 VM that can be stopped, saved without its RAM, and restored onto RAM that is already in place. Lives in
// one thread and calls back in it. Knows nothing of migration: which page goes where and when is others' affair.

import { assert } from "../../base/assert.ts";
import { DeltaveeError } from "../../base/errors.ts";
import type { Compatibility } from "./compatibility.ts";
import { clearUndescribedBars, rememberCpuState, zeroFreshMemory } from "./defects.ts";
import { decodeDeviceState, encodeDeviceState } from "./device-state.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";
import { type Emulator, startEmulator } from "./emulator.ts";
import type { Kernel } from "./kernel.ts";
import type { Cpu } from "./private-names.ts";
import { SerialLines } from "./serial-lines.ts";

export interface MachineOptions {
  readonly memoryBytes: number;
  /** The guest to boot, on the source. A destination has none. */
  readonly kernel?: Kernel;
  /** Called for each line of the first serial port, at the moment at which the guest ends it. */
  readonly onSerialLine?: (line: string) => void;
}

/**
 * incoming: a destination; RAM may be written, nothing runs.
 * stopped: the vCPU stands still, all of the guest's state is here.
 * broken: a restore failed half way; it must never run.
 */
export type MachineState = "incoming" | "stopped" | "running" | "broken" | "disposed";

/** Saving and restoring get ten times faster once V8 has compiled them; cold, they would add to the downtime. */
const WARM_UP_COUNT = 8;

export class Machine {
  readonly compatibility: Compatibility;
  readonly #emulator: Emulator;
  readonly #cpu: Cpu;
  readonly #repairCpuState: () => void;
  readonly #serial: SerialLines;
  #state: MachineState;
  #memory: Buffer;

  /** @throws UsageError, DeltaveeError HYPERVISOR_INCOMPATIBLE: see startEmulator. */
  static async create(options: MachineOptions): Promise<Machine> {
    const machine = new Machine(await startEmulator(options.memoryBytes, options.kernel), options);
    await machine.#warmUp();
    return machine;
  }

  private constructor(emulator: Emulator, options: MachineOptions) {
    this.#emulator = emulator;
    this.#cpu = emulator.loop.cpu;
    this.compatibility = emulator.compatibility;
    this.#state = options.kernel === undefined ? "incoming" : "stopped";
    this.#serial = new SerialLines(options.onSerialLine ?? (() => {}));
    emulator.v86.add_listener("serial0-output-byte", (byte) => this.#serial.byte(byte));
    this.#repairCpuState = rememberCpuState(this.#cpu);
    clearUndescribedBars(this.#cpu);
    this.#memory = this.#viewMemory();
    if (this.#state === "incoming") zeroFreshMemory(this.#memory, PAGE_BYTES);
  }

  get state(): MachineState {
    return this.#state;
  }

  /** Guest RAM itself, not a copy. Do not keep it across an await: v86 may grow its memory, which detaches it. */
  memory(): Buffer {
    if (this.#memory.buffer !== this.#cpu.wasm_memory.buffer) this.#memory = this.#viewMemory();
    return this.#memory;
  }

  /** Lets the vCPU run: at first, after a stop, or after a restore. */
  async run(): Promise<void> {
    assert(this.#state === "stopped", `a machine that is ${this.#state} cannot run`);
    this.#state = "running";
    await this.#emulator.v86.run();
  }

  /** Stops the vCPU. When it resolves the guest executes nothing and RAM stands still. */
  async stop(): Promise<void> {
    assert(this.#state === "running", `a machine that is ${this.#state} cannot stop`);
    const stopped = this.#emulator.v86.stop();
    // v86 stops at the next slice; an idle guest's is as far off as its next timer interrupt.
    this.#emulator.loop.next_tick(0);
    await stopped;
    this.#state = "stopped";
  }

  /** Sends text to the guest's first serial port. */
  sendSerial(text: string): void {
    this.#emulator.v86.serial0_send(text);
  }

  /** All of the VM but its RAM. The machine stays as it is and may run on. */
  async saveDeviceState(): Promise<Uint8Array<ArrayBuffer>> {
    assert(this.#state === "stopped", `a machine that is ${this.#state} cannot be saved`);
    return this.#save();
  }

  /**
   * Makes a destination, whose RAM is in place, the VM that was saved. It is then stopped; if this throws, the
   * machine can only be disposed of.
   * @throws DeltaveeError HYPERVISOR_INCOMPATIBLE, QemuStreamError: see decodeDeviceState
   * @throws DeltaveeError HYPERVISOR_FAILED if v86 cannot make sense of it
   */
  async restoreDeviceState(bytes: Uint8Array): Promise<void> {
    assert(this.#state === "incoming", `a machine that is ${this.#state} cannot be restored`);
    this.#state = "broken";
    await this.#restore(bytes);
    this.#state = "stopped";
  }

  async dispose(): Promise<void> {
    if (this.#state === "disposed") return;
    this.#state = "disposed";
    await this.#emulator.v86.destroy();
  }

  /** Nothing has run yet: a source only saves, so that it boots from exactly what v86 has set up. */
  async #warmUp(): Promise<void> {
    for (let i = 0; i < WARM_UP_COUNT; i++) {
      const bytes = await this.#save();
      if (this.#state === "incoming") await this.#restore(bytes);
    }
  }

  async #save(): Promise<Uint8Array<ArrayBuffer>> {
    const cpu = this.#cpu;
    const packMemory = cpu.pack_memory;
    cpu.pack_memory = packNothing;
    let state: ArrayBuffer;
    try {
      state = await this.#emulator.v86.save_state();
    } finally {
      cpu.pack_memory = packMemory;
    }
    return encodeDeviceState({
      compatibility: this.compatibility,
      unfinishedLine: this.#serial.unfinished,
      state,
    });
  }

  async #restore(bytes: Uint8Array): Promise<void> {
    const { state, unfinishedLine } = decodeDeviceState(bytes, this.compatibility);
    const cpu = this.#cpu;
    const memoryBytes = cpu.memory_size[0];
    const unpackMemory = cpu.unpack_memory;
    cpu.unpack_memory = () => {};
    try {
      await this.#emulator.v86.restore_state(state);
      this.#repairCpuState();
    } catch (cause) {
      throw new DeltaveeError("HYPERVISOR_FAILED", "v86 could not restore the device state", { cause });
    } finally {
      cpu.unpack_memory = unpackMemory;
    }
    if (cpu.memory_size[0] !== memoryBytes) {
      throw new DeltaveeError("HYPERVISOR_FAILED", "The device state changed the size of the guest's RAM");
    }
    this.#serial.unfinished = unfinishedLine;
  }

  #viewMemory(): Buffer {
    const { buffer } = this.#cpu.wasm_memory;
    return Buffer.from(buffer, this.#cpu.mem8.byteOffset, this.#cpu.mem8.length);
  }
}

/** The RAM's share of a state, when RAM travels by itself. */
function packNothing(): ReturnType<Cpu["pack_memory"]> {
  return { packed_memory: new Uint8Array(0), bitmap: { get_buffer: () => new ArrayBuffer(0) } };
}
