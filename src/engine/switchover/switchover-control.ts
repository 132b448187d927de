// Carries the judgements of switchover.ts and convergence.ts out: gathers their figures from what the hypervisor and
// the link say, keeps the hypervisor's own threshold at what is affordable, gives it the acknowledgement that lets it
// stop the guest, slows the guest down, or has the migration given up. Knows neither the stream nor sockets; time
// comes from a clock.

import type { Clock } from "../../base/clock.ts";
import { DeltaveeError, toError } from "../../base/errors.ts";
import { formatBytes, formatBytesPerSecond } from "../../base/units.ts";
import type { RecordEntry } from "../../record/schema.ts";
import type { OutgoingStatus, OutgoingVm } from "../ports.ts";
import type { LinkFigures } from "../transport/source-link.ts";
import { Convergence, type Promises } from "./convergence.ts";
import type { ConvergenceFigures } from "./forecast.ts";
import { Rehearsals } from "./rehearsals.ts";
import {
  estimateDowntimeMs,
  floorMsOf,
  guestBytesPerSecondByLink,
  remainingBytesFor,
  type SwitchoverFigures,
  SwitchoverJudge,
  withShortQueue,
} from "./switchover.ts";
import { TransferRates } from "./transfer-rates.ts";

export interface SwitchoverControlOptions extends Promises {
  vm: Pick<
    OutgoingVm,
    | "wasRunning"
    | "switchoverControl"
    | "awaitsDestinationAck"
    | "limitSwitchover"
    | "throttle"
    | "startPostcopy"
    | "standstillMsMin"
  >;
  mode: "direct" | "tunnel";
  clock: Clock;
  record: { add(entry: RecordEntry): void };
  /** The guest may be stopped at any moment from here on. Called at most once. */
  shortenQueue: () => void;
  /** Sends so many bytes that stand for nothing, to see how long they take. False: not now. */
  rehearse: (bytes: number) => boolean;
  /** Gives the hypervisor its SWITCHOVER_ACK. Called at most once. */
  release: () => void;
  /** The migration is to end, and the guest to go on here. Called at most once. */
  giveUp: (error: DeltaveeError) => void;
}

/** What is expected of the migration, for the record. */
export interface Expectation {
  forecastDowntimeMs?: number;
  forecastEndMs?: number;
}

/** How far the transfer is. Counters are cumulative. */
export interface TransferProgress {
  handedOverBytes: number;
  /** Time that handing over has taken, as TransferRates takes it. */
  handoverMs: number;
  link: LinkFigures;
}

/** Device state and its description, as seen of PC machines (facts: 114 kB), and what compression leaves of it. */
export const DEVICE_STATE_BYTES = 128 * 1024;
export const DEVICE_STATE_RATIO_TUNNEL = 0.15;
/** Stopping vCPUs, loading device state and starting again, of a QEMU on any machine we have seen. */
export const STANDSTILL_MS_MIN = 10;
/** Direct: the stream must get there. Tunnel: LOADED comes back and COMMIT goes out besides. */
export const ROUND_TRIPS = { direct: 0.5, tunnel: 1.5 } as const;
/**
 * How long the destination's own SWITCHOVER_ACK is waited for after the first pass, where the operator has asked
 * for it. It is there for a shorter downtime, not for correctness, and may never come: the capability may be on at
 * this side alone, left behind by a migration of ours that was killed.
 */
const DESTINATION_ACK_TIMEOUT_MS = 5000;
/** Between two looks at the hypervisor: rarely while nothing can be decided, often when each may decide. */
const LOOK_EVERY_MS_MAX = 250;
const LOOK_EVERY_MS = 50;
const LOOK_EVERY_MS_MIN = 20;
/** Between `--max-time` and the end of a migration whose hypervisor does not answer. */
const ANSWER_MS_MAX = 1000;
/** What is left of that with the inaccuracy of two looks. */
const OVERDUE_SHARE = 0.8;
/** QEMU counts dirty pages, on every machine that we have seen of this size. */
const PAGE_BYTES = 4096;
/** Downtime estimated at more than this many times its goal will not be within it before the next look. */
const FAR_FROM_GOAL = 4;

