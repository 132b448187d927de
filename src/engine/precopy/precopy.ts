// Pre-copy for a hypervisor that has no migration of its own: iterate over dirty pages while the guest runs,
// stop it, send the rest and the device state (Clark et al., "Live migration of virtual machines", NSDI 2005).
// What comes out is a QEMU-format stream, so the source engine, codec, tunnel and record serve it unchanged;
// and it is stopped as QEMU is: it iterates until SWITCHOVER_ACK has come on the return path and no more is
// left than `limitSwitchover` allows. How long that may take is for whoever asks for the migration to say (a policy of
// the source engine's); the textbook's own limits, which stop the guest whatever is left, are there for comparison.
//
// Better than the textbook in one thing: a page that keeps changing is held back, since whatever is sent of it
// early is sent in vain. One run, in one place, is all that ever stops or resumes the guest: who wants it ended only
// says so.

import { assert } from "../../base/assert.ts";
import type { Clock } from "../../base/clock.ts";
import { toError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";
import { ReturnPathType, SectionType } from "../../stream/format.ts";
import type { StreamBlock } from "../../stream/reader.ts";
import { ReturnPathReader, shutValue } from "../../stream/return-path.ts";
import { OutputBuffer, StreamWriter } from "../../stream/writer.ts";
import type {
  Channel,
  ChannelListener,
  OutgoingEnd,
  OutgoingStatus,
  OutgoingVm,
  StoppedRam,
} from "../ports.ts";
import { HotPages } from "./hot-pages.ts";

/** A guest as pre-copy needs it. Its RAM is one RAMBlock. Calls are made one at a time. */
export interface PrecopyGuest {
  readonly description: string;
  readonly block: StreamBlock;
  readonly pageBytes: number;
  /** Name in the stream's configuration section. */
  readonly machine: string;
  /** Undefined when that is not known any more. */
  readonly isRunning: boolean | undefined;
  /** Forgets what was taken: the destination is a fresh one, whose RAM is all zeros. */
  forgetTaken(): Promise<void>;
  /** Ascending indices of the pages that differ from what was taken of them (zeros, if nothing was). */
  scan(): Promise<Uint32Array>;
  /**
   * Content of the pages, one behind the other; the destination is going to hold it. At most `batchPages` of
   * them; valid until the next call.
   */
  take(pageIndices: Uint32Array): Promise<Uint8Array>;
  readonly batchPages: number;
  stop(): Promise<void>;
  resume(): Promise<void>;
  /** All of the stopped guest but its RAM. */
  deviceState(): Promise<Uint8Array>;
  /** Its RAM, to be compared with what has arrived. Absent: it cannot be read apart. */
  openRam?(): Promise<StoppedRam>;
}

export interface PrecopyLimits {
  /** Passes over dirty pages, the first one not counted. */
  iterationsMax: number;
  timeMsMax: number;
  /** Pages handed over, as a multiple of the guest's RAM. */
  ramMultipleMax: number;
}

/** Xen's, from the same paper's implementation, but for the time. They are looked at between iterations. */
export const PRECOPY_LIMITS: PrecopyLimits = { iterationsMax: 29, timeMsMax: 30 * 60_000, ramMultipleMax: 3 };

export interface PrecopyOptions {
  guest: PrecopyGuest;
  clock: Clock;
  /** None, if not given. */
  limits?: PrecopyLimits | undefined;
  /** A limit was reached: the guest is stopped whatever is left. */
  decision: (choice: string, reason: string) => void;
}

/** A scan takes time from the guest (facts: 10 ms for 64 MiB): no two begin within this. */
const SCAN_EVERY_MS = 50;
/** Messages to the guest's host and back, and what the destination does before the guest runs. */
const STANDSTILL_MS_MIN = 15;
/** The last scan is of a stopped guest; stopping it and saving its devices take about as long again (measured). */
const SCANS_AT_STOP = 2;
/** Zero pages named between two looks at whether the engine takes more: 40 kB of records. */
const ZERO_PAGES_PER_TURN = 4096;
const RAM_SECTION_ID = 1;
const DEVICE_SECTION_ID = 2;

type Ending = { outcome: "cancelled" | "failed"; reason: string };

const READER_GONE: Ending = { outcome: "failed", reason: "the stream's reader went away" };

export class PrecopyVm implements OutgoingVm {
  readonly description: string;
  readonly wasRunning: boolean;
  readonly switchoverControl = "ack";
  readonly awaitsDestinationAck = false;
  readonly ended: Promise<OutgoingEnd>;
  readonly openRam?: () => Promise<StoppedRam>;
  readonly #guest: PrecopyGuest;
  readonly #clock: Clock;
  readonly #limits: PrecopyLimits | undefined;
  readonly #decision: PrecopyOptions["decision"];
  readonly #pageCount: number;
  readonly #output = new OutputBuffer();
  readonly #writer: StreamWriter;
  readonly #returnPath = new ReturnPathReader();
  readonly #hotPages: HotPages;
  #resolveEnded!: (end: OutgoingEnd) => void;
  #listener: ChannelListener | undefined;
  /** Lets `#run` look again at what it waits for. */
  #wake: () => void = () => {};
  #readerPaused = false;
  /** SWITCHOVER_ACK has come. */
  #mayStop = false;
  /** It has come since the last scan: what is still to be sent of this iteration is better sent at the stop. */
  #cutShort = false;
  #remainingPagesMax = Number.POSITIVE_INFINITY;
  /** The stream is complete: the verdict is the destination's. */
  #handedOver = false;
  #accepted = false;
  /** Why the guest stays here, once that is decided. The first reason counts. */
  #ending: Ending | undefined;
  #startMs = 0;
  #iteration = 0;
  #scannedMs: number | undefined;
  /** How long the last scan took. */
  #scanMs = 0;
  /** Found dirty by the last scan, less those that have been sent since. */
  #unsentPages = 0;
  #handedOverPages = 0;
  #dirtyPagesPerSecond: number | undefined;
  #stoppedMs: number | undefined;
  #downtimeMs: number | undefined;

  constructor(options: PrecopyOptions) {
    const { guest, clock, limits, decision } = options;
    this.#guest = guest;
    this.#clock = clock;
    this.#limits = limits;
    this.#decision = decision;
    this.#pageCount = guest.block.lengthBytes / guest.pageBytes;
    this.#writer = new StreamWriter(this.#output);
    this.#hotPages = new HotPages(this.#pageCount);
    this.description = guest.description;
    if (guest.openRam !== undefined) this.openRam = guest.openRam.bind(guest);
    this.wasRunning = guest.isRunning === true;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  async begin(): Promise<Channel> {
    return {
      listen: (listener) => {
        assert(this.#listener === undefined, "a migration runs once");
        this.#listener = listener;
        // It may have been cancelled, or the channel dropped, before anybody listened.
        if (this.#ending === undefined) void this.#run();
      },
      write: (bytes, written) => {
        this.#received(bytes);
        written?.();
        return true;
      },
      pause: () => {
        this.#readerPaused = true;
      },
      resume: () => {
        this.#readerPaused = false;
        this.#wake();
      },
      // Before the verdict a closed channel means what it means to QEMU: the migration has failed.
      end: () => this.#keepGuest(READER_GONE),
      destroy: () => this.#keepGuest(READER_GONE),
    };
  }

  get standstillMsMin(): number {
    return STANDSTILL_MS_MIN + SCANS_AT_STOP * this.#scanMs;
  }

  async status(): Promise<OutgoingStatus> {
    return {
      iteration: this.#iteration,
      // Before the first scan nobody knows: no page is at the destination, and which are worth sending is to be seen.
      ...(this.#scannedMs === undefined
        ? {}
        : { remainingBytes: this.#remainingPages * this.#guest.pageBytes }),
      ...(this.#dirtyPagesPerSecond === undefined ? {} : { dirtyPagesPerSecond: this.#dirtyPagesPerSecond }),
      ...(this.#downtimeMs === undefined ? {} : { downtimeMs: this.#downtimeMs }),
    };
  }

  async limitSwitchover(remainingBytesMax: number): Promise<void> {
    this.#remainingPagesMax = remainingBytesMax / this.#guest.pageBytes;
  }

  async cancel(): Promise<void> {
    this.#keepGuest({ outcome: "cancelled", reason: "cancelled" });
    await this.ended;
  }

  async resume(): Promise<void> {
    assert(this.#accepted, "as long as the migration is under way its own run sees to the guest");
    await this.#guest.resume();
  }

  async isRunning(): Promise<boolean | undefined> {
    return this.#guest.isRunning;
  }

  /** The migration, from the first byte to the verdict. The shape of Clark et al., figure 1. */
  async #run(): Promise<void> {
    try {
      await this.#guest.forgetTaken();
      this.#startMs = this.#clock.nowMs();
      this.#writer.header(this.#guest.machine);
      this.#writer.ramStart(RAM_SECTION_ID, [this.#guest.block], this.#guest.pageBytes);
      this.#writer.ramSectionEnd();
      await this.#firstPass();
      while (!this.#limitReached()) {
        await this.#rest();
        const dirty = await this.#scan();
        if (this.#mayStop && dirty.length <= this.#remainingPagesMax) break;
        await this.#iterate(dirty);
      }
      await this.#stopAndCopy();
      await this.#until(() => this.#accepted);
      this.#resolveEnded({ outcome: "completed" });
    } catch (thrown) {
      this.#ending ??= { outcome: "failed", reason: toError(thrown).message };
      this.#resolveEnded(await this.#takeBack(this.#ending));
    }
  }

  /** Iteration 0: all of RAM, whose zero pages are named too, since the destination's may hold something. */
  async #firstPass(): Promise<void> {
    const dirty = await this.#scan();
    this.#writer.ramSection(SectionType.PART, RAM_SECTION_ID);
    let next = 0;
    for (let pageIndex = 0; pageIndex < this.#pageCount; pageIndex++) {
      if (pageIndex % ZERO_PAGES_PER_TURN === 0) await this.#flush();
      if (dirty[next] === pageIndex) next++;
      else this.#writer.zeroPage(0, pageIndex);
    }
    this.#writer.ramSectionEnd();
    await this.#sendParts(dirty);
    await this.#flush();
  }

  async #iterate(dirty: Uint32Array): Promise<void> {
    this.#iteration++;
    const due = this.#hotPages.dueOf(dirty);
    await this.#sendParts(due);
    await this.#flush();
  }

  /** Until the next scan may begin, or at once when the guest may be stopped. */
  async #rest(): Promise<void> {
    const restMs = SCAN_EVERY_MS - this.#sinceScanMs;
    let rested = restMs <= 0;
    const cancelTimer = this.#clock.after(restMs, () => {
      rested = true;
      this.#wake();
    });
    try {
      await this.#until(() => rested || this.#cutShort);
    } finally {
      cancelTimer();
    }
  }

  async #scan(): Promise<Uint32Array> {
    this.#cutShort = false;
    const startMs = this.#clock.nowMs();
    const dirty = await this.#guest.scan();
    // The first one finds nearly everything, which takes far longer.
    if (this.#scannedMs !== undefined) this.#scanMs = this.#clock.nowMs() - startMs;
    const elapsedMs = this.#sinceScanMs;
    // What was left unsent is dirty in any case: it would say nothing of the rate.
    if (elapsedMs > 0 && this.#unsentPages === 0) {
      this.#dirtyPagesPerSecond = (dirty.length / elapsedMs) * 1000;
    }
    this.#scannedMs = this.#clock.nowMs();
    this.#unsentPages = dirty.length;
    return dirty;
  }

  /** 0 before the first scan, which says nothing of when its pages were written. */
  get #sinceScanMs(): number {
    return this.#scannedMs === undefined ? 0 : this.#clock.nowMs() - this.#scannedMs;
  }

  /** Dirty pages as far as known, and those that must be expected to have become so since the last scan. */
  get #remainingPages(): number {
    if (this.#stoppedMs !== undefined) return this.#unsentPages;
    const expectedPages = ((this.#dirtyPagesPerSecond ?? 0) * this.#sinceScanMs) / 1000;
    return Math.round(Math.min(this.#pageCount, this.#unsentPages + expectedPages));
  }

  #limitReached(): boolean {
    if (this.#limits === undefined) return false;
    const { iterationsMax, timeMsMax, ramMultipleMax } = this.#limits;
    const reached =
      this.#iteration >= iterationsMax
        ? `${iterationsMax} iterations`
        : this.#clock.nowMs() - this.#startMs >= timeMsMax
          ? formatMs(timeMsMax)
          : this.#handedOverPages >= ramMultipleMax * this.#pageCount
            ? `${ramMultipleMax} times the guest's RAM handed over`
            : undefined;
    if (reached === undefined) return false;
    this.#decision("now", `limit reached: ${reached}`);
    return true;
  }

  /** From the stop on every millisecond is downtime. */
  async #stopAndCopy(): Promise<void> {
    const guest = this.#guest;
    this.#check();
    this.#stoppedMs = this.#clock.nowMs();
    await guest.stop();
    // At once: it is by this section that the engine learns of the stop.
    this.#writer.ramSection(SectionType.END, RAM_SECTION_ID);
    await this.#flush();
    const dirty = await this.#scan();
    this.#iteration++;
    await this.#sendPages(dirty);
    this.#writer.ramSectionEnd();
    await this.#flush();
    this.#deviceSection(await guest.deviceState());
    this.#handedOver = true;
    await this.#flush();
  }

  /** Reader: the embedded hypervisor's loader (hypervisor/v86/stream-loader.ts). */
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

  /**
   * Stops early when cut short: what is not sent stays dirty. Sections are short, as QEMU's are: the engine treats all of
   * a section alike.
   */
  async #sendParts(pageIndices: Uint32Array): Promise<void> {
    const { batchPages } = this.#guest;
    for (let start = 0; start < pageIndices.length && !this.#cutShort; start += batchPages) {
      this.#writer.ramSection(SectionType.PART, RAM_SECTION_ID);
      await this.#sendBatch(pageIndices.subarray(start, start + batchPages));
      this.#writer.ramSectionEnd();
    }
  }

  /** Into the section that is open. */
  async #sendPages(pageIndices: Uint32Array): Promise<void> {
    const { batchPages } = this.#guest;
    for (let start = 0; start < pageIndices.length && !this.#cutShort; start += batchPages) {
      await this.#sendBatch(pageIndices.subarray(start, start + batchPages));
    }
  }

  async #sendBatch(batch: Uint32Array): Promise<void> {
    const { pageBytes } = this.#guest;
    const pages = await this.#guest.take(batch);
    for (let i = 0; i < batch.length; i++) this.#writer.page(0, batch[i]!, pages, i * pageBytes);
    this.#unsentPages -= batch.length;
    this.#handedOverPages += batch.length;
    await this.#flush();
  }

  /** Hands the written bytes to the engine and waits until it takes more. */
  async #flush(): Promise<void> {
    this.#check();
    if (this.#output.length > 0) this.#listener?.data(this.#output.take());
    await this.#until(() => !this.#readerPaused);
  }

  async #until(isSo: () => boolean): Promise<void> {
    this.#check();
    while (!isSo()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#check();
    }
  }

  #check(): void {
    if (this.#ending !== undefined) throw new Error(this.#ending.reason);
  }

  #received(bytes: Uint8Array): void {
    for (const message of this.#returnPath.push(bytes)) {
      const verdict = shutValue(message);
      if (message.type === ReturnPathType.SWITCHOVER_ACK && this.#stoppedMs === undefined) {
        this.#mayStop = this.#cutShort = true;
      } else if (verdict === 0 && this.#handedOver && this.#ending === undefined) {
        this.#accepted = true;
        this.#downtimeMs = this.#clock.nowMs() - this.#stoppedMs!;
      } else if (verdict !== undefined) {
        const what = verdict === 0 ? "gave its verdict before the end" : "could not load the guest";
        this.#keepGuest({ outcome: "failed", reason: `the destination ${what}` });
      }
      this.#wake();
    }
  }

  /** The guest is to stay here. `#run` sees to it; before it has begun, there is nothing to be undone. */
  #keepGuest(ending: Ending): void {
    if (this.#accepted || this.#ending !== undefined) return;
    this.#ending = ending;
    if (this.#listener === undefined) this.#resolveEnded(ending);
    this.#wake();
  }

  async #takeBack(ending: Ending): Promise<OutgoingEnd> {
    try {
      if (this.wasRunning && this.#guest.isRunning === false) await this.#guest.resume();
      return ending;
    } catch (thrown) {
      const { message } = toError(thrown);
      return {
        outcome: "failed",
        reason: `${ending.reason}; the guest could not be resumed: ${message}`,
      };
    }
  }
}
