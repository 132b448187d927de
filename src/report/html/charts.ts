// The plots of the HTML report, each a figure with a sentence that says what it shows, drawn from the figures of
// runs (figures.ts). Runs share a plot, and its axes, where they can be compared in it; where several quantities
// of one run belong together, every run has a plot of its own, with axes that all of them share.

import { formatBytes, formatBytesPerSecond, formatMs } from "../../base/units.ts";
import {
  eventsOf,
  type IterationFigures,
  iterationFigures,
  PAGE_CLASSES,
  type PageClass,
  pageCount,
  pagesOf,
  type RatePoint,
  type RecordedRun,
  ratesOverTime,
  runFigures,
} from "../figures.ts";
import { formatCount, formatRatio } from "../text.ts";
import { BYTE_UNITS, emptyFigure, figureHtml, MS, RATE_UNITS, TIME_UNITS } from "./figure.ts";
import { SERIES_COUNT } from "./style.ts";
import {
  type Axis,
  bands,
  bar,
  escapeHtml,
  frame,
  line,
  linearAxis,
  logAxis,
  type Plot,
  type Point,
  px,
  type Span,
  unitFor,
} from "./svg.ts";

/** Values that differ by more than this in one plot get a logarithmic axis: the smaller would lie on the floor. */
const LINEAR_RATIO_MAX = 30;
/** Rates of one run race each other: the slow ones must be told apart too. */
const RACE_LINEAR_RATIO_MAX = 8;
/** A rate is averaged over this part of the whole time at least. */
const RATE_SPAN_RATIO = 1 / 120;
const RATE_SPAN_MS_MIN = 200;

/** Colour and dashes of a run, or of the nth quantity in a plot. */
export function seriesClass(index: number): string {
  return `s${index % SERIES_COUNT} dash${index % SERIES_COUNT}`;
}

export function maxOf(values: readonly number[]): number {
  return values.reduce((max, value) => Math.max(max, value), 0);
}

function endMs(runs: readonly RecordedRun[]): number {
  return maxOf(runs.map(({ events }) => events.at(-1)?.atMs ?? 0));
}

export function timeAxis(runs: readonly RecordedRun[], span: Span): Axis & { name: string } {
  const max = endMs(runs);
  // Minutes only when there are enough of them to read a figure off.
  const unit = unitFor(max / 4, TIME_UNITS);
  return {
    ...linearAxis(max, unit, span, span[1] - span[0] > 400 ? 8 : 5),
    name: `time since the start (${unit.name})`,
  };
}

// ---- The guest's heartbeat

type Heartbeat = { atMs: number; gapMs: number; side: "source" | "destination" };

/** Pixels that share one value, the longest gap among them. */
const HEARTBEAT_COLUMN_PX = 2;
/** Shorter gaps lie on the floor of a logarithmic axis: beats that were read together, no news of the guest. */
const GAP_MS_MIN = 1;

export function heartbeatFigure(runs: readonly RecordedRun[]): string {
  const title = "Gaps in the guest's heartbeat";
  const beats = runs.map(({ events }): Heartbeat[] => eventsOf(events, "heartbeat"));
  const gaps = beats.flat().map(({ gapMs }) => gapMs);
  if (gaps.length === 0) return emptyFigure(title, "No heartbeat of the guest was watched in these runs.");
  const longest = runs.flatMap(({ label }, index) => {
    const beat = longestGap(beats[index] ?? []);
    return beat === undefined ? [] : [`${label} ${formatMs(beat.gapMs)}, at ${formatMs(beat.atMs)}`];
  });
  const max = maxOf(gaps);
  const min = gaps.reduce(
    (least, gap) => Math.min(least, Math.max(gap, GAP_MS_MIN)),
    Math.max(max, GAP_MS_MIN),
  );
  const isLog = max > min * LINEAR_RATIO_MAX;

  return figureHtml({
    id: "heartbeat",
    title,
    says: `How long the guest stood still, seen from outside. Longest gap: ${longest.join("; ")}. Thin: running on the source; thick: on the destination.`,
    legend: runs.map(({ label }, index) => ({ name: label, line: seriesClass(index) })),
    draw(plot) {
      const x = timeAxis(runs, plot.xSpan);
      const y = isLog ? logAxis(min, max, MS, plot.ySpan) : linearAxis(max, MS, plot.ySpan, 5);
      const lines = beats.flatMap((runBeats, index) =>
        (["source", "destination"] as const).map((side) => {
          const points = longestPerColumn(runBeats, side, x, y);
          return line(points, `${seriesClass(index)} ${side === "source" ? "thin" : "thick"}`);
        }),
      );
      const labels = gapLabels(plot, beats, x, y);
      return (
        frame(plot, x, { ticks: y.ticks, name: `gap (ms${isLog ? ", logarithmic" : ""})` }) +
        lines.join("") +
        labels
      );
    },
  });
}

