// A guest looked at again and again, to find the moment at which it is moved most easily. A look that fails (a monitor
// that somebody else uses just then, a guest that is being restarted) is told of and is one moment less; only where
// looking never worked, or does not work any more, is that the end, and the best moment so far is named all the same.

import { toError } from "../../base/errors.ts";
import { formatBytes, formatMs } from "../../base/units.ts";
import type { Plan } from "../../planner/forecast.ts";
import { dirtyPagesPerSecond, type GuestModel } from "../../planner/guest-model.ts";

/** So many failures, one after another, will not be the last. */
const FAILURES_MAX = 5;

export interface Moment {
  readonly at: Date;
  readonly dirtyBytesPerSecond: number;
  readonly plan: Plan;
}

export interface WatchOptions {
  readonly look: () => Promise<GuestModel>;
  readonly plan: (guest: GuestModel) => Plan;
  readonly now: () => Date;
  readonly show: (moment: Moment) => void;
  readonly showFailure: (at: Date, message: string) => void;
  readonly showBest: (moment: Moment) => void;
  /** Until the next look. False: there is to be none. */
  readonly wait: () => Promise<boolean>;
}

/** @throws what looking threw, when the first look fails, or `FAILURES_MAX` in a row do */
export async function watchGuest(options: WatchOptions): Promise<void> {
  let best: Moment | undefined;
  let failures = 0;
  try {
    do {
      const at = options.now();
      try {
        const guest = await options.look();
        const dirtyBytesPerSecond = dirtyPagesPerSecond(guest) * guest.pageBytes;
        const moment: Moment = { at, dirtyBytesPerSecond, plan: options.plan(guest) };
        options.show(moment);
        if (best === undefined || timeOf(moment) < timeOf(best)) best = moment;
        failures = 0;
      } catch (thrown) {
        if (best === undefined || ++failures === FAILURES_MAX) throw thrown;
        options.showFailure(at, toError(thrown).message);
      }
    } while (await options.wait());
  } finally {
    if (best !== undefined) options.showBest(best);
  }
}

export function momentLine({ at, dirtyBytesPerSecond, plan }: Moment): string {
  return `${at.toISOString()}  ${formatBytes(dirtyBytesPerSecond)}/s  ${recommendation(plan)}\n`;
}

export function bestLine({ at, plan }: Moment): string {
  return `Best moment: ${at.toISOString()} (${recommendation(plan)})\n`;
}

/** Of the method that is recommended. What no method moves is the worst moment. */
function timeOf({ plan }: Moment): number {
  const forecast = plan.forecasts.find(({ method }) => method === plan.recommended);
  return forecast?.totalMs.expected ?? Number.POSITIVE_INFINITY;
}

function recommendation(plan: Plan): string {
  const forecast = plan.forecasts.find(({ method }) => method === plan.recommended);
  if (forecast === undefined) return "no method converges";
  const { method, totalMs, downtimeMs } = forecast;
  return `${method}: ${formatMs(totalMs.expected)}, downtime ${formatMs(downtimeMs.expected)}`;
}
