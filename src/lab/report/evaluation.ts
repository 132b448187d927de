// docs/evaluation.md: the figures of the lab as a document. What is generated stands between comments and is replaced
// in place; what people wrote around it stays. A scenario without results says so. Every table names its records.

import { replaceSection } from "../../report/section.ts";
import { CLAIM_HEAD, type JudgedClaim, judgedClaims } from "./claims.ts";
import { contestTables, endText, successText } from "./contest-tables.ts";
import { type Contest, contestsOf, groupBy, settingText, spreadOfMetric } from "./contests.ts";
import { columnFor, courseMetrics, formatSpread, type ScenarioInfo, WIRE_BYTES } from "./metrics.ts";
import { PAPER } from "./paper.ts";
import { recordNames } from "./record-names.ts";
import type { Results, RunResult } from "./results.ts";
import { heatMapTable, mapsOf, type Sweep, sweepsOf } from "./sweeps.ts";
import { escapeMarkdown, type Table, tableMarkdown } from "./table.ts";

export interface EvaluationOptions {
  readonly scenarios: readonly ScenarioInfo[];
  /** That makes the document again. */
  readonly command: string;
}

/** What stands in a document that does not exist yet. */
const SKELETON = `# Evaluation

Real VMs moved by every method there is, on the same work over the same link, looked at from outside: what the paper
evaluated, done again with today's QEMU, and Deltavee beside QEMU's own methods. \`deltavee lab --help\` says how a run
is repeated. Everything between the comments is generated from run records by the command that stands below; none of
it is written by hand.

How to read the tables: medians, with the range over the runs in brackets. The *heartbeat gap* is how long a program
outside heard nothing of the guest; *QEMU's downtime* is what QEMU says itself. A method that does not converge is
*forced* after a fixed time, the same for all, by raising the downtime limit, so that "never" has a downtime too.
*best* names the method with the best median and those whose range overlaps with it; what was forced or failed does
not compete, and a row without any has none.
`;

/** More contests of one scenario than this are put together in one table. */
const CONTESTS_TOLD_MAX = 12;

/** `existing` with its sections made anew. */
export function evaluationMarkdown(existing: string, results: Results, options: EvaluationOptions): string {
  const contests = contestsOf(results.results);
  const { sweeps, others } = sweepsOf(contests);
  const { scenarios } = options;
  const known = new Set(scenarios.map(({ name }) => name));
  const unknown = others.filter(({ setting }) => !known.has(setting.scenario));
  const sections = [
    ["runs", runsSection(results, options.command)],
    ["paper", paperSection(judgedClaims(contests, scenarios))],
    ...scenarios.map((info) => [
      info.name,
      scenarioSection(
        info,
        others.filter(({ setting }) => setting.scenario === info.name),
        sweeps.some(({ scenario }) => scenario === info.name),
      ),
    ]),
    ["sweeps", sweepsSection(sweeps)],
    ["other", unknown.length === 0 ? "" : `## Other scenarios\n\n${contestsText(unknown, undefined)}`],
  ].filter(([name, content]) => content !== "" || existing.includes(`<!-- begin evaluation ${name} -->`));
  return sections.reduce(
    (text, [name, content]) => replaceSection(text, `evaluation ${name}`, content!),
    existing === "" ? SKELETON : existing,
  );
}

function runsSection({ results, notices }: Results, command: string): string {
  const distinct = (of: (result: RunResult) => string | undefined) => [
    ...new Set(results.flatMap((r) => of(r) ?? [])),
  ];
  const list = (values: string[]) => (values.length === 0 ? "not recorded" : values.sort().join("; "));
  const days = distinct(({ startedAt }) => startedAt.slice(0, 10)).sort();
  const facts =
    results.length === 0
      ? ["No results yet."]
      : [
          `${results.length} runs in ${distinct(({ experiment }) => experiment).length} experiments, ${[...new Set([days[0], days.at(-1)])].join(" to ")}`,
          `machine: ${list(distinct(({ machine }) => machine))}`,
          `hypervisor: ${list(distinct(({ hypervisor }) => hypervisor))}; Deltavee ${list(distinct(({ deltavee }) => deltavee))}`,
        ];
  const commands = distinct(({ command: made }) => made).sort();
  return [
    "## Runs",
    "",
    `- this document: \`${command.replace(/`/g, "'")}\``,
    ...facts.map((fact) => `- ${escapeMarkdown(fact)}`),
    ...details("Commands that made the runs", commands),
    ...details("Records that were left out", notices),
  ].join("\n");
}

