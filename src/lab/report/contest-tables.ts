// A contest as two tables: how it went for the guest and its users, and what it took. One row per method, median and
// range over its runs; which method is best in a column is worked out here, whosoever it is.

import { formatMs } from "../../base/units.ts";
import { rangesOverlap } from "../../report/statistics.ts";
import { type Contest, type Group, isClean, isOurs, spreadOfMetric } from "./contests.ts";
import {
  COSTS,
  type Column,
  columnFor,
  courseMetrics,
  formatSpread,
  type ReportMetric,
  type ScenarioInfo,
  unknownMetrics,
} from "./metrics.ts";
import type { Row, Table } from "./table.ts";

export function contestTables(contest: Contest, info: ScenarioInfo | undefined): Table[] {
  const course = courseMetrics(info);
  const measured = contest.groups.flatMap(({ runs }) => runs.flatMap(({ metrics }) => [...metrics.keys()]));
  const others = unknownMetrics(measured, [...course, ...COSTS]);
  return [
    {
      ...metricTable(contest, "How it went", course, OUTCOMES),
      notes: [
        ...failureNotes(contest),
        ...forcedNote(contest),
        ...singleNote(contest),
        ...standingNotes(contest, course),
      ],
    },
    {
      ...metricTable(contest, "What it took", [...COSTS, ...others], []),
      notes: standingNotes(contest, COSTS),
    },
  ];
}

/** Columns that are no metric. */
const OUTCOMES: readonly { heading: string; cell: (group: Group) => string }[] = [
  { heading: "runs", cell: ({ runs }) => String(runs.length) },
  { heading: "succeeded", cell: successText },
  { heading: "ended", cell: endText },
];

export function successText({ runs }: Group): string {
  const good = runs.filter(({ succeeded }) => succeeded).length;
  return good === runs.length ? "yes" : good === 0 ? "no" : `${good} of ${runs.length}`;
}

/** "by itself", "forced", "3 by itself, 2 forced": how migrations came to an end, or that they did not. */
export function endText({ runs }: Group): string {
  const forced = runs.filter((run) => run.forced).length;
  const converged = runs.filter((run) => run.converged && !run.forced).length;
  const counts: [string, number][] = [
    ["by itself", converged],
    ["forced", forced],
    ["not as asked", runs.length - converged - forced],
  ];
  const some = counts.filter(([, count]) => count > 0);
  return some.map(([name, count]) => (some.length === 1 ? name : `${count} ${name}`)).join(", ");
}

function metricTable(
  contest: Contest,
  caption: string,
  metrics: readonly ReportMetric[],
  outcomes: typeof OUTCOMES,
): Table {
  const columns = metrics.flatMap((metric) => {
    const values = contest.groups.flatMap(({ runs }) =>
      runs.flatMap((run) => run.metrics.get(metric.name) ?? []),
    );
    return values.length === 0 ? [] : [columnFor(metric, values)];
  });
  const rows = contest.groups.map(
    (group): Row => ({
      cells: [
        group.method,
        ...outcomes.map(({ cell }) => cell(group)),
        ...columns.map(({ metric, format }) => formatSpread(spreadOfMetric(group, metric.name), format)),
      ],
    }),
  );
  return {
    caption,
    head: ["method", ...outcomes.map(({ heading }) => heading), ...columns.map(({ heading }) => heading)],
    rows: contest.groups.length < 2 ? rows : [...rows, bestRow(contest, columns, outcomes.length)],
    notes: [],
  };
}

function bestRow(contest: Contest, columns: readonly Column[], skipped: number): Row {
  const best = columns.map(({ metric }) => bestMethods(contest, metric).join(", "));
  return { cells: ["best", ...Array.from({ length: skipped }, () => ""), ...best], isFoot: true };
}

/**
 * The method with the best median, and those whose range overlaps with its own. Methods that had to be forced, or of
 * which a run failed, do not compete: an end by force is quick.
 */
export function bestMethods(contest: Contest, metric: ReportMetric): string[] {
  if (!metric.isJudged) return [];
  const competing = contest.groups.flatMap((group) => {
    const spread = isClean(group) ? spreadOfMetric(group, metric.name) : undefined;
    return spread === undefined ? [] : [{ method: group.method, spread }];
  });
  const sign = metric.isLowerBetter ? 1 : -1;
  const [first, ...others] = competing.sort((a, b) => sign * (a.spread.median - b.spread.median));
  if (first === undefined) return [];
  return [first, ...others.filter(({ spread }) => rangesOverlap(spread, first.spread))].map(
    ({ method }) => method,
  );
}

/** Where QEMU's own methods are better, and where no difference to them is shown. */
function standingNotes(contest: Contest, metrics: readonly ReportMetric[]): string[] {
  if (!contest.groups.some(({ method }) => isOurs(method))) return [];
  const lost: string[] = [];
  const open: string[] = [];
  for (const metric of metrics) {
    const best = bestMethods(contest, metric);
    const rivals = best.filter((method) => !isOurs(method));
    if (best.length === 0 || rivals.length === 0) continue;
    if (rivals.length === best.length) lost.push(`${metric.title} (${rivals.join(", ")})`);
    else open.push(`${metric.title} (${rivals.join(", ")})`);
  }
  return [
    ...(lost.length === 0 ? [] : [`Another method than Deltavee's is best in: ${lost.join("; ")}.`]),
    ...(open.length === 0
      ? []
      : [`No difference between Deltavee's best and another's is shown in: ${open.join("; ")}.`]),
  ];
}

/** What went wrong for whom, each thing once. */
function failureNotes({ groups }: Contest): string[] {
  return groups.flatMap(({ method, runs }) => {
    const counts = new Map<string, number>();
    for (const failure of runs.flatMap(({ failures }) => failures)) {
      counts.set(failure, (counts.get(failure) ?? 0) + 1);
    }
    const told = [...counts]
      .slice(0, FAILURES_TOLD_MAX)
      .map(([text, count]) => `${text} (${count} of ${runs.length})`);
    const more = counts.size > told.length ? [`and ${counts.size - told.length} more`] : [];
    return told.length === 0 ? [] : [`${method}: ${[...told, ...more].join("; ")}.`];
  });
}

const FAILURES_TOLD_MAX = 5;

function forcedNote({ groups }: Contest): string[] {
  const forced = groups.filter(({ runs }) => runs.some((run) => run.forced));
  if (forced.length === 0) return [];
  const afterMs = [...new Set(forced.flatMap(({ runs }) => runs.flatMap((run) => run.forcedAfterMs ?? [])))];
  const when =
    afterMs.length === 0
      ? ""
      : ` after ${afterMs
          .sort((a, b) => a - b)
          .map(formatMs)
          .join(" or ")}`;
  return [`Forced: it did not converge, and was ended by raising the downtime limit${when}.`];
}

function singleNote({ groups }: Contest): string[] {
  if (groups.every(({ runs }) => runs.length > 1)) return [];
  return ["Of a single run there is no range: whether a difference to it is chance, it cannot say."];
}