function longestGap(beats: readonly Heartbeat[]): Heartbeat | undefined {
  return beats.reduce<Heartbeat | undefined>(
    (longest, beat) => (longest === undefined || beat.gapMs > longest.gapMs ? beat : longest),
    undefined,
  );
}

function longestPerColumn(
  beats: readonly Heartbeat[],
  side: "source" | "destination",
  x: Axis,
  y: Axis,
): Point[] {
  const columns = new Map<number, Point>();
  for (const beat of beats) {
    if (beat.side !== side) continue;
    const point = { x: x.at(beat.atMs), y: y.at(beat.gapMs) };
    const column = Math.floor(point.x / HEARTBEAT_COLUMN_PX);
    const there = columns.get(column);
    if (there === undefined || point.y < there.y) columns.set(column, point);
  }
  return [...columns.values()];
}

/** A dot and its value at each run's longest gap, values moved apart where they would overlap. */
function gapLabels(plot: Plot, beats: readonly (readonly Heartbeat[])[], x: Axis, y: Axis): string {
  const placed: Point[] = [];
  const [left, right] = plot.xSpan;
  return beats
    .map((runBeats, index) => {
      const beat = longestGap(runBeats);
      if (beat === undefined) return "";
      const dot = { x: x.at(beat.atMs), y: y.at(beat.gapMs) };
      const isRight = dot.x > (left + right) / 2;
      const label = { x: dot.x + (isRight ? -8 : 8), y: dot.y + 4 };
      while (placed.some((other) => Math.abs(other.x - label.x) < 70 && Math.abs(other.y - label.y) < 14)) {
        label.y += 14;
      }
      placed.push(label);
      return (
        `<circle class="dot fill-s${index % SERIES_COUNT}" cx="${px(dot.x)}" cy="${px(dot.y)}" r="5"/>` +
        `<text class="value" x="${px(label.x)}" y="${px(label.y)}" text-anchor="${isRight ? "end" : "start"}">${escapeHtml(formatMs(beat.gapMs))}</text>`
      );
    })
    .join("");
}

// ---- The link

function rates({ events }: RecordedRun): RatePoint[] {
  const spanMs = Math.max(RATE_SPAN_MS_MIN, (events.at(-1)?.atMs ?? 0) * RATE_SPAN_RATIO);
  return ratesOverTime(events, spanMs);
}

