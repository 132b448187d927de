// Contests that differ in two quantities only (dirty rate and bytes per page, rate and delay of the link) are a sweep,
// and are shown as maps over the two. Found from the settings themselves: nobody has to say what was swept.

import { formatBytesPerSecond } from "../../base/units.ts";
import { ratioOf } from "../../report/statistics.ts";
import { formatFigure } from "../../report/text.ts";
import { bestMethods } from "./contest-tables.ts";
import {
  byMethod,
  type Contest,
  groupBy,
  groupOf,
  isClean,
  isOurs,
  STANDARD,
  settingText,
  spreadOfMetric,
} from "./contests.ts";
import { HEARTBEAT_GAP, type ReportMetric, WIRE_BYTES } from "./metrics.ts";
import type { Table } from "./table.ts";

interface Axis {
  readonly name: string;
  valueOf(setting: Contest["setting"]): number | undefined;
  format(value: number): string;
  /** The setting with this quantity left out of account. */
  without(setting: Contest["setting"]): Contest["setting"];
}

export interface Sweep {
  readonly experiment: string;
  readonly scenario: string;
  /** What all of its contests have in common. */
  readonly fixed: string;
  readonly x: SweepAxis;
  readonly y: SweepAxis;
  readonly contests: readonly Contest[];
  at(x: number, y: number): Contest | undefined;
}

interface SweepAxis {
  readonly name: string;
  readonly values: readonly number[];
  format(value: number): string;
}

const LINK_AXES: readonly Axis[] = [
  {
    name: "link",
    valueOf: ({ link }) => link.bytesPerSecond,
    format: formatBytesPerSecond,
    without: (setting) => ({ ...setting, link: { ...setting.link, bytesPerSecond: 0 } }),
  },
  {
    name: "round trip, ms",
    valueOf: ({ link }) => link.roundTripMs,
    format: formatFigure,
    without: (setting) => ({ ...setting, link: { ...setting.link, roundTripMs: 0 } }),
  },
  {
    name: "loss, %",
    valueOf: ({ link }) => link.lossShare,
    format: (share) => formatFigure(share * 100),
    without: (setting) => ({ ...setting, link: { ...setting.link, lossShare: 0 } }),
  },
];

function parameterAxis(name: string): Axis {
  return {
    name,
    valueOf({ parameters }) {
      const value = Object.hasOwn(parameters, name) ? parameters[name] : undefined;
      return typeof value === "number" ? value : undefined;
    },
    format: formatFigure,
    without({ parameters, ...others }) {
      return {
        ...others,
        parameters: Object.fromEntries(Object.entries(parameters).filter(([key]) => key !== name)),
      };
    },
  };
}

/** Across first: the parameter that decides whether a delta pays; then down: how fast the guest dirties its memory. */
const PREFERRED = ["bytesPerPage", "dirtyPagesPerSecond"];
/** Fewer contests than this are better read one by one. */
const CELLS_MIN = 4;

export function sweepsOf(contests: readonly Contest[]): { sweeps: Sweep[]; others: Contest[] } {
  const sweeps: Sweep[] = [];
  const others: Contest[] = [];
  const families = groupBy(contests, ({ experiment, setting }) =>
    JSON.stringify([experiment, setting.scenario, setting.qemu, setting.guest]),
  );
  for (const family of families.values()) {
    const [x, y] = varyingAxes(family);
    if (x === undefined || y === undefined) {
      others.push(...family);
      continue;
    }
    const fields = groupBy(family, ({ setting }) => JSON.stringify(sorted(y.without(x.without(setting)))));
    for (const field of fields.values()) {
      const sweep = sweepOf(field, x, y);
      if (sweep === undefined) others.push(...field);
      else sweeps.push(sweep);
    }
  }
  return { sweeps, others };
}

function varyingAxes(family: readonly Contest[]): Axis[] {
  const names = new Set(family.flatMap(({ setting }) => Object.keys(setting.parameters)));
  const preferred = PREFERRED.filter((name) => names.delete(name));
  const axes = [...preferred.map(parameterAxis), ...LINK_AXES, ...[...names].sort().map(parameterAxis)];
  return axes.filter((axis) => valuesOn(axis, family).length > 1);
}

function valuesOn(axis: Axis, contests: readonly Contest[]): number[] {
  const values = contests.flatMap(({ setting }) => axis.valueOf(setting) ?? []);
  return [...new Set(values)].sort((a, b) => a - b);
}

function sorted(setting: Contest["setting"]): unknown {
  return { ...setting, parameters: Object.entries(setting.parameters).sort(([a], [b]) => (a < b ? -1 : 1)) };
}

/** Undefined where too little of the field was measured for a map to be read. */
function sweepOf(field: readonly Contest[], x: Axis, y: Axis): Sweep | undefined {
  const [columns, rows] = [valuesOn(x, field), valuesOn(y, field)];
  const isMap = columns.length > 1 && rows.length > 1 && field.length >= CELLS_MIN;
  if (!isMap || field.length * 2 < columns.length * rows.length) return undefined;
  const { experiment, setting } = field[0]!;
  return {
    experiment,
    scenario: setting.scenario,
    fixed: fixedText(field, x, y),
    x: { name: x.name, values: columns, format: x.format },
    y: { name: y.name, values: rows, format: y.format },
    contests: field,
    at: (column, row) =>
      field.find((contest) => x.valueOf(contest.setting) === column && y.valueOf(contest.setting) === row),
  };
}

