// What a person reads at the end of a migration: the outcome and where the VM is first, then time, downtime,
// bytes, pages and what Deltavee decided and why. Also several runs side by side. All from the run record.
// Where downtime is told by several witnesses, the guest's own heartbeat comes first.

import type { VmWhere } from "../base/errors.ts";
import { formatBytes, formatBytesPerSecond, formatMs } from "../base/units.ts";
import type { RecordEvent } from "../record/schema.ts";
import {
  encodedBytesOf,
  eventsOf,
  PAGE_CLASSES,
  type PageClass,
  pageCount,
  pagesOf,
  type RecordedRun,
  type RunFigures,
  runFigures,
} from "./figures.ts";
import { labRows, verdictText } from "./lab-figures.ts";
import { linkEventText } from "./link-text.ts";
import { columns, formatCount, formatRatio, plain } from "./text.ts";
import { verifiedText } from "./verified-text.ts";

type Interval = NonNullable<RunFigures["forecast"]>["totalMs"];
type Format = (value: number) => string;

/** Decisions and notices told in full; more than that are in the record and the HTML report. */
const LISTED_MAX = 12;

export function summaryText(events: readonly RecordEvent[]): string {
  const figures = runFigures({ label: "", events });
  const sections = [
    headline(figures),
    indented(columns(figureRows(figures, eventsOf(events, "run")[0]?.label), false)),
    indented(pageLines(figures)),
    section("Decisions", decisionLines(events)),
    section("Worth knowing", noticeLines(events)),
  ];
  return `${sections
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n")}\n`;
}

function headline(figures: RunFigures): string[] {
  const lines = [outcomeText(figures)];
  if (figures.memoryVerified === false) {
    lines.push("The guest's memory at the destination DIFFERS from the source's.");
  }
  for (const { code, message } of figures.errors.slice(0, LISTED_MAX)) {
    lines.push(`Error ${plain(code)}: ${plain(message)}`);
  }
  return [...lines, ...moreLine(figures.errors.length)];
}

/** One sentence: how it ended, and where the VM is. */
export function outcomeText({ outcome, vm }: RunFigures): string {
  if (outcome !== "unfinished") return `Migration ${outcome}: the VM is ${vmText(vm)}.`;
  const where =
    vm === "unknown" ? "where the VM runs is not recorded" : `when last known, the VM was ${vmText(vm)}`;
  return `The record ends before the migration did: ${where}.`;
}

function vmText(vm: VmWhere): string {
  return vm === "unknown" ? "in an unknown state: look at both sides" : vm.replace(" on ", " on the ");
}

function figureRows(figures: RunFigures, label: string | undefined): string[][] {
  const { method, mode, hypervisor, destination, cache } = figures;
  const how = [method, mode, hypervisor].filter((part) => part !== undefined).join(", ");
  const where = destination === undefined ? "" : ` to ${destination}`;
  const rows: [name: string, value: string | undefined][] = [
    ["run", plain(`${label === undefined ? how : `${label} (${how})`}${where}`)],
    ["total time", `${formatMs(figures.totalMs)}${limitText(figures.timeMsMax, formatMs)}`],
    ...downtimeRows(figures),
    ...forecastRows(figures),
    [
      "on the wire",
      `${formatBytes(figures.wireBytes)} of ${formatBytes(figures.handedOverBytes)} handed over` +
        limitText(figures.wireBytesMax, formatBytes),
    ],
    ["saved", savedText(figures)],
    ["link", linkText(figures)],
    ["iterations", formatCount(figures.iterations)],
    ["cache", cache && cacheText(cache)],
    ["CPU", cpuText(figures)],
    ["post-copy", postcopyText(figures)],
    ["memory", memoryText(figures)],
    ...labRows(figures.lab),
  ];
  return rows.filter((row): row is [string, string] => row[1] !== undefined);
}

function postcopyText({ postcopyMs, requestedBytes = 0 }: RunFigures): string | undefined {
  if (postcopyMs === undefined) return undefined;
  return `${formatMs(postcopyMs)}, in which the guest waited for ${formatBytes(requestedBytes)}`;
}

/** Every witness on a line of its own, the guest first. */
function downtimeRows(figures: RunFigures): [string, string][] {
  const witnesses: [ms: number | undefined, says: string][] = [
    [figures.heartbeatGapMs, "gap in the guest's heartbeat"],
    [figures.downtimeMs, "from the vCPUs' stop to their resumption, as measured here"],
    [figures.downtimeMsReported, "by the hypervisor's own account"],
    [figures.forecastDowntimeMs, "was forecast when the guest was stopped"],
    [figures.downtimeMsMax, "was the limit"],
  ];
  const known = witnesses
    .filter((witness): witness is [number, string] => witness[0] !== undefined)
    .map(([ms, says]) => [formatMs(ms), says]);
  return columns(known, false).map((line, index) => [index === 0 ? "downtime" : "", line]);
}

