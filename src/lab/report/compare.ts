// Two sets of results against each other: two folders or experiments, setting by setting, or two methods on the same
// work. Ratios come with the range that the runs allow; where ranges overlap, no difference is shown, and it says so.

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../../base/errors.ts";
import { type Ratio, rangesOverlap, ratioOf, type Spread } from "../../report/statistics.ts";
import { formatFigure, plain } from "../../report/text.ts";
import { endText, successText } from "./contest-tables.ts";
import { type Contest, contestsOf, type Group, settingText, spreadOfMetric } from "./contests.ts";
import {
  COSTS,
  columnFor,
  courseMetrics,
  formatSpread,
  type ReportMetric,
  type ScenarioInfo,
  unknownMetrics,
} from "./metrics.ts";
import { type RunResult, readResults, settingKey } from "./results.ts";
import { escapeMarkdown, type Table, tableMarkdown, tableText } from "./table.ts";

/** What is compared: results by a name that says where they come from. */
export interface Side {
  readonly label: string;
  readonly kind: "folder" | "method";
  readonly results: readonly RunResult[];
}

export interface Comparison {
  readonly a: string;
  readonly b: string;
  readonly matches: readonly Match[];
  /** Settings that one side has alone. */
  readonly onlyA: readonly string[];
  readonly onlyB: readonly string[];
}

/** A setting that both sides have. */
export interface Match {
  readonly title: string;
  readonly a: MatchSide;
  readonly b: MatchSide;
  readonly rows: readonly ComparedMetric[];
}

interface MatchSide {
  readonly runs: number;
  readonly succeeded: string;
  readonly ended: string;
  /** Records, below the folder that was read. */
  readonly files: readonly string[];
}

export interface ComparedMetric {
  readonly metric: string;
  readonly title: string;
  readonly unit: string;
  readonly a?: Spread | undefined;
  readonly b?: Spread | undefined;
  /** b ÷ a. */
  readonly ratio?: Ratio | undefined;
  readonly says: string;
}

/** Each of `a` and `b` is a folder, an experiment in `folder`, or a method. @throws UsageError when it is none of them */
export async function readSides(
  a: string,
  b: string,
  folder: string,
): Promise<{ a: Side; b: Side; notices: string[] }> {
  const notices = new Set<string>();
  let shared: readonly RunResult[] | undefined;
  const read = async (path: string) => {
    const { results, notices: told } = await readResults(path);
    for (const notice of told) notices.add(notice);
    return results;
  };
  const side = async (name: string): Promise<Side> => {
    for (const path of [name, join(folder, name)]) {
      if (await isFolder(path)) return { label: name, kind: "folder", results: await read(path) };
    }
    shared ??= await read(folder);
    const results = shared.filter(({ setting }) => setting.method === name);
    if (results.length > 0) return { label: name, kind: "method", results };
    throw new UsageError(
      `Nothing to compare: "${name}" is no folder, no experiment in ${folder} and no method there`,
    );
  };
  const sides = { a: await side(a), b: await side(b) };
  if (sides.a.kind !== sides.b.kind) {
    throw new UsageError(`Cannot compare a folder of results with a method: "${a}" and "${b}"`);
  }
  for (const { label, results } of [sides.a, sides.b]) {
    if (results.length === 0) throw new UsageError(`Nothing to compare: "${label}" holds no usable record`);
  }
  return { ...sides, notices: [...notices] };
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}

interface Matchable {
  readonly title: string;
  readonly scenario: string;
  readonly group: Group;
}

export function compareSides(a: Side, b: Side, scenarios: readonly ScenarioInfo[]): Comparison {
  const [first, second] = [a, b].map(matchables);
  const matches: Match[] = [];
  for (const [key, { title, scenario, group }] of first!) {
    const other = second!.get(key);
    if (other === undefined) continue;
    const info = scenarios.find(({ name }) => name === scenario);
    matches.push({
      title,
      a: matchSide(group),
      b: matchSide(other.group),
      rows: comparedMetrics(group, other.group, info),
    });
  }
  const only = (those: Map<string, Matchable>, others: Map<string, Matchable>) =>
    [...those].filter(([key]) => !others.has(key)).map(([, { title }]) => title);
  return {
    a: a.label,
    b: b.label,
    matches,
    onlyA: only(first!, second!),
    onlyB: only(second!, first!),
  };
}

