// A report on one or several runs as one HTML file that can be mailed about: no script, nothing loaded from
// anywhere (a content policy inside forbids it), light or dark as the reader has it. The same runs give the same
// bytes. What it says comes from the run record alone; text of the record is escaped wherever it stands.

import { formatBytes, formatMs } from "../../base/units.ts";
import type { RecordEvent } from "../../record/schema.ts";
import {
  eventsOf,
  iterationFigures,
  PAGE_CLASSES,
  pagesOf,
  type RecordedRun,
  type RunFigures,
  runFigures,
} from "../figures.ts";
import { labRows } from "../lab-figures.ts";
import { linkEventText } from "../link-text.ts";
import { comparisonRows, comparisonVerdict, outcomeText } from "../summary.ts";
import { formatCount } from "../text.ts";
import { verifiedText } from "../verified-text.ts";
import {
  heartbeatFigure,
  iterationBytesFigure,
  pageClassFigures,
  raceFigures,
  throughputFigure,
} from "./charts.ts";
import { clientFigures } from "./client-charts.ts";
import { documentHtml, headRow, scrollable } from "./document.ts";
import { forecastSection } from "./forecast.ts";
import { escapeHtml } from "./svg.ts";

/** Rows of a table of decisions, notices or iterations; the record has the rest. */
const ROWS_MAX = 200;
/** RAM is counted in these, unlike what goes over a network. */
const MIB = 1024 * 1024;

export function htmlReport(runs: readonly RecordedRun[]): string {
  const title = `Migration report: ${runs.map(({ label }) => label).join(", ")}`;
  return documentHtml(
    title,
    `<header>
<h1>Migration report</h1>
${outcomesHtml(runs)}
</header>
<main>
${summaryHtml(runs)}
${courseHtml(runs)}
</main>
<footer>Drawn from the run record${runs.length > 1 ? "s" : ""} by Deltavee. Downtime is measured from outside, by the guest's heartbeat, where one was watched; what the hypervisor says stands beside it.</footer>`,
  );
}

/** How each run ended, in a sentence, and of two what that comes to. */
export function outcomesHtml(runs: readonly RecordedRun[]): string {
  const figures = runs.map(runFigures);
  return `${figures.map(outcomeHtml).join("\n")}\n${verdictHtml(figures)}`;
}

/** The figures of runs that are over. */
export function summaryHtml(runs: readonly RecordedRun[]): string {
  return `<h2>Summary</h2>\n${comparisonTable(runs, runs.map(runFigures))}`;
}

/** How it came to that: forecasts, plots, iterations, decisions, notices. Also of runs that are still going. */
export function courseHtml(runs: readonly RecordedRun[]): string {
  return `${forecastSection(runs)}<h2>Downtime and link</h2>
<div class="grid-2">
${heartbeatFigure(runs)}${throughputFigure(runs)}</div>
<h2>Convergence</h2>
<div class="grid-2">
${raceFigures(runs)}</div>
<h2>Iterations</h2>
<div class="grid-2">
${pageClassFigures(runs)}${iterationBytesFigure(runs)}</div>
${runs.map(iterationTable).join("\n")}
${labSection(runs, runs.map(runFigures))}<h2>Decisions</h2>
${runs.map(decisionTable).join("\n")}
<h2>Worth knowing</h2>
${runs.map(noticeList).join("\n")}`;
}

function outcomeHtml(figures: RunFigures): string {
  const { label, outcome, memoryVerified, errors } = figures;
  const sentences = [
    outcomeText(figures),
    ...(memoryVerified === false ? ["The guest's memory at the destination DIFFERS from the source's."] : []),
    ...errors.slice(0, 1).map(({ code, message }) => `Error ${code}: ${message}`),
  ];
  const isBad = outcome !== "completed" || memoryVerified === false;
  return `<p class="lead${isBad ? " bad" : ""}"><strong>${escapeHtml(label)}</strong>: ${escapeHtml(sentences.join(" "))}</p>`;
}

function verdictHtml(figures: readonly RunFigures[]): string {
  const [subject, ...phrases] = comparisonVerdict(figures);
  if (subject === undefined) return "";
  return `<p class="lead">${escapeHtml(`${subject} ${phrases.map((phrase) => phrase.trim()).join("; ")}.`)}</p>`;
}

function comparisonTable(runs: readonly RecordedRun[], figures: readonly RunFigures[]): string {
  const about = (name: string, of: (run: Extract<RecordEvent, { type: "run" }>) => string | undefined) => ({
    name,
    cells: runs.map(({ events }) => {
      const run = eventsOf(events, "run")[0];
      return (run && of(run)) ?? "-";
    }),
  });
  const rows = [
    ...comparisonRows(figures),
    about("method", (run) => run.method),
    about("mode", (run) => run.mode),
    about("hypervisor", (run) => run.hypervisor),
    about("destination", (run) => run.destination),
    about("guest RAM", (run) =>
      run.guestRamBytes === undefined ? undefined : `${formatCount(run.guestRamBytes / MIB)} MiB`,
    ),
    about("started", (run) => run.startedAt.replace(/^(\S+)T(\d\d:\d\d).*Z$/, "$1 $2 UTC")),
    about("Deltavee", (run) => run.deltavee),
  ].filter(({ cells }) => cells.some((cell) => cell !== "-"));
  const figureCount = comparisonRows(figures).length;
  const body = rows.map(({ name, cells }, index) => {
    const values = index < figureCount ? cellsHtml(cells) : sharedCellsHtml(cells);
    return `<tr${index === 0 ? ' class="first"' : ""}><th scope="row">${escapeHtml(name)}</th>${values}</tr>`;
  });
  const head = headRow(["", ...runs.map(({ label }) => label)]);
  return scrollable("Summary", `<table class="figures">${head}<tbody>${body.join("\n")}</tbody></table>`);
}

