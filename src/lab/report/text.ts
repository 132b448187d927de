// The results of the lab on a terminal: every table, without plots.

import { plain } from "../../report/text.ts";
import { contestTables } from "./contest-tables.ts";
import { contestsOf } from "./contests.ts";
import type { ScenarioInfo } from "./metrics.ts";
import type { Results } from "./results.ts";
import { heatMapTable, mapsOf, sweepsOf } from "./sweeps.ts";
import { tableText } from "./table.ts";

export function labReportText({ results }: Results, scenarios: readonly ScenarioInfo[]): string {
  if (results.length === 0) return "No results yet.\n";
  const { sweeps, others } = sweepsOf(contestsOf(results));
  const parts = others.flatMap((contest) => {
    const { experiment, setting } = contest;
    const info = scenarios.find(({ name }) => name === setting.scenario);
    const title = plain(
      `== ${info?.title ?? setting.scenario} (${setting.scenario}), experiment ${experiment}`,
    );
    return [title, ...contestTables(contest, info).map(tableText)];
  });
  const maps = sweeps.flatMap((sweep) => [
    plain(
      `== ${sweep.scenario}: ${sweep.y.name} × ${sweep.x.name}; ${sweep.fixed}, experiment ${sweep.experiment}`,
    ),
    ...mapsOf(sweep).map((map) => tableText(heatMapTable(map))),
  ]);
  return `${[...parts, ...maps].join("\n\n")}\n`;
}
