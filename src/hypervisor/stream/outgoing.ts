// A QEMU that gives its VM away, of which only the stream is known: somebody else, e.g. libvirt, has its monitor, has
// told it to migrate, and lets the guest run there or here according to how the two QEMUs say that it ended. How far it
// is, is told from the pages that come (pass-meter.ts), how it ends from what QEMU does with its connection:
//
//   closed before the destination's verdict   it failed, or was cancelled: the guest goes on here, by QEMU's own rule
//   closed after the verdict "loaded"         completed: QEMU never lets this guest run again by itself
//
// So the verdict is all that this side has to give, and closing the connection before it takes everything back.

import type { Clock } from "../../base/clock.ts";
import type {
  Channel,
  ChannelListener,
  OutgoingEnd,
  OutgoingStatus,
  OutgoingVm,
} from "../../engine/ports.ts";
import { ReturnPathReader, shutValue } from "../../stream/return-path.ts";
import type { PageObserver } from "../../trace/format.ts";
import { PassMeter } from "./pass-meter.ts";

/** How long QEMU may take to close its connection once it has its verdict. */
const COMPLETES_MS = 30_000;

export class StreamOutgoing implements OutgoingVm {
  readonly description = "a QEMU of which only the stream is known";
  readonly switchoverControl = "destination";
  readonly awaitsDestinationAck = false;
  readonly isManaged = true;
  /** Not known. One that is paused does not mind being taken for a running one. */
  readonly wasRunning = true;
  readonly ended: Promise<OutgoingEnd>;
  readonly firstPassEnded: Promise<void>;
  readonly #clock: Clock;
  readonly #channel: WatchedChannel;
  readonly #meter: PassMeter;
  #resolve!: (end: OutgoingEnd) => void;
  #verdict: number | undefined;
  #cancelTimer: () => void = () => {};
  #over = false;

  /** `channel`: what QEMU sends, from the first byte on; nobody listens to it yet. */
  constructor(channel: Channel, clock: Clock) {
    this.#clock = clock;
    this.ended = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    let firstPassEnded = () => {};
    this.firstPassEnded = new Promise((resolve) => {
      firstPassEnded = resolve;
    });
    this.#meter = new PassMeter(clock, firstPassEnded);
    this.#channel = new WatchedChannel(channel, {
      given: (verdict) => this.#given(verdict),
      closed: () => this.#closed(),
    });
  }

  /** To be told of each page. */
  get pages(): PageObserver {
    return this.#meter;
  }

  async begin(): Promise<Channel> {
    return this.#channel;
  }

  /** Nothing can be said to QEMU: it goes by the downtime that whoever manages it allows, and by how fast we read. */
  async limitSwitchover(): Promise<void> {}

  async status(): Promise<OutgoingStatus> {
    const figures = this.#meter.look(!this.#channel.isPaused);
    if (figures === undefined) return {};
    const { iteration, remainingBytes, dirtyPagesPerSecond } = figures;
    return {
      iteration,
      ...(remainingBytes === undefined ? {} : { remainingBytes }),
      ...(dirtyPagesPerSecond === undefined ? {} : { dirtyPagesPerSecond }),
    };
  }

  async cancel(): Promise<void> {
    this.#channel.destroy();
    this.#end({ outcome: "cancelled", reason: "its connection was closed here" });
  }

  /** Never needed: without a verdict QEMU lets the guest run by itself, with one it is for who manages it. */
  async resume(): Promise<void> {}

  /** As far as QEMU's own rule tells, which has no other end without the verdict "loaded". */
  async isRunning(): Promise<boolean | undefined> {
    return this.#verdict === 0 ? undefined : true;
  }

  #given(verdict: number): void {
    if (this.#verdict !== undefined || this.#over) return;
    this.#verdict = verdict;
    this.#cancelTimer = this.#clock.after(COMPLETES_MS, () => {
      const seconds = COMPLETES_MS / 1000;
      this.#end({ outcome: "failed", reason: `QEMU has not closed its connection within ${seconds} s` });
    });
  }

  #closed(): void {
    if (this.#verdict === 0) this.#end({ outcome: "completed" });
    else if (this.#verdict !== undefined) {
      this.#end({ outcome: "failed", reason: "the destination's QEMU could not load the guest" });
    } else {
      const reason =
        "QEMU has closed its connection before the destination had the guest: it was cancelled, or failed " +
        "(whoever manages it knows which)";
      this.#end({ outcome: "failed", reason });
    }
  }

  #end(end: OutgoingEnd): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancelTimer();
    this.#resolve(end);
  }
}

interface Watcher {
  /** The hypervisor is given the destination's verdict. */
  given(verdict: number): void;
  /** The hypervisor has closed its side, or has dropped the connection. */
  closed(): void;
}

/** Sees what the return path says, whether anybody keeps the stream from coming, and how it ends. */
class WatchedChannel implements Channel {
  readonly #inner: Channel;
  readonly #watcher: Watcher;
  readonly #returnPath = new ReturnPathReader();
  isPaused = false;

  constructor(inner: Channel, watcher: Watcher) {
    this.#inner = inner;
    this.#watcher = watcher;
  }

  listen(listener: ChannelListener): void {
    const space = listener.space?.bind(listener);
    this.#inner.listen({
      ...(space === undefined ? {} : { space }),
      data: (bytes) => listener.data(bytes),
      drained: () => listener.drained(),
      ended: () => {
        listener.ended();
        this.#watcher.closed();
      },
      failed: (error) => {
        listener.failed(error);
        this.#watcher.closed();
      },
    });
  }

  write(bytes: Uint8Array, written?: () => void): boolean {
    for (const message of this.#returnPath.push(bytes)) {
      const verdict = shutValue(message);
      if (verdict !== undefined) this.#watcher.given(verdict);
    }
    return this.#inner.write(bytes, written);
  }

  pause(): void {
    this.isPaused = true;
    this.#inner.pause();
  }

  resume(): void {
    this.isPaused = false;
    this.#inner.resume();
  }

  end(): void {
    this.#inner.end();
  }

  destroy(): void {
    this.#inner.destroy();
  }
}