export class SwitchoverControl {
  readonly #options: SwitchoverControlOptions;
  readonly #rates: TransferRates;
  readonly #judge: SwitchoverJudge;
  readonly #convergence: Convergence;
  readonly #rehearsals: Rehearsals;
  #expectation: Expectation = {};
  #throttlePercentage = 0;
  #isOver = false;
  #released = false;
  #isShort = false;
  #isBlind = false;
  #postcopyAsked = false;
  /** Since when the guest stands still for the rest. */
  #stoppedMs: number | undefined;
  #destinationAcked = false;
  #ackAwaitedSinceMs: number | undefined;
  #lastDecision = "";
  #lookAgainMs = LOOK_EVERY_MS_MAX;
  /** As the last look has found it. */
  #remainingBytes = 0;
  #lookedMs: number;
  readonly #startMs: number;
  #roundTripMs = 0;
  #roundTripSeenMs: number;
  #cancelDeadline: () => void = () => {};

  constructor(options: SwitchoverControlOptions) {
    this.#options = options;
    this.#rates = new TransferRates(options.clock);
    const nowMs = options.clock.nowMs();
    this.#judge = new SwitchoverJudge(options.downtimeMsMax, nowMs);
    this.#rehearsals = new Rehearsals(options.downtimeMsMax);
    this.#convergence = new Convergence(
      options,
      options.vm.throttle !== undefined,
      nowMs,
      options.vm.startPostcopy !== undefined,
    );
    this.#lookedMs = nowMs;
    this.#roundTripSeenMs = nowMs;
    const { timeMsMax } = options;
    if (timeMsMax !== undefined) this.#keepTimeIn(timeMsMax + ANSWER_MS_MAX);
    this.#startMs = nowMs;
  }

  /** As of the last look. */
  get expectation(): Expectation {
    return this.#expectation;
  }

  /** The migration is over, whichever way: the guest gets its time back, wherever it runs. */
  end(): void {
    this.#isOver = true;
    this.#cancelDeadline();
    if (this.#throttlePercentage === 0) return;
    this.#throttle(0);
    const reason = "the migration is over";
    this.#options.record.add({ type: "decision", subject: "convergence", choice: "throttle 0 %", reason });
  }

  forbidPostcopy(): void {
    this.#convergence.forbidPostcopy();
  }

  /** The operator wants it to end. */
  allowAnyDowntime(): void {
    this.#convergence.allowAnyDowntime();
  }

  /** It stands still for the rest: the end is near, unless that takes longer than was agreed, and all limits are over. */
  guestStopped(): void {
    const { clock, timeMsMax, downtimeMsMax } = this.#options;
    const nowMs = clock.nowMs();
    this.#stoppedMs ??= nowMs;
    if (timeMsMax === undefined || this.#isOver) return;
    this.#keepTimeIn(Math.max(timeMsMax - (nowMs - this.#startMs), downtimeMsMax));
  }

  #keepTimeIn(ms: number): void {
    this.#cancelDeadline();
    this.#cancelDeadline = this.#options.clock.after(ms, () => this.#keepLimits(0));
  }

  /** The hypervisor was told to switch over to post-copy, which it may or may not have done by now. */
  get postcopyAsked(): boolean {
    return this.#postcopyAsked;
  }

  /** How soon the hypervisor is to be asked for its status again. */
  get lookAgainMs(): number {
    return this.#lookAgainMs;
  }

  /**
   * The destination's SWITCHOVER_ACK has come. True: it is kept back, the hypervisor gets ours instead. One that
   * comes after ours is for nobody to wait for, but harmless.
   */
  keepsBackAck(): boolean {
    this.#destinationAcked = true;
    if (this.#isBlind) this.#released = true;
    return !this.#released;
  }

  /** There will be no figures to judge by: the hypervisor is not kept from deciding by itself. */
  letGo(): void {
    this.#isBlind = true;
    if (!this.#destinationAcked || this.#released || this.#isOver) return;
    this.#released = true;
    this.#options.release();
  }

  /** Takes the figures as they stand. `mayDecide`: the guest still runs and iterations go on. */
  look(status: OutgoingStatus, progress: TransferProgress, mayDecide: boolean): void {
    const { iteration, remainingBytes, dirtyPagesPerSecond = 0 } = status;
    this.#rates.sample(progress.handedOverBytes, progress.link.wireBytes, progress.handoverMs);
    const firstPassMs = this.#firstPassMs(remainingBytes ?? 0);
    if (!mayDecide || this.#isOver || this.#postcopyAsked || this.#isBlind) {
      this.#keepLimits(progress.link.wireBytes);
      this.#lookAgainMs = LOOK_EVERY_MS_MAX;
      return;
    }
    const figures = this.#figures(remainingBytes ?? 0, progress);
    // During the first pass most of what is left has never been sent: there is nothing to judge by.
    const isFirstPass = iteration === undefined || iteration < 1 || remainingBytes === undefined;
    const leftMs = this.#keepPromises(figures, isFirstPass, dirtyPagesPerSecond, progress.link);
    if (this.#isOver || this.#postcopyAsked) return;
    const soonMs = isFirstPass
      ? // Half of the time each: its end is met closely, however wrong the estimate is at first.
        Math.min(LOOK_EVERY_MS_MAX, firstPassMs / 2)
      : progress.link.isLost
        ? this.#hold()
        : this.#decide(figures, leftMs);
    this.#lookAgainMs = Math.max(LOOK_EVERY_MS_MIN, Math.min(soonMs, leftMs));
  }

  /** Returns how soon a promise may be broken. */
  #keepPromises(
    figures: SwitchoverFigures,
    isFirstPass: boolean,
    dirtyPagesPerSecond: number,
    link: LinkFigures,
  ): number {
    const { vm, clock, record, downtimeMsMax, giveUp } = this.#options;
    const nowMs = clock.nowMs();
    const asked: ConvergenceFigures = {
      ...figures,
      isFirstPass,
      linkStandsStill: this.#linkStandsStill(figures.roundTripMs, nowMs) || link.isLost,
      estimatedMs: estimateDowntimeMs(figures),
      // A guest that is paused anyway suffers from nothing.
      floorMs: vm.wasRunning ? floorMsOf(figures) : 0,
      // By then nothing waits in front of the link.
      affordableBytes: remainingBytesFor(downtimeMsMax, { ...figures, queuedBytes: 0 }),
      dirtyBytesPerSecond: dirtyPagesPerSecond * PAGE_BYTES,
      settledBytesPerSecond: Math.min(guestBytesPerSecondByLink(figures), figures.handoverBytesPerSecond),
      linkBytesPerSecond: link.linkBytesPerSecond,
      wireBytes: link.wireBytes,
      tailBytes: figures.deviceStateBytes,
    };
    const {
      said,
      end,
      beyondGoalMs,
      throttlePercentage,
      startPostcopy,
      giveUp: error,
    } = this.#convergence.judge(asked, nowMs);
    for (const { choice, reason } of said)
      record.add({ type: "decision", subject: "convergence", choice, reason });
    this.#expectation = isFirstPass
      ? {}
      : { forecastDowntimeMs: asked.estimatedMs, ...(end.kind === "in" ? { forecastEndMs: end.ms } : {}) };
    // With nothing left at all the hypervisor stops the guest in any case: that too must be within the goal.
    if (throttlePercentage > 0 && asked.affordableBytes > 0 && !asked.linkStandsStill)
      this.#judge.takeWhatIsFound(nowMs);
    if (beyondGoalMs !== undefined) this.#judge.goBeyond(beyondGoalMs, nowMs);
    if (!vm.wasRunning && !isFirstPass) this.#judge.goBeyond(asked.estimatedMs, nowMs);
    this.#throttle(throttlePercentage);
    if (startPostcopy) this.#beginPostcopy();
    if (error === undefined) return this.#convergence.leftMs(asked, nowMs);
    this.#isOver = true;
    giveUp(error);
    return LOOK_EVERY_MS_MAX;
  }

  /** Where there is nothing to be judged, or nobody answers: the limits hold as long as the guest is not handed over. */
  #keepLimits(wireBytes: number): void {
    if (this.#isOver) return;
    const error = this.#convergence.overdue(this.#options.clock.nowMs(), wireBytes, this.#stoppedMs);
    if (error === undefined) return;
    this.#isOver = true;
    this.#options.giveUp(error);
  }

  /** An answer that is overdue makes the round trip grow by all of the time that passes. */
  #linkStandsStill(roundTripMs: number, nowMs: number): boolean {
    const grownMs = roundTripMs - this.#roundTripMs;
    const elapsedMs = nowMs - this.#roundTripSeenMs;
    this.#roundTripMs = roundTripMs;
    this.#roundTripSeenMs = nowMs;
    return elapsedMs > 0 && grownMs >= elapsedMs * OVERDUE_SHARE;
  }

  #beginPostcopy(): void {
    const { vm, record, release, giveUp } = this.#options;
    this.#postcopyAsked = true;
    vm.startPostcopy?.().then(
      () => {
        // Without it the hypervisor goes on iterating. Not before: it might stop the guest for the rest of pre-copy.
        if (this.#released || this.#isOver || !this.#waitsForAck) return;
        this.#released = true;
        release();
      },
      (error: unknown) => {
        if (this.#isOver) return;
        const text = `Post-copy could not be begun: ${toError(error).message}`;
        if (this.#stoppedMs !== undefined) {
          record.add({ type: "notice", message: text });
          return;
        }
        this.#isOver = true;
        giveUp(new DeltaveeError("NOT_CONVERGING", text, { cause: error }));
      },
    );
  }

  #throttle(percentage: number): void {
    if (percentage === this.#throttlePercentage) return;
    this.#throttlePercentage = percentage;
    this.#options.vm.throttle?.(percentage).catch((error: unknown) => {
      const message = `The guest's vCPUs could not be slowed down: ${toError(error).message}`;
      this.#options.record.add({ type: "notice", message });
    });
  }

  /** How long it takes from here, as fast as it went since the last look. Zero pages count as any others. */
  #firstPassMs(remainingBytes: number): number {
    const nowMs = this.#options.clock.nowMs();
    const bytesPerMs = (this.#remainingBytes - remainingBytes) / (nowMs - this.#lookedMs);
    this.#remainingBytes = remainingBytes;
    this.#lookedMs = nowMs;
    return bytesPerMs > 0 ? remainingBytes / bytesPerMs : Number.POSITIVE_INFINITY;
  }

  /** Nobody is to stop a guest for a link that is not there, not even one that has been released. */
  #hold(): number {
    this.#limit(0);
    return LOOK_EVERY_MS;
  }

  /** Returns how soon to look again. `leftMs`: until a limit is reached. */
  #decide(figures: SwitchoverFigures, leftMs: number): number {
    const { clock, record, downtimeMsMax, release } = this.#options;
    if (this.#awaitsDestinationAck()) return LOOK_EVERY_MS;
    this.#rehearse(figures);
    const decision = this.#judge.judge(figures, clock.nowMs());
    const { released, estimatedMs, reason } = decision;
    // Whoever would have to be taken back at the limit has stood still for nothing.
    const aimMs = Math.min(decision.aimMs, Math.max(downtimeMsMax, leftMs));
    if (!this.#waitsForAck) {
      // All of the goal from the beginning: there is nothing that would hold it while less is tried, and each look for
      // dirty pages that is spared is a danger less, since under TCG such old QEMUs lose writes in them (measured).
      const allowedMs = Math.max(aimMs, downtimeMsMax);
      this.#limit(remainingBytesFor(allowedMs, figures));
      this.#expectDowntime(Math.min(estimatedMs, allowedMs));
      return LOOK_EVERY_MS;
    }
    // Before the acknowledgement too: the hypervisor may take a while to go by it.
    this.#limit(remainingBytesFor(aimMs, this.#isShort ? figures : withShortQueue(figures)));
    // It only stops the guest when no more is left than that.
    if (released) this.#expectDowntime(Math.min(estimatedMs, aimMs));
    // The estimate moves all the time; a record full of it would say less.
    const kind = reason.slice(0, reason.indexOf(":"));
    if (kind !== this.#lastDecision) {
      this.#lastDecision = kind;
      const choice = !released ? "wait" : this.#released ? "allow more" : "now";
      record.add({
        type: "decision",
        subject: "switchover",
        choice,
        reason,
        forecastDowntimeMs: estimatedMs,
      });
    }
    if (released && !this.#isShort) this.#shortenQueue();
    else if (released && !this.#released) {
      this.#released = true;
      release();
    }
    return estimatedMs > FAR_FROM_GOAL * downtimeMsMax ? LOOK_EVERY_MS : LOOK_EVERY_MS_MIN;
  }

  /** Where the goal is missed by what is known of the link, it is tried whether it holds. */
  #rehearse(figures: SwitchoverFigures): void {
    const { clock, rehearse, record } = this.#options;
    const nowMs = clock.nowMs();
    const expected = withShortQueue(figures);
    const bytes = this.#rehearsals.due(expected, nowMs);
    if (bytes === undefined || !rehearse(bytes)) return;
    this.#rehearsals.sent(bytes, expected, nowMs);
    const reason =
      `the guest sends too little to show what the link carries: ${formatBytes(bytes)} that stand for nothing ` +
      `show whether what would have to cross goes through faster than at ${formatBytesPerSecond(figures.linkBytesPerSecond)}`;
    record.add({ type: "decision", subject: "switchover", choice: "rehearse", reason });
  }

  /** It is short by the next look. */
  #shortenQueue(): void {
    this.#isShort = true;
    this.#options.shortenQueue();
  }

  /** The hypervisor iterates until it gets our SWITCHOVER_ACK. */
  get #waitsForAck(): boolean {
    const { switchoverControl } = this.#options.vm;
    return switchoverControl === "destination" ? this.#destinationAcked : switchoverControl === "ack";
  }

  #expectDowntime(forecastDowntimeMs: number): void {
    this.#expectation = { ...this.#expectation, forecastDowntimeMs };
  }

  #awaitsDestinationAck(): boolean {
    const { vm, clock, record } = this.#options;
    if (!vm.awaitsDestinationAck || this.#destinationAcked) return false;
    this.#ackAwaitedSinceMs ??= clock.nowMs();
    if (clock.nowMs() - this.#ackAwaitedSinceMs < DESTINATION_ACK_TIMEOUT_MS) return true;
    this.#destinationAcked = true;
    record.add({
      type: "notice",
      message:
        `The destination has not acknowledged the switchover within ${DESTINATION_ACK_TIMEOUT_MS / 1000} s ` +
        "(capability switchover-ack is on here): going on without",
    });
    return false;
  }

  #limit(remainingBytesMax: number): void {
    this.#options.vm.limitSwitchover(remainingBytesMax).catch((error: unknown) => {
      const message = `Switchover could not be steered: ${toError(error).message}`;
      this.#options.record.add({ type: "notice", message });
    });
  }

  #figures(remainingBytes: number, { link }: TransferProgress): SwitchoverFigures {
    const { mode } = this.#options;
    return {
      remainingBytes,
      wireBytesPerGuestByte: this.#rates.wireBytesPerGuestByte,
      handoverBytesPerSecond: this.#rates.handoverBytesPerSecond,
      queuedBytes: link.inFlightBytes + link.waitingBytes,
      shortQueueBytes: link.shortQueueBytes,
      linkBytesPerSecond: link.isLinkKnown ? link.linkBytesPerSecond : 0,
      proof: link.proof,
      roundTripMs: link.roundTripMs ?? 0,
      roundTrips: ROUND_TRIPS[mode],
      fixedMs: this.#options.vm.standstillMsMin ?? STANDSTILL_MS_MIN,
      deviceStateBytes: DEVICE_STATE_BYTES * (mode === "tunnel" ? DEVICE_STATE_RATIO_TUNNEL : 1),
    };
  }
}