/** What was expected of the whole, and how far that was off. */
function forecastRows(figures: RunFigures): [string, string][] {
  const { forecast, outcome } = figures;
  if (forecast === undefined) return [];
  const downtimeMs = figures.heartbeatGapMs ?? figures.downtimeMs;
  const isDone = outcome === "completed";
  const row = (
    what: string,
    { low, expected, high }: Interval,
    truth: number | undefined,
    format: Format,
  ) => {
    const off = isDone && truth !== undefined ? `, in truth ${format(truth)}` : "";
    return [format(expected), `${what} (${format(low)} to ${format(high)})${off}`];
  };
  const rows = [
    row("in all", forecast.totalMs, figures.totalMs, formatMs),
    row("downtime", forecast.downtimeMs, downtimeMs, formatMs),
    row("on the wire", forecast.wireBytes, figures.wireBytes, formatBytes),
  ];
  const converges = forecast.converges === "yes" ? [] : [["", `converges: ${forecast.converges}`]];
  return columns([...rows, ...converges], false).map((line, index) => [index === 0 ? "forecast" : "", line]);
}

function savedText({ savedRatio, wireBytes, handedOverBytes }: RunFigures): string | undefined {
  if (savedRatio === undefined) return undefined;
  if (savedRatio < 0) return `nothing: ${formatBytes(wireBytes - handedOverBytes)} more than was handed over`;
  return `${formatRatio(savedRatio)} (${formatBytes(handedOverBytes - wireBytes)})`;
}

function linkText({ wireBytesPerSecond, linkBytesPerSecondMax }: RunFigures): string | undefined {
  if (wireBytesPerSecond === undefined) return undefined;
  const limit = limitText(linkBytesPerSecondMax, formatBytesPerSecond);
  return `${formatBytesPerSecond(wireBytesPerSecond)} on average${limit}`;
}

function limitText(limit: number | undefined, format: (value: number) => string): string {
  return limit === undefined ? "" : `, limit ${format(limit)}`;
}

function hitRatioText({ hits, misses }: { hits: number; misses: number }): string {
  return hits + misses === 0 ? "-" : formatRatio(hits / (hits + misses));
}

function cacheText(cache: NonNullable<RunFigures["cache"]>): string {
  return (
    `${formatCount(cache.hits)} hits, ${formatCount(cache.misses)} misses (${hitRatioText(cache)} hits), ` +
    `${formatCount(cache.evictions)} evictions, ${formatBytes(cache.usedBytes)} of ${formatBytes(cache.limitBytes)} used`
  );
}

function cpuText({ cpuMs, totalMs }: RunFigures): string | undefined {
  if (cpuMs === undefined) return undefined;
  return totalMs > 0 ? `${formatMs(cpuMs)} (${formatRatio(cpuMs / totalMs)} of one core)` : formatMs(cpuMs);
}

function memoryText({ memoryVerified }: RunFigures): string | undefined {
  if (memoryVerified === undefined) return undefined;
  return memoryVerified ? "verified on arrival" : "DIFFERS on arrival";
}

const SENT_AS: Record<PageClass, string> = {
  zero: "a mark: all bytes are zero",
  unchanged: "nothing: the destination has them",
  duplicate: "a reference: equal to a page sent not long ago",
  delta: "the difference to what was sent before",
  overflow: "whole: the difference would not be smaller",
  raw: "whole: not in the page cache",
};

function pageLines(figures: RunFigures): string[] {
  const { pages, method } = figures;
  const total = pageCount(pages);
  if (total === 0) return [];
  const rows = PAGE_CLASSES.map((pageClass) => {
    const bytes = encodedBytesOf(pages, pageClass);
    const count = pagesOf(pages, pageClass);
    const cells = [
      formatCount(count),
      formatRatio(count / total),
      bytes === undefined ? "-" : formatBytes(bytes),
    ];
    return {
      pageClass,
      cells,
      sentAs: pageClass === "raw" && method === "standard" ? "whole" : SENT_AS[pageClass],
    };
  });
  const aligned = columns(
    [["pages", "count", "share", "bytes"], ...rows.map(({ pageClass, cells }) => [pageClass, ...cells])],
    true,
  );
  return aligned.map((line, index) => `${line}  ${rows[index - 1]?.sentAs ?? "sent as"}`);
}

function decisionLines(events: readonly RecordEvent[]): string[] {
  const decisions = eventsOf(events, "decision");
  // Of many those about promises and stalls count most: they say why it ended as it did.
  const [first, others] = [true, false].map((wanted) =>
    decisions.filter(({ subject }) => (subject === "convergence") === wanted),
  );
  const told = new Set([...first!, ...others!].slice(0, LISTED_MAX));
  const rows = decisions
    .filter((decision) => told.has(decision))
    .map(({ atMs, subject, choice, reason }) => [formatMs(atMs), plain(`${subject}: ${choice} (${reason})`)]);
  return [...columns(rows, false), ...moreLine(decisions.length)];
}

