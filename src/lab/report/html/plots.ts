// The plots of a contest: bars per method, what was seen over time, and bytes per iteration. Methods stand one below
// the other on axes that all of them share, since nine lines over each other cannot be told apart. Ours have one
// colour, QEMU's another; each is named where it stands, so that colour says nothing that words do not.

import { formatBytes } from "../../../base/units.ts";
import { BYTE_UNITS, emptyFigure, figureHtml, TIME_UNITS } from "../../../report/html/figure.ts";
import {
  type Axis,
  bar,
  escapeHtml,
  frame,
  line,
  linearAxis,
  logAxis,
  type Plot,
  px,
  type Span,
  unitFor,
} from "../../../report/html/svg.ts";
import { formatFigure } from "../../../report/text.ts";
import { type Contest, type Group, isClean, isOurs, spreadOfMetric } from "../contests.ts";
import { columnFor, formatSpread, HEARTBEAT_GAP, type ReportMetric } from "../metrics.ts";
import type { RunResult } from "../results.ts";
import type { Series } from "../series.ts";

/** Margins that every picture with axes has: above for an axis' name, below for ticks. */
const MARGINS_PX = 82;
/** Of bars, which have no axes: every bar has its figure beside it. */
const BAR_ROW_PX = 40;
const BAR_MARGIN_PX = 2;
const STRIP_PX = 58;
/** Of a strip, above what is drawn: the method's name. */
const STRIP_NAME_PX = 18;
/** Values that differ by more than this get a logarithmic axis: the smaller would lie on the floor. */
const LINEAR_RATIO_MAX = 30;
const LOG_MS_MIN = 1;

function fillClass(method: string): string {
  return isOurs(method) ? "fill-s0" : "fill-s1";
}

function named(group: Group): string {
  return isClean(group) ? group.method : `${group.method} *`;
}

const NOT_CLEAN = "* was forced to end, or a run failed.";

function footnote(groups: readonly Group[]): string {
  return groups.every(isClean) ? "" : ` ${NOT_CLEAN}`;
}

/** Medians as bars, the range over the runs as a line across the bar's end. Empty where nothing was measured. */
export function metricBars(id: string, contest: Contest, metric: ReportMetric): string {
  const measured = contest.groups.flatMap((group) => {
    const spread = spreadOfMetric(group, metric.name);
    return spread === undefined || spread.min < 0 ? [] : [{ group, spread }];
  });
  if (measured.length === 0) return "";
  const column = columnFor(
    metric,
    measured.flatMap(({ spread }) => [spread.min, spread.max]),
  );
  const max = measured.reduce((most, { spread }) => Math.max(most, spread.max), 0);
  const said = measured.map(
    ({ group, spread }) =>
      `${named(group)} ${formatSpread(spread, column.format)}${column.unit === "" ? "" : ` ${column.unit}`}`,
  );
  const better = metric.isLowerBetter ? "Shorter is better." : "Longer is better.";
  return figureHtml({
    id,
    title: column.heading,
    says: `${said.join("; ")}. ${metric.isJudged ? better : ""}${footnote(contest.groups)}`,
    legend: [],
    heightPx: measured.length * BAR_ROW_PX + BAR_MARGIN_PX,
    draw({ size }) {
      const [left, right] = [BAR_MARGIN_PX, size.widthPx - BAR_MARGIN_PX];
      const at = (value: number) => left + (max === 0 ? 0 : value / max) * (right - left);
      return measured
        .map(({ group, spread }, index) => {
          const top = index * BAR_ROW_PX;
          const [from, to] = [top + 20, top + 34];
          const figures = formatSpread(spread, column.format);
          const middle = px((from + to) / 2);
          const range = `<path class="range" d="M${px(at(spread.min))} ${middle}H${px(at(spread.max))}"/>`;
          return (
            `<text x="${px(left)}" y="${px(top + 15)}">${escapeHtml(named(group))}</text>` +
            `<text class="value" x="${px(right)}" y="${px(top + 15)}" text-anchor="end">${escapeHtml(figures)}</text>` +
            bar(
              left,
              at(spread.median) - left,
              to,
              from,
              fillClass(group.method),
              `${group.method}: ${figures} ${column.unit}`,
            ) +
            (spread.min === spread.max ? "" : range)
          );
        })
        .join("");
    },
  });
}

