// The way of the stream through the destination engine:
//
//   DATA → slot of the batch coder → decoded → BatchExpander → region → hypervisor's channel → taken (acknowledged)
//
// In order, and bounded by the slots and regions that there are: nothing more is wanted from the link while all are
// in use or the hypervisor is behind.

import { assert } from "../../base/assert.ts";
import { DeltaveeError, toError } from "../../base/errors.ts";
import { copyToShared } from "../../base/shared-copy.ts";
import { SLOT_CODED_BYTES } from "../../codec/entropy/batch-coder.ts";
import { NO_REGION, RegionPool } from "../../kernel/region-pool.ts";
import type { DataFrame } from "../../wire/frame.ts";
import { PAYLOAD_PADDING, PAYLOAD_PAGES, PAYLOAD_RAM_LAYOUT } from "../../wire/page-batch.ts";
import type { Channel } from "../ports.ts";
import { BatchExpander } from "./batch-expander.ts";
import type { DestinationOptions } from "./options.ts";

/** What references may oblige us to keep: twice what this version's source asks for. */
const WINDOW_BYTES_MAX = 64 * 1024 * 1024;
/** Records that are on their way to the hypervisor. */
const REGION_COUNT = 4;
const REGION_BYTES = 1024 * 1024;

/** A payload that was decoded and has not all gone to the hypervisor. */
interface Arrived {
  sequence: number;
  slot: number;
  kind: number;
  address: number;
  rawBytes: number;
}

export interface DeliveryListener {
  /** The hypervisor has taken all up to and with the DATA of this sequence. */
  taken(sequence: number): void;
  /** `hasRoom` may have changed. */
  room(): void;
  failed(error: Error): void;
}

export class Delivery {
  readonly #options: Pick<DestinationOptions, "memory" | "coder">;
  readonly #listener: DeliveryListener;
  readonly #expander: BatchExpander;
  readonly #regions: RegionPool;
  #channel: Channel | undefined;
  /** Decoded, in order; the first one may be half expanded. */
  readonly #arrived: Arrived[] = [];
  #isDelivering = false;
  #slotForNext: number;
  #hypervisorIsBehind = false;
  /** Sequences of the last DATA that all of has been given to the hypervisor, and that it has taken. */
  #givenSequence = 0;
  #takenSequence = 0;
  /** The last padding, and behind which DATA it came. */
  #padding = { behind: -1, sequence: -1 };
  #codedBytes = 0;
  #rawBytes = 0;
  #over = false;

  constructor(
    options: Pick<DestinationOptions, "memory" | "kernel" | "coder" | "baselineBytesMax">,
    listener: DeliveryListener,
  ) {
    this.#options = options;
    this.#listener = listener;
    const { memory, kernel, coder, baselineBytesMax = 0 } = options;
    const limits = { windowBytesMax: WINDOW_BYTES_MAX, baselineBytesMax };
    this.#expander = new BatchExpander(memory, kernel, limits);
    this.#regions = new RegionPool(memory, REGION_COUNT, REGION_BYTES);
    this.#slotForNext = coder.acquire();
  }

  /** Of payloads, as they came and decoded. */
  get codedBytes(): number {
    return this.#codedBytes;
  }

  get rawBytes(): number {
    return this.#rawBytes;
  }

  /** There is a slot for the next DATA, and a hypervisor that keeps up. */
  get hasRoom(): boolean {
    return this.#slotForNext !== -1 && !this.#hypervisorIsBehind;
  }

  /** The hypervisor's. Before any DATA. */
  to(channel: Channel): void {
    this.#channel = channel;
  }

  /** The hypervisor takes more again. */
  drained(): void {
    this.#hypervisorIsBehind = false;
    this.#listener.room();
  }

  /** Nothing more is given to the hypervisor. */
  end(): void {
    this.#over = true;
  }

  /** Where `data` wants the coded bytes of the next frame, so that it does not have to copy them. */
  roomForCoded(codedBytes: number): Uint8Array | undefined {
    const slot = this.#slotForNext;
    if (slot === -1 || codedBytes > SLOT_CODED_BYTES) return undefined;
    const { coder, memory } = this.#options;
    return memory.bytes(coder.slots[slot]!.codedAddress, codedBytes);
  }

