// The hypervisor's stream on its way in: what its channel brings is read as fast as the link takes it, and the channel
// is stopped where the link does not. Measures what handing over takes, and leaves pages alone where looking at them is
// what holds the link up. Knows nothing of how a migration begins or ends.

import type { Clock } from "../../base/clock.ts";
import { toError } from "../../base/errors.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import type { StreamReader } from "../../stream/reader.ts";
import type { Channel } from "../ports.ts";
import type { SourceLink } from "../transport/source-link.ts";
import type { BypassJudge } from "./bypass.ts";
import { InputBuffer } from "./input-buffer.ts";

export interface StreamIntakeOptions {
  memory: KernelMemory;
  clock: Clock;
  /** Runs `callback` after the events that are already waiting. */
  defer: (callback: () => void) => void;
  /** Its handler has put what it reads into the link's sink when it returns. */
  reader: StreamReader;
  link: SourceLink;
  /** Undefined: pages are never looked at anyway. */
  bypassJudge: BypassJudge | undefined;
  /** From here on what comes is to be sent as it is, or no longer. */
  bypass: (wanted: boolean) => void;
  /** The guest runs, and so many passes over its RAM are over; undefined: it has stopped. */
  pass: () => number | undefined;
  failed: (error: Error) => void;
}

/** Input is taken in pieces of at most this, so that the window is looked at often enough on a slow link. */
const TURN_BYTES = 256 * 1024;
/** A hypervisor that is silent for longer has nothing to hand over; it is not slow. */
const HANDOVER_GAP_MS_MAX = 20;
/** How often it is considered whether pages are to be left alone: a read may come every 50 us. */
const CONSIDER_EVERY_MS = 5;

export class StreamIntake {
  readonly #options: StreamIntakeOptions;
  readonly #input: InputBuffer;
  #channel: Channel | undefined;
  #handedOverBytes = 0;
  /** Time that handing over has taken, our work on it included, and from when on the next may come. */
  #handoverMs = 0;
  #handoverFromMs = 0;
  /** Of that, the work. */
  #busyMs = 0;
  /** What a channel of its own bytes has brought and the input had no room for; valid until it is resumed. */
  #rest: Uint8Array | undefined;
  /** Of the input: the beginning of an element, of which more must come. */
  #lookedAtBytes = 0;
  #consideredMs = Number.NEGATIVE_INFINITY;
  #isPumping = false;
  #paused = false;
  #idleAsked = false;
  #over = false;

  constructor(options: StreamIntakeOptions) {
    this.#options = options;
    this.#input = new InputBuffer(options.memory);
    if (options.bypassJudge !== undefined) options.bypass(options.bypassJudge.bypasses);
  }

  get handedOverBytes(): number {
    return this.#handedOverBytes;
  }

  get handoverMs(): number {
    return this.#handoverMs;
  }

  /** Takes the stream from there. How a migration ended its hypervisor tells otherwise than by closing. */
  from(channel: Channel): void {
    this.#channel = channel;
    channel.listen({
      space: () => this.#input.space(),
      data: (bytes) => this.#received(bytes),
      drained: () => {},
      ended: () => {},
      failed: () => {},
    });
  }

  /** What has been read and waits is no more than this from now on. */
  limitReads(bytes: number): void {
    this.#input.limitReads(bytes);
  }

  /** Whatever still comes is dropped. */
  end(): void {
    this.#over = true;
  }

  /**
   * What waits is dropped as well, and the hypervisor never waits again. QEMU hands over the end of its stream with its
   * lock held: one that stands still in a write hears nothing, and does not let the guest go on.
   */
  drop(): void {
    this.end();
    this.#input.taken(this.#input.tail);
    this.#rest = undefined;
    this.#channel?.resume();
  }

  #received(bytes: Uint8Array): void {
    if (this.#over) return;
    const gapMs = this.#options.clock.nowMs() - this.#handoverFromMs;
    if (gapMs <= HANDOVER_GAP_MS_MAX) this.#handoverMs += gapMs;
    this.#handedOverBytes += bytes.length;
    if (bytes.buffer === this.#input.bytes.buffer) this.#input.filled(bytes.length);
    else this.#rest = this.#rest === undefined ? bytes : Buffer.concat([this.#rest, bytes]);
    this.pump();
  }

  /** Takes input while the link has room; otherwise asks the hypervisor's side to wait. */
  pump(): void {
    if (this.#over || this.#isPumping) return;
    // What is sent may make room by itself, which must not begin this anew in the middle of it.
    this.#isPumping = true;
    try {
      this.#take();
    } catch (thrown) {
      this.#options.failed(toError(thrown));
      return;
    } finally {
      this.#isPumping = false;
    }
    if (this.#over) return;
    const waits = this.#hasWork;
    if (waits && !this.#paused) {
      this.#paused = true;
      this.#channel?.pause();
    } else if (!waits && this.#paused) {
      this.#paused = false;
      this.#channel?.resume();
    }
    this.#askIdle();
  }

  /** There is input that was not looked at yet; the beginning of an element that was does not count. */
  get #hasWork(): boolean {
    return this.#rest !== undefined || this.#input.lengthBytes > this.#lookedAtBytes;
  }

  #take(): void {
    const { clock, reader, link } = this.#options;
    const startMs = clock.nowMs();
    const input = this.#input;
    this.#refill();
    while (this.#hasWork && link.hasRoom && !this.#over) {
      const stopAt = Math.min(input.tail, input.head + Math.min(TURN_BYTES, link.turnBytes));
      const position = reader.consume(input.bytes, input.head, input.tail, stopAt);
      // Nothing could be read, although there was room: the element is not complete.
      this.#lookedAtBytes = position === input.head && link.hasRoom ? input.lengthBytes : 0;
      input.taken(position);
      link.flush(false);
      this.#refill();
    }
    this.#handoverFromMs = clock.nowMs();
    this.#handoverMs += this.#handoverFromMs - startMs;
    this.#busyMs += this.#handoverFromMs - startMs;
    this.#considerBypass(this.#handoverFromMs);
  }

  #considerBypass(nowMs: number): void {
    if (nowMs - this.#consideredMs < CONSIDER_EVERY_MS) return;
    this.#consideredMs = nowMs;
    const { bypassJudge, pass, link, bypass } = this.#options;
    const passes = bypassJudge === undefined ? undefined : pass();
    if (bypassJudge === undefined || passes === undefined) return;
    link.worked({ elapsedMs: nowMs, busyMs: this.#busyMs });
    const { limit, linkBytesPerSecond } = link.figures;
    const progress = {
      ...{ nowMs, linkBytesPerSecond },
      ...{ isLinkKnown: limit === "link", isDestinationLimit: limit === "destination" },
      ...{ handedOverBytes: this.#handedOverBytes, busyMs: this.#busyMs },
      pass: passes,
    };
    bypass(bypassJudge.judge(progress));
  }

  #refill(): void {
    if (this.#rest === undefined) return;
    const copied = this.#input.append(this.#rest);
    this.#rest = copied === this.#rest.length ? undefined : this.#rest.subarray(copied);
  }

  /** When nothing more comes at once, what waits for a fuller batch must go: it may be all there is. */
  #askIdle(): void {
    const { link, defer, failed } = this.#options;
    if (this.#idleAsked || link.figures.waitingBytes === 0) return;
    this.#idleAsked = true;
    defer(() => {
      this.#idleAsked = false;
      if (this.#over || this.#hasWork) return;
      try {
        link.flush(true);
      } catch (thrown) {
        failed(toError(thrown));
      }
    });
  }
}
