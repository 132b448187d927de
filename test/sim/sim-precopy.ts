// A guest without migration of its own, for the production pre-copy loop: calls take their time and may fail. It
// lives in the process of the source engine, as the embedded hypervisor does, and dies with it.

import type { PrecopyGuest } from "../../src/engine/precopy/precopy.ts";
import type { Random } from "./random.ts";
import type { SimClock } from "./sim-clock.ts";
import { PAGE_BYTES, type SimGuest } from "./sim-guest.ts";
import type { World } from "./world.ts";

export interface PrecopyTraits {
  callMsMax: number;
  batchPages: number;
  deviceStateBytes: number;
}

export interface PrecopyFaults {
  /** The call with this number fails, whichever it is; later ones work. */
  failsAtCall: number | undefined;
}

export class SimPrecopyGuest implements PrecopyGuest {
  readonly description = "simulated v86";
  readonly machine = "sim";
  readonly pageBytes = PAGE_BYTES;
  readonly batchPages: number;
  readonly block: { idstr: string; lengthBytes: number };
  deviceStateIsOut = false;
  isDead = false;
  readonly #world: World;
  readonly #clock: SimClock;
  readonly #random: Random;
  readonly #guest: SimGuest;
  readonly #traits: PrecopyTraits;
  readonly #faults: PrecopyFaults;
  readonly #wasRunning: boolean;
  readonly #taken: Buffer;
  #calls = 0;

  constructor(
    world: World,
    clock: SimClock,
    random: Random,
    guest: SimGuest,
    traits: PrecopyTraits,
    faults: PrecopyFaults,
  ) {
    this.#world = world;
    this.#clock = clock;
    this.#random = random;
    this.#guest = guest;
    this.#traits = traits;
    this.#faults = faults;
    this.#wasRunning = guest.runs;
    this.batchPages = traits.batchPages;
    this.block = { idstr: "ram", lengthBytes: guest.ram.length };
    this.#taken = Buffer.alloc(guest.ram.length);
    world.set("source", guest.runs ? "running" : "paused");
  }

  get isRunning(): boolean | undefined {
    return this.isDead ? undefined : this.#guest.runs;
  }

  forgetTaken(): Promise<void> {
    return this.#call(() => void this.#taken.fill(0));
  }

  scan(): Promise<Uint32Array> {
    return this.#call(() => {
      this.#guest.work();
      const dirty: number[] = [];
      for (let page = 0; page < this.#guest.pageCount; page++) {
        const start = page * PAGE_BYTES;
        if (!this.#guest.page(page).equals(this.#taken.subarray(start, start + PAGE_BYTES))) dirty.push(page);
      }
      return Uint32Array.from(dirty);
    });
  }

  take(pageIndices: Uint32Array): Promise<Uint8Array> {
    return this.#call(() => {
      this.#guest.work();
      const pages = Buffer.alloc(this.batchPages * PAGE_BYTES);
      pageIndices.forEach((page, i) => {
        this.#guest.page(page).copy(pages, i * PAGE_BYTES);
        this.#guest.page(page).copy(this.#taken, page * PAGE_BYTES);
      });
      return pages;
    });
  }

  stop(): Promise<void> {
    return this.#call(() => {
      this.#guest.runs = false;
      this.#world.stoppedRam = Buffer.from(this.#guest.ram);
      this.#world.set("source", "paused");
      this.#world.step("source stops the guest");
    });
  }

  resume(): Promise<void> {
    return this.#call(() => {
      this.#guest.runs = true;
      this.#world.set("source", "running");
    });
  }

  deviceState(): Promise<Uint8Array> {
    return this.#call(() => {
      this.#world.step("source hands over device state");
      this.deviceStateIsOut = true;
      const state = Buffer.alloc(this.#traits.deviceStateBytes, 0x5d);
      state[0] = this.#wasRunning ? 1 : 0;
      return state;
    });
  }

  die(): void {
    if (this.isDead) return;
    this.isDead = true;
    this.#guest.runs = false;
    this.#world.crashedHypervisors.add("source");
    this.#world.sourceMayResume = false;
    this.#world.set("source", "gone");
  }

  async #call<Result>(work: () => Result): Promise<Result> {
    await this.#clock.sleep(this.#random.real(0, this.#traits.callMsMax));
    if (this.isDead || ++this.#calls === this.#faults.failsAtCall)
      throw new Error("the VM's thread does not answer");
    return work();
  }
}