/** By what must be equal for a comparison: folders compare the same method, methods the same experiment. */
function matchables(side: Side): Map<string, Matchable> {
  const found = new Map<string, Matchable>();
  for (const contest of contestsOf(side.results)) {
    for (const group of contest.groups) {
      const method = side.kind === "method" ? "" : group.method;
      const experiment = side.kind === "method" ? contest.experiment : "";
      const key = JSON.stringify([experiment, settingKey({ ...contest.setting, method, run: 0 })]);
      // The same work in several experiments of one folder: all of its runs.
      const runs = [...(found.get(key)?.group.runs ?? []), ...group.runs];
      found.set(key, {
        title: titleOf(contest, method),
        scenario: contest.setting.scenario,
        group: { method: group.method, runs },
      });
    }
  }
  return found;
}

function titleOf({ setting }: Contest, method: string): string {
  return `${setting.scenario}${method === "" ? "" : `, ${method}`}: ${settingText(setting)}`;
}

function matchSide(group: Group): MatchSide {
  return {
    runs: group.runs.length,
    succeeded: successText(group),
    ended: endText(group),
    files: group.runs.map(({ file }) => file),
  };
}

function comparedMetrics(a: Group, b: Group, info: ScenarioInfo | undefined): ComparedMetric[] {
  const known = [...courseMetrics(info), ...COSTS];
  const measured = [a, b].flatMap(({ runs }) => runs.flatMap(({ metrics }) => [...metrics.keys()]));
  return [...known, ...unknownMetrics(measured, known)].flatMap((metric) => {
    const spreads = { a: spreadOfMetric(a, metric.name), b: spreadOfMetric(b, metric.name) };
    if (spreads.a === undefined && spreads.b === undefined) return [];
    const ratio =
      spreads.a === undefined || spreads.b === undefined ? undefined : ratioOf(spreads.a, spreads.b);
    const { name, title, unit } = metric;
    return [{ metric: name, title, unit, ...spreads, ratio, says: verdictOf(metric, spreads.a, spreads.b) }];
  });
}

/** Of b against a. */
function verdictOf(metric: ReportMetric, a: Spread | undefined, b: Spread | undefined): string {
  if (a === undefined || b === undefined) return "not measured on one side";
  if (rangesOverlap(a, b)) return "no difference shown";
  const isBetter = b.median < a.median === metric.isLowerBetter;
  const word = metric.isJudged ? (isBetter ? "better" : "worse") : b.median < a.median ? "less" : "more";
  return Math.min(a.count, b.count) === 1 ? `${word} (a single run)` : word;
}

function tables({ a, b, matches }: Comparison): Table[] {
  return matches.map((match) => ({
    caption: match.title,
    head: ["", a, b, `${b} ÷ ${a}`, "so it is"],
    rows: [
      { cells: ["runs", String(match.a.runs), String(match.b.runs), "", ""] },
      { cells: ["succeeded", match.a.succeeded, match.b.succeeded, "", ""] },
      { cells: ["ended", match.a.ended, match.b.ended, "", ""] },
      ...match.rows.map((row) => ({ cells: rowCells(row) })),
    ],
    notes: [],
  }));
}

function rowCells({ metric: name, title, unit, a, b, ratio, says }: ComparedMetric): string[] {
  const metric = { name, title, unit, isLowerBetter: true, isJudged: true };
  const { heading, format } = columnFor(
    metric,
    [a, b].flatMap((spread) => (spread === undefined ? [] : [spread.min, spread.max])),
  );
  return [heading, formatSpread(a, format), formatSpread(b, format), ratioText(ratio), says];
}

function ratioText(ratio: Ratio | undefined): string {
  return ratio === undefined ? "-" : formatSpread({ ...ratio, count: 1 }, formatFigure);
}

function leftOut({ a, b, onlyA, onlyB }: Comparison): string[] {
  return [
    ...onlyA.map((title) => `Only in ${a}: ${title}`),
    ...onlyB.map((title) => `Only in ${b}: ${title}`),
  ];
}

const NOTHING_IN_COMMON = "The two sides have no setting in common: nothing is compared.";

export function comparisonText(comparison: Comparison): string {
  const parts = tables(comparison).map(tableText);
  const rest = leftOut(comparison).map(plain);
  return `${[...(parts.length === 0 ? [NOTHING_IN_COMMON] : parts), ...(rest.length === 0 ? [] : [rest.join("\n")])].join("\n\n")}\n`;
}

export function comparisonMarkdown(comparison: Comparison): string {
  const parts = tables(comparison).map(tableMarkdown);
  const rest = leftOut(comparison).map((line) => `- ${escapeMarkdown(line)}`);
  return `${[...(parts.length === 0 ? [NOTHING_IN_COMMON] : parts), ...(rest.length === 0 ? [] : [rest.join("\n")])].join("\n\n")}\n`;
}
