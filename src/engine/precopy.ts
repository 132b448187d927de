// Pre-copy for a hypervisor that has no migration of its own: iterate over dirty pages while the guest runs,
// stop it, send the rest and the device state (Clark et al., "Live migration of virtual machines", NSDI 2005).
// What comes out is a QEMU-format stream, so the source engine, codec, tunnel and record serve it unchanged;
// and it is stopped as QEMU is: it iterates until the source engine says SWITCHOVER_ACK on the return path.
//
// Better than the textbook in one thing: a page that keeps changing is held back until late, since whatever
// is sent of it early is sent in vain. Limits on iterations, time and bytes always exist, because a guest may
// dirty memory for ever.

import type { Clock } from "../base/clock.ts";
import { toError } from "../base/errors.ts";
import { ReturnPathType, SectionType } from "../stream/format.ts";
import type { StreamBlock } from "../stream/reader.ts";
import { ReturnPathReader, shutValue } from "../stream/return-path.ts";
import { OutputBuffer, StreamWriter } from "../stream/writer.ts";
import type { Channel, ChannelListener, OutgoingEnd, OutgoingStatus, OutgoingVm } from "./ports.ts";

/** A guest as pre-copy needs it. Its RAM is one RAMBlock. */
export interface PrecopyGuest {
  readonly description: string;
  readonly block: StreamBlock;
  readonly pageBytes: number;
  /** Name in the stream's configuration section. */
  readonly machine: string;
  readonly isRunning: boolean;
  /** Ascending indices of the pages that differ from what was taken of them (zeros, if nothing was). */
  scan(): Promise<Uint32Array>;
  /** Content of the pages, one behind the other; the destination is going to hold it. At most `batchPages`. */
  take(pageIndices: Uint32Array): Promise<Uint8Array>;
  readonly batchPages: number;
  stop(): Promise<void>;
  resume(): Promise<void>;
  /** All of the stopped guest but its RAM. */
  deviceState(): Promise<Uint8Array>;
}

export interface PrecopyLimits {
  /** Passes over dirty pages, the first one not counted. */
  iterationsMax: number;
  timeMsMax: number;
  /** Bytes of pages handed over, as a multiple of the guest's RAM. */
  ramMultipleMax: number;
}

/** Xen's, from the same paper's implementation, but for the time. */
export const PRECOPY_LIMITS: PrecopyLimits = { iterationsMax: 29, timeMsMax: 30 * 60_000, ramMultipleMax: 3 };

export interface PrecopyOptions {
  guest: PrecopyGuest;
  clock: Clock;
  limits?: PrecopyLimits;
  /** A limit was reached: the guest is stopped whatever is left. */
  decision: (choice: string, reason: string) => void;
}

/** A page found dirty this many times in a row is held back... */
const HOT_SCANS = 3;
/** ...but not for longer than this many iterations. */
const HELD_ITERATIONS_MAX = 8;
/** An iteration that would send next to nothing waits a moment instead, or scans would eat the CPU. */
const PAGES_WORTH_SENDING = 16;
const REST_MS = 20;
const RAM_SECTION_ID = 1;
const DEVICE_SECTION_ID = 2;

type Ending = { outcome: "cancelled" | "failed"; reason: string };

export class PrecopyVm implements OutgoingVm {
  readonly description: string;
  readonly wasRunning: boolean;
  readonly switchoverControl = "ack";
  readonly awaitsDestinationAck = false;
  readonly ended: Promise<OutgoingEnd>;
  readonly #guest: PrecopyGuest;
  readonly #clock: Clock;
  readonly #limits: PrecopyLimits;
  readonly #decision: PrecopyOptions["decision"];
  readonly #output = new OutputBuffer();
  readonly #writer: StreamWriter;
  readonly #returnPath = new ReturnPathReader();
  readonly #dirtyInARow: Uint8Array;
  #resolveEnded!: (end: OutgoingEnd) => void;
  #listener: ChannelListener | undefined;
  #paused = false;
  #wake: () => void = () => {};
  #released = false;
  #ending: Ending | undefined;
  #over = false;
  #startMs = 0;
  #iteration = 0;
  #remainingPages = 0;
  #handedOverPages = 0;
  #dirtyPagesPerSecond: number | undefined;
  #stoppedMs: number | undefined;
  #downtimeMs: number | undefined;