/** A list that is folded away; nothing when it is empty. */
function details(title: string, items: readonly string[]): string[] {
  if (items.length === 0) return [];
  const lines = items.map((item) => `- ${escapeMarkdown(item)}`);
  return [
    "",
    `<details><summary>${escapeMarkdown(title)} (${items.length})</summary>`,
    "",
    ...lines,
    "",
    "</details>",
  ];
}

function paperSection(claims: readonly JudgedClaim[]): string {
  const table: Table = {
    caption: `Claims of the paper, ${PAPER}, and what was measured here`,
    head: CLAIM_HEAD,
    rows: claims.map(({ claim, standing, ours }) => ({ cells: [claim.claim, claim.where, standing, ours] })),
    isProse: true,
    notes: [],
  };
  const files = claims.flatMap((judged) => judged.files);
  return ["## The paper's claims", "", tableMarkdown(table), ...recordList(files)].join("\n");
}

function recordList(files: readonly string[]): string[] {
  return details("Records of these figures", recordNames(files));
}

function filesOf({ groups }: Contest): string[] {
  return groups.flatMap(({ runs }) => runs.map(({ file }) => file));
}

function scenarioSection(info: ScenarioInfo, contests: readonly Contest[], isSwept: boolean): string {
  const nothing = isSwept
    ? "Run as a sweep only: see the maps below."
    : `No results yet: \`deltavee lab run ${info.name}\` makes them.`;
  return [
    `## ${escapeMarkdown(info.title)}`,
    "",
    escapeMarkdown(info.description),
    "",
    contests.length === 0 ? nothing : contestsText(contests, info),
  ].join("\n");
}

function contestsText(contests: readonly Contest[], info: ScenarioInfo | undefined): string {
  // Where methods meet comes first; a method alone on its work is compared with nothing.
  const ordered = contests.toSorted((a, b) => Math.min(b.groups.length, 2) - Math.min(a.groups.length, 2));
  const parts = ordered
    .slice(0, CONTESTS_TOLD_MAX)
    .map((contest) =>
      [
        `### ${escapeMarkdown(`${info === undefined ? `${contest.setting.scenario}, ` : ""}${settingText(contest.setting)}`)}`,
        "",
        `Experiment ${escapeMarkdown(contest.experiment)}.`,
        ...contestTables(contest, info).flatMap((table) => ["", tableMarkdown(table)]),
        ...recordList(filesOf(contest)),
      ].join("\n"),
    );
  const rest = ordered.slice(CONTESTS_TOLD_MAX);
  if (rest.length > 0) {
    const table = tableMarkdown(restTable(rest, info));
    parts.push(["### Further settings", "", table, ...recordList(rest.flatMap(filesOf))].join("\n"));
  }
  return parts.join("\n\n");
}

function restTable(contests: readonly Contest[], info: ScenarioInfo | undefined): Table {
  const metrics = [...courseMetrics(info), WIRE_BYTES];
  const groups = contests.flatMap((contest) => contest.groups.map((group) => ({ contest, group })));
  const columns = metrics.flatMap((metric) => {
    const values = groups.flatMap(({ group }) =>
      group.runs.flatMap((run) => run.metrics.get(metric.name) ?? []),
    );
    return values.length === 0 ? [] : [columnFor(metric, values)];
  });
  return {
    caption: "One row per setting and method",
    head: ["setting", "method", "runs", "succeeded", "ended", ...columns.map(({ heading }) => heading)],
    rows: groups.map(({ contest, group }) => ({
      cells: [
        settingText(contest.setting),
        group.method,
        String(group.runs.length),
        successText(group),
        endText(group),
        ...columns.map(({ metric, format }) => formatSpread(spreadOfMetric(group, metric.name), format)),
      ],
    })),
    notes: [],
  };
}

function sweepsSection(sweeps: readonly Sweep[]): string {
  const head = "## Sweeps: when it pays";
  if (sweeps.length === 0) return `${head}\n\nNo results yet: a sweep varies two quantities of one scenario.`;
  const parts = sweeps.map((sweep) => {
    const runs = groupBy(
      sweep.contests.flatMap(({ groups }) => groups.map((group) => String(group.runs.length))),
      (count) => count,
    );
    return [
      `### ${escapeMarkdown(`${sweep.scenario}: ${sweep.y.name} × ${sweep.x.name}`)}`,
      "",
      `${escapeMarkdown(sweep.fixed)}. Experiment ${escapeMarkdown(sweep.experiment)}; runs of each setting: ${[...runs.keys()].sort().join(", ")}.`,
      ...mapsOf(sweep).flatMap((map) => ["", tableMarkdown(heatMapTable(map))]),
      ...recordList(sweep.contests.flatMap(filesOf)),
    ].join("\n");
  });
  return [head, ...parts].join("\n\n");
}
