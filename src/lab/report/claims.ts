// The paper's claims beside what was measured here. "Standard" is QEMU's vanilla pre-copy; ours is whichever of
// Deltavee's methods did best. Downtime is the gap in the guest's heartbeat, as it is seen from outside.

import { formatMs } from "../../base/units.ts";
import { type Ratio, rangesOverlap, ratioOf, type Spread } from "../../report/statistics.ts";
import { formatFigure } from "../../report/text.ts";
import { bestMethods, endText } from "./contest-tables.ts";
import {
  type Contest,
  type Group,
  groupBy,
  groupOf,
  isClean,
  isOurs,
  STANDARD,
  settingText,
  spreadOfMetric,
} from "./contests.ts";
import { formatSpread, HEARTBEAT_GAP, type ScenarioInfo } from "./metrics.ts";
import { CLAIMS, PAPER_FACTOR, type PaperClaim, UNNOTICED_MS_MAX } from "./paper.ts";
import { sweepsOf } from "./sweeps.ts";

type Standing = "measured" | "shown" | "shown in part" | "not shown" | "no results";

export interface JudgedClaim {
  readonly claim: PaperClaim;
  readonly standing: Standing;
  readonly ours: string;
  /** Records that it is judged by; none where it is counted over all that the tables show. */
  readonly files: readonly string[];
}

/** Of a table of claims. */
export const CLAIM_HEAD = ["claim", "in the paper", "here", "what was measured here"];

type Judgement = Omit<JudgedClaim, "claim">;

/** From so many runs on a figure is more than chance: what has fewer stands for a claim only where nothing has as many. */
const RUNS_ENOUGH = 5;

const NO_RESULTS: Judgement = { standing: "no results", ours: "No results yet.", files: [] };

export function judgedClaims(
  contests: readonly Contest[],
  scenarios: readonly ScenarioInfo[],
): JudgedClaim[] {
  return CLAIMS.map((claim) => {
    const concerned = contests.filter(
      ({ setting }) => claim.scenarios.length === 0 || claim.scenarios.includes(setting.scenario),
    );
    return { claim, ...judge(claim, concerned, scenarios) };
  });
}

function judge(
  claim: PaperClaim,
  contests: readonly Contest[],
  scenarios: readonly ScenarioInfo[],
): Judgement {
  switch (claim.measure) {
    case "downtime falls":
      return downtimeFalls(contests);
    case "downtime factor":
      return downtimeFactor(contests);
    case "users notice":
      return usersNotice(contests, scenarios);
    case "succeeds":
      return succeeds(contests);
    case "when it pays":
      return whenItPays(contests);
  }
}

interface Duel {
  readonly contest: Contest;
  readonly standard: Group;
  readonly ours: Group;
  readonly spreads: { readonly standard: Spread; readonly ours: Spread };
}

/** Contests in which both were measured, with the best of ours, by `figure` (lower is better), of which there are runs enough. */
function duels(
  contests: readonly Contest[],
  metric: string,
  figure = ({ median }: Spread) => median,
): Duel[] {
  return contests.flatMap((contest) => {
    const standard = groupOf(contest, STANDARD);
    const standardSpread = spreadOfMetric(standard, metric);
    const candidates = contest.groups.flatMap((group) => {
      const spread = isOurs(group.method) ? spreadOfMetric(group, metric) : undefined;
      return spread === undefined ? [] : [{ group, spread }];
    });
    // One that had to be forced is ours only where none of ours came to an end by itself.
    const [best] = candidates.sort(
      (a, b) =>
        Number(isClean(b.group)) - Number(isClean(a.group)) ||
        Number(isEnough(b.spread)) - Number(isEnough(a.spread)) ||
        figure(a.spread) - figure(b.spread),
    );
    if (standard === undefined || standardSpread === undefined || best === undefined) return [];
    return [
      { contest, standard, ours: best.group, spreads: { standard: standardSpread, ours: best.spread } },
    ];
  });
}

function isEnough({ count }: Spread): boolean {
  return count >= RUNS_ENOUGH;
}

function restsOnEnough({ spreads }: Duel): boolean {
  return isEnough(spreads.standard) && isEnough(spreads.ours);
}

function filesOf(found: readonly Duel[]): string[] {
  return found.flatMap(({ standard, ours }) => [...standard.runs, ...ours.runs].map(({ file }) => file));
}

function downtimeFalls(contests: readonly Contest[]): Judgement {
  const found = duels(contests, HEARTBEAT_GAP.name);
  if (found.length === 0) return NO_RESULTS;
  const open = found.filter(({ spreads }) => rangesOverlap(spreads.standard, spreads.ours)).length;
  const longer = found.filter(({ spreads }) => spreads.ours.min > spreads.standard.max).length;
  const shorter = found.length - open - longer;
  return {
    standing: shorter === found.length ? "shown" : shorter > 0 ? "shown in part" : "not shown",
    ours: `The heartbeat gap is shorter in ${shorter} of ${found.length} settings, longer in ${longer}; in ${open} no difference is shown.`,
    files: [],
  };
}

