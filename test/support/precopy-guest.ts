// A guest of a few pages on virtual time, and a reader of its migration that takes only so much per millisecond:
// what the pre-copy loop is tested against. Both watch what the loop does to them.

import type { VirtualClock } from "../../src/base/clock.ts";
import type { Channel, ChannelListener } from "../../src/engine/ports.ts";
import type { PrecopyGuest } from "../../src/engine/precopy/precopy.ts";
import { ReturnPathType } from "../../src/stream/format.ts";
import { type StreamBlock, StreamReader } from "../../src/stream/reader.ts";
import { returnPathMessage } from "../../src/stream/return-path.ts";

const PAGE_BYTES = 4096;
const DEVICE_STATE = Buffer.from("state of the devices");

export type GuestCall = "forgetTaken" | "scan" | "take" | "stop" | "resume" | "deviceState";

export interface FakeGuestOptions {
  pageCount?: number;
  isRunning?: boolean;
  /** What the guest writes in a millisecond in which it runs. */
  work?: (guest: FakeGuest, ms: number) => void;
  /** At the begin of each call, of which it is the `count`th with its name. May throw, or take its time. */
  onCall?: (call: GuestCall, count: number) => void | Promise<void>;
}

export class FakeGuest implements PrecopyGuest {
  readonly description = "fake";
  readonly machine = "fake";
  readonly pageBytes = PAGE_BYTES;
  readonly batchPages = 4;
  readonly block: StreamBlock;
  readonly memory: Buffer;
  readonly calls: GuestCall[] = [];
  /** Calls that were made before the one before them had ended. */
  overlapping = 0;
  isRunning: boolean | undefined;
  readonly #taken: Buffer;
  readonly #options: FakeGuestOptions;
  #busy = false;
  #writes = 0;

  constructor(options: FakeGuestOptions = {}) {
    const { pageCount = 32, isRunning = true } = options;
    this.#options = options;
    this.isRunning = isRunning;
    this.block = { idstr: "ram", lengthBytes: pageCount * PAGE_BYTES };
    this.memory = Buffer.alloc(this.block.lengthBytes);
    // Of another migration, which failed.
    this.#taken = Buffer.alloc(this.block.lengthBytes, 0xaa);
    for (let pageIndex = 0; pageIndex < pageCount; pageIndex += 2) this.write(pageIndex);
  }

  get pageCount(): number {
    return this.block.lengthBytes / PAGE_BYTES;
  }

  /** The page is different from all that it was before. */
  write(pageIndex: number): void {
    this.memory.writeUInt32LE(++this.#writes, pageIndex * PAGE_BYTES + (this.#writes % 1000) * 4);
  }

  /** Lets a millisecond pass. */
  live(ms: number): void {
    if (this.isRunning) this.#options.work?.(this, ms);
  }

  forgetTaken(): Promise<void> {
    return this.#call("forgetTaken", () => void this.#taken.fill(0));
  }

  scan(): Promise<Uint32Array> {
    return this.#call("scan", () => {
      const dirty: number[] = [];
      for (let i = 0; i < this.pageCount; i++) {
        const [start, end] = [i * PAGE_BYTES, (i + 1) * PAGE_BYTES];
        if (this.memory.compare(this.#taken, start, end, start, end) !== 0) dirty.push(i);
      }
      return Uint32Array.from(dirty);
    });
  }

  take(pageIndices: Uint32Array): Promise<Uint8Array> {
    return this.#call("take", () => {
      const pages = Buffer.alloc(this.batchPages * PAGE_BYTES);
      pageIndices.forEach((pageIndex, i) => {
        const start = pageIndex * PAGE_BYTES;
        this.memory.copy(this.#taken, start, start, start + PAGE_BYTES);
        this.memory.copy(pages, i * PAGE_BYTES, start, start + PAGE_BYTES);
      });
      return pages;
    });
  }

  stop(): Promise<void> {
    return this.#call("stop", () => {
      this.isRunning = false;
    });
  }

  resume(): Promise<void> {
    return this.#call("resume", () => {
      this.isRunning = true;
    });
  }

  deviceState(): Promise<Uint8Array> {
    return this.#call("deviceState", () => DEVICE_STATE);
  }

  async #call<Result>(call: GuestCall, work: () => Result): Promise<Result> {
    if (this.#busy) this.overlapping++;
    this.#busy = true;
    try {
      this.calls.push(call);
      await this.#options.onCall?.(call, this.calls.filter((name) => name === call).length);
      return work();
    } finally {
      this.#busy = false;
    }
  }
}

