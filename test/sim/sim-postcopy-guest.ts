// The guest at the destination of a post-copy: it runs with a part of its RAM missing, asks for what it touches, waits
// for it, and must find in every page what the source's guest, or it itself, has left there last.

import type { LoadedBlock } from "../support/loader.ts";
import { be16, be32, be64, counted } from "../support/stream-builder.ts";
import type { Random } from "./random.ts";
import type { SimClock } from "./sim-clock.ts";
import { PAGE_BYTES } from "./sim-guest.ts";
import type { World } from "./world.ts";

export interface PostcopyTraits {
  /** The source takes `migrate_cancel` in post-copy, as QEMU 7.2 does: the guest is then paused until `cont`. */
  cancels: boolean;
  /** Once it was told to switch over it says something that nobody knows: the engine sees no package go out. */
  isOpaque: boolean;
  destinationHasIt: boolean;
  vcpus: number;
  /** Pages that the device state needs to be loaded. */
  packageNeeds: number;
}

/** What one vCPU does before it is idle: enough to need most of what is missing early. */
const ACCESSES = 25;

export class SimPostcopyGuest {
  /** What RAM must be, page by page, once it is there. */
  readonly expected: Buffer;
  /** Requests that it has sent. */
  requests = 0;
  readonly #world: World;
  readonly #clock: SimClock;
  readonly #random: Random;
  readonly #block: LoadedBlock;
  readonly #send: (message: Buffer) => void;
  readonly #waiting = new Map<number, (() => void)[]>();

  constructor(
    world: World,
    clock: SimClock,
    random: Random,
    block: LoadedBlock,
    stoppedRam: Buffer,
    send: (message: Buffer) => void,
  ) {
    this.#world = world;
    this.#clock = clock;
    this.#random = random;
    this.#block = block;
    this.#send = send;
    this.expected = Buffer.from(stoppedRam);
    for (const page of block.known) this.#compare(page, "was not forgotten, and is not the source's");
  }

  run(vcpus: number): void {
    for (let vcpu = 0; vcpu < vcpus; vcpu++) this.#work(ACCESSES);
  }

  /** Loading devices, too, may need what is not there. */
  need(pages: number, then: () => void): void {
    const page = pages === 0 ? undefined : this.#missingPage();
    if (page === undefined) then();
    else this.#touch(page, () => this.need(pages - 1, then));
  }

  arrived(page: number): void {
    this.#compare(page, "has come, and is not the source's");
    for (const then of this.#waiting.get(page) ?? []) then();
    this.#waiting.delete(page);
  }

  #work(left: number): void {
    if (left === 0) return;
    this.#clock.after(this.#random.real(0.2, 15), () => {
      if (this.#world.presence.destination !== "running") return;
      const anyPage = this.#random.int(0, this.expected.length / PAGE_BYTES - 1);
      const page = (this.#random.chance(0.5) ? this.#missingPage() : undefined) ?? anyPage;
      this.#touch(page, () => {
        this.#compare(page, "was changed while the guest ran");
        if (this.#random.chance(0.6)) this.#write(page);
        this.#work(left - 1);
      });
    });
  }

  #missingPage(): number | undefined {
    const { known } = this.#block;
    const missing: number[] = [];
    for (let page = 0; page < this.expected.length / PAGE_BYTES; page++)
      if (!known.has(page)) missing.push(page);
    return missing.length === 0 ? undefined : this.#random.pick(missing);
  }

  #touch(page: number, then: () => void): void {
    if (this.#block.known.has(page)) {
      then();
      return;
    }
    const others = this.#waiting.get(page);
    if (others !== undefined) {
      others.push(then);
      return;
    }
    this.#waiting.set(page, [then]);
    // The name of its block comes with the first request only.
    const name = this.requests++ === 0 ? counted("pc.ram") : Buffer.alloc(0);
    const range = Buffer.concat([be64(page * PAGE_BYTES), be32(PAGE_BYTES), name]);
    this.#send(Buffer.concat([be16(name.length > 0 ? 3 : 4), be16(range.length), range]));
    this.#world.step("destination asks for a page");
  }

  #write(page: number): void {
    const at = page * PAGE_BYTES + this.#random.int(0, PAGE_BYTES / 4 - 1) * 4;
    const word = this.#random.bits();
    for (const ram of [this.#block.bytes, this.expected]) ram.writeUInt32LE(word, at);
  }

  #compare(page: number, what: string): void {
    const [from, to] = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES];
    if (this.#block.bytes.compare(this.expected, from, to, from, to) !== 0)
      this.#world.violated(`post-copy: page ${page} ${what}`);
  }
}
