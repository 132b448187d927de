// Results of the lab as one HTML file: tables, plots and maps, drawn from run records alone. Without script and without
// anything loaded; what records say is escaped wherever it stands. The same records give the same bytes.

import { documentHtml, headRow, scrollable } from "../../../report/html/document.ts";
import { escapeHtml } from "../../../report/html/svg.ts";
import { CLAIM_HEAD, judgedClaims } from "../claims.ts";
import { contestTables } from "../contest-tables.ts";
import { type Contest, contestsOf, groupBy, settingText } from "../contests.ts";
import { COSTS, courseMetrics, type ScenarioInfo, userMetrics } from "../metrics.ts";
import { PAPER } from "../paper.ts";
import { recordNames } from "../record-names.ts";
import type { Results } from "../results.ts";
import { type HeatMap, mapsOf, type Sweep, sweepsOf } from "../sweeps.ts";
import { tableHtml } from "../table.ts";
import { iterationStrips, metricBars, seriesNames, seriesStrips } from "./plots.ts";
import { LAB_STYLE } from "./style.ts";

/** Contests with plots; the others have their tables. A page with more would be slow to open. */
const PLOTTED_MAX = 24;
const SERIES_PLOTTED_MAX = 5;
const USER_METRICS_PLOTTED_MAX = 3;
const COSTS_PLOTTED: ReadonlySet<string> = new Set(["wireBytes", "slowdownShare", "sourceCpuMs"]);

export function labReportHtml(results: Results, scenarios: readonly ScenarioInfo[]): string {
  const contests = contestsOf(results.results);
  const { sweeps, others } = sweepsOf(contests);
  const names = scenarios.map(({ name }) => name);
  const rank = (scenario: string) => (names.includes(scenario) ? names.indexOf(scenario) : names.length);
  const byScenario = [...groupBy(others, ({ setting }) => setting.scenario)].sort(
    ([a], [b]) => rank(a) - rank(b),
  );
  let plotted = 0;
  const sections = byScenario.map(([scenario, own], index) => {
    const info = scenarios.find(({ name }) => name === scenario);
    const parts = own.map((contest) => contestHtml(contest, info, plotted++));
    return {
      id: `scenario-${index}`,
      title: info?.title ?? scenario,
      html: `${info === undefined ? "" : `<p>${escapeHtml(info.description)}</p>`}${parts.join("\n")}`,
    };
  });
  if (sweeps.length > 0) {
    sections.push({ id: "sweeps", title: "Sweeps: when it pays", html: sweeps.map(sweepHtml).join("\n") });
  }
  sections.unshift({ id: "paper", title: "The paper's claims", html: claimsHtml(contests, scenarios) });
  sections.push({ id: "runs", title: "Runs", html: runsHtml(results) });

  const links = sections.map(({ id, title }) => `<li><a href="#${id}">${escapeHtml(title)}</a></li>`);
  const body = sections.map(
    ({ id, title, html }) =>
      `<section id="${id}" aria-labelledby="${id}-h"><h2 id="${id}-h">${escapeHtml(title)}</h2>\n${html}</section>`,
  );
  const lead =
    results.results.length === 0
      ? "No results yet."
      : `${results.results.length} runs of ${contests.length} settings: real VMs, moved by each method on the same work over the same link. Medians; the range over the runs in brackets.`;
  return documentHtml(
    "Live migration, measured",
    `<header><h1>Live migration, measured</h1>
<p class="lead">${escapeHtml(lead)}</p>
${results.notices.length === 0 ? "" : `<p class="bad">Records are left out (${results.notices.length}): see <a href="#runs">Runs</a>.</p>`}
<nav aria-label="Contents"><ul>${links.join("")}</ul></nav>
</header>
<main>
${body.join("\n")}
</main>
<footer>Drawn from run records by Deltavee. The heartbeat gap is how long a program outside heard nothing of the guest. A method that does not converge is forced to end after a fixed time, the same for all.</footer>`,
    LAB_STYLE,
  );
}

function contestHtml(contest: Contest, info: ScenarioInfo | undefined, index: number): string {
  const of = `${contest.setting.scenario}, ${settingText(contest.setting)}, experiment ${contest.experiment}`;
  const tables = contestTables(contest, info)
    .map((table) => tableHtml(table, of))
    .join("\n");
  return (
    `<h3>${escapeHtml(settingText(contest.setting))}</h3><p class="muted">Experiment ${escapeHtml(contest.experiment)}</p>\n${tables}\n` +
    (index < PLOTTED_MAX
      ? plotsHtml(contest, info, `contest-${index}`)
      : `<p class="muted">Plots are left out: the page has ${PLOTTED_MAX} settings with plots.</p>`) +
    recordsHtml(contest)
  );
}

