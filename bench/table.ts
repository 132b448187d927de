// Measurements as a table: one row per method, median and range over its runs, ratios to a reference method.

import { formatMs } from "../src/base/units.ts";
import type { Method } from "../src/lab/method/method.ts";
import type { Measurement } from "./measure.ts";
import { median } from "./timing.ts";

/** Rows of cells, the first row the head. */
export type Table = readonly (readonly string[])[];

const HEAD = [
  "method",
  "converged",
  "total s",
  "downtime, QEMU's, ms",
  "heartbeat gap ms",
  "wire MB",
  "bytes ratio",
  "time ratio",
  "CPU s source",
  "CPU s destination",
  "guest verified",
];
const NONE = "-";

export function tableOf(methods: readonly Method[], all: readonly Measurement[], reference: string): Table {
  const of = (name: string) => all.filter(({ method }) => method === name);
  const base = of(reference).filter(({ converged }) => converged);
  return [HEAD, ...methods.map(({ name, title }) => [title, ...rowOf(of(name), base)])];
}

function rowOf(runs: readonly Measurement[], base: readonly Measurement[]): string[] {
  const arrived = runs.filter(({ converged }) => converged);
  const limit = formatMs(runs[0]?.totalMs ?? 0);
  const converged =
    arrived.length === 0
      ? `no (${limit})`
      : arrived.length < runs.length
        ? `${arrived.length}/${runs.length}`
        : "yes";
  // Bytes and CPU time of migrations that were cut off say what was spent, not what it takes.
  const counted = arrived.length === 0 ? runs : arrived;
  const ratio = (of: (run: Measurement) => number) =>
    arrived.length === 0 || base.length === 0
      ? NONE
      : (median(arrived.map(of)) / median(base.map(of))).toFixed(2);
  const good = arrived.filter(({ verified }) => verified === true).length;
  return [
    converged,
    spread(
      arrived.map(({ totalMs }) => totalMs / 1000),
      1,
    ),
    spread(defined(arrived.map(({ downtimeMsReported }) => downtimeMsReported)), 0),
    spread(defined(arrived.map(({ heartbeatGapMs }) => heartbeatGapMs)), 0),
    spread(
      counted.map(({ wireBytes }) => wireBytes / 1e6),
      1,
    ),
    ratio(({ wireBytes }) => wireBytes),
    ratio(({ totalMs }) => totalMs),
    cpu(counted, "source"),
    cpu(counted, "destination"),
    arrived.length === 0 ? NONE : good === arrived.length ? "yes" : `${good} of ${arrived.length}`,
  ];
}

function cpu(runs: readonly Measurement[], side: "source" | "destination"): string {
  const qemu = spread(
    runs.map(({ cpuSeconds }) => cpuSeconds[side].qemu),
    1,
  );
  const deltavee = runs.map(({ cpuSeconds }) => cpuSeconds[side].deltavee);
  return Math.max(...deltavee) === 0 ? qemu : `${qemu} + ${spread(deltavee, 1)}`;
}

function defined(values: readonly (number | undefined)[]): number[] {
  return values.filter((value) => value !== undefined);
}

/** "14.2", or of several runs "14.2 (14.0–14.9)". */
function spread(values: readonly number[], digits: number): string {
  if (values.length === 0) return NONE;
  const text = median(values).toFixed(digits);
  if (values.length === 1) return text;
  return `${text} (${Math.min(...values).toFixed(digits)}–${Math.max(...values).toFixed(digits)})`;
}

export function plainText(table: Table): string {
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  return table
    .map((row) =>
      row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))),
    )
    .map((row) => row.join("  ").trimEnd())
    .join("\n");
}

export function markdown(table: Table): string {
  const [head, ...rows] = table.map((row) => `| ${row.join(" | ")} |`);
  const rule = `|${table[0]!.map((_, column) => (column === 0 ? " --- |" : " ---: |")).join("")}`;
  return [head, rule, ...rows].join("\n");
}
