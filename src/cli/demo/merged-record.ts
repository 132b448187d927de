// One run record of one run of the demo, from what two processes report and the guest's heartbeats. Events carry
// the time at which they happened, not that of their arrival here. The source's summary is held back until the
// guest has been watched and verified at the destination: whoever saw it from outside has the last word.

import type { Clock } from "../../base/clock.ts";
import { type OpenRunRecord, openRunRecord } from "../../record/file.ts";
import { NO_PAGES, type RecordEntry, type RecordEvent } from "../../record/schema.ts";
import type { RecordListener } from "../../record/writer.ts";
import type { Beat } from "./heartbeat.ts";
import { hostNowMs } from "./messages.ts";

type Summary = Extract<RecordEvent, { type: "summary" }>;

/** Stands at the time of the event that is being recorded; never goes back, though reports may cross. */
class EventClock implements Pick<Clock, "nowMs"> {
  #nowMs = hostNowMs();

  nowMs(): number {
    return this.#nowMs;
  }

  advanceTo(hostMs: number): void {
    this.#nowMs = Math.max(this.#nowMs, hostMs);
  }
}

export class MergedRecord {
  readonly #clock: EventClock;
  readonly #opened: OpenRunRecord;
  readonly #openedMs: number;
  #summary: Summary | undefined;

  /** @throws UsageError when the file cannot be created */
  static async open(path: string, listeners: readonly RecordListener[]): Promise<MergedRecord> {
    const clock = new EventClock();
    const after: Clock["after"] = () => {
      throw new Error("A record sets no timers");
    };
    const opened = await openRunRecord({
      clock: { nowMs: () => clock.nowMs(), after },
      path,
      listeners,
    });
    return new MergedRecord(clock, opened);
  }

  private constructor(clock: EventClock, opened: OpenRunRecord) {
    this.#clock = clock;
    this.#opened = opened;
    this.#openedMs = clock.nowMs();
  }

  get events(): readonly RecordEvent[] {
    return this.#opened.record.events;
  }

  /** On the time axis of the events. */
  nowMs(): number {
    return hostNowMs() - this.#openedMs;
  }

  add(entry: RecordEntry, hostMs = hostNowMs()): void {
    this.#clock.advanceTo(hostMs);
    this.#opened.record.add(entry);
  }

  fromSource(event: RecordEvent, hostMs: number): void {
    if (event.type === "summary") this.#summary = event;
    else this.add(event, hostMs);
  }

  /** Its phases and counters are those of the source again; what it has to say is not. */
  fromDestination(event: RecordEvent, hostMs: number): void {
    if (event.type !== "notice" && event.type !== "error") return;
    const message = `At the destination: ${event.message}`;
    this.add(event.type === "notice" ? { ...event, message } : { ...event, message }, hostMs);
  }

  beat({ counter, gapMs, side, hostMs }: Beat): void {
    this.add({ type: "heartbeat", counter, gapMs, side }, hostMs);
  }

  /** The last event, unless there has been one. */
  finish(seen: Pick<Summary, "heartbeatGapMs" | "memoryVerified">): void {
    const summary = this.#summary ?? this.#lostSummary();
    // The source can only say that it is there; a guest that has checked its memory there runs.
    const runsThere = summary.vm === "with the destination" && seen.memoryVerified !== undefined;
    this.add({ ...summary, ...(runsThere ? { vm: "running on destination" as const } : {}), ...seen });
  }

  /** Resolves to what a person should be told: why the file is not complete. */
  close(): Promise<string | undefined> {
    return this.#opened.close();
  }

  /** The source died before it had one to give. */
  #lostSummary(): Omit<Summary, "atMs"> {
    const last = this.events.findLast((event) => event.type === "sample");
    return {
      type: "summary",
      outcome: "failed",
      vm: "unknown",
      totalMs: this.nowMs(),
      handedOverBytes: last?.handedOverBytes ?? 0,
      wireBytes: last?.wireBytes ?? 0,
      pages: last?.pages ?? NO_PAGES,
    };
  }
}
