// The demo while it works: for each run its progress, and the guest's heartbeat as a strip on which a freeze is to be
// seen. Pure: a fold of record events into what is shown, and its lines for a time and a width. A terminal rewrites
// them in place; a log gets a line now and then (display.ts).

import { formatBytes, formatMs } from "../../base/units.ts";
import type { RecordEvent } from "../../record/schema.ts";
import { initialProgress, type ProgressState, progressLine, reduceProgress } from "../../report/progress.ts";
import { formatCount } from "../../report/text.ts";
import type { Side } from "./messages.ts";

/** A heart that has not beaten for so long is shown as standing still: more than a busy machine makes of it. */
export const STILL_MS = 300;
/** One character of the strip. */
export const SLOT_MS = 500;

export interface RunView {
  readonly label: string;
  readonly progress: ProgressState;
  readonly beat: { readonly counter: number; readonly side: Side; readonly atMs: number } | undefined;
  readonly longestGapMs: number;
  /** Whether the heart beat in each slot from its first beat on; what is missing at the end is not known yet. */
  readonly slots: readonly boolean[];
  readonly firstSlot: number;
  readonly summary: Extract<RecordEvent, { type: "summary" }> | undefined;
}

export function initialView(label: string): RunView {
  return {
    label,
    progress: initialProgress,
    beat: undefined,
    longestGapMs: 0,
    slots: [],
    firstSlot: 0,
    summary: undefined,
  };
}

export function reduceView(view: RunView, event: RecordEvent): RunView {
  const progress = reduceProgress(view.progress, event);
  if (event.type === "heartbeat") {
    const { counter, side, atMs, gapMs } = event;
    const slot = Math.floor(atMs / SLOT_MS);
    const firstSlot = view.beat === undefined ? slot : view.firstSlot;
    return {
      ...view,
      progress,
      beat: { counter, side, atMs },
      longestGapMs: Math.max(view.longestGapMs, gapMs),
      slots: withBeat(view.slots, slot - firstSlot),
      firstSlot,
    };
  }
  return { ...view, progress, ...(event.type === "summary" ? { summary: event } : {}) };
}

function withBeat(slots: readonly boolean[], slot: number): readonly boolean[] {
  if (slots[slot] === true) return slots;
  return [...slots, ...Array.from({ length: slot - slots.length }, () => false), true];
}

/** How a piece of text may be set apart; plain where there is no colour. */
export interface Paint {
  alarm(text: string): string;
  good(text: string): string;
}

export const NO_PAINT: Paint = { alarm: (text) => text, good: (text) => text };

const LABEL_COLUMNS = 10;

/** Always three lines of at most `columns` characters, so that they can be rewritten in place. */
export function viewLines(view: RunView, nowMs: number, columns: number, paint = NO_PAINT): string[] {
  const room = Math.max(0, columns - LABEL_COLUMNS);
  const stillMs = stillFor(view, nowMs);
  const guest = guestText(view, nowMs).slice(0, room);
  const colour =
    stillMs === undefined ? (view.summary?.outcome === "completed" ? "good" : undefined) : "alarm";
  return [
    `${view.label.padEnd(LABEL_COLUMNS).slice(0, LABEL_COLUMNS)}${headText(view, room)}`.trimEnd(),
    guest === ""
      ? ""
      : `${"guest".padStart(LABEL_COLUMNS - 1)} ${colour === undefined ? guest : paint[colour](guest)}`.trimEnd(),
    `${" ".repeat(LABEL_COLUMNS)}${strip(view, nowMs, room, paint)}`.trimEnd(),
  ];
}

function headText({ progress, summary, beat }: RunView, columns: number): string {
  if (summary?.outcome === "completed") {
    return `completed in ${formatMs(summary.totalMs)}, ${formatBytes(summary.wireBytes)} sent`.slice(
      0,
      columns,
    );
  }
  if (beat === undefined && summary === undefined) return "waits".slice(0, columns);
  return progressLine({ ...progress, label: undefined }, columns);
}

function guestText(view: RunView, nowMs: number): string {
  const { beat, longestGapMs, summary } = view;
  if (beat === undefined) return "";
  const counter = formatCount(beat.counter);
  if (summary?.heartbeatGapMs !== undefined) {
    const verified = summary.memoryVerified === true ? ", memory verified" : "";
    return `stood still for ${formatMs(summary.heartbeatGapMs)}; now at ${beat.side}${verified}`;
  }
  const stillMs = stillFor(view, nowMs);
  if (stillMs !== undefined) return `STANDS STILL for ${formatMs(stillMs)}, since beat ${counter}`;
  return `beat ${counter} at ${beat.side}; longest gap ${formatMs(longestGapMs)}`;
}

function stillFor({ beat, summary }: RunView, nowMs: number): number | undefined {
  if (beat === undefined || summary !== undefined) return undefined;
  const sinceMs = nowMs - beat.atMs;
  return sinceMs > STILL_MS ? sinceMs : undefined;
}

/** "^^^^^____^^^": a flat line is a guest that stands still. The newest is at the right. */
function strip(view: RunView, nowMs: number, columns: number, paint: Paint): string {
  const { slots, firstSlot, beat, summary } = view;
  const isLive = beat !== undefined && summary === undefined;
  const count = isLive ? Math.floor(nowMs / SLOT_MS) - firstSlot : slots.length;
  const first = Math.max(0, count - columns);
  let text = "";
  for (let slot = first; slot < count; slot++) text += slots[slot] === true ? "^" : "_";
  return text.replace(/_+/g, (flat) => paint.alarm(flat));
}
