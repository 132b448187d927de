// What a run that is still going says of this very moment, as HTML: how far it is, and the figures that race each
// other. The same figures as in the terminal's live line (src/report/progress.ts).

import { formatBytes, formatBytesPerSecond, formatMs } from "../src/base/units.ts";
import { PAGE_BYTES } from "../src/report/figures.ts";
import { escapeHtml } from "../src/report/html/svg.ts";
import { linkEventText } from "../src/report/link-text.ts";
import { arrivedRatio, ratePerSecond, remainingTime } from "../src/report/progress.ts";
import { formatRatio } from "../src/report/text.ts";
import type { ShownRun } from "./shown-run.ts";

type Tile = [name: string, value: string | undefined, note?: string | undefined];

/** Nothing of a run that has not begun. */
export function nowHtml(shown: ShownRun): string {
  if (shown.run === undefined) return "";
  return `${progressHtml(shown)}${tilesHtml(tiles(shown))}${latestHtml(shown)}`;
}

/** Whole per cent: what a title and a bar say. */
export function percentText(ratio: number): string {
  return `${Math.floor(ratio * 100)} %`;
}

/** "iteration 3", or the phase. */
export function stepText({ progress }: ShownRun): string {
  const { phase, iteration } = progress;
  return phase === "iterating" && iteration !== undefined ? `iteration ${iteration}` : phase;
}

function progressHtml(shown: ShownRun): string {
  const ratio = arrivedRatio(shown.progress);
  const text =
    ratio === undefined
      ? "How much has arrived is not known yet."
      : `${percentText(ratio)} of the guest's memory is at the destination as it is here.`;
  const bar =
    ratio === undefined
      ? ""
      : `<progress aria-label="Guest memory at the destination" max="100" value="${Math.floor(ratio * 100)}"></progress>`;
  return `<p class="lead">${escapeHtml(`${sentenceStart(stepText(shown))}, ${formatMs(shown.atMs)} since the start. ${text}`)}</p>${bar}`;
}

function tiles(shown: ShownRun): Tile[] {
  const { progress, sample, run, heartbeat } = shown;
  const time = remainingTime(progress);
  const dirty = sample?.dirtyPagesPerSecond;
  // A hypervisor that looks only between iterations says 0 during the first, and means that it does not know.
  const isDirtyKnown = dirty !== undefined && !(dirty === 0 && (progress.iteration ?? 0) === 0);
  const { handedOverBytes, wireBytes } = progress;
  const downtimeLimit = run?.downtimeMsMax;
  return [
    [
      "Rate on the link",
      rate(ratePerSecond(progress, "wireBytes")),
      limit(run?.linkBytesPerSecondMax, formatBytesPerSecond),
    ],
    ["Pages settled", rate(ratePerSecond(progress, "settledBytes")), "at full size"],
    ["Guest dirties", isDirtyKnown ? formatBytesPerSecond(dirty * PAGE_BYTES) : "-", "at full size"],
    ["Left to send", optional(progress.remainingBytes, formatBytes), "of guest memory"],
    [
      "Time left",
      time === undefined ? "-" : `${time.isLowerBound ? "> " : ""}${formatMs(time.ms)}`,
      limit(run?.timeMsMax, formatMs),
    ],
    [
      "Downtime if stopped now",
      optional(progress.forecastDowntimeMs, formatMs),
      limit(downtimeLimit, formatMs),
    ],
    [
      "Sent",
      formatBytes(wireBytes),
      handedOverBytes > 0
        ? `${formatRatio(wireBytes / handedOverBytes)} of ${formatBytes(handedOverBytes)}`
        : undefined,
    ],
    [
      "In flight",
      sample && formatBytes(sample.inFlightBytes),
      sample?.roundTripMs === undefined ? undefined : `round trip ${formatMs(sample.roundTripMs)}`,
    ],
    ...(heartbeat === undefined
      ? []
      : [
          [
            "Guest's heartbeat",
            formatMs(heartbeat.gapMs),
            `longest gap ${formatMs(shown.heartbeatGapMsMax)}`,
          ] satisfies Tile,
        ]),
  ];
}

function tilesHtml(all: readonly Tile[]): string {
  const items = all.map(([name, value = "-", note]) => {
    const noteHtml = note === undefined ? "" : `<span class="note">${escapeHtml(note)}</span>`;
    return `<div><dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}${noteHtml}</dd></div>`;
  });
  return `<dl class="tiles">${items.join("")}</dl>`;
}

function latestHtml({ decision, linkLost }: ShownRun): string {
  const link = linkLost === undefined ? "" : `<p class="bad">Link ${escapeHtml(linkEventText(linkLost))}</p>`;
  if (decision === undefined) return link;
  const { atMs, subject, choice, reason } = decision;
  return `${link}<p class="latest"><span class="muted">Latest decision, at ${escapeHtml(formatMs(atMs))}</span><br>${escapeHtml(`${subject}: ${choice}`)}, because: ${escapeHtml(reason)}</p>`;
}

function rate(bytesPerSecond: number | undefined): string {
  return optional(bytesPerSecond, formatBytesPerSecond);
}

function optional(value: number | undefined, format: (value: number) => string): string {
  return value === undefined ? "-" : format(value);
}

function limit(value: number | undefined, format: (value: number) => string): string | undefined {
  return value === undefined ? undefined : `limit ${format(value)}`;
}

function sentenceStart(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
