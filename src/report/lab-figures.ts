// What a record of the lab says beyond those of other runs: what was run, how it was judged, what clients saw and what
// processes used. Metrics are known by their names alone here, whose last word is the unit.

import { formatBytes, formatBytesPerSecond, formatMs } from "../base/units.ts";
import type { RecordEvent } from "../record/schema.ts";
import { type Spread, spreadOf } from "./statistics.ts";
import { formatCount, formatFigure, formatRatio, plain } from "./text.ts";

type EventOf<Type extends RecordEvent["type"]> = Extract<RecordEvent, { type: Type }>;

export interface LabFigures {
  readonly setting?: Omit<EventOf<"lab">, "type" | "atMs">;
  readonly verdict?: Omit<EventOf<"verdict">, "type" | "atMs">;
  /** The last of each process. */
  readonly usage: readonly Omit<EventOf<"usage">, "type" | "atMs">[];
  readonly series: readonly ClientSeriesFigures[];
}

export interface ClientSeriesFigures {
  readonly name: string;
  readonly unit: string;
  readonly spread: Spread;
}

/** Undefined of a record that is not of the lab. */
export function labFigures(events: readonly RecordEvent[]): LabFigures | undefined {
  let setting: LabFigures["setting"];
  let verdict: LabFigures["verdict"];
  const usage = new Map<string, LabFigures["usage"][number]>();
  const values = new Map<string, { name: string; unit: string; values: number[] }>();
  for (const { atMs: _, ...event } of events) {
    if (event.type === "lab") setting = withoutType(event);
    if (event.type === "verdict") verdict = withoutType(event);
    if (event.type === "usage") usage.set(`${event.side} ${event.process}`, withoutType(event));
    if (event.type === "client") {
      const key = JSON.stringify([event.series, event.unit]);
      const series = values.get(key) ?? { name: event.series, unit: event.unit, values: [] };
      series.values.push(event.value);
      values.set(key, series);
    }
  }
  if (setting === undefined && verdict === undefined && usage.size === 0 && values.size === 0)
    return undefined;
  return {
    ...(setting === undefined ? {} : { setting }),
    ...(verdict === undefined ? {} : { verdict }),
    usage: [...usage.values()],
    series: [...values.values()].map(({ name, unit, values: all }) => ({
      name,
      unit,
      spread: spreadOf(all)!,
    })),
  };
}

function withoutType<T extends { type: string }>({ type: _, ...members }: T): Omit<T, "type"> {
  return members;
}

/** Figures told of one run; the record and --json have the rest. */
const TOLD_MAX = 30;

/** Rows of a summary, name and text. */
export function labRows(lab: LabFigures | undefined): [name: string, text: string][] {
  if (lab === undefined) return [];
  const { setting, verdict, usage, series } = lab;
  const metrics = Object.entries(verdict?.metrics ?? {}).map(
    ([name, value]) => `${name} ${metricText(name, value)}`,
  );
  const used = usage.map(
    ({ side, process, cpuMs, residentBytesMax }) =>
      `${process} at the ${side} ${formatMs(cpuMs)} CPU, ${formatBytes(residentBytesMax)} of memory`,
  );
  const saw = series.map(({ name, unit, spread: { median, min, max } }) => {
    const [middle, least, most] = [median, min, max].map(formatFigure);
    return `${name} ${middle} (${least}–${most})${unit === "" ? "" : ` ${unit}`}`;
  });
  const rows: [string, string[]][] = [
    ["scenario", setting === undefined ? [] : [settingText(setting)]],
    ["machine", setting?.machine === undefined ? [] : [setting.machine]],
    ["judged", verdict === undefined ? [] : [verdictText(lab)]],
    ["failures", [...(verdict?.failures ?? [])]],
    ["measured", metrics],
    ["clients saw", saw],
    ["used", used],
  ];
  return rows
    .filter(([, texts]) => texts.length > 0)
    .map(([name, texts]) => {
      const more = texts.length > TOLD_MAX ? [`and ${texts.length - TOLD_MAX} more`] : [];
      return [name, plain([...texts.slice(0, TOLD_MAX), ...more].join("; "))];
    });
}

function settingText({
  scenario,
  method,
  link,
  guest,
  qemu,
  run,
  parameters,
}: NonNullable<LabFigures["setting"]>): string {
  const named = Object.entries(parameters).map(([name, value]) => `${name} ${value}`);
  return [
    `${scenario} by ${method}, run ${formatCount(run)}`,
    `${formatBytesPerSecond(link.bytesPerSecond)}, round trip ${formatMs(link.roundTripMs)}, loss ${formatRatio(link.lossShare)}${link.congestion === "bbr" ? ", BBR" : ""}`,
    `guest of ${formatCount(guest.memoryMiB)} MiB, ${formatCount(guest.vcpus)} vCPU, QEMU ${qemu}`,
    ...named,
  ].join("; ");
}

/** "succeeded; forced to end after 20.0 s" */
export function verdictText({ verdict, setting }: LabFigures): string {
  if (verdict === undefined) return "";
  const { succeeded, converged, forced } = verdict;
  const after = setting?.forcedAfterMs === undefined ? "" : ` after ${formatMs(setting.forcedAfterMs)}`;
  const end = forced
    ? `forced to end${after}`
    : converged
      ? "came to an end by itself"
      : "did not end as asked";
  return `${succeeded ? "succeeded" : "FAILED"}; ${end}`;
}

/** By the unit that its name ends in. */
function metricText(name: string, value: number): string {
  if (/Ms(Max|Reported|Estimated)?$/.test(name)) return formatMs(value);
  if (/Bytes(Back|Max)?$/.test(name)) return formatBytes(value);
  if (/(Share|Ratio)$/.test(name)) return formatRatio(value);
  return /PerSecond$/.test(name) ? `${formatFigure(value)}/s` : formatFigure(value);
}
