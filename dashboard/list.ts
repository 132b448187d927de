// The list of runs as HTML: those that this Deltavee has to show, newest first, and those from files.

import { formatBytesPerSecond, formatMs } from "../src/base/units.ts";
import { escapeHtml } from "../src/report/html/svg.ts";
import type { RunOverview } from "../src/web/run-overview.ts";
import { percentText } from "./now.ts";
import type { OpenedRecords } from "./records.ts";

export function listHtml(
  overviews: Iterable<RunOverview>,
  opened: Iterable<OpenedRecords>,
  current: string | undefined,
): string {
  const live = [...overviews].reverse().map((run) => item(run.id, run.label, stateText(run), run, current));
  const files = [...opened].reverse().map(({ id, label, says }) => item(id, label, says, undefined, current));
  const all = [...files, ...live];
  return all.length === 0 ? '<li class="muted">None so far.</li>' : all.join("");
}

function item(
  id: string,
  label: string,
  state: string,
  run: RunOverview | undefined,
  current: string | undefined,
): string {
  const ratio = run?.isRunning ? run.arrivedRatio : undefined;
  const bar =
    ratio === undefined
      ? ""
      : `<progress aria-hidden="true" max="100" value="${Math.floor(ratio * 100)}"></progress>`;
  return (
    `<li id="entry-${id}"><a href="#${id}"${id === current ? ' aria-current="page"' : ""}>` +
    `<span class="name">${escapeHtml(label)}</span><span class="state">${escapeHtml(state)}</span>${bar}</a></li>`
  );
}

function stateText(run: RunOverview): string {
  if (!run.isRunning) return endText(run);
  const step =
    run.phase === "iterating" && run.iteration !== undefined ? `iteration ${run.iteration}` : run.phase;
  const parts = [
    step,
    run.arrivedRatio === undefined ? undefined : percentText(run.arrivedRatio),
    run.wireBytesPerSecond === undefined ? undefined : formatBytesPerSecond(run.wireBytesPerSecond),
  ];
  return parts.filter((part) => part !== undefined).join(" · ");
}

function endText({ phase, vm, downtimeMs, totalMs, errorCode }: RunOverview): string {
  if (vm === undefined) return `ended without a summary${errorCode === undefined ? "" : `: ${errorCode}`}`;
  const parts = [
    phase,
    phase === "completed" && downtimeMs !== undefined ? `downtime ${formatMs(downtimeMs)}` : undefined,
    `${formatMs(totalMs)} in all`,
    phase === "completed" ? undefined : `VM ${vm}`,
    errorCode,
  ];
  return parts.filter((part) => part !== undefined).join(" · ");
}