function plotsHtml(contest: Contest, info: ScenarioInfo | undefined, id: string): string {
  const metrics = [
    ...courseMetrics(info),
    ...userMetrics(info).slice(0, USER_METRICS_PLOTTED_MAX),
    ...COSTS.filter(({ name }) => COSTS_PLOTTED.has(name)),
  ];
  const bars = metrics.map((metric, index) => metricBars(`${id}-bars-${index}`, contest, metric));
  const series = seriesNames(contest);
  const strips = series
    .slice(0, SERIES_PLOTTED_MAX)
    .map((name, index) => seriesStrips(`${id}-series-${index}`, contest, name));
  const more = series.slice(SERIES_PLOTTED_MAX).map(({ name }) => name);
  const rest = more.length === 0 ? "" : `<p class="muted">Not drawn: ${escapeHtml(more.join(", "))}.</p>`;
  return (
    `<div class="grid-2">\n${bars.join("")}</div>\n` +
    `<div class="grid-2">\n${strips.join("")}${iterationStrips(`${id}-iterations`, contest)}</div>\n${rest}`
  );
}

function recordsHtml({ groups }: Contest): string {
  return recordList(groups.flatMap(({ runs }) => runs.map(({ file }) => file)));
}

function recordList(files: readonly string[]): string {
  return listHtml("Records of these figures", recordNames(files));
}

function listHtml(title: string, items: readonly string[]): string {
  if (items.length === 0) return "";
  const listed = items.map((item) => `<li>${escapeHtml(item)}</li>`).join("\n");
  return `<details><summary>${escapeHtml(title)} (${items.length})</summary><ul class="records">${listed}</ul></details>\n`;
}

function sweepHtml(sweep: Sweep): string {
  const { scenario, x, y, fixed, experiment, contests } = sweep;
  return (
    `<h3>${escapeHtml(`${scenario}: ${y.name} × ${x.name}`)}</h3>` +
    `<p class="muted">${escapeHtml(`${fixed}. Experiment ${experiment}`)}</p>\n` +
    `<div class="grid-2">${mapsOf(sweep)
      .map((map) => heatMapHtml(map, `${scenario}, ${fixed}, experiment ${experiment}`))
      .join("\n")}</div>\n` +
    recordList(contests.flatMap(({ groups }) => groups.flatMap(({ runs }) => runs.map(({ file }) => file))))
  );
}

function heatMapHtml({ title, says, down, across, columns, rows }: HeatMap, of: string): string {
  const body = rows.map(({ name, cells }) => {
    const tds = cells.map(({ text, heat }) => {
      const className = typeof heat === "number" ? `h${heat}` : heat;
      return `<td${className === undefined ? "" : ` class="${className}"`}>${escapeHtml(text)}</td>`;
    });
    return `<tr><th scope="row">${escapeHtml(name)}</th>${tds.join("")}</tr>`;
  });
  const table = `<table class="heat">${headRow(["", ...columns])}<tbody>${body.join("\n")}</tbody></table>`;
  const about = `<p class="muted">${escapeHtml(`Down: ${down}; across: ${across}. ${says}`)}</p>`;
  const isWinners = rows.some(({ cells }) => cells.some(({ heat }) => typeof heat === "string"));
  return `<div><h4>${escapeHtml(title)}</h4>${about}${isWinners ? WINNER_LEGEND : ""}${scrollable(`${title}: ${of}`, table)}</div>`;
}

const WINNER_LEGEND = `<ul class="legend">${[
  ["ours", "a method of Deltavee"],
  ["open", "no difference shown"],
  ["other", "another method"],
]
  .map(([name, says]) => `<li><span class="box ${name}"></span>${says}</li>`)
  .join("")}</ul>`;

function claimsHtml(contests: readonly Contest[], scenarios: readonly ScenarioInfo[]): string {
  const claims = judgedClaims(contests, scenarios);
  return (
    tableHtml({
      caption: PAPER,
      head: CLAIM_HEAD,
      rows: claims.map(({ claim, standing, ours }) => ({
        cells: [claim.claim, claim.where, standing, ours],
      })),
      isProse: true,
      notes: [],
    }) + recordList(claims.flatMap(({ files }) => files))
  );
}

function runsHtml({ results, notices }: Results): string {
  const machines = groupBy(results, ({ machine, hypervisor, deltavee }) =>
    JSON.stringify([machine ?? "machine not recorded", hypervisor, deltavee]),
  );
  const rows = [...machines].map(([key, runs]) => {
    const [machine, hypervisor, deltavee] = JSON.parse(key) as [string, string, string];
    const days = runs.map(({ startedAt }) => startedAt.slice(0, 10)).sort();
    return {
      cells: [
        machine,
        hypervisor,
        deltavee,
        [...new Set([days[0]!, days.at(-1)!])].join(" to "),
        String(runs.length),
      ],
    };
  });
  const table = tableHtml({
    caption: "Where the figures come from",
    head: ["machine", "hypervisor", "Deltavee", "when", "runs"],
    rows,
    isProse: true,
    notes: [],
  });
  const commands = [...new Set(results.flatMap(({ command }) => command ?? []))].sort();
  return (
    table + listHtml("Commands that made the runs", commands) + listHtml("Records that are left out", notices)
  );
}