export function throughputFigure(runs: readonly RecordedRun[]): string {
  const title = "Rate on the link";
  const points = runs.map(rates);
  if (points.every((series) => series.length === 0))
    return emptyFigure(title, "These runs hold too few samples.");
  const figures = runs.map(runFigures);
  const limits = [...new Set(figures.flatMap(({ linkBytesPerSecondMax }) => linkBytesPerSecondMax ?? []))];
  const max = maxOf([...points.flat().map(({ wireBytesPerSecond }) => wireBytesPerSecond), ...limits]);
  const unit = unitFor(max, RATE_UNITS);
  const averages = figures.map(
    ({ label, wireBytesPerSecond }) =>
      `${label} ${wireBytesPerSecond === undefined ? "-" : formatBytesPerSecond(wireBytesPerSecond)}`,
  );
  const limitText = limits.length === 0 ? "" : ` Dotted: the limit that was set.`;

  return figureHtml({
    id: "throughput",
    title,
    says: `Bytes that have arrived, all headers included. On average: ${averages.join("; ")}.${limitText}`,
    legend: runs.map(({ label }, index) => ({ name: label, line: seriesClass(index) })),
    draw(plot) {
      const x = timeAxis(runs, plot.xSpan);
      const y = linearAxis(max, unit, plot.ySpan, 5);
      const limitLines = limits.map(
        (limit) => `<path class="limit" d="M${px(plot.xSpan[0])} ${px(y.at(limit))}H${px(plot.xSpan[1])}"/>`,
      );
      const lines = points.map((series, index) =>
        line(
          series.map((point) => ({ x: x.at(point.atMs), y: y.at(point.wireBytesPerSecond) })),
          seriesClass(index),
        ),
      );
      return (
        frame(plot, x, { ticks: y.ticks, name: `arrived (${unit.name})` }) +
        limitLines.join("") +
        lines.join("")
      );
    },
  });
}

const RACE: readonly { name: string; of: (point: RatePoint) => number | undefined; className: string }[] = [
  {
    name: "pages dirtied by the guest",
    of: (point) => point.dirtyBytesPerSecond,
    className: `${seriesClass(0)} thick`,
  },
  {
    name: "pages settled, zero pages left out",
    of: (point) => point.guestBytesPerSecond,
    className: `${seriesClass(1)} thick`,
  },
  { name: "bytes on the link", of: (point) => point.wireBytesPerSecond, className: seriesClass(2) },
];

/** A guest that has been stopped races no more. */
function ratesUntilSwitchover(run: RecordedRun): RatePoint[] {
  const endMs = switchoverMs(run) ?? Number.POSITIVE_INFINITY;
  return rates(run).filter(({ atMs }) => atMs <= endMs);
}

function switchoverMs({ events }: RecordedRun): number | undefined {
  return eventsOf(events, "phase").find(({ phase }) => phase === "switchover")?.atMs;
}

/** One per run: whether a migration converges is to be seen here. */
export function raceFigures(runs: readonly RecordedRun[]): string {
  const series = runs.map(ratesUntilSwitchover);
  const peaks = RACE.map(({ of }) => maxOf(series.flat().map((point) => of(point) ?? 0))).filter(
    (peak) => peak > 0,
  );
  const max = maxOf(peaks);
  const min = peaks.reduce((least, peak) => Math.min(least, peak), max);
  // Zero has no place on a logarithmic axis: it lies on the floor, a decade below the smallest peak.
  const isLog = max > min * RACE_LINEAR_RATIO_MAX;
  const unit = unitFor(isLog ? min : max, RATE_UNITS);

  return runs
    .map((run, index) => {
      const title = `Dirty rate against link rate: ${run.label}`;
      const points = series[index] ?? [];
      if (points.length === 0) return emptyFigure(title, "This run holds too few samples.");
      const averages = RACE.map(({ name, of }) => {
        const values = points.map(of).filter((value) => value !== undefined);
        const average = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
        return `${name} ${values.length === 0 ? "not known" : formatBytesPerSecond(average)}`;
      });
      return figureHtml({
        id: `race-${index}`,
        title,
        says: `Pre-copy converges while pages are settled faster than the guest dirties them (both at full page size; a page counts once per iteration, however often it is written to). Averages: ${averages.join("; ")}.`,
        legend: RACE.map(({ name, className }) => ({ name, line: className })),
        draw(plot) {
          const x = timeAxis(runs, plot.xSpan);
          const y = isLog ? logAxis(min / 10, max, unit, plot.ySpan) : linearAxis(max, unit, plot.ySpan, 5);
          const lines = RACE.map(({ of, className }) => {
            const known = points.flatMap((point) => {
              const value = of(point);
              return value === undefined ? [] : [{ x: x.at(point.atMs), y: y.at(value) }];
            });
            return line(known, className);
          });
          const name = `rate (${unit.name}${isLog ? ", logarithmic" : ""})`;
          return frame(plot, x, { ticks: y.ticks, name }) + switchoverMark(plot, run, x) + lines.join("");
        },
      });
    })
    .join("");
}

