// What was forecast of a migration beside what came of it, or has come of it so far, as a table. Nothing of runs of
// which nothing was forecast.

import { formatBytes, formatMs } from "../../base/units.ts";
import { type RecordedRun, type RunFigures, runFigures } from "../figures.ts";
import { headRow, scrollable } from "./document.ts";
import { escapeHtml } from "./svg.ts";

type Forecast = NonNullable<RunFigures["forecast"]>;

export function forecastSection(runs: readonly RecordedRun[]): string {
  const tables = runs.map(runFigures).flatMap((figures) => {
    const { forecast } = figures;
    return forecast === undefined ? [] : [forecastTable(figures, forecast)];
  });
  return tables.length === 0 ? "" : `<h2>Forecast and actual</h2>\n${tables.join("\n")}\n`;
}

function forecastTable(figures: RunFigures, forecast: Forecast): string {
  const { label, outcome } = figures;
  const isOver = outcome !== "unfinished";
  const row = (
    name: string,
    { low, expected, high }: Forecast["totalMs"],
    actual: number | undefined,
    format: (value: number) => string,
  ) => {
    const cells = [
      format(expected),
      `${format(low)} to ${format(high)}`,
      actual === undefined ? "-" : format(actual),
    ];
    return `<tr><th scope="row">${name}</th>${cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("")}</tr>`;
  };
  const rows = [
    row("total time", forecast.totalMs, figures.totalMs, formatMs),
    row("downtime", forecast.downtimeMs, figures.heartbeatGapMs ?? figures.downtimeMs, formatMs),
    row("sent on the link", forecast.wireBytes, figures.wireBytes, formatBytes),
  ];
  const says = `${label}: ${CONVERGES[forecast.converges]}. ${forecast.reason}`;
  const head = headRow(["", "forecast", "between", isOver ? "actual" : "so far"]);
  return scrollable(
    `Forecast of ${label}`,
    `<table class="figures"><caption>${escapeHtml(says)}</caption>${head}<tbody>${rows.join("\n")}</tbody></table>`,
  );
}

const CONVERGES: Readonly<Record<Forecast["converges"], string>> = {
  yes: "it was expected to converge",
  no: "it was not expected to converge",
  unsure: "it was not sure whether it would converge",
};