  constructor(options: PrecopyOptions) {
    this.#guest = options.guest;
    this.#clock = options.clock;
    this.#limits = options.limits ?? PRECOPY_LIMITS;
    this.#decision = options.decision;
    this.description = options.guest.description;
    this.wasRunning = options.guest.isRunning;
    this.#writer = new StreamWriter(this.#output);
    this.#dirtyInARow = new Uint8Array(this.#pageCount);
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  async begin(): Promise<Channel> {
    return {
      listen: (listener) => {
        this.#listener = listener;
        void this.#run();
      },
      write: (bytes, written) => {
        this.#received(bytes);
        written?.();
        return true;
      },
      pause: () => {
        this.#paused = true;
      },
      resume: () => {
        this.#paused = false;
        this.#wake();
      },
      // Before the verdict a closed channel means what it means to QEMU: the migration has failed.
      end: () => this.#stopBecause({ outcome: "failed", reason: "the stream's reader went away" }),
      destroy: () => this.#stopBecause({ outcome: "failed", reason: "the stream's reader went away" }),
    };
  }

  async status(): Promise<OutgoingStatus> {
    return {
      iteration: this.#iteration,
      remainingBytes: this.#remainingPages * this.#guest.pageBytes,
      ...(this.#dirtyPagesPerSecond === undefined ? {} : { dirtyPagesPerSecond: this.#dirtyPagesPerSecond }),
      ...(this.#downtimeMs === undefined ? {} : { downtimeMs: this.#downtimeMs }),
    };
  }

  /** Switchover is decided by the acknowledgement alone: there is no limit of this loop's own to move. */
  async limitSwitchover(): Promise<void> {}

  async cancel(): Promise<void> {
    this.#stopBecause({ outcome: "cancelled", reason: "cancelled" });
    await this.ended;
  }

  async isRunning(): Promise<boolean> {
    return this.#guest.isRunning;
  }

  get #pageCount(): number {
    return this.#guest.block.lengthBytes / this.#guest.pageBytes;
  }

  /** The migration, from the first byte to the verdict. The shape of Clark et al., figure 1. */
  async #run(): Promise<void> {
    try {
      this.#startMs = this.#clock.nowMs();
      this.#writer.header(this.#guest.machine);
      this.#writer.ramStart(RAM_SECTION_ID, [this.#guest.block], this.#guest.pageBytes);
      this.#writer.ramSectionEnd();
      await this.#firstPass();
      while (!(await this.#isTimeToStop())) await this.#iterate();
      await this.#switchOver();
    } catch (thrown) {
      this.#stopBecause({ outcome: "failed", reason: toError(thrown).message });
    }
    if (this.#ending !== undefined) await this.#giveUp(this.#ending);
  }

  /** Iteration 0: all of RAM, whose zero pages are named too, since the destination's may hold something. */
  async #firstPass(): Promise<void> {
    const dirty = await this.#guest.scan();
    let next = 0;
    this.#writer.ramSection(SectionType.PART, RAM_SECTION_ID);
    for (let pageIndex = 0; pageIndex < this.#pageCount; pageIndex++) {
      if (dirty[next] === pageIndex) next++;
      else this.#writer.zeroPage(0, pageIndex);
    }
    this.#writer.ramSectionEnd();
    await this.#send(dirty);
  }

  async #iterate(): Promise<void> {
    const scanMs = this.#clock.nowMs();
    const dirty = await this.#guest.scan();
    this.#iteration++;
    const due = this.#dueNow(dirty);
    this.#remainingPages = dirty.length;
    if (due.length < PAGES_WORTH_SENDING) await this.#rest();
    await this.#send(due, dirty.length - due.length);
    const elapsedMs = this.#clock.nowMs() - scanMs;
    if (elapsedMs > 0) this.#dirtyPagesPerSecond = (dirty.length / elapsedMs) * 1000;
  }

  /** Those of the dirty pages that are worth sending now. */
  #dueNow(dirty: Uint32Array): Uint32Array {
    const inARow = this.#dirtyInARow;
    const due = new Uint32Array(dirty.length);
    let count = 0;
    let next = 0;
    for (let pageIndex = 0; pageIndex < inARow.length; pageIndex++) {
      if (dirty[next] !== pageIndex) {
        inARow[pageIndex] = 0;
        continue;
      }
      next++;
      const times = inARow[pageIndex]! + 1;
      const sends = times < HOT_SCANS || times >= HELD_ITERATIONS_MAX;
      inARow[pageIndex] = sends && times >= HELD_ITERATIONS_MAX ? 0 : times;
      if (sends) due[count++] = pageIndex;
    }
    return due.subarray(0, count);
  }

  /** Asked between iterations: has the engine decided, or has a limit been reached? */
  async #isTimeToStop(): Promise<boolean> {
    if (this.#ending !== undefined) throw new Error(this.#ending.reason);
    if (this.#released) return true;
    const { iterationsMax, timeMsMax, ramMultipleMax } = this.#limits;
    const elapsedMs = this.#clock.nowMs() - this.#startMs;
    const reached =
      this.#iteration >= iterationsMax
        ? `${iterationsMax} iterations`
        : elapsedMs >= timeMsMax
          ? `${Math.round(timeMsMax / 1000)} s`
          : this.#handedOverPages >= ramMultipleMax * this.#pageCount
            ? `${ramMultipleMax} times the guest's RAM sent`
            : undefined;
    if (reached === undefined) return false;
    this.#decision("now", `limit reached: ${reached}`);
    return true;
  }

  /** Stop-and-copy: from here on every millisecond is downtime. */
  async #switchOver(): Promise<void> {
    const guest = this.#guest;
    this.#stoppedMs = this.#clock.nowMs();
    await guest.stop();
    const dirty = await guest.scan();
    this.#writer.ramSection(SectionType.END, RAM_SECTION_ID);
    await this.#sendPages(dirty, 0);
    this.#writer.ramSectionEnd();
    this.#deviceSection(await guest.deviceState());
    await this.#flush();
  }

  #deviceSection(state: Uint8Array): void {
    const name = Buffer.from(this.#guest.machine, "latin1");
    const head = Buffer.alloc(6 + name.length + 12);
    head.writeUInt8(SectionType.FULL, 0);
    head.writeUInt32BE(DEVICE_SECTION_ID, 1);
    head.writeUInt8(name.length, 5);
    name.copy(head, 6);
    // Instance 0, version 1, then what no device section of QEMU has: its length.
    head.writeUInt32BE(1, 6 + name.length + 4);
    head.writeUInt32BE(state.length, 6 + name.length + 8);
    const foot = Buffer.alloc(6);
    foot.writeUInt8(SectionType.FOOTER, 0);
    foot.writeUInt32BE(DEVICE_SECTION_ID, 1);
    foot.writeUInt8(SectionType.EOF, 5);
    for (const part of [head, state, foot]) this.#writer.verbatim(part, 0, part.length);
  }

  async #send(pageIndices: Uint32Array, heldPages = 0): Promise<void> {
    if (pageIndices.length === 0) {
      await this.#flush();
      return;
    }
    this.#writer.ramSection(SectionType.PART, RAM_SECTION_ID);
    await this.#sendPages(pageIndices, heldPages);
    this.#writer.ramSectionEnd();
    await this.#flush();
  }