/** The run that stands for its group where only one can be drawn: that with the median heartbeat gap. */
function typicalRun({ runs }: Group): RunResult {
  const gap = (run: RunResult) => run.metrics.get(HEARTBEAT_GAP.name) ?? Number.POSITIVE_INFINITY;
  const ordered = runs.toSorted((a, b) => gap(a) - gap(b));
  return ordered[(ordered.length - 1) >> 1]!;
}

/** Names of what was seen over time, in the order in which the records have it. */
export function seriesNames({ groups }: Contest): { name: string; unit: string }[] {
  const names = new Map<string, { name: string; unit: string }>();
  for (const { name, unit } of groups.flatMap((group) => typicalRun(group).timeline.series)) {
    names.set(JSON.stringify([name, unit]), { name, unit });
  }
  return [...names.values()];
}

/** One strip per method: what a client or a probe saw before, during and after. */
export function seriesStrips(id: string, contest: Contest, wanted: { name: string; unit: string }): string {
  const strips = contest.groups.flatMap((group) => {
    const { timeline } = typicalRun(group);
    const series = timeline.series.find(({ name, unit }) => name === wanted.name && unit === wanted.unit);
    return series === undefined || series.points.length === 0
      ? []
      : [{ group, series, endedMs: timeline.endedMs }];
  });
  const title = wanted.unit === "" ? wanted.name : `${wanted.name}, ${wanted.unit}`;
  if (strips.length === 0) return emptyFigure(title, "Nothing of it was recorded.");
  const scale = valueScale(strips.map(({ series }) => series));
  const times = strips.flatMap(({ series, endedMs }) => [...series.points.map(({ ms }) => ms), endedMs]);
  const [first, last] = [Math.min(0, least(times)), Math.max(1, greatest(times))];
  const unit = unitFor((last - first) / 4, TIME_UNITS);
  const highest = strips.map(
    ({ group, series }) => `${named(group)} ${formatFigure(greatest(valuesOf(series)))}`,
  );
  const lowest = strips.map(
    ({ group, series }) => `${named(group)} ${formatFigure(least(valuesOf(series)))}`,
  );

  return figureHtml({
    id,
    title,
    says: `Highest: ${highest.join("; ")}. Lowest: ${lowest.join("; ")}. Of each method the run with the median heartbeat gap; dotted: begin and end of the migration.${footnote(contest.groups)}`,
    legend: [],
    heightPx: MARGINS_PX + strips.length * STRIP_PX,
    draw(plot) {
      const x = linearAxis(last, unit, plot.xSpan, plot.size.name === "wide" ? 8 : 5, first);
      const rows = strips.map(({ group, series, endedMs }, index) => {
        const strip = stripAt(plot, index);
        const y = scale.axis(strip);
        const points = series.points.map(({ ms, value }) => ({ x: x.at(ms), y: y.at(value) }));
        const marks = [0, endedMs].map(
          (ms) => `<path class="limit" d="M${px(x.at(ms))} ${px(strip[0])}V${px(strip[1])}"/>`,
        );
        return (
          stripFrame(plot, strip, y, named(group)) +
          marks.join("") +
          line(points, isOurs(group.method) ? "s0" : "s1")
        );
      });
      const name = `time since the migration began (${unit.name})`;
      return frame(plot, { ticks: x.ticks, name }, { ticks: [], name: scale.name }) + rows.join("");
    },
  });
}

function valuesOf({ points }: Series): number[] {
  return points.map(({ value }) => value);
}

function least(values: readonly number[]): number {
  return values.reduce((min, value) => Math.min(min, value), Number.POSITIVE_INFINITY);
}

function greatest(values: readonly number[]): number {
  return values.reduce((max, value) => Math.max(max, value), Number.NEGATIVE_INFINITY);
}

function valueScale(all: readonly Series[]): { name: string; axis: (span: Span) => Axis } {
  const values = all.flatMap(valuesOf);
  const [max, unit] = [greatest(values), { name: all[0]?.unit ?? "", size: 1 }];
  const floor = Math.max(LOG_MS_MIN, least(values));
  // Delays are looked at for their size, down to the smallest; rates for their dips, down to nothing.
  const isLog = unit.name === "ms" && max > floor * LINEAR_RATIO_MAX;
  return isLog
    ? { name: "logarithmic", axis: (span) => logAxis(floor, max, unit, span) }
    : { name: "", axis: (span) => linearAxis(max, unit, span, 2, Math.min(0, least(values))) };
}