/** What does not vary, in the words of a setting: those that all of its contests have. */
function fixedText(field: readonly Contest[], x: Axis, y: Axis): string {
  const shared = x.without(y.without(field[0]!.setting));
  const [link = "", ...others] = settingText(shared).split("; ");
  const parts = link.split(", ").filter((part) => !isSwept(part, [x.name, y.name]));
  return [...(parts.length === 0 ? [] : [parts.join(", ")]), ...others].join("; ");
}

function isSwept(part: string, names: readonly string[]): boolean {
  return (
    (names.includes("link") && part.endsWith("bit/s")) ||
    (names.includes("round trip, ms") && part.startsWith("round trip")) ||
    (names.includes("loss, %") && part.endsWith("loss"))
  );
}

// ---- Maps

export interface HeatMap {
  readonly title: string;
  readonly says: string;
  /** What rows and columns differ in. */
  readonly down: string;
  readonly across: string;
  readonly columns: readonly string[];
  readonly rows: readonly { readonly name: string; readonly cells: readonly HeatCell[] }[];
}

export interface HeatCell {
  readonly text: string;
  /** From 0, the least of the map, to HEAT_LEVELS - 1; or whose it is. Absent: nothing is known. */
  readonly heat?: number | "ours" | "other" | "open" | undefined;
}

export const HEAT_LEVELS = 5;

export function mapsOf(sweep: Sweep): HeatMap[] {
  const methods = [
    ...new Set(sweep.contests.flatMap(({ groups }) => groups.map(({ method }) => method))),
  ].sort(byMethod);
  const ours = methods.filter(isOurs);
  const rivals = [STANDARD, "multifd-zstd"].filter((method) => methods.includes(method));
  return [
    winnerMap(sweep),
    ...methods.map((method) => figureMap(sweep, method, HEARTBEAT_GAP)),
    ...ours.flatMap((method) => rivals.map((rival) => ratioMap(sweep, method, rival, WIRE_BYTES))),
  ];
}

function winnerMap(sweep: Sweep): HeatMap {
  return mapOf(
    sweep,
    "Shortest heartbeat gap",
    "The method with the shortest gap, and those whose range overlaps with it. What was forced or failed does not compete.",
    (contest) => {
      const best = bestMethods(contest, HEARTBEAT_GAP);
      if (best.length === 0) return { text: "none converged" };
      const own = best.filter(isOurs).length;
      const heat = own === best.length ? "ours" : own === 0 ? "other" : "open";
      return { text: best.join(", "), heat };
    },
  );
}

function figureMap(sweep: Sweep, method: string, metric: ReportMetric): HeatMap {
  const medianAt = (contest: Contest) => spreadOfMetric(groupOf(contest, method), metric.name)?.median;
  const level = levels(sweep.contests.flatMap((contest) => medianAt(contest) ?? []));
  return mapOf(sweep, `Heartbeat gap, ms: ${method}`, "Medians; * forced, or a run failed.", (contest) => {
    const group = groupOf(contest, method);
    const median = medianAt(contest);
    if (group === undefined || median === undefined) return { text: "-" };
    return { text: `${formatFigure(median)}${isClean(group) ? "" : " *"}`, heat: level(median) };
  });
}

function ratioMap(sweep: Sweep, method: string, rival: string, metric: ReportMetric): HeatMap {
  const ratioAt = (contest: Contest) => {
    const [a, b] = [rival, method].map((name) => spreadOfMetric(groupOf(contest, name), metric.name));
    return a === undefined || b === undefined ? undefined : ratioOf(a, b)?.median;
  };
  const level = levels(sweep.contests.flatMap((contest) => ratioAt(contest) ?? []));
  const says = "Of the medians; * one of the two was forced, or a run failed.";
  return mapOf(sweep, `Bytes on the wire: ${method} ÷ ${rival}`, says, (contest) => {
    const ratio = ratioAt(contest);
    if (ratio === undefined) return { text: "-" };
    const areClean = [method, rival].every((name) => isClean(groupOf(contest, name)!));
    return { text: `${formatFigure(ratio)}${areClean ? "" : " *"}`, heat: level(ratio) };
  });
}

/** Levels of even steps between the logarithms of the least and the greatest. */
function levels(values: readonly number[]): (value: number) => number {
  const logs = values.filter((value) => value > 0).map(Math.log);
  const min = logs.reduce((least, log) => Math.min(least, log), Infinity);
  const max = logs.reduce((greatest, log) => Math.max(greatest, log), -Infinity);
  return (value) => {
    if (value <= 0 || !(max > min)) return 0;
    return Math.min(HEAT_LEVELS - 1, Math.floor(((Math.log(value) - min) / (max - min)) * HEAT_LEVELS));
  };
}

function mapOf(sweep: Sweep, title: string, says: string, cell: (contest: Contest) => HeatCell): HeatMap {
  const { x, y } = sweep;
  return {
    title,
    says,
    down: y.name,
    across: x.name,
    columns: x.values.map(x.format),
    rows: y.values.map((row) => ({
      name: y.format(row),
      cells: x.values.map((column) => {
        const contest = sweep.at(column, row);
        return contest === undefined ? { text: "not run" } : cell(contest);
      }),
    })),
  };
}

export function heatMapTable({ title, says, down, across, columns, rows }: HeatMap): Table {
  return {
    caption: title,
    head: [`↓ ${down}, ${across} →`, ...columns],
    rows: rows.map(({ name, cells }) => ({ cells: [name, ...cells.map(({ text }) => text)] })),
    notes: [says],
  };
}