function switchoverMark(plot: Plot, run: RecordedRun, x: Axis): string {
  const atMs = switchoverMs(run);
  if (atMs === undefined) return "";
  const at = px(x.at(atMs));
  const [bottom, top] = plot.ySpan;
  return (
    `<path class="limit" d="M${at} ${px(bottom)}V${px(top)}"/>` +
    `<text class="note" x="${at}" y="${px(top - 2)}" text-anchor="${Number(at) > 120 ? "end" : "start"}">switchover</text>`
  );
}

// ---- Iterations

/** More iterations than this share bars. */
const BARS_MAX = { wide: 30, narrow: 12 } as const;

interface IterationBin {
  readonly label: string;
  readonly wireBytes: number;
  readonly pages: Record<PageClass, number>;
  readonly total: number;
}

/** Iterations, `binSize` of them to a bin. */
function iterationBins(iterations: readonly IterationFigures[], binSize: number): IterationBin[] {
  const bins: IterationBin[] = [];
  for (let start = 0; start < iterations.length; start += binSize) {
    const members = iterations.slice(start, start + binSize);
    const sum = (of: (figures: IterationFigures) => number) =>
      members.reduce((total, figures) => total + of(figures), 0);
    const first = members[0]?.iteration ?? 0;
    const last = members.at(-1)?.iteration ?? first;
    const pages = Object.fromEntries(
      PAGE_CLASSES.map((pageClass) => [pageClass, sum((figures) => pagesOf(figures.pages, pageClass))]),
    ) as Record<PageClass, number>;
    bins.push({
      label: first === last ? `${first}` : `${first}–${last}`,
      wireBytes: sum((figures) => figures.wireBytes),
      pages,
      total: sum((figures) => pageCount(figures.pages)),
    });
  }
  return bins;
}

function binSizeFor(plot: Plot, iterations: readonly (readonly IterationFigures[])[]): number {
  return Math.max(1, Math.ceil(maxOf(iterations.map(({ length }) => length)) / BARS_MAX[plot.size.name]));
}

/** Labels of the run with the most bins. */
function binLabels(bins: readonly (readonly IterationBin[])[]): string[] {
  const longest = bins.reduce<readonly IterationBin[]>(
    (most, some) => (some.length > most.length ? some : most),
    [],
  );
  return longest.map(({ label }) => label);
}

const ITERATION_AXIS = "iteration (0: all of memory)";

export function iterationBytesFigure(runs: readonly RecordedRun[]): string {
  const title = "Bytes sent per iteration";
  const iterations = runs.map(({ events }) => iterationFigures(events));
  if (iterations.every(({ length }) => length === 0))
    return emptyFigure(title, "These runs hold no iteration.");
  const says = runs.map(({ label }, index) => {
    const own = iterations[index] ?? [];
    const later = own.slice(1).reduce((sum, { wireBytes }) => sum + wireBytes, 0);
    return `${label}: ${formatBytes(own[0]?.wireBytes ?? 0)} in iteration 0, ${formatBytes(later)} in ${Math.max(0, own.length - 1)} more`;
  });

  return figureHtml({
    id: "iteration-bytes",
    title,
    says: `${says.join("; ")}. The last iteration is the switchover, device state included.`,
    legend: runs.map(({ label }, index) => ({ name: label, box: `fill-s${index % SERIES_COUNT}` })),
    draw(plot) {
      const binSize = binSizeFor(plot, iterations);
      const bins = iterations.map((own) => iterationBins(own, binSize));
      const max = maxOf(bins.flat().map(({ wireBytes }) => wireBytes));
      const unit = unitFor(max, BYTE_UNITS);
      const y = linearAxis(max, unit, plot.ySpan, 5);
      const x = bands(binLabels(bins), plot.xSpan);
      const barPx = (x.bandPx * 0.8) / runs.length;
      const bars = bins.flatMap((own, runIndex) =>
        own.map((bin, index) =>
          bar(
            x.at(index) + x.bandPx * 0.1 + runIndex * barPx,
            barPx,
            y.at(0),
            y.at(bin.wireBytes),
            `fill-s${runIndex % SERIES_COUNT}`,
            `${runs[runIndex]?.label}, iteration ${bin.label}: ${formatBytes(bin.wireBytes)}`,
          ),
        ),
      );
      return (
        frame(
          plot,
          { ticks: x.ticks, name: ITERATION_AXIS },
          { ticks: y.ticks, name: `sent (${unit.name})` },
        ) + bars.join("")
      );
    },
  });
}