  /** Taken during the call. Only while there is room. */
  data(frame: DataFrame): void {
    const { coder, memory } = this.#options;
    const { sequence, entropyCodec, payloadKind, rawBytes, rawChecksum, coded } = frame;
    const slot = this.#slotForNext;
    assert(slot !== -1, "no DATA is taken from the link without a slot for it");
    const place = memory.bytes(coder.slots[slot]!.codedAddress, coded.length);
    const isInPlace = memory.holds(coded) && coded.byteOffset === place.byteOffset;
    if (!isInPlace) copyToShared(place, coded);
    this.#codedBytes += coded.length;
    this.#rawBytes += rawBytes;
    coder.decode(slot, coded.length, entropyCodec, rawBytes, rawChecksum, (result) => {
      if (this.#over) return;
      if (result instanceof DeltaveeError) {
        this.#listener.failed(result);
        return;
      }
      this.#arrived.push({ sequence, slot, kind: payloadKind, address: result.rawAddress, rawBytes });
      this.#deliver();
    });
    this.#slotForNext = coder.acquire();
    this.#listener.room();
  }

  /** Gives what has arrived to the hypervisor, in order, as far as there are regions for it. */
  #deliver(): void {
    // A slot that is given back lets the next frame in, which must not begin this anew in the middle of it.
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    try {
      while (this.#arrived.length > 0 && !this.#over && this.#deliverFirst()) this.#arrived.shift();
    } catch (thrown) {
      this.#listener.failed(toError(thrown));
    } finally {
      this.#isDelivering = false;
    }
  }

  /** @returns whether all of it is on its way */
  #deliverFirst(): boolean {
    const { memory } = this.#options;
    const { sequence, slot, kind, address, rawBytes } = this.#arrived[0]!;
    if (kind === PAYLOAD_RAM_LAYOUT) {
      this.#expander.layOut(memory.bytes(address, rawBytes));
      this.#release(slot);
      // Acknowledged with what follows it, since what came before it may not have been taken yet.
      return true;
    }
    if (kind === PAYLOAD_PADDING) {
      this.#release(slot);
      // As soon as what came before it is taken, which it may be.
      if (this.#takenSequence === this.#givenSequence) this.#listener.taken(sequence);
      else this.#padding = { behind: this.#givenSequence, sequence };
      return true;
    }
    if (kind !== PAYLOAD_PAGES) {
      this.#givenSequence = sequence;
      this.#toHypervisor(address, rawBytes, () => {
        this.#release(slot);
        this.#taken(sequence);
      });
      return true;
    }
    if (!this.#expander.isUnderWay) this.#expander.begin(address, rawBytes);
    while (this.#expander.isUnderWay) {
      const region = this.#regions.take();
      if (region === NO_REGION) return false;
      const bytes = this.#expander.expand(region, REGION_BYTES);
      const isLast = !this.#expander.isUnderWay;
      if (isLast) {
        this.#givenSequence = sequence;
        this.#release(slot);
      }
      this.#toHypervisor(region, bytes, () => {
        this.#regions.give(region);
        if (isLast) this.#taken(sequence);
        this.#deliver();
      });
    }
    return true;
  }

  #taken(sequence: number): void {
    this.#takenSequence = sequence;
    this.#listener.taken(sequence === this.#padding.behind ? this.#padding.sequence : sequence);
  }

  #toHypervisor(address: number, bytes: number, written: () => void): void {
    const flowing = this.#channel!.write(this.#options.memory.bytes(address, bytes), () => {
      if (!this.#over) written();
    });
    if (flowing || this.#hypervisorIsBehind) return;
    this.#hypervisorIsBehind = true;
    this.#listener.room();
  }

  #release(slot: number): void {
    const { coder } = this.#options;
    coder.release(slot);
    if (this.#slotForNext !== -1) return;
    this.#slotForNext = coder.acquire();
    this.#listener.room();
  }
}
