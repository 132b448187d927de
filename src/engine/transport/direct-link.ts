// Direct mode: a stock QEMU is at the other end and nothing of ours. What it has loaded is known all the
// same: PING commands that we put into the stream between sections come back as PONGs on the return path.
// They serve the delivery window as acknowledgements and are never shown to the source.

import type { Clock } from "../../base/clock.ts";
import { LinkError } from "../../base/errors.ts";
import { pongValue, ReturnPathReader, shutValue } from "../../stream/return-path.ts";
import type { Pace } from "../../wire/frame.ts";
import type { StreamSink } from "../pages/stream-sink.ts";
import type { Channel } from "../ports.ts";
import { Bottleneck } from "./bottleneck.ts";
import type { LinkFigures, SourceLink, SourceLinkListener } from "./source-link.ts";
import { DeliveryWindow } from "./window.ts";

/** Values of our PINGs: QEMU itself uses 1 to 4. */
const PING_VALUE_BASE = 0x44560000;
const PING_VALUE_MASK = 0xffff;
/** What is worth a write of its own while the hypervisor has more to say. */
const WRITE_BYTES_MIN = 64 * 1024;
/**
 * A destination that gives no sign of life for this long when one is due is dead, or the link to it is: no
 * answer to a PING, or, once the guest is stopped, neither bytes taken nor a verdict.
 */
export const SILENT_MS = 30_000;

export class DirectLink implements SourceLink {
  readonly #channel: Channel;
  readonly #clock: Clock;
  readonly #sink: StreamSink;
  readonly #listener: SourceLinkListener;
  readonly #window: DeliveryWindow;
  /** Of the source alone: a stock hypervisor does not say how busy it is. */
  readonly #bottleneck = new Bottleneck();
  readonly #returnPath = new ReturnPathReader();
  #wireBytes = 0;
  #unmarkedBytes = 0;
  #pingsSent = 0;
  #pongsReceived = 0;
  #pingAllowed = false;
  #windowLifted = false;
  #blocked = false;
  /** Last sign of life, or when one began to be due. */
  #heardMs = 0;
  /** Set while a sign of life is due, and only then: it must not outlive the migration. */
  #cancelWatch: (() => void) | undefined;

  constructor(channel: Channel, clock: Clock, sink: StreamSink, listener: SourceLinkListener) {
    this.#channel = channel;
    this.#sink = sink;
    this.#clock = clock;
    this.#listener = listener;
    this.#window = new DeliveryWindow(clock);
    channel.listen({
      data: (bytes) => this.#received(bytes),
      drained: () => {
        this.#blocked = false;
        this.#heardMs = clock.nowMs();
        listener.room();
      },
      ended: () => listener.ended(),
      failed: (error) => this.#failed(error),
    });
  }

