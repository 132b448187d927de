// Whether a migration keeps what the operator was promised, and what is done when it does not: it says before it
// breaks a promise why it cannot keep it, finds stalls, and then acts by the operator's policy. Pure: figures and the
// time in; what to say and to do out. The moment of the switchover itself is the business of switchover.ts.
//
// A migration has stalled when the best downtime that could be had has not become better by STALL_SHARE for STALL_MS.
// What the estimate falls and rises by within an iteration means nothing; its lowest point does.

import { assert } from "../../base/assert.ts";
import { DeltaveeError } from "../../base/errors.ts";
import { formatBytes, formatMs } from "../../base/units.ts";
import {
  type ConvergenceFigures,
  type EndForecast,
  endText,
  forecastCost,
  forecastEnd,
  ratesText,
} from "./forecast.ts";
import { Lasting, RecentMinimum } from "./lasting.ts";
import { STALL_POLICY_DEFAULT, type StallPolicy } from "./stall-policies.ts";

export interface Promises {
  /** Longest time the guest may stand still. */
  downtimeMsMax: number;
  /**
   * Until the guest has been handed over: up to then it can be taken back. One that stands still is left its
   * `downtimeMsMax`, since the end is near, and going back would cost it more.
   */
  timeMsMax?: number | undefined;
  /** On the link, from this side, what follows the stop included as far as it can be known. */
  wireBytesMax?: number | undefined;
  onStall?: StallPolicy | undefined;
}

/** A decision, for the record. */
export interface Said {
  choice: string;
  reason: string;
}

export interface ConvergenceVerdict {
  /** What is new since the last time: each is said once, until things change. */
  said: Said[];
  end: EndForecast;
  /** The guest is to be stopped at the next best moment, with a downtime near this. Never taken back. */
  beyondGoalMs: number | undefined;
  /** Percent of their time that the guest's vCPUs are to be kept from running. Never less than before. */
  throttlePercentage: number;
  /** The rest is to be fetched by the destination, where the guest then runs. Never taken back. */
  startPostcopy: boolean;
  /** The migration is to be given up: nothing is to be asked after this. */
  giveUp: DeltaveeError | undefined;
}

const STALL_SHARE = 0.1;
const STALL_MS = 10_000;
/** What is left after the first pass is known for certain a look of the hypervisor's later. */
const SETTLING_MS = 2000;
/** A forecast must have been so for this long before anybody is told: rates jump. */
const FORECAST_STABLE_MS = 3000;
/** And where even nothing left takes too long: a link that hangs for a moment looks like that. */
const FLOOR_STABLE_MS = 2000;
/** Of what can be had, this much more is allowed, so that it is met soon. */
const NEAR_RATIO = 1.1;
/** One after the other, as long as the one before has brought no progress in time. QEMU does no more than 99. */
export const THROTTLE_STEPS: readonly number[] = [20, 40, 60, 80, 90, 95, 99];
const THROTTLE_EVERY_MS = 5000;
/** A policy that stops the guest rather than break another promise does it so long before the end. */
const DEADLINE_MARGIN_MS = 500;

const UNKNOWN_END: EndForecast = { kind: "unknown" };

export class Convergence {
  readonly #promises: Promises;
  readonly #policy: StallPolicy;
  readonly #canThrottle: boolean;
  #canPostcopy: boolean;
  readonly #startMs: number;
  /** What progress is measured from, and when it was reached. */
  #bestMs = Number.POSITIVE_INFINITY;
  #bestSinceMs = 0;
  readonly #lowest = new RecentMinimum(STALL_MS);
  #firstPassEndMs: number | undefined;
  #stalled = false;
  readonly #unreachable = new Lasting(FLOOR_STABLE_MS);
  readonly #never = new Lasting(FORECAST_STABLE_MS);
  readonly #tooLong = new Lasting(FORECAST_STABLE_MS);
  readonly #tooMuch = new Lasting(FORECAST_STABLE_MS);
  #beyondGoalMs: number | undefined;
  #throttleStep = -1;
  #startPostcopy = false;
  #saidWhatIsNot = false;
  #anyDowntime = false;
  #giveUp: DeltaveeError | undefined;
  #judgedMs: number;
  #said: Said[] = [];

  constructor(promises: Promises, canThrottle: boolean, startMs: number, canPostcopy = false) {
    this.#promises = promises;
    this.#policy = promises.onStall ?? STALL_POLICY_DEFAULT;
    this.#canThrottle = canThrottle;
    this.#canPostcopy = canPostcopy;
    this.#startMs = startMs;
    this.#judgedMs = startMs;
  }

