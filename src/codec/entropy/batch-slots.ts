// The slots of a BatchCoder: allocated once from the kernel memory, free, acquired or in a job.

import { assert } from "../../base/assert.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import { type BatchSlot, SLOT_CODED_BYTES, SLOT_RAW_BYTES } from "./batch-coder.ts";

type SlotState = "free" | "acquired" | "in a job";

export class BatchSlots {
  readonly slots: readonly BatchSlot[];
  readonly #states: SlotState[];

  constructor(memory: KernelMemory, slotCount: number) {
    assert(slotCount >= 1, "at least one slot");
    this.slots = Array.from({ length: slotCount }, () => ({
      rawAddress: memory.allocate(SLOT_RAW_BYTES),
      codedAddress: memory.allocate(SLOT_CODED_BYTES),
    }));
    this.#states = this.slots.map(() => "free");
  }

  acquire(): number {
    const slot = this.#states.indexOf("free");
    if (slot !== -1) this.#states[slot] = "acquired";
    return slot;
  }

  release(slot: number): void {
    assert(this.#states[slot] === "acquired", "only an acquired slot that is in no job is released");
    this.#states[slot] = "free";
  }

  beginJob(slot: number): BatchSlot {
    assert(this.#states[slot] === "acquired", "a job has an acquired slot to itself");
    this.#states[slot] = "in a job";
    return this.slots[slot]!;
  }

  endJob(slot: number): void {
    assert(this.#states[slot] === "in a job", "a job ends once");
    this.#states[slot] = "acquired";
  }
}
