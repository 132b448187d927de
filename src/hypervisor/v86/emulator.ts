// Starts one v86 without screen, keyboard or BIOS, up to where its guest could run. The options here are those
// that shape the guest's hardware: source and destination must share them all, so they make up the
// compatibility text. Leaves v86 as it is: the work-arounds for its defects are the caller's.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { V86, type V86Options } from "v86";
import { DeltaveeError, UsageError } from "../../base/errors.ts";
import { type Compatibility, describeCompatibility } from "./compatibility.ts";
import { V86_STATE_VERSION } from "./device-state.ts";
import { checkKernel, type Kernel } from "./kernel.ts";
import { type Loop, privateParts } from "./private-names.ts";

/** The guest has no screen: the least that v86 takes. */
const VGA_MEMORY_BYTES = 1024 * 1024;
const MEMORY_BYTES_MIN = 2 * 1024 * 1024;
/** The largest that has been seen to work. */
const MEMORY_BYTES_MAX = 1536 * 1024 * 1024;
/** v86 rounds up to this. */
const MEMORY_STEP_BYTES = 128 * 1024;
/** Compiling the WebAssembly takes 0.1 s on an idle machine. */
const READY_MS_MAX = 60_000;

export interface Emulator {
  readonly v86: V86;
  readonly loop: Loop;
  readonly compatibility: Compatibility;
}

const require = createRequire(import.meta.url);

/** Options that shape the hardware, besides the size of RAM. Node has no keyboard, mouse or speaker to give. */
const HARDWARE: V86Options = {
  vga_memory_size: VGA_MEMORY_BYTES,
  acpi: false,
  disable_keyboard: true,
  disable_mouse: true,
  disable_speaker: true,
  // A network device of no type: v86 would otherwise add its default one.
  net_device: {},
};

/**
 * A v86 that is ready and does not run. Without a kernel it waits for a restored state.
 * @throws UsageError for a kernel or a size of RAM that v86 cannot run
 * @throws DeltaveeError HYPERVISOR_INCOMPATIBLE if this release of v86 lacks what migration needs
 */
export async function startEmulator(memoryBytes: number, kernel?: Kernel): Promise<Emulator> {
  if (
    memoryBytes < MEMORY_BYTES_MIN ||
    memoryBytes > MEMORY_BYTES_MAX ||
    memoryBytes % MEMORY_STEP_BYTES !== 0
  ) {
    throw new UsageError(
      `Guest RAM of ${memoryBytes} bytes is not a multiple of ${MEMORY_STEP_BYTES} between ${MEMORY_BYTES_MIN} and ${MEMORY_BYTES_MAX}`,
    );
  }
  if (kernel !== undefined) checkKernel(kernel, memoryBytes);
  const v86 = new V86({
    ...HARDWARE,
    wasm_path: join(dirname(require.resolve("v86")), "v86.wasm"),
    memory_size: memoryBytes,
    autostart: false,
    ...(kernel === undefined
      ? {}
      : // v86 reads from offset 0 of an ArrayBuffer: a copy, since a Buffer may be a part of a larger one.
        { multiboot: { buffer: new Uint8Array(kernel.elf).buffer }, cmdline: kernel.commandLine }),
  });
  await ready(v86);
  return { v86, loop: privateParts(v86), compatibility: compatibilityOf(memoryBytes) };
}

async function ready(v86: V86): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      v86.add_listener("emulator-ready", resolve);
      timer = setTimeout(() => {
        reject(new DeltaveeError("HYPERVISOR_FAILED", `v86 was not ready within ${READY_MS_MAX} ms`));
      }, READY_MS_MAX);
    });
  } finally {
    clearTimeout(timer);
  }
}

function compatibilityOf(memoryBytes: number): Compatibility {
  const { version } = require("v86/package.json") as { version: string };
  return describeCompatibility({
    v86: version,
    state: V86_STATE_VERSION,
    memoryBytes,
    vgaMemoryBytes: VGA_MEMORY_BYTES,
    options: createHash("sha256").update(JSON.stringify(HARDWARE)).digest("hex").slice(0, 12),
  });
}
