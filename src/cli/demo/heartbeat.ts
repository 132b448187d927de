// The guest seen from outside: its serial line, which begins on the source and goes on at the destination, as lines;
// its heartbeats among them, whether their counter is unbroken, and how long the guest stood still. Sets no timer.
// Lines: guest/README.md.

import type { Side } from "./messages.ts";

export interface Beat {
  readonly side: Side;
  readonly counter: number;
  readonly hostMs: number;
  /** Since the beat before, on whichever side that was; 0 for the first. */
  readonly gapMs: number;
}

/** What comes right after the guest's arrival belongs to its downtime: it may stumble before it walks. */
const ARRIVAL_MS = 1000;

export interface SerialWatchListener {
  beat(beat: Beat): void;
  /** Any other line. */
  line(line: string): void;
}

export class SerialWatch {
  readonly #listener: SerialWatchListener;
  /** A line that begins on the source may end at the destination: one guest, one line. */
  #unfinished = "";
  #last: Beat | undefined;
  #arrivedMs: number | undefined;
  #downtimeMs: number | undefined;
  #broken: string | undefined;

  constructor(listener: SerialWatchListener) {
    this.#listener = listener;
  }

  get last(): Beat | undefined {
    return this.#last;
  }

  /** Longest gap from the last beat on the source until a moment after the first at the destination. */
  get downtimeMs(): number | undefined {
    return this.#downtimeMs;
  }

  /** Why the guest at the destination is not the guest of the source going on; undefined as long as it is. */
  get broken(): string | undefined {
    return this.#broken;
  }

  /** Takes what was written on a side, cut anywhere; `hostMs` is when its end was written. */
  push(side: Side, text: string, hostMs: number): void {
    const lines = `${this.#unfinished}${text}`.split("\n");
    this.#unfinished = lines.pop() ?? "";
    for (const line of lines) this.#line(side, line.trimEnd(), hostMs);
  }

  #line(side: Side, line: string, hostMs: number): void {
    const match = /^HB (\d+) \d+ \d+$/.exec(line);
    if (match === null) {
      this.#listener.line(line);
      return;
    }
    const counter = Number(match[1]);
    const last = this.#last;
    const beat: Beat = {
      side,
      counter,
      hostMs,
      gapMs: last === undefined ? 0 : Math.max(0, hostMs - last.hostMs),
    };
    this.#last = beat;
    if (last !== undefined && counter !== last.counter + 1) {
      this.#broken ??= `heartbeat ${counter} (${side}) came after ${last.counter} (${last.side})`;
    }
    if (side === "destination") this.#arrived(beat);
    else if (this.#arrivedMs !== undefined) this.#broken ??= "the guest ran on the source after it had left";
    this.#listener.beat(beat);
  }

  #arrived(beat: Beat): void {
    this.#arrivedMs ??= beat.hostMs;
    if (beat.hostMs - this.#arrivedMs > ARRIVAL_MS) return;
    this.#downtimeMs = Math.max(this.#downtimeMs ?? 0, beat.gapMs);
  }
}
