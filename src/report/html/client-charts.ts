// What clients of the guest saw over time, one plot per quantity, runs over each other: for a record of the lab.

import { eventsOf, type RecordedRun } from "../figures.ts";
import { thinned } from "../thinning.ts";
import { maxOf, seriesClass, timeAxis } from "./charts.ts";
import { figureHtml } from "./figure.ts";
import { frame, line, linearAxis } from "./svg.ts";

/** More quantities than these are in the record. */
const PLOTS_MAX = 6;

export function clientFigures(runs: readonly RecordedRun[]): string {
  const names = new Map<string, { series: string; unit: string }>();
  const all = runs.map(({ events }) => eventsOf(events, "client"));
  for (const { series, unit } of all.flat()) names.set(JSON.stringify([series, unit]), { series, unit });
  return [...names.values()]
    .slice(0, PLOTS_MAX)
    .map(({ series, unit }, index) => {
      const lines = all.map((seen) =>
        thinned(seen.filter((event) => event.series === series && event.unit === unit)),
      );
      const values = lines.flat().map(({ value }) => value);
      const [max, min] = [maxOf(values), -maxOf(values.map((value) => -value))];
      const title = unit === "" ? series : `${series}, ${unit}`;
      return figureHtml({
        id: `client-${index}`,
        title,
        says: "As clients of the guest saw it, over the whole run.",
        legend: runs.map(({ label }, run) => ({ name: label, line: seriesClass(run) })),
        draw(plot) {
          const x = timeAxis(runs, plot.xSpan);
          const y = linearAxis(max, { name: unit, size: 1 }, plot.ySpan, 5, min);
          const drawn = lines.map((points, run) =>
            line(
              points.map(({ atMs, value }) => ({ x: x.at(atMs), y: y.at(value) })),
              seriesClass(run),
            ),
          );
          return frame(plot, x, { ticks: y.ticks, name: title }) + drawn.join("");
        },
      });
    })
    .join("");
}
