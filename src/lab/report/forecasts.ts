// Forecast and truth: what `deltavee plan` said just before each run, what the planner says today of the same guest, link
// and method, and how far either was off. A section of docs/when-it-pays.md, and a number for each claim that is made
// about forecasts. Drawn from records alone.

import { formatMs } from "../../base/units.ts";
import { planMigration } from "../../planner/forecast.ts";
import { withHeaders } from "../../planner/link-model.ts";
import { METHOD_NAMES } from "../../planner/methods.ts";
import { replaceSection } from "../../report/section.ts";
import { spreadOf } from "../../report/statistics.ts";
import { formatRatio } from "../../report/text.ts";
import type { RunResult } from "./results.ts";

const SECTION = "forecast and truth";

type Recorded = NonNullable<RunResult["forecast"]>;
type Forecast = Pick<Recorded, "converges" | "totalMs" | "downtimeMs" | "wireBytes">;

/**
 * Their runs were looked at when the model was made: it must be right of the others too, which nobody had looked at when
 * they were forecast.
 */
const DEVELOPED_ON: ReadonlySet<string> = new Set(["video", "writer", "lmbench", "enterprise"]);

interface Judged {
  readonly method: string;
  readonly isHeldOut: boolean;
  /** Undefined where the forecast was unsure. */
  readonly isRight: boolean | undefined;
  /** Of runs that were forecast to converge and did. Shares of the truth; downtime in ms. */
  readonly errors?: {
    readonly bytes: number;
    readonly time: number;
    readonly downtimeMs: number | undefined;
  };
}

export function forecastsMarkdown(before: string, results: readonly RunResult[], command: string): string {
  const then = results.flatMap((result) => judge(result, result.forecast) ?? []);
  const anew = results.flatMap((result) => judge(result, forecastAnew(result.forecast)) ?? []);
  const parts = [
    `Made by \`${command}\` from the records in lab/results: the guest was sampled just before each run, and had`,
    "never been moved. A run that has not ended by itself within its time limit has not converged, and one that is forecast",
    "to take longer than that is forecast not to. Medians over runs; bytes, time and downtime of those that were forecast to",
    `converge and did. The model was developed on runs of ${[...DEVELOPED_ON].join(", ")}; all other scenarios are held out.`,
    "",
    "By the planner of today, of the guest as its record holds it:",
    "",
    ...(anew.length === 0 ? ["No record holds its guest yet."] : table(anew)),
    "",
    "As it was forecast then, by the planner of that time:",
    "",
    ...table(then),
  ];
  return replaceSection(before, SECTION, then.length === 0 ? NOTHING : parts.join("\n"));
}

const NOTHING = "No run has been forecast yet.";

/** By the planner as it is now. Undefined: the record does not say what the forecast was made from. */
function forecastAnew(recorded: RunResult["forecast"]): Forecast | undefined {
  const method = METHOD_NAMES.find((name) => name === recorded?.method);
  if (recorded?.basis === undefined || method === undefined) return undefined;
  const { linkBytesPerSecond: bytesPerSecond, roundTripMs, basis } = recorded;
  const { guest, lossShare, downtimeMsMax, cacheBytes } = basis;
  const { forecasts } = planMigration({
    ...{ guest, downtimeMsMax, methods: [method] },
    link: { bytesPerSecond, roundTripMs, lossShare },
    ...(cacheBytes === undefined ? {} : { cacheBytes }),
  });
  const { converges, totalMs, downtimeMs, wireBytes: payload } = forecasts[0]!;
  // What the lab counts on the link has headers.
  const wireBytes = withHeaders(payload);
  return { converges, totalMs, downtimeMs, wireBytes };
}

/** Undefined: it was not forecast, or has not arrived. */
function judge(result: RunResult, forecast: Forecast | undefined): Judged | undefined {
  const { metrics, setting, converged } = result;
  // The forecast's time ends with the last page; under post-copy the guest arrives before that.
  const totalMs = metrics.get(setting.method === "postcopy" ? "migrationMs" : "totalMs");
  const wireBytes = metrics.get("wireBytes");
  if (forecast === undefined || totalMs === undefined || wireBytes === undefined) return undefined;
  const converges = convergesInTime(forecast, result);
  const isRight = converges === "unsure" ? undefined : (converges === "yes") === converged;
  const judged = { method: setting.method, isHeldOut: !DEVELOPED_ON.has(setting.scenario), isRight };
  if (!converged || converges === "no") return judged;
  const off = ({ expected }: { expected: number }, truth: number) => Math.abs(expected - truth) / truth;
  const downtimeMs = metrics.get("downtimeMsReported");
  return {
    ...judged,
    errors: {
      bytes: off(forecast.wireBytes, wireBytes),
      time: off(forecast.totalMs, totalMs),
      downtimeMs: downtimeMs === undefined ? undefined : Math.abs(forecast.downtimeMs.expected - downtimeMs),
    },
  };
}

/** The lab lets no run go on for as long as it takes; post-copy is over, as far as that goes, after the first pass. */
function convergesInTime({ converges, totalMs }: Forecast, { forcedAfterMs, setting }: RunResult) {
  if (converges === "no" || forcedAfterMs === undefined || setting.method === "postcopy") return converges;
  if (totalMs.low > forcedAfterMs) return "no";
  return totalMs.high > forcedAfterMs ? "unsure" : converges;
}

function table(judged: readonly Judged[]): string[] {
  const methods = [...new Set(judged.map(({ method }) => method))];
  const rows = [
    ...methods.map((method) =>
      row(
        method,
        judged.filter((each) => each.method === method),
      ),
    ),
    row(
      "held out",
      judged.filter(({ isHeldOut }) => isHeldOut),
    ),
    row("**all**", judged),
  ];
  const head = [
    "method",
    "runs",
    "converges or not: right",
    "unsure",
    "bytes off by",
    "time off by",
    "downtime off by",
  ];
  const cells = (list: readonly string[]) => `| ${list.join(" | ")} |`;
  return [cells(head), `|${head.map(() => "---|").join("")}`, ...rows.map(cells)];
}

function row(name: string, judged: readonly Judged[]): string[] {
  const sure = judged.filter(({ isRight }) => isRight !== undefined);
  const right = sure.filter(({ isRight }) => isRight).length;
  const errors = judged.flatMap((each) => each.errors ?? []);
  const median = (values: readonly number[], format: (value: number) => string) => {
    const spread = spreadOf(values);
    return spread === undefined ? "–" : format(spread.median);
  };
  return [
    name,
    String(judged.length),
    `${right} of ${sure.length}`,
    String(judged.length - sure.length),
    median(
      errors.map(({ bytes }) => bytes),
      formatRatio,
    ),
    median(
      errors.map(({ time }) => time),
      formatRatio,
    ),
    median(
      errors.flatMap(({ downtimeMs }) => downtimeMs ?? []),
      formatMs,
    ),
  ];
}