  get hasRoom(): boolean {
    if (this.#blocked || this.#sink.isFull) return false;
    // Without pings nothing is ever acknowledged: back-pressure of the connection must do. So it must as long as
    // none could be sent, as in the START section.
    if (this.#windowLifted || !this.#pingAllowed || this.#window.unansweredMarkers === 0) return true;
    return this.#window.hasRoom;
  }

  get turnBytes(): number {
    return this.#window.turnBytes;
  }

  get figures(): LinkFigures {
    return {
      wireBytes: this.#wireBytes,
      inFlightBytes: this.#pingAllowed ? this.#window.inFlightBytes : 0,
      waitingBytes: this.#sink.pendingBytes,
      windowBytes: this.#window.windowBytes,
      shortQueueBytes: this.#window.shortBytes,
      linkBytesPerSecond: this.#window.linkBytesPerSecond,
      isLinkKnown: this.#window.isLinkKnown,
      limit: this.#bottleneck.limit(this.#window.isLinkKnown),
      // That would be the end.
      isLost: false,
      roundTripMs: this.#window.currentRoundTripMs,
    };
  }

  /** The destination has been told to open the return path: from now on it answers. */
  allowPings(): void {
    this.#pingAllowed = true;
  }

  /** Sections are no longer ours to split: no more pings, and nothing to wait for. */
  forbidPings(): void {
    this.#pingAllowed = false;
  }

  flush(idle: boolean): void {
    const window = this.#window;
    const sink = this.#sink;
    if (!sink.isWritable) return;
    // A region of the sink is written as a whole: crumbs would use them up.
    if (!idle && sink.pendingBytes < Math.min(WRITE_BYTES_MIN, window.turnBytes)) return;
    const unmarkedBytes = this.#unmarkedBytes + sink.pendingBytes;
    // With nothing unanswered even a little is worth a PING: it would count as under way for ever.
    const due = unmarkedBytes >= window.turnBytes || (unmarkedBytes > 0 && window.unansweredMarkers === 0);
    const marks =
      due &&
      this.#pingAllowed &&
      !this.#windowLifted &&
      window.mayMark &&
      sink.writer.ping(PING_VALUE_BASE + (this.#pingsSent & PING_VALUE_MASK));
    if (sink.pendingBytes === 0) return;
    const { bytes, release } = sink.take();
    this.#wireBytes += bytes.length;
    this.#unmarkedBytes += bytes.length;
    window.sent(bytes.length);
    this.#blocked = !this.#channel.write(bytes, () => {
      const wasFull = sink.isFull;
      release();
      if (wasFull) this.#listener.room();
    });
    if (this.#windowLifted && !this.#blocked) this.#heardMs = this.#clock.nowMs();
    if (!marks) return;
    this.#pingsSent++;
    this.#unmarkedBytes = 0;
    window.marked(this.#blocked);
    this.#expectAnswer();
  }

  shortenQueue(): void {
    this.#window.shorten();
  }

  liftWindow(): void {
    this.#windowLifted = true;
    this.#expectAnswer();
  }

  beginPostcopy(): void {
    this.#windowLifted = false;
  }

  /** Nobody at the other end would read over it. */
  rehearse(): boolean {
    return false;
  }

  worked(pace: Pace): void {
    this.#bottleneck.sourcePaced(pace, this.#window.isLinkKnown);
  }

  /** Nothing to be spared here: records are not coded any further. */
  bypass(): void {}

  destroy(): void {
    this.#stopWatching();
    this.#channel.destroy();
  }

  #expectAnswer(): void {
    if (this.#cancelWatch !== undefined) return;
    this.#heardMs = this.#clock.nowMs();
    this.#watch(SILENT_MS);
  }

  #watch(ms: number): void {
    this.#cancelWatch = this.#clock.after(ms, () => {
      const silentMs = this.#clock.nowMs() - this.#heardMs;
      if (silentMs < SILENT_MS) {
        this.#watch(SILENT_MS - silentMs);
        return;
      }
      const text = `Nothing heard from the destination for ${SILENT_MS / 1000} s`;
      this.#failed(new LinkError("LINK_TIMEOUT", text));
    });
  }

  #stopWatching(): void {
    this.#cancelWatch?.();
    this.#cancelWatch = undefined;
  }

  #failed(error: Error): void {
    this.#stopWatching();
    this.#listener.failed(error);
  }

  #received(bytes: Uint8Array): void {
    this.#heardMs = this.#clock.nowMs();
    for (const message of this.#returnPath.push(bytes)) {
      const value = pongValue(message);
      const expected = PING_VALUE_BASE + (this.#pongsReceived & PING_VALUE_MASK);
      if (value === expected && this.#pongsReceived < this.#pingsSent) {
        this.#pongsReceived++;
        this.#window.acknowledged();
        if (this.#window.unansweredMarkers === 0 && !this.#windowLifted) this.#stopWatching();
        this.#listener.room();
      } else {
        // The verdict is the last thing that is due.
        if (shutValue(message) !== undefined) this.#stopWatching();
        this.#listener.returnPath(message.bytes);
      }
    }
  }
}