function cellsHtml(cells: readonly string[]): string {
  return cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("");
}

/** What is the same for all runs is said once, which leaves narrow screens room. */
function sharedCellsHtml(cells: readonly string[]): string {
  const [first = "", ...others] = cells;
  if (others.length === 0 || others.some((cell) => cell !== first)) return cellsHtml(cells);
  return `<td colspan="${cells.length}">${escapeHtml(first)}</td>`;
}

/** Of records of the lab: what was run, how it was judged, and what clients saw. Nothing of other records. */
function labSection(runs: readonly RecordedRun[], figures: readonly RunFigures[]): string {
  const tables = figures.flatMap(({ label, lab }) => {
    const rows = labRows(lab).map(
      ([name, text]) => `<tr><th scope="row">${escapeHtml(name)}</th><td>${escapeHtml(text)}</td></tr>`,
    );
    if (rows.length === 0) return [];
    const table = `<table><caption>${escapeHtml(label)}</caption><tbody>${rows.join("\n")}</tbody></table>`;
    return [scrollable(`The lab: ${label}`, table)];
  });
  if (tables.length === 0) return "";
  return `<h2>The lab</h2>\n${tables.join("\n")}\n<div class="grid-2">\n${clientFigures(runs)}</div>\n`;
}

/** The figures of the iteration plots, for those who want to read them. */
function iterationTable({ label, events }: RecordedRun): string {
  const iterations = iterationFigures(events);
  if (iterations.length === 0) return "";
  const rows = iterations.slice(0, ROWS_MAX).map(({ iteration, startMs, endMs, wireBytes, pages }) => {
    const cells = [
      formatMs(startMs),
      formatMs(endMs - startMs),
      formatBytes(wireBytes),
      ...PAGE_CLASSES.map((pageClass) => formatCount(pagesOf(pages, pageClass))),
      formatBytes(pages.deltaBytes),
    ];
    return `<tr><th scope="row">${formatCount(iteration)}</th>${cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("")}</tr>`;
  });
  const name = `Iterations of ${label}`;
  const head = headRow(["iteration", "began at", "took", "sent", ...PAGE_CLASSES, "deltas"]);
  const table = `<table class="figures">${head}<tbody>${rows.join("\n")}</tbody></table>`;
  return `<details><summary>${escapeHtml(name)}, in figures</summary>${scrollable(name, table)}${more(iterations.length)}</details>`;
}

function decisionTable({ label, events }: RecordedRun): string {
  const decisions = eventsOf(events, "decision");
  if (decisions.length === 0) return `<p class="muted">${escapeHtml(label)}: none recorded.</p>`;
  const rows = decisions.slice(0, ROWS_MAX).map(({ atMs, subject, choice, reason }) => {
    const cells = [formatMs(atMs), `${subject}: ${choice}`, reason];
    return `<tr>${cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("")}</tr>`;
  });
  const table =
    `<table class="decisions"><caption>${escapeHtml(label)}</caption>${headRow(["at", "decision", "because"])}` +
    `<tbody>${rows.join("\n")}</tbody></table>`;
  return `${scrollable(`Decisions of ${label}`, table)}${more(decisions.length)}`;
}

function noticeList({ label, events }: RecordedRun): string {
  const items = events.flatMap((event) => {
    const text = noticeText(event);
    return text === undefined ? [] : [`<li>${escapeHtml(`${formatMs(event.atMs)}: ${text}`)}</li>`];
  });
  if (items.length === 0) return `<p class="muted">${escapeHtml(label)}: nothing.</p>`;
  return `<h3>${escapeHtml(label)}</h3><ul>${items.slice(0, ROWS_MAX).join("\n")}</ul>${more(items.length)}`;
}

function noticeText(event: RecordEvent): string | undefined {
  if (event.type === "error") return `error ${event.code}: ${event.message}`;
  if (event.type === "notice") return event.message;
  if (event.type === "verified") return verifiedText(event);
  if (event.type === "link") return `link ${linkEventText(event)}`;
  if (event.type !== "opaque") return undefined;
  return `from byte ${formatCount(event.offsetBytes)} on the stream was carried untouched: ${event.reason}`;
}

function more(total: number): string {
  return total > ROWS_MAX
    ? `<p class="muted">and ${formatCount(total - ROWS_MAX)} more in the record</p>`
    : "";
}
