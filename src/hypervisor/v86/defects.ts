// Work-arounds for what v86 0.5.462 gets wrong in save and restore. Each says what happens without it; each has
// a test in defects.test.ts that shows it happening. They touch nothing but the CPU object that they are given.

import type { Cpu } from "./private-names.ts";

/** First BAR in a PCI configuration space, counted in words. */
const FIRST_BAR_WORD = 4;

/** Restored by v86 by putting the saved array in the place of the view on the CPU's memory. */
const FORGOTTEN_VIEWS = ["last_result", "fpu_status_word", "mxcsr"] as const;

/**
 * Takes hold of the CPU's views before the first restore. The returned function is to be called after every
 * restore and before the guest runs.
 *
 * Forgotten flags: restore_state does `this.last_result = saved` where it should write *into* the view (so too
 * fpu_status_word and mxcsr). v86 computes ZF, SF and PF lazily, from `last_result`: without this they come from
 * whatever the destination's CPU computed before, and a guest stopped between a comparison and its conditional
 * jump silently takes the wrong branch. Worse, the view stays replaced, so the next save from there (the
 * second hop of a chain) sends the stale copy.
 *
 * Forgotten rounding: restore_state writes the x87 control word without telling the floating point unit. Until
 * the guest next loads a control word it computes with the default rounding and precision: without this, C code
 * stopped inside a conversion from double to int (which switches to truncation) gets a wrong integer.
 */
export function rememberCpuState(cpu: Cpu): () => void {
  const views = FORGOTTEN_VIEWS.map((name) => [name, cpu[name]] as const);
  return () => {
    for (const [name, view] of views) {
      const restored = cpu[name];
      if (restored === view) continue;
      view[0] = restored[0]!;
      (cpu as Record<typeof name, typeof view>)[name] = view;
    }
    cpu.wm.exports.set_control_word(cpu.fpu_control_word[0]!);
  };
}

/**
 * To be called once, when the emulator is ready and before anything is saved.
 *
 * The IDE controller's BARs 0 and 1 come up as 1 ("an I/O range at 0") without being described in `pci_bars`. A
 * BIOS would overwrite them; we boot without one. Without this, restore_state moves the I/O ranges of every BAR
 * whose lowest bit is set and throws: Cannot read properties of undefined (reading 'original_bar').
 */
export function clearUndescribedBars(cpu: Cpu): void {
  const { devices, device_spaces } = cpu.devices.pci;
  for (const [id, device] of devices.entries()) {
    const space = device_spaces[id];
    if (device === undefined || space === undefined) continue;
    for (let bar = 0; bar < device.pci_bars.length; bar++) {
      if (device.pci_bars[bar] === undefined) space[FIRST_BAR_WORD + bar] = 0;
    }
  }
}

/**
 * To be called once on a destination, when the emulator is ready.
 *
 * A fresh v86 leaves a byte in guest RAM (0x28 at 0xEFDC in this release), while migration takes a destination's
 * RAM to be all zeros: without this, a source whose page is zero there need not send it, and the page arrives
 * changed. Pages that are zero already are only read, so that they cost no physical memory.
 */
export function zeroFreshMemory(memory: Buffer, pageBytes: number): void {
  const zeroPage = Buffer.alloc(pageBytes);
  for (let offset = 0; offset < memory.length; offset += pageBytes) {
    if (memory.compare(zeroPage, 0, pageBytes, offset, offset + pageBytes) !== 0) {
      memory.fill(0, offset, offset + pageBytes);
    }
  }
}