  async #sendPages(pageIndices: Uint32Array, heldPages: number): Promise<void> {
    const { batchPages, pageBytes } = this.#guest;
    for (let start = 0; start < pageIndices.length; start += batchPages) {
      this.#remainingPages = pageIndices.length - start + heldPages;
      const batch = pageIndices.subarray(start, start + batchPages);
      const pages = await this.#guest.take(batch);
      batch.forEach((pageIndex, i) => {
        this.#writer.page(0, pageIndex, pages, i * pageBytes);
      });
      this.#handedOverPages += batch.length;
      await this.#flush();
      // Once the engine has decided, the rest of an iteration is better sent with the guest stopped.
      if (this.#released && this.#stoppedMs === undefined) return;
    }
    this.#remainingPages = heldPages;
  }

  /** Hands the written bytes to the engine and waits until it takes more. */
  async #flush(): Promise<void> {
    if (this.#output.length > 0) this.#listener?.data(this.#output.take());
    if (this.#paused && this.#ending === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#ending !== undefined) throw new Error(this.#ending.reason);
  }

  async #rest(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#clock.after(REST_MS, resolve);
    });
  }

  #received(bytes: Uint8Array): void {
    for (const message of this.#returnPath.push(bytes)) {
      const verdict = shutValue(message);
      if (message.type === ReturnPathType.SWITCHOVER_ACK) {
        this.#released = true;
      } else if (verdict === 0 && this.#stoppedMs !== undefined) {
        this.#downtimeMs = this.#clock.nowMs() - this.#stoppedMs;
        this.#finish({ outcome: "completed" });
      } else if (verdict !== undefined) {
        this.#stopBecause({ outcome: "failed", reason: "the destination could not load the guest" });
      }
    }
  }

  /** Whoever is waiting learns of it; the guest is resumed by `#run`, or here when that has ended. */
  #stopBecause(ending: Ending): void {
    if (this.#over || this.#ending !== undefined) return;
    this.#ending = ending;
    this.#wake();
    if (this.#listener === undefined || this.#stoppedMs !== undefined) void this.#giveUp(ending);
  }

  /** The guest stays ours. */
  async #giveUp(ending: Ending): Promise<void> {
    if (this.#over) return;
    try {
      if (this.wasRunning && !this.#guest.isRunning) await this.#guest.resume();
      this.#finish(ending);
    } catch (thrown) {
      const { message } = toError(thrown);
      this.#finish({
        outcome: "failed",
        reason: `${ending.reason}; the guest could not be resumed: ${message}`,
      });
    }
  }

  #finish(end: OutgoingEnd): void {
    if (this.#over) return;
    this.#over = true;
    this.#resolveEnded(end);
  }
}
