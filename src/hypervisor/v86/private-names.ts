// The parts of v86 that its public API does not show and that live migration cannot do without: guest RAM,
// device state without RAM, and the state that v86's own restore forgets (defects.ts). The names are those of
// the npm release build 0.5.462, which does not mangle them; another release may, so they are asserted before
// any guest runs. Knows nothing of what they are used for.

import type { V86 } from "v86";
import { DeltaveeError } from "../../base/errors.ts";

interface PciDevice {
  /** A hole where the device has no such BAR. */
  readonly pci_bars: readonly (object | undefined)[];
}

/** The emulated CPU, owner of everything. The views below are proxies that follow the growth of wasm memory. */
export interface Cpu {
  readonly wasm_memory: { readonly buffer: ArrayBuffer };
  /** Guest RAM. Slow to index (a proxy): only its place in `wasm_memory` is of use. */
  readonly mem8: { readonly byteOffset: number; readonly length: number };
  readonly memory_size: Uint32Array;
  /** Called by save_state for the RAM's share of the state. */
  pack_memory: () => { packed_memory: Uint8Array; bitmap: { get_buffer(): ArrayBuffer } };
  /** Called by restore_state to fill the RAM. */
  unpack_memory: (bitmap: unknown, packed: Uint8Array) => void;
  last_result: Int32Array;
  fpu_status_word: Uint16Array;
  mxcsr: Int32Array;
  readonly fpu_control_word: Uint16Array;
  readonly wm: { readonly exports: { set_control_word(word: number): void } };
  readonly devices: {
    readonly pci: {
      readonly devices: readonly (PciDevice | undefined)[];
      /** Configuration space by device, as 64 words; word 4 is BAR 0. */
      readonly device_spaces: readonly (Int32Array | undefined)[];
    };
  };
}

/** The loop that gives the CPU its time slices. */
export interface Loop {
  readonly cpu: Cpu;
  /** Schedules the next slice `ms` from now, instead of the one scheduled before. */
  next_tick(ms: number): void;
}

type Check = (value: unknown) => boolean;

const isFunction: Check = (value) => typeof value === "function";
const isArray: Check = (value) => Array.isArray(value);
const isWord: Check = (value) => numberAt(value, "length") === 1 && numberAt(value, "0") !== undefined;
const isView: Check = (value) =>
  numberAt(value, "byteOffset") !== undefined && numberAt(value, "length") !== undefined;
const isBuffer: Check = (value) => value instanceof ArrayBuffer;

/** Paths from the public V86 object, each with what must be found there. */
export const PRIVATE_NAMES: Readonly<Record<string, Check>> = {
  "v86.next_tick": isFunction,
  "v86.cpu.wasm_memory.buffer": isBuffer,
  "v86.cpu.mem8": isView,
  "v86.cpu.memory_size": isWord,
  "v86.cpu.pack_memory": isFunction,
  "v86.cpu.unpack_memory": isFunction,
  "v86.cpu.last_result": isWord,
  "v86.cpu.fpu_status_word": isWord,
  "v86.cpu.mxcsr": isWord,
  "v86.cpu.fpu_control_word": isWord,
  "v86.cpu.wm.exports.set_control_word": isFunction,
  "v86.cpu.devices.pci.devices": isArray,
  "v86.cpu.devices.pci.device_spaces": isArray,
};

/** The private parts of a v86 that is ready. @throws DeltaveeError HYPERVISOR_INCOMPATIBLE, naming what is missing. */
export function privateParts(emulator: V86): Loop {
  for (const [path, isExpected] of Object.entries(PRIVATE_NAMES)) {
    if (!isExpected(at(emulator, path))) {
      throw new DeltaveeError(
        "HYPERVISOR_INCOMPATIBLE",
        `This release of v86 cannot be migrated: it has no usable ${path}; install the version that package.json names`,
      );
    }
  }
  return at(emulator, "v86") as Loop;
}

function at(root: unknown, path: string): unknown {
  let value = root;
  for (const name of path.split(".")) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

function numberAt(root: unknown, path: string): number | undefined {
  const value = at(root, path);
  return typeof value === "number" ? value : undefined;
}