  /** The stream is not understood: nobody would see the guest being handed over. */
  forbidPostcopy(): void {
    this.#canPostcopy = false;
  }

  /** The operator wants it to end: what can be had will do, though never before the first pass is over. */
  allowAnyDowntime(): void {
    this.#anyDowntime = true;
  }

  /** As the figures stand, while the guest runs. */
  judge(figures: ConvergenceFigures, nowMs: number): ConvergenceVerdict {
    assert(this.#giveUp === undefined, "a migration that was given up is not judged");
    this.#said = [];
    const end = figures.linkStandsStill ? UNKNOWN_END : forecastEnd(figures);
    if (figures.linkStandsStill) this.#waitForLink(nowMs);
    else this.#watch(figures, end, nowMs);
    this.#judgedMs = nowMs;
    this.#giveUp ??= this.#brokenPromise(figures, nowMs);
    if (this.#giveUp !== undefined) this.#say("give up", this.#giveUp.message);
    return {
      said: this.#said,
      end,
      beyondGoalMs: this.#beyondGoalMs,
      throttlePercentage: THROTTLE_STEPS[this.#throttleStep] ?? 0,
      startPostcopy: this.#startPostcopy,
      giveUp: this.#giveUp,
    };
  }

  #watch(figures: ConvergenceFigures, end: EndForecast, nowMs: number): void {
    this.#watchPromises(figures, end, nowMs);
    this.#watchFloor(figures, nowMs);
    if (figures.isFirstPass) return;
    this.#watchProgress(figures, nowMs);
    if (this.#anyDowntime) this.#goBeyond(this.#reachableMs(figures), "the operator lets any downtime do");
    if (this.#stalled || this.#unreachable.isSo) this.#act(figures, nowMs);
    if (this.#policy === "switchover") this.#meetDeadlines(figures, nowMs);
  }

  /** A link that is gone for a while is no reason to do anything to the guest: that time does not count. */
  #waitForLink(nowMs: number): void {
    this.#bestSinceMs += nowMs - this.#judgedMs;
    this.#unreachable.forget();
  }

  /**
   * When there are no figures to judge by: the guest stands still, since `stoppedMs`, or its hypervisor does not
   * answer. Undefined: all limits are kept, or the migration was given up already.
   */
  overdue(nowMs: number, wireBytes: number, stoppedMs: number | undefined): DeltaveeError | undefined {
    const { timeMsMax = Number.POSITIVE_INFINITY, wireBytesMax = Number.POSITIVE_INFINITY } = this.#promises;
    const stillMs = stoppedMs === undefined ? undefined : nowMs - stoppedMs;
    if (this.#giveUp !== undefined || (stillMs !== undefined && stillMs < this.#promises.downtimeMsMax))
      return undefined;
    const why =
      stillMs === undefined
        ? "its hypervisor does not answer"
        : `the guest stands still for ${formatMs(stillMs)}`;
    if (nowMs - this.#startMs >= timeMsMax) {
      const text = `The migration has not ended within ${formatMs(timeMsMax)}: ${why}`;
      this.#giveUp = new DeltaveeError("MAX_TIME_REACHED", text);
    } else if (wireBytes >= wireBytesMax) {
      const text = `The migration has not ended with ${formatBytes(wireBytesMax)} sent: ${why}`;
      this.#giveUp = new DeltaveeError("MAX_BYTES_REACHED", text);
    }
    return this.#giveUp;
  }

  /** How soon it must be asked again so that no promise is broken unseen. */
  leftMs({ wireBytes, tailBytes, linkBytesPerSecond }: ConvergenceFigures, nowMs: number): number {
    const { timeMsMax = Number.POSITIVE_INFINITY, wireBytesMax } = this.#promises;
    const byTime = timeMsMax - (nowMs - this.#startMs);
    if (wireBytesMax === undefined || linkBytesPerSecond === 0) return byTime;
    return Math.min(byTime, ((wireBytesMax - wireBytes - tailBytes) / linkBytesPerSecond) * 1000);
  }

  // ---- what is said before it happens ----

  #watchPromises(figures: ConvergenceFigures, end: EndForecast, nowMs: number): void {
    const { timeMsMax, wireBytesMax } = this.#promises;
    if (end.kind !== "unknown" && this.#never.tell(end.kind === "never", nowMs)) {
      this.#say("forecast", endText(end, figures));
    }
    const cost = forecastCost(figures, end);
    if (cost === undefined && end.kind !== "never") return;
    const totalMs = nowMs - this.#startMs + (cost?.ms ?? Number.POSITIVE_INFINITY);
    if (timeMsMax !== undefined && this.#tooLong.tell(totalMs > timeMsMax, nowMs)) {
      this.#sayOfPromise(this.#tooLong.isSo, `--max-time ${formatMs(timeMsMax)}`, () =>
        cost === undefined ? endText(end, figures) : `${formatMs(totalMs)} in all${atLeast(figures)}`,
      );
    }
    const totalBytes = figures.wireBytes + (cost?.wireBytes ?? Number.POSITIVE_INFINITY);
    if (wireBytesMax !== undefined && this.#tooMuch.tell(totalBytes > wireBytesMax, nowMs)) {
      this.#sayOfPromise(this.#tooMuch.isSo, `--max-bytes ${formatBytes(wireBytesMax)}`, () =>
        cost === undefined ? endText(end, figures) : `${formatBytes(totalBytes)} in all${atLeast(figures)}`,
      );
    }
  }

  #sayOfPromise(isBroken: boolean, promise: string, why: () => string): void {
    if (isBroken) this.#say("forecast", `${promise} will not be kept: ${why()}`);
    else this.#say("forecast", `${promise} will be kept after all`);
  }

  /** What no iteration makes smaller: the device state, the round trips. */
  #watchFloor({ floorMs }: ConvergenceFigures, nowMs: number): void {
    const goalMs = this.#promises.downtimeMsMax;
    if (!this.#unreachable.tell(floorMs >= goalMs, nowMs)) return;
    const goal = `--max-downtime ${formatMs(goalMs)}`;
    if (!this.#unreachable.isSo) this.#say("forecast", `${goal} is within reach again`);
    else this.#say("forecast", `${goal} cannot be kept over this link: ${reachable(floorMs)}`);
  }

  #watchProgress(figures: ConvergenceFigures, nowMs: number): void {
    const { estimatedMs } = figures;
    this.#lowest.add(estimatedMs, nowMs);
    this.#firstPassEndMs ??= nowMs;
    if (nowMs - this.#firstPassEndMs < SETTLING_MS) return;
    if (estimatedMs < this.#bestMs * (1 - STALL_SHARE)) {
      this.#bestMs = estimatedMs;
      this.#bestSinceMs = nowMs;
      if (this.#stalled) this.#say("go on", `it moves again: ${this.#estimateText(figures)}`);
      this.#stalled = false;
      return;
    }
    if (this.#stalled || nowMs - this.#bestSinceMs < STALL_MS) return;
    this.#stalled = true;
    const why =
      `stalled: the downtime that could be had has not become ${STALL_SHARE * 100} % less than ` +
      `${formatMs(this.#bestMs)} for ${formatMs(STALL_MS)}; ${this.#estimateText(figures)}`;
    this.#say(this.#policy, why);
  }

  #estimateText(figures: ConvergenceFigures): string {
    return (
      `${formatMs(figures.estimatedMs)} estimated now, goal ${formatMs(this.#promises.downtimeMsMax)}; ` +
      ratesText(figures)
    );
  }

  // ---- what is done ----

  #act(figures: ConvergenceFigures, nowMs: number): void {
    const { downtimeMsMax } = this.#promises;
    switch (this.#policy) {
      case "wait":
        return;
      case "switchover":
        this.#goBeyond(this.#reachableMs(figures), "there is no use in waiting for less");
        return;
      case "throttle":
        this.#throttle(nowMs);
        return;
      case "postcopy":
        this.#postcopy();
        return;
      case "abort": {
        if (this.#unreachable.isSo) {
          const goal = `A downtime of at most ${formatMs(downtimeMsMax)}`;
          const text = `${goal} cannot be had over this link: ${reachable(figures.floorMs)}`;
          this.#giveUp = new DeltaveeError("DOWNTIME_UNREACHABLE", text);
        } else {
          const text = `The migration has made no progress for ${formatMs(STALL_MS)}`;
          this.#giveUp = new DeltaveeError("NOT_CONVERGING", `${text}: ${this.#estimateText(figures)}`);
        }
      }
    }
  }

  /** What it has come down to again and again. */
  #reachableMs({ floorMs }: ConvergenceFigures): number {
    return Math.max(this.#lowest.value, floorMs);
  }

  #goBeyond(reachableMs: number, why: string): void {
    if (this.#beyondGoalMs !== undefined) return;
    this.#beyondGoalMs = reachableMs * NEAR_RATIO;
    this.#say("switchover", `${why}: the guest will stand still for about ${formatMs(this.#beyondGoalMs)}`);
  }

  #throttle(nowMs: number): void {
    // Slower vCPUs make neither the device state smaller nor the way shorter.
    if (!this.#stalled) return;
    const next = this.#throttleStep + 1;
    if (!this.#canThrottle || next === THROTTLE_STEPS.length) {
      if (this.#saidWhatIsNot) return;
      this.#saidWhatIsNot = true;
      const why = this.#canThrottle
        ? "the guest cannot be slowed down any further"
        : "its vCPUs cannot be slowed down";
      this.#say("wait", `${why} by this hypervisor`);
      return;
    }
    // Measured anew for each step, from what there is by now.
    if (this.#throttleStep >= 0 && nowMs - this.#bestSinceMs < THROTTLE_EVERY_MS) return;
    this.#throttleStep = next;
    this.#bestMs = this.#lowest.value;
    this.#bestSinceMs = nowMs;
    const before = THROTTLE_STEPS[next - 1];
    const why = before === undefined ? "it makes no progress by itself" : `no progress at ${before} %`;
    this.#say(`throttle ${THROTTLE_STEPS[next]} %`, why);
  }

  #postcopy(): void {
    // It makes neither the device state smaller nor the way shorter.
    if (!this.#stalled || this.#startPostcopy) return;
    if (this.#canPostcopy) {
      this.#startPostcopy = true;
      this.#say("postcopy", "the guest goes on at the destination, which fetches what is missing from here");
    } else if (!this.#saidWhatIsNot) {
      this.#saidWhatIsNot = true;
      this.#say("wait", "this migration cannot be switched over to post-copy");
    }
  }

  /** The policy has the guest stopped rather than a promise broken that is not about its downtime. */
  #meetDeadlines(figures: ConvergenceFigures, nowMs: number): void {
    const { timeMsMax, wireBytesMax } = this.#promises;
    const { estimatedMs, wireBytes, remainingBytes, wireBytesPerGuestByte, tailBytes } = figures;
    const stoppedMs = nowMs - this.#startMs + estimatedMs + DEADLINE_MARGIN_MS;
    const stoppedBytes = wireBytes + remainingBytes * wireBytesPerGuestByte + tailBytes;
    const marginBytes = (figures.linkBytesPerSecond * DEADLINE_MARGIN_MS) / 1000;
    if (timeMsMax !== undefined && stoppedMs >= timeMsMax) {
      this.#goBeyond(estimatedMs, "otherwise --max-time would not be kept");
    } else if (wireBytesMax !== undefined && stoppedBytes + marginBytes >= wireBytesMax) {
      this.#goBeyond(estimatedMs, "otherwise --max-bytes would not be kept");
    }
  }

  #brokenPromise(figures: ConvergenceFigures, nowMs: number): DeltaveeError | undefined {
    const { timeMsMax, wireBytesMax } = this.#promises;
    const elapsedMs = nowMs - this.#startMs;
    if (timeMsMax !== undefined && elapsedMs >= timeMsMax) {
      return new DeltaveeError(
        "MAX_TIME_REACHED",
        `The migration has not ended within ${formatMs(timeMsMax)}${whereIsIt(figures)}`,
      );
    }
    const { wireBytes, tailBytes } = figures;
    if (wireBytesMax !== undefined && wireBytes + tailBytes >= wireBytesMax) {
      return new DeltaveeError(
        "MAX_BYTES_REACHED",
        `The migration has not ended with ${formatBytes(wireBytesMax)} sent${whereIsIt(figures)}`,
      );
    }
    return undefined;
  }

  #say(choice: string, reason: string): void {
    this.#said.push({ choice, reason });
  }
}

function reachable(floorMs: number): string {
  return `even with no page left it takes ${formatMs(floorMs)}`;
}

function atLeast({ isFirstPass }: ConvergenceFigures): string {
  return isFirstPass ? " at least" : "";
}

function whereIsIt({ isFirstPass, remainingBytes, estimatedMs }: ConvergenceFigures): string {
  if (isFirstPass) return `: ${formatBytes(remainingBytes)} of the guest's RAM were never sent`;
  return `: the guest would stand still for ${formatMs(estimatedMs)}`;
}
