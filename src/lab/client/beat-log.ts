// The heartbeats that a client has received, and what follows from them. Knows nothing of sockets.

import { assert } from "../../base/assert.ts";
import type { ClientSeries, ClientView } from "../model.ts";

/** Four integers: lab/guest/heartbeat.c. */
const BEAT_BYTES = 32;
/** A beat each 2 ms for half an hour; in the next one every other beat is kept, then every fourth for two hours, ... */
const BEATS_MAX = 1_000_000;
const SERIES_POINTS_MAX = 200;
/** A guest that has not been heard of for so long when all ends is not there any more. */
const SILENCE_MS_MAX = 1_000;
/** Beats in a row whose mean speed is one point, at least: single ones tell of the client's own pauses too. */
const SERIES_STEP_MS_MIN = 100;

/** What happened when: the migration, and the end of listening. */
export interface BeatTimes {
  readonly beganMs: number;
  readonly endedMs: number;
  readonly finishedMs: number;
}

/** Of a stretch of time: the guest's share of beats sent of those due, and the mean work time of a beat. */
interface Speed {
  readonly sentShare: number;
  readonly workMs: number;
}

export class BeatLog {
  /** By the order of arrival; what a beat says of itself, as far as integers up to 2^53 go. */
  #receivedMs = new Float64Array(1024);
  #counter = new Float64Array(1024);
  #due = new Float64Array(1024);
  #spentMs = new Float64Array(1024);
  /** How many had arrived with it, and the longest time without one since the beat that is kept before it. */
  #arrived = new Float64Array(1024);
  #gapMs = new Float64Array(1024);
  readonly #beatsMax: number;
  #arrivals = 0;
  /** One of so many beats is kept, the last one always; and of how many the last one stands for. */
  #stride = 1;
  #inLast = 1;
  /** Of those that are kept. */
  count = 0;

  /** `beatsMax`: even. Bounds what is kept, not how long it goes on. */
  constructor(beatsMax: number = BEATS_MAX) {
    this.#beatsMax = beatsMax;
  }

  /** A datagram that is no heartbeat, or one that was overtaken by a later, is left out. */
  add(datagram: Uint8Array, receivedMs: number): void {
    if (datagram.length !== BEAT_BYTES) return;
    const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.length);
    const [counter, due, spentNs] = [0, 16, 24].map((at) => Number(view.getBigUint64(at))) as [
      number,
      number,
      number,
    ];
    if (this.count > 0 && counter <= this.#counter[this.count - 1]!) return;
    const gapMs = this.count === 0 ? 0 : receivedMs - this.#receivedMs[this.count - 1]!;
    this.#makeRoom();
    const at = this.count - 1;
    this.#receivedMs[at] = receivedMs;
    this.#counter[at] = counter;
    this.#due[at] = due;
    this.#spentMs[at] = spentNs / 1e6;
    this.#arrived[at] = ++this.#arrivals;
    this.#gapMs[at] = Math.max(this.#gapMs[at]!, gapMs);
  }

  /** For one more beat, behind the last one or in its place. */
  #makeRoom(): void {
    const isFull = this.#inLast === this.#stride;
    if (isFull && this.count === this.#beatsMax) this.#thinOut();
    if (this.count > 0 && this.#inLast < this.#stride) {
      this.#inLast++;
      return;
    }
    if (this.count === this.#counter.length) this.#grow();
    this.#gapMs[this.count] = 0;
    this.#inLast = 1;
    this.count++;
  }

  view({ beganMs, endedMs, finishedMs }: BeatTimes): ClientView {
    const [began, ended] = [this.#firstFrom(beganMs), this.#firstFrom(endedMs)];
    // The guest is at its destination before its mover knows of it, and may stand still after it: until the end.
    const gap = this.#largestGap(Math.max(1, began), this.count);
    if (gap === undefined) return { metrics: {}, failures: ["no heartbeat of the guest"], series: [] };
    const metrics: Record<string, number> = {
      heartbeatGapMs: gap.ms,
      heartbeatGapEndEpochMs: this.#receivedMs[gap.at]!,
      heartbeatsLost: this.#lost(Math.max(0, began - 1), this.count - 1),
    };
    const quiet = this.#largestGap(1, began);
    if (quiet !== undefined) metrics.heartbeatGapMsBefore = quiet.ms;
    const slowdown = this.#slowdown(began, ended, gap.at);
    if (slowdown !== undefined) metrics.slowdownShare = slowdown;
    const silentMs = finishedMs - this.#receivedMs[this.count - 1]!;
    const isSilent = silentMs > SILENCE_MS_MAX;
    // How long it would have lasted nobody knows, but longer than any gap that ended.
    if (isSilent) for (const name of ["heartbeatGapMs", "heartbeatGapEndEpochMs"]) delete metrics[name];
    const failures = isSilent ? [`no heartbeat in the last ${Math.round(silentMs)} ms`] : [];
    return { metrics, failures, series: this.#series() };
  }

  /** How much less the guest did while it was being moved; its longest pause, which is told apart, is left out. */
  #slowdown(began: number, ended: number, gapAt: number): number | undefined {
    const before = this.#speed([[0, began]]);
    const isGapWithin = gapAt > began && gapAt < ended;
    const during = this.#speed(
      isGapWithin
        ? [
            [began, gapAt],
            [gapAt, ended],
          ]
        : [[began, ended]],
    );
    if (before === undefined || during === undefined) return undefined;
    return 1 - (during.sentShare / before.sentShare) * (before.workMs / during.workMs);
  }

  /** Of stretches of beats [from, to); undefined: too short. */
  #speed(stretches: readonly (readonly [number, number])[]): Speed | undefined {
    let [sent, due, workMs] = [0, 0, 0];
    for (const [from, to] of stretches) {
      if (to - from < 2) continue;
      sent += this.#counter[to - 1]! - this.#counter[from]!;
      due += this.#due[to - 1]! - this.#due[from]!;
      workMs += this.#spentMs[to - 1]! - this.#spentMs[from]!;
    }
    if (sent === 0 || due === 0 || workMs === 0) return undefined;
    return { sentShare: sent / due, workMs: workMs / sent };
  }

