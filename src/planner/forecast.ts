// What is to be expected of a migration, method by method, with how sure that is; and which method to take. The model is
// moved as it is, calmer and busier: between those lies what is forecast. Pure.

import { formatBytes, formatBytesPerSecond, formatMs } from "../base/units.ts";
import { type Calibration, NOT_CALIBRATED } from "./calibration.ts";
import {
  changedPages,
  dirtyPagesPerSecond,
  type GuestModel,
  meanDeltaSize,
  withRates,
} from "./guest-model.ts";
import { type LinkModel, payloadBytesPerSecond } from "./link-model.ts";
import { METHODS, type MethodName } from "./methods.ts";
import { type MigrationOutcome, simulateMigration } from "./migration.ts";

export interface Interval {
  readonly low: number;
  readonly expected: number;
  readonly high: number;
}

export interface MethodForecast {
  readonly method: MethodName;
  readonly title: string;
  /** `unsure`: a guest a little busier or calmer than the sample decides it. */
  readonly converges: "yes" | "no" | "unsure";
  readonly totalMs: Interval;
  /** Where it does not converge: of a guest that is stopped all the same. */
  readonly downtimeMs: Interval;
  readonly wireBytes: Interval;
  readonly cpuMs: Interval;
  readonly iterations: number;
}

export interface PlanQuestion {
  readonly guest: GuestModel;
  readonly link: LinkModel;
  readonly downtimeMsMax: number;
  readonly cacheBytes?: number;
  readonly methods: readonly MethodName[];
  readonly calibration?: Calibration;
}

export interface Plan {
  readonly forecasts: readonly MethodForecast[];
  readonly recommended: MethodName | undefined;
  readonly reason: string;
}

/** Dirty rates differ from moment to moment, and rise under a migration: the guest of an hour later is not this one. */
const CALMER = 0.75;
const BUSIER = 1.5;
/** Standard errors of a count of that many busy pages. */
const STANDARD_ERRORS = 2;
/** Another method must be better by this share of the time to be worth more than QEMU alone, or both ends. */
const WORTH_SHARE = 0.85;
/** What needs least comes first: nothing but QEMU, then us at one end, then at both. */
const EFFORT: Readonly<Record<MethodName, number>> = {
  vanilla: 0,
  "xbzrle-full": 1,
  "multifd-zstd": 1,
  direct: 2,
  tunnel: 3,
  "auto-converge": 4,
  postcopy: 5,
};

export function planMigration(question: PlanQuestion): Plan {
  const forecasts = question.methods.map((method) => forecastMethod(question, method));
  const recommended = recommend(forecasts);
  return { forecasts, recommended: recommended?.method, reason: reasonOf(question, recommended) };
}

function forecastMethod(question: PlanQuestion, method: MethodName): MethodForecast {
  const { guest, link, calibration = NOT_CALIBRATED } = question;
  const bytesPerSecond = payloadBytesPerSecond(link);
  const error = STANDARD_ERRORS * relativeError(guest);
  const outcomes = [CALMER - error, 1, BUSIER + error].map((factor) =>
    simulateMigration(
      {
        guest: withRates(guest, Math.max(0.1, factor)),
        method,
        roundTripMs: link.roundTripMs,
        downtimeMsMax: question.downtimeMsMax,
        ...(question.cacheBytes === undefined ? {} : { cacheBytes: question.cacheBytes }),
      },
      bytesPerSecond,
    ),
  );
  const [calmer, expected, busier] = outcomes as [MigrationOutcome, MigrationOutcome, MigrationOutcome];
  const interval = (
    key: "totalMs" | "downtimeMs" | "wireBytes" | "cpuMs",
    learned = NO_CORRECTION,
  ): Interval => {
    const values = [calmer[key], expected[key], busier[key]];
    return {
      low: Math.min(...values) * learned.low,
      expected: expected[key] * learned.median,
      high: Math.max(...values) * learned.high,
    };
  };
  const converging = outcomes.filter(({ converges }) => converges).length;
  const learned = calibration.methods[method];
  return {
    method,
    title: METHODS[method].title,
    converges: converging === outcomes.length ? "yes" : converging === 0 ? "no" : "unsure",
    totalMs: interval("totalMs", learned?.totalMs),
    downtimeMs: interval("downtimeMs", learned?.downtimeMs),
    wireBytes: interval("wireBytes", learned?.wireBytes),
    cpuMs: interval("cpuMs"),
    iterations: expected.iterations,
  };
}

const NO_CORRECTION = { low: 1, median: 1, high: 1 };

/** Of the number of pages that change, from how many of them the sample has caught. */
function relativeError(guest: GuestModel): number {
  if (guest.sampledPages === 0) return 0;
  const caught = (changedPages(guest, guest.sampledMs) / guest.pages) * guest.sampledPages;
  return caught < 1 ? 1 : 1 / Math.sqrt(caught);
}

/** Of those that are sure to converge, the one that is done first; a simpler one if it is hardly slower. */
function recommend(forecasts: readonly MethodForecast[]): MethodForecast | undefined {
  const sure = forecasts.filter(({ converges, method }) => converges === "yes" && !METHODS[method].postcopy);
  const candidates = sure.length > 0 ? sure : forecasts.filter(({ converges }) => converges !== "no");
  return candidates.reduce<MethodForecast | undefined>((best, each) => {
    if (best === undefined) return each;
    const ratio = each.totalMs.expected / best.totalMs.expected;
    const isSimpler = EFFORT[each.method] < EFFORT[best.method];
    return ratio < WORTH_SHARE || (isSimpler && ratio < 1 / WORTH_SHARE) ? each : best;
  }, undefined);
}

/**
 * Pages a second that standard pre-copy could send again over this link, beside those that are known to be dirtied: more
 * of those that nobody counts, and it does not converge.
 */
export function precopyRoomPagesPerSecond(guest: GuestModel, link: LinkModel): number {
  const carried = payloadBytesPerSecond(link) / METHODS.vanilla.rewritten(guest, 0).wireBytes;
  return Math.max(0, carried - dirtyPagesPerSecond(guest) - guest.rewrittenPagesPerSecond);
}

function reasonOf(question: PlanQuestion, recommended: MethodForecast | undefined): string {
  const { guest, link } = question;
  const dirty = dirtyPagesPerSecond(guest) + guest.rewrittenPagesPerSecond;
  const dirtyBytesPerSecond = dirty * guest.pageBytes;
  const linkBytesPerSecond = payloadBytesPerSecond(link);
  const ratio = dirtyBytesPerSecond / linkBytesPerSecond;
  const rates =
    `dirty rate ${formatBytes(dirtyBytesPerSecond)}/s is ${ratio.toFixed(ratio < 10 ? 2 : 0)} times what the link ` +
    `carries (${formatBytesPerSecond(linkBytesPerSecond)})`;
  const size = meanDeltaSize(guest, 1000);
  const deltas =
    size === undefined
      ? "nothing was seen to change"
      : `a changed page is a delta of ${formatBytes(size.tunnelBytes)} on average`;
  if (recommended === undefined) {
    return `${rates}, ${deltas}: no method keeps the guest's standstill within ${formatMs(question.downtimeMsMax)}`;
  }
  const { title, iterations, totalMs, converges } = recommended;
  const sure = converges === "yes" ? "" : " perhaps";
  return `${rates}, ${deltas}: ${title}${sure} converges in ${iterations} iteration${iterations === 1 ? "" : "s"}, ${formatMs(totalMs.expected)}`;
}