/** Bars above which there is room to write how many pages they stand for. */
const TOTALS_BAND_PX_MIN = 36;

/** One per run: shares rather than counts, because iteration 0 would dwarf all others. */
export function pageClassFigures(runs: readonly RecordedRun[]): string {
  const iterations = runs.map(({ events }) => iterationFigures(events));
  return runs
    .map((run, index) => {
      const title = `Page classes per iteration: ${run.label}`;
      const own = iterations[index] ?? [];
      if (own.length === 0) return emptyFigure(title, "This run holds no iteration.");
      const { pages } = runFigures(run);
      const total = Math.max(1, pageCount(pages));
      const shares = PAGE_CLASSES.map(
        (pageClass) => `${pageClass} ${formatRatio(pagesOf(pages, pageClass) / total)}`,
      );
      return figureHtml({
        id: `classes-${index}`,
        title,
        says: `How pages were sent; above the bars, how many. Over the whole run: ${shares.join(", ")}.`,
        legend: PAGE_CLASSES.map((pageClass, classIndex) => ({ name: pageClass, box: `c${classIndex}` })),
        draw(plot) {
          const binSize = binSizeFor(plot, iterations);
          const bins = iterationBins(own, binSize);
          const y = linearAxis(1, { name: "%", size: 0.01 }, plot.ySpan, 5);
          const x = bands(binLabels(iterations.map((each) => iterationBins(each, binSize))), plot.xSpan);
          const bars = bins.map((bin, binIndex) =>
            stackedBar(bin, x.at(binIndex) + x.bandPx * 0.1, x.bandPx, y),
          );
          const axis = { ticks: y.ticks, name: "share of pages (%)" };
          return frame(plot, { ticks: x.ticks, name: ITERATION_AXIS }, axis) + bars.join("");
        },
      });
    })
    .join("");
}

function stackedBar(bin: IterationBin, leftPx: number, bandPx: number, y: Axis): string {
  const widthPx = bandPx * 0.8;
  if (bin.total === 0) return "";
  let below = 0;
  const parts = PAGE_CLASSES.map((pageClass, classIndex) => {
    const count = bin.pages[pageClass];
    if (count === 0) return "";
    const from = below;
    below += count;
    const says = `iteration ${bin.label}: ${formatCount(count)} ${pageClass} pages (${formatRatio(count / bin.total)})`;
    return bar(leftPx, widthPx, y.at(from / bin.total), y.at(below / bin.total), `c${classIndex}`, says);
  });
  const total =
    bandPx < TOTALS_BAND_PX_MIN
      ? ""
      : `<text class="note" x="${px(leftPx + widthPx / 2)}" y="${px(y.at(1) - 3)}" text-anchor="middle">${shortCount(bin.total)}</text>`;
  return parts.join("") + total;
}

/** "16k": a count that fits above a bar. */
function shortCount(count: number): string {
  if (count < 10_000) return formatCount(count);
  return count < 1e7 ? `${Math.round(count / 1e3)}k` : `${Math.round(count / 1e6)}M`;
}
