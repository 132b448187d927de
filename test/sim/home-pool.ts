// Kernel memories for simulations, used again and again: making one takes longer than many a seed. What is allocated
// is zero as src/kernel/memory.ts promises, but for regions so large that only a buffer can be meant, which is
// written before it is read; there lies whatever the seed before has left.

import { type Kernel, loadKernel } from "../../src/kernel/kernel.ts";
import { KernelMemory } from "../../src/kernel/memory.ts";

const ZEROED_BYTES_MAX = 256 * 1024;

class UsedMemory extends KernelMemory {
  override allocate(bytes: number, alignBytes?: number): number {
    const address = super.allocate(bytes, alignBytes);
    if (bytes <= ZEROED_BYTES_MAX) this.bytes(address, bytes).fill(0);
    return address;
  }
}

interface Home {
  memory: KernelMemory;
  kernel: Kernel;
}

const idle: Home[] = [];

export function takeHome(): Home {
  const used = idle.pop();
  if (used !== undefined) return { memory: new UsedMemory(used.memory.wasm), kernel: used.kernel };
  const memory = new KernelMemory();
  return { memory, kernel: loadKernel(memory) };
}

export function giveHome(home: Home): void {
  idle.push(home);
}
