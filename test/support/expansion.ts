// The receiving end of batches, without an engine: a payload goes in, the stream that it stands for comes out. All
// that is written lies between guard bytes, so that a write outside its place is found.

import { BatchExpander, type ExpanderLimits } from "../../src/engine/destination/batch-expander.ts";
import { RAW_BYTES_MAX } from "../../src/wire/frame.ts";
import { PAYLOAD_PAGES, PAYLOAD_RAM_LAYOUT, type PayloadKind } from "../../src/wire/page-batch.ts";
import { makeHome } from "./engine-parts.ts";

const GUARD = 0xc3;
const GUARD_BYTES = 4096;
const intact = Buffer.alloc(GUARD_BYTES, GUARD);

export interface ExpansionOptions extends Partial<ExpanderLimits> {
  /** Of each piece in which a batch is expanded. */
  regionBytes?: number;
}

export class Expansion {
  readonly memory;
  readonly regionBytes: number;
  expander: BatchExpander;
  readonly #kernel;
  readonly #limits: ExpanderLimits;
  readonly #payloadAddress: number;
  readonly #regionAddress: number;
  readonly #guards: Uint8Array[] = [];

  constructor({
    regionBytes = RAW_BYTES_MAX,
    windowBytesMax = 1 << 30,
    baselineBytesMax = 1 << 30,
  }: ExpansionOptions = {}) {
    const { memory, kernel } = makeHome();
    this.memory = memory;
    this.#kernel = kernel;
    this.#limits = { windowBytesMax, baselineBytesMax };
    this.regionBytes = regionBytes;
    this.#guard();
    this.#payloadAddress = memory.allocate(RAW_BYTES_MAX);
    this.#guard();
    this.#regionAddress = memory.allocate(regionBytes);
    this.#guard();
    this.expander = new BatchExpander(memory, kernel, this.#limits);
  }

  /** Another expander, for another stream; what the one before it had in the memory stays there. */
  renew(): void {
    this.expander = new BatchExpander(this.memory, this.#kernel, this.#limits);
  }

  /** @throws ProtocolError */
  take(kind: PayloadKind, payload: Uint8Array): Buffer {
    if (kind === PAYLOAD_RAM_LAYOUT) {
      this.expander.layOut(payload);
      // Behind what the expander has allocated for it.
      this.#guard();
      return Buffer.alloc(0);
    }
    return kind === PAYLOAD_PAGES ? Buffer.concat(this.expand(payload)) : Buffer.from(payload);
  }

  /** The pieces that a batch of pages becomes. @throws ProtocolError */
  expand(payload: Uint8Array): Buffer[] {
    this.memory.bytes(this.#payloadAddress, payload.length).set(payload);
    const pieces: Buffer[] = [];
    this.expander.begin(this.#payloadAddress, payload.length);
    while (this.expander.isUnderWay) {
      const bytes = this.expander.expand(this.#regionAddress, this.regionBytes);
      pieces.push(Buffer.from(this.memory.bytes(this.#regionAddress, bytes)));
    }
    return pieces;
  }

  expectGuards(): void {
    for (const guard of this.#guards) {
      if (!intact.equals(guard)) throw new Error("Something was written outside its place");
    }
  }

  #guard(): void {
    const guard = this.memory.bytes(this.memory.allocate(GUARD_BYTES, 1), GUARD_BYTES);
    guard.fill(GUARD);
    this.#guards.push(guard);
  }
}