export interface FakeReaderOptions {
  /** Takes at once what it gets, and then nothing for as long as the link would need. */
  bytesPerMs?: number;
  /** Called when the stream says that the guest has stopped. */
  onStopped?: () => void;
  /** Called when everything has been read. */
  onComplete?: (reader: FakeReader) => void;
}

/** The source engine, as the loop sees it. */
export class FakeReader implements ChannelListener {
  readonly memory: Buffer;
  readonly stream: Buffer[] = [];
  /** Pages and zero pages, by the section that they came in. */
  readonly sections: { pages: number[]; zeroPages: number[] }[] = [];
  /** The stream was complete, with the device state in it. */
  complete = false;
  closed = false;
  dataAfterClose = 0;
  readonly #channel: Channel;
  readonly #clock: VirtualClock;
  readonly #options: FakeReaderOptions;
  readonly #reader: StreamReader;
  #tail: Buffer | undefined;

  constructor(channel: Channel, guest: FakeGuest, clock: VirtualClock, options: FakeReaderOptions = {}) {
    this.#channel = channel;
    this.#clock = clock;
    this.#options = options;
    // RAM of a destination may hold something before the migration.
    this.memory = Buffer.alloc(guest.block.lengthBytes, 0x55);
    this.#reader = new StreamReader({
      verbatim: (bytes, start, end) => {
        if (this.#tail !== undefined) this.#tail = Buffer.concat([this.#tail, bytes.subarray(start, end)]);
      },
      ramBlocks: () => {},
      ramSection: () => this.sections.push({ pages: [], zeroPages: [] }),
      ramSectionEnd: () => {},
      zeroPage: (_block, pageIndex) => {
        this.sections.at(-1)!.zeroPages.push(pageIndex);
        this.memory.fill(0, pageIndex * PAGE_BYTES, (pageIndex + 1) * PAGE_BYTES);
      },
      page: (_block, pageIndex, bytes, offset) => {
        this.sections.at(-1)!.pages.push(pageIndex);
        this.memory.set(bytes.subarray(offset, offset + PAGE_BYTES), pageIndex * PAGE_BYTES);
      },
      xbzrlePage: () => {},
      command: () => {},
      stopped: () => this.#options.onStopped?.(),
      deviceState: () => {
        this.#tail = Buffer.alloc(0);
      },
      opaque: (reason) => {
        throw new Error(`Not understood: ${reason}`);
      },
    });
    channel.listen(this);
  }

  get streamBytes(): number {
    return this.stream.reduce((sum, { length }) => sum + length, 0);
  }

  data(bytes: Uint8Array): void {
    if (this.closed) this.dataAfterClose++;
    this.stream.push(Buffer.from(bytes));
    this.#reader.push(bytes);
    const { bytesPerMs } = this.#options;
    if (bytesPerMs !== undefined) {
      this.#channel.pause();
      this.#clock.after(bytes.length / bytesPerMs, () => this.#channel.resume());
    }
    if (this.complete || !this.#tail?.includes(DEVICE_STATE)) return;
    this.complete = true;
    this.#options.onComplete?.(this);
  }

  acknowledgeSwitchover(): void {
    this.#channel.write(returnPathMessage(ReturnPathType.SWITCHOVER_ACK));
  }

  /** 0: loaded. */
  verdict(value: number): void {
    this.#channel.write(returnPathMessage(ReturnPathType.SHUT, value));
  }

  close(): void {
    this.closed = true;
    this.#channel.destroy();
  }

  drained(): void {}
  ended(): void {}
  failed(): void {}
}

/** Lets time pass, a millisecond at a time, and between them whatever waits for nothing but its turn. */
export async function live(clock: VirtualClock, guest: FakeGuest, ms: number): Promise<void> {
  for (let i = 0; i < ms; i++) {
    await new Promise(setImmediate);
    guest.live(clock.nowMs());
    clock.advance(1);
  }
  await new Promise(setImmediate);
}