/** The greatest of each scenario, of those with runs enough. */
function downtimeFactor(contests: readonly Contest[]): Judgement {
  const ratios = duels(contests, HEARTBEAT_GAP.name).flatMap((duel) => {
    const ratio = ratioOf(duel.spreads.ours, duel.spreads.standard);
    return ratio === undefined ? [] : [{ duel, ratio }];
  });
  if (ratios.length === 0) return NO_RESULTS;
  const byScenario = groupBy(ratios, ({ duel }) => duel.contest.setting.scenario);
  const best = [...byScenario.values()].map((own) =>
    own.reduce((most, next) => {
      const more = Number(restsOnEnough(next.duel)) - Number(restsOnEnough(most.duel));
      return (more || next.ratio.median - most.ratio.median) > 0 ? next : most;
    }),
  );
  const told = best.map(
    ({ duel, ratio }) =>
      `A factor of ${ratioText(ratio)} at most: heartbeat gap ${duelText(duel, formatMs)}. ${settingName(duel.contest)}.`,
  );
  const isReached = best.some(({ ratio }) => ratio.median >= PAPER_FACTOR);
  return {
    standing: isReached ? "shown" : best.some(({ ratio }) => ratio.min > 1) ? "shown in part" : "not shown",
    ours: told.join(" "),
    files: filesOf(best.map(({ duel }) => duel)),
  };
}

function ratioText(ratio: Ratio): string {
  return formatSpread({ ...ratio, count: 1 }, formatFigure);
}

/** "6.4 s by vanilla (5 runs, forced), 52 ms by tunnel (5 runs, by itself)" */
function duelText({ standard, ours, spreads }: Duel, format: (value: number) => string): string {
  const side = (group: Group, spread: Spread) =>
    `${formatSpread(spread, format)} by ${group.method} (${runsText(group, spread)}, ended ${endText(group)})`;
  return `${side(standard, spreads.standard)}, ${side(ours, spreads.ours)}`;
}

/** A gap that had no end, or a guest that did not arrive, has no figure: "1 of 5 runs". */
function runsText({ runs }: Group, { count }: Spread): string {
  const of = count === runs.length ? "" : `${count} of `;
  return `${of}${runs.length} run${runs.length === 1 ? "" : "s"}`;
}

function settingName({ experiment, setting }: Contest): string {
  return `${setting.scenario}, ${settingText(setting)} (experiment ${experiment})`;
}

/** By the first of a scenario's metrics, which is the one that its users notice, and by what it was at worst: that they do. */
function usersNotice(contests: readonly Contest[], scenarios: readonly ScenarioInfo[]): Judgement {
  const found = contests.flatMap((contest) => {
    const metric = scenarios.find(({ name }) => name === contest.setting.scenario)?.metrics[0];
    const found = metric?.unit === "ms" ? duels([contest], metric.name, ({ max }) => max) : [];
    return found.map((duel) => ({ duel, metric: metric! }));
  });
  const [worst] = found.sort(
    (a, b) =>
      Number(restsOnEnough(b.duel)) - Number(restsOnEnough(a.duel)) ||
      b.duel.spreads.standard.median - a.duel.spreads.standard.median,
  );
  if (worst === undefined) return NO_RESULTS;
  const { duel, metric } = worst;
  const { standard, ours } = duel.spreads;
  const isUnnoticed = ours.max <= UNNOTICED_MS_MAX;
  const isBetter = ours.max < standard.min;
  return {
    standing:
      isUnnoticed && isBetter && standard.median >= 1000 ? "shown" : isBetter ? "shown in part" : "not shown",
    ours: `${metric.title}: ${duelText(duel, formatMs)}. ${settingName(duel.contest)}.`,
    files: filesOf([duel]),
  };
}

function succeeds(contests: readonly Contest[]): Judgement {
  const found = contests.flatMap((contest) => {
    const standard = groupOf(contest, STANDARD);
    const own = contest.groups.filter(({ method }) => isOurs(method));
    return standard === undefined || own.length === 0 ? [] : [{ contest, standard, own }];
  });
  if (found.length === 0) return NO_RESULTS;
  const fails = ({ runs }: Group) => runs.every(({ succeeded, forced }) => !succeeded || forced);
  const shown = found.find(({ standard, own }) => fails(standard) && own.some(isClean));
  const { contest, standard, own } = shown ?? found[0]!;
  const others = contest.groups.filter(
    (group) => !isOurs(group.method) && group !== standard && isClean(group),
  );
  const states = [standard, ...own].map((group) => `${group.method} ${successesText(group)}`);
  const also =
    others.length === 0 ? "" : ` Also without failure: ${others.map(({ method }) => method).join(", ")}.`;
  return {
    standing: shown === undefined ? "not shown" : "shown",
    ours: `Moved without a failure and without force: ${states.join(", ")}.${also} ${settingName(contest)}.`,
    files: contest.groups.flatMap(({ runs }) => runs.map(({ file }) => file)),
  };
}

function successesText({ runs }: Group): string {
  const clean = runs.filter(({ succeeded, forced }) => succeeded && !forced).length;
  return `in ${clean} of ${runs.length} run${runs.length === 1 ? "" : "s"}`;
}

function whenItPays(contests: readonly Contest[]): Judgement {
  const swept = sweepsOf(contests).sweeps.flatMap((sweep) => sweep.contests);
  if (swept.length === 0) return { ...NO_RESULTS, ours: "No sweep has been run yet." };
  const counts = { ours: 0, other: 0, open: 0, none: 0 };
  for (const contest of swept) {
    const best = bestMethods(contest, HEARTBEAT_GAP);
    const own = best.filter(isOurs).length;
    counts[best.length === 0 ? "none" : own === best.length ? "ours" : own === 0 ? "other" : "open"]++;
  }
  return {
    standing: "measured",
    ours:
      `Of ${swept.length} settings that were swept, the heartbeat gap is shortest by a method of Deltavee in ${counts.ours}, ` +
      `by another in ${counts.other}; no difference is shown in ${counts.open}, and nothing converged in ${counts.none}. The maps say where.`,
    files: [],
  };
}