/** From bottom to top. */
function stripAt({ ySpan }: Plot, index: number): Span {
  const top = ySpan[1] + index * STRIP_PX;
  return [top + STRIP_PX - 6, top + STRIP_NAME_PX];
}

/** Baseline, the lowest and the highest tick, and whose strip it is. */
function stripFrame({ xSpan: [left, right] }: Plot, [bottom, top]: Span, y: Axis, name: string): string {
  const ticks = [y.ticks[0], y.ticks.at(-1)].map(
    (tick) =>
      tick &&
      `<path class="grid" d="M${px(left)} ${px(tick.px)}H${px(right)}"/>` +
        `<text class="tick" x="${px(left - 6)}" y="${px(tick.px + 4)}" text-anchor="end">${escapeHtml(tick.label)}</text>`,
  );
  const plain = `<text x="${px(left)}" y="${px(top - 6)}">${escapeHtml(name)}</text>`;
  return `${ticks.join("")}<path class="grid" d="M${px(left)} ${px(bottom)}H${px(right)}"/>${plain}`;
}

/** More iterations than this share bars. */
const ITERATION_BARS_MAX = { wide: 60, narrow: 30 } as const;

/** One strip per method: how much each iteration sent. Iteration 0, all of memory, is cut off: others are the news. */
export function iterationStrips(id: string, contest: Contest): string {
  const title = "Bytes sent per iteration";
  const strips = contest.groups.flatMap((group) => {
    const { iterations } = typicalRun(group);
    return iterations.length === 0 ? [] : [{ group, bytes: iterations.map(({ wireBytes }) => wireBytes) }];
  });
  if (strips.length === 0) return emptyFigure(title, "These records hold no iterations.");
  const later = greatest(strips.flatMap(({ bytes }) => (bytes.length > 1 ? bytes.slice(1) : bytes)));
  const count = greatest(strips.map(({ bytes }) => bytes.length));
  const unit = unitFor(later, BYTE_UNITS);
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const said = strips.map(
    ({ group, bytes }) =>
      `${named(group)} ${formatBytes(bytes[0]!)} in iteration 0, ${formatBytes(sum(bytes.slice(1)))} in ${bytes.length - 1} more`,
  );
  return figureHtml({
    id,
    title,
    says: `${said.join("; ")}. The bar of iteration 0 is cut off where it is higher than all others. Of each method the run with the median heartbeat gap.${footnote(contest.groups)}`,
    legend: [],
    heightPx: MARGINS_PX + strips.length * STRIP_PX,
    draw(plot) {
      const perBar = Math.max(1, Math.ceil(count / ITERATION_BARS_MAX[plot.size.name]));
      const bars = Math.ceil(count / perBar);
      const [left, right] = plot.xSpan;
      const bandPx = (right - left) / bars;
      const binned = strips.map(({ bytes }) =>
        Array.from({ length: Math.ceil(bytes.length / perBar) }, (_, bin) =>
          greatest(bytes.slice(bin * perBar, (bin + 1) * perBar)),
        ),
      );
      const rows = strips.map(({ group }, index) => {
        const strip = stripAt(plot, index);
        const y = linearAxis(later, unit, strip, 2);
        const drawn = binned[index]!.map((bytes, bin) => {
          const says = `${group.method}, iteration ${bin * perBar}${perBar > 1 ? " and following, the largest" : ""}: ${formatBytes(bytes)}`;
          return bar(
            left + (bin + 0.1) * bandPx,
            bandPx * 0.8,
            y.at(0),
            y.at(bytes),
            fillClass(group.method),
            says,
          );
        });
        return stripFrame(plot, strip, y, named(group)) + drawn.join("");
      });
      const every = Math.max(1, Math.ceil(34 / bandPx));
      const ticks = Array.from({ length: bars }, (_, bin) => ({
        px: left + (bin + 0.5) * bandPx,
        label: String(bin * perBar),
      })).filter((_, bin) => bin % every === 0);
      return (
        frame(
          plot,
          { ticks, name: "iteration (0: all of memory)" },
          { ticks: [], name: `sent (${unit.name})` },
        ) + rows.join("")
      );
    },
  });
}
