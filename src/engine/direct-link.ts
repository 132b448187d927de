// Direct mode: a stock QEMU is at the other end and nothing of ours. What it has loaded is known all the
// same: PING commands that we put into the stream between sections come back as PONGs on the return path.
// They serve the delivery window as acknowledgements and are never shown to the source.

import type { Clock } from "../base/clock.ts";
import { pongValue, ReturnPathReader } from "../stream/return-path.ts";
import type { StreamWriter } from "../stream/writer.ts";
import type { Channel } from "./ports.ts";
import type { LinkFigures, SourceLink, SourceLinkListener } from "./source-link.ts";
import { DeliveryWindow } from "./window.ts";

/** Values of our PINGs: QEMU itself uses 1 to 4. */
const PING_VALUE_BASE = 0x44560000;
const PING_VALUE_MASK = 0xffff;
/** A PING costs 32 bytes: one per this many is 0.2 %. */
const MARK_EVERY_BYTES = 16 * 1024;

export class DirectLink implements SourceLink {
  readonly #channel: Channel;
  readonly #listener: SourceLinkListener;
  readonly #window: DeliveryWindow;
  readonly #returnPath = new ReturnPathReader();
  #wireBytes = 0;
  #unmarkedBytes = 0;
  #pingsSent = 0;
  #pongsReceived = 0;
  #pingAllowed = false;
  #windowLifted = false;
  #blocked = false;

  constructor(channel: Channel, clock: Clock, listener: SourceLinkListener) {
    this.#channel = channel;
    this.#listener = listener;
    this.#window = new DeliveryWindow(clock);
    channel.listen({
      data: (bytes) => this.#received(bytes),
      drained: () => {
        this.#blocked = false;
        listener.room();
      },
      ended: () => listener.ended(),
      failed: (error) => listener.failed(error),
    });
  }

  get hasRoom(): boolean {
    if (this.#blocked) return false;
    // Without pings nothing is ever acknowledged: back-pressure of the connection must do.
    return this.#windowLifted || !this.#pingAllowed || this.#window.hasRoom;
  }

  get figures(): LinkFigures {
    return {
      wireBytes: this.#wireBytes,
      inFlightBytes: this.#pingAllowed ? this.#window.inFlightBytes : 0,
      windowBytes: this.#window.windowBytes,
      linkBytesPerSecond: this.#window.linkBytesPerSecond,
      roundTripMs: this.#window.roundTripMs,
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

  flush(writer: StreamWriter, idle: boolean): void {
    const waiting = writer.output.length;
    if (waiting > 0) {
      const due = this.#unmarkedBytes + waiting >= MARK_EVERY_BYTES || this.#window.unansweredMarkers === 0;
      const marks =
        this.#pingAllowed &&
        !this.#windowLifted &&
        due &&
        this.#window.mayMark &&
        writer.ping(PING_VALUE_BASE + (this.#pingsSent & PING_VALUE_MASK));
      const bytes = writer.output.take();
      this.#wireBytes += bytes.length;
      this.#unmarkedBytes += bytes.length;
      this.#window.sent(bytes.length);
      if (marks) {
        this.#pingsSent++;
        this.#unmarkedBytes = 0;
        this.#window.marked(idle);
      }
      this.#blocked = !this.#channel.write(bytes);
    }
  }

  liftWindow(): void {
    this.#windowLifted = true;
  }

  destroy(): void {
    this.#channel.destroy();
  }

  #received(bytes: Uint8Array): void {
    for (const message of this.#returnPath.push(bytes)) {
      const value = pongValue(message);
      const expected = PING_VALUE_BASE + (this.#pongsReceived & PING_VALUE_MASK);
      if (value === expected && this.#pongsReceived < this.#pingsSent) {
        this.#pongsReceived++;
        this.#window.acknowledged();
        this.#listener.room();
      } else {
        this.#listener.returnPath(message.bytes);
      }
    }
  }
}
