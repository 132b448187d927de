// Forecast and truth: what `deltavee plan` said just before each run, and how far that was off. A section of
// docs/when-it-pays.md, and a number for each claim that is made about forecasts. Drawn from records alone.

import { formatMs } from "../../base/units.ts";
import { replaceSection } from "../../report/section.ts";
import { spreadOf } from "../../report/statistics.ts";
import { formatRatio } from "../../report/text.ts";
import type { RunResult } from "./results.ts";

const SECTION = "forecast and truth";

interface Judged {
  readonly method: string;
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
  const judged = results.flatMap((result) => judge(result) ?? []);
  return replaceSection(before, SECTION, judged.length === 0 ? NOTHING : table(judged, command));
}

const NOTHING = "No run has been forecast yet.";

/** Undefined: it was not forecast. */
function judge({ forecast, metrics, setting, converged }: RunResult): Judged | undefined {
  const [totalMs, wireBytes] = [metrics.get("totalMs"), metrics.get("wireBytes")];
  if (forecast === undefined || totalMs === undefined || wireBytes === undefined) return undefined;
  const isRight = forecast.converges === "unsure" ? undefined : (forecast.converges === "yes") === converged;
  const judged = { method: setting.method, isRight };
  if (!converged || forecast.converges === "no") return judged;
  const off = (expected: number, truth: number) => Math.abs(expected - truth) / truth;
  const downtimeMs = metrics.get("downtimeMsReported");
  return {
    ...judged,
    errors: {
      bytes: off(forecast.wireBytes, wireBytes),
      time: off(forecast.totalMs, totalMs),
      downtimeMs: downtimeMs === undefined ? undefined : Math.abs(forecast.downtimeMs - downtimeMs),
    },
  };
}

function table(judged: readonly Judged[], command: string): string {
  const methods = [...new Set(judged.map(({ method }) => method))];
  const rows = [
    ...methods.map((method) =>
      row(
        method,
        judged.filter((each) => each.method === method),
      ),
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
  return [
    `Made by \`${command}\` from the records in lab/results: the guest was sampled just before each run, and had`,
    "never been moved. Medians over runs; bytes, time and downtime of those that were forecast to converge and did.",
    "",
    cells(head),
    `|${head.map(() => "---|").join("")}`,
    ...rows.map(cells),
  ].join("\n");
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