  /** Beats that were sent and have not arrived, between two that have. */
  #lost(from: number, to: number): number {
    if (to <= from) return 0;
    return this.#counter[to]! - this.#counter[from]! - (this.#arrived[to]! - this.#arrived[from]!);
  }

  /** The longest time without a beat that ended with one of [from, to). */
  #largestGap(from: number, to: number): { ms: number; at: number } | undefined {
    let largest: { ms: number; at: number } | undefined;
    for (let at = from; at < to; at++) {
      const ms = this.#gapMs[at]!;
      if (largest === undefined || ms > largest.ms) largest = { ms, at };
    }
    return largest;
  }

  #firstFrom(epochMs: number): number {
    let at = 0;
    while (at < this.count && this.#receivedMs[at]! < epochMs) at++;
    return at;
  }

  /** The longest gap in each step of time, and the guest's speed in it, as a share of its best. */
  #series(): ClientSeries[] {
    const [firstMs, lastMs] = [this.#receivedMs[0]!, this.#receivedMs[this.count - 1]!];
    const stepMs = Math.max(SERIES_STEP_MS_MIN, (lastMs - firstMs) / SERIES_POINTS_MAX);
    const gaps: { epochMs: number; value: number }[] = [];
    const speeds: { epochMs: number; value: number }[] = [];
    for (let from = 1; from < this.count; ) {
      let to = from + 1;
      while (to < this.count && this.#receivedMs[to]! - this.#receivedMs[from]! < stepMs) to++;
      const epochMs = this.#receivedMs[to - 1]!;
      gaps.push({ epochMs, value: this.#largestGap(from, to)?.ms ?? 0 });
      const speed = this.#speed([[from - 1, to]]);
      if (speed !== undefined) speeds.push({ epochMs, value: speed.sentShare / speed.workMs });
      from = to;
    }
    assert(gaps.length <= SERIES_POINTS_MAX + 2, `${gaps.length} points`);
    const best = Math.max(...speeds.map(({ value }) => value));
    const shares = speeds.map(({ epochMs, value }) => ({ epochMs, value: value / best }));
    return [
      { name: "heartbeat gap", unit: "ms", points: gaps },
      { name: "speed of the guest", unit: "of its best", points: shares },
    ];
  }

  /** Makes room: of each pair the later beat stays, with the longer of both gaps. */
  #thinOut(): void {
    this.count /= 2;
    this.#stride *= 2;
    this.#inLast = this.#stride;
    for (let at = 0; at < this.count; at++) {
      const [first, second] = [2 * at, 2 * at + 1];
      this.#gapMs[at] = Math.max(this.#gapMs[first]!, this.#gapMs[second]!);
      for (const values of [this.#receivedMs, this.#counter, this.#due, this.#spentMs, this.#arrived])
        values[at] = values[second]!;
    }
  }

  #grow(): void {
    const grown = (values: Float64Array): Float64Array<ArrayBuffer> => {
      const longer = new Float64Array(values.length * 2);
      longer.set(values);
      return longer;
    };
    this.#receivedMs = grown(this.#receivedMs);
    this.#counter = grown(this.#counter);
    this.#due = grown(this.#due);
    this.#spentMs = grown(this.#spentMs);
    this.#arrived = grown(this.#arrived);
    this.#gapMs = grown(this.#gapMs);
  }
}