function noticeLines(events: readonly RecordEvent[]): string[] {
  const notices = events.flatMap((event) => {
    if (event.type === "notice") return [[formatMs(event.atMs), plain(event.message)]];
    if (event.type === "verified") return [[formatMs(event.atMs), plain(verifiedText(event))]];
    if (event.type === "link") return [[formatMs(event.atMs), plain(`link ${linkEventText(event)}`)]];
    if (event.type !== "opaque") return [];
    const text = `from byte ${formatCount(event.offsetBytes)} on the stream was carried untouched: ${event.reason}`;
    return [[formatMs(event.atMs), plain(text)]];
  });
  return [...columns(notices.slice(0, LISTED_MAX), false), ...moreLine(notices.length)];
}

function moreLine(total: number): string[] {
  return total > LISTED_MAX ? [`and ${total - LISTED_MAX} more`] : [];
}

function indented(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [title, ...indented(lines)];
}

/** Rows of the comparison, the same in the terminal and on the HTML page; "-" where a run does not know. */
export function comparisonRows(runs: readonly RunFigures[]): { name: string; cells: string[] }[] {
  const row = (name: string, cell: (figures: RunFigures) => string | undefined) => ({
    name,
    cells: runs.map((figures) => cell(figures) ?? "-"),
  });
  const optional = <T>(value: T | undefined, format: (value: T) => string) =>
    value === undefined ? undefined : format(value);
  return [
    row("downtime: heartbeat gap", (run) => optional(run.heartbeatGapMs, formatMs)),
    row("downtime: measured", (run) => optional(run.downtimeMs, formatMs)),
    row("downtime: forecast", (run) => optional(run.forecastDowntimeMs, formatMs)),
    row("downtime: hypervisor says", (run) => optional(run.downtimeMsReported, formatMs)),
    row("post-copy", (run) => optional(run.postcopyMs, formatMs)),
    row("total time", (run) => formatMs(run.totalMs)),
    row("sent on the link", (run) => formatBytes(run.wireBytes)),
    row("handed over", (run) => formatBytes(run.handedOverBytes)),
    row("saved", (run) => optional(run.savedRatio, formatRatio)),
    row("link rate, average", (run) => optional(run.wireBytesPerSecond, formatBytesPerSecond)),
    row("iterations", (run) => formatCount(run.iterations)),
    ...PAGE_CLASSES.map((pageClass) =>
      row(`pages: ${pageClass}`, (run) => formatCount(pagesOf(run.pages, pageClass))),
    ),
    row("cache hits", (run) => optional(run.cache, hitRatioText)),
    row("CPU", (run) => optional(run.cpuMs, formatMs)),
    row("judged", (run) => run.lab?.verdict && verdictText(run.lab)),
    row("outcome", (run) => run.outcome),
    row("VM", (run) => plain(run.vm).replace(/^(running on|with the) /, "")),
    row("memory verified", (run) =>
      optional(run.memoryVerified, (verified) => (verified ? "yes" : "NO, IT DIFFERS")),
    ),
  ].filter(({ cells }) => cells.some((cell) => cell !== "-"));
}

/** One column per run, downtime first. */
export function comparisonText(runs: readonly RecordedRun[]): string {
  const table = [
    ["", ...runs.map(({ label }) => plain(label))],
    ...comparisonRows(runs.map(runFigures)).map(({ name, cells }) => [name, ...cells]),
  ];
  return `${columns(table, true).join("\n")}\n`;
}

/** The table, and what it comes to. */
export function sideBySideText(runs: readonly RecordedRun[]): string {
  const verdict = comparisonVerdict(runs.map(runFigures));
  return `${comparisonText(runs)}${verdict.length === 0 ? "" : `\n${verdict.join("\n")}\n`}`;
}

/** The second run against the first, in a few phrases; none unless there are two and both completed. */
export function comparisonVerdict(runs: readonly RunFigures[]): string[] {
  const [first, second] = runs;
  if (first === undefined || second === undefined || runs.length !== 2) return [];
  if (first.outcome !== "completed" || second.outcome !== "completed") return [];
  const compared = [
    comparedText("downtime", first.heartbeatGapMs, second.heartbeatGapMs, formatMs, ["shorter", "longer"]),
    comparedText("total time", first.totalMs, second.totalMs, formatMs, ["shorter", "longer"]),
    comparedText("sent", first.wireBytes, second.wireBytes, formatBytes, ["less", "more"]),
  ].filter((text) => text !== undefined);
  return [`${plain(second.label)} against ${plain(first.label)}:`, ...compared.map((text) => `  ${text}`)];
}

/** "downtime 84 ms instead of 5.5 s (65 times shorter)" */
function comparedText(
  name: string,
  before: number | undefined,
  after: number | undefined,
  format: (value: number) => string,
  [less, more]: readonly [string, string],
): string | undefined {
  if (before === undefined || after === undefined || before === 0 || after === 0) return undefined;
  const factor = Math.max(before / after, after / before);
  const factorText = factor < 10 ? factor.toFixed(1) : formatCount(factor);
  return `${name} ${format(after)} instead of ${format(before)} (${factorText} times ${before > after ? less : more})`;
}
