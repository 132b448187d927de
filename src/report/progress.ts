// The one live line while a migration works. Two halves: a pure fold of record events into what the line says,
// and a small writer that rewrites it on a terminal, or prints a line now and then where there is none (a log).
// No colour and no cursor control beyond the carriage return.
//
// Estimated time = remaining / (settled - dirtied), all in bytes of guest pages at full size and per second:
// settled is measured from the page counts of the last RATE_WINDOW_MS, whatever the pages cost on the link;
// dirtied is the rate that the hypervisor reports, and while it has none in iteration 0 the estimate is a lower
// bound, shown as ">". While the guest dirties faster than pages are settled there is no estimate: "-". Where the
// engine has forecast when the downtime is within its goal, that is the end.

import { formatBytes, formatBytesPerSecond, formatMs } from "../base/units.ts";
import type { Phase, RecordEvent } from "../record/schema.ts";
import { PAGE_BYTES, pageCount } from "./figures.ts";
import { linkEventText } from "./link-text.ts";
import { plain } from "./text.ts";
import { verifiedText } from "./verified-text.ts";

/** Rates are averages over this long: shorter jumps about, longer lags behind. */
const RATE_WINDOW_MS = 3000;
/** Samples closer than this replace each other, so that the window holds at most a few dozen. */
const MARK_SPACING_MS = 100;
/** No rate is told from less. */
const RATE_SPAN_MS_MIN = 250;

interface Mark {
  readonly atMs: number;
  readonly wireBytes: number;
  readonly settledBytes: number;
}

export interface ProgressState {
  readonly label: string | undefined;
  readonly phase: Phase;
  readonly guestRamBytes: number | undefined;
  readonly iteration: number | undefined;
  readonly atMs: number;
  readonly wireBytes: number;
  readonly handedOverBytes: number;
  readonly remainingBytes: number | undefined;
  readonly dirtyPagesPerSecond: number | undefined;
  readonly forecastEndMs: number | undefined;
  /** If the guest were stopped now. */
  readonly forecastDowntimeMs: number | undefined;
  /** The samples of the last RATE_WINDOW_MS, oldest first. */
  readonly marks: readonly Mark[];
}

export const initialProgress: ProgressState = {
  label: undefined,
  phase: "setup",
  guestRamBytes: undefined,
  iteration: undefined,
  atMs: 0,
  wireBytes: 0,
  handedOverBytes: 0,
  remainingBytes: undefined,
  dirtyPagesPerSecond: undefined,
  forecastEndMs: undefined,
  forecastDowntimeMs: undefined,
  marks: [],
};

export function reduceProgress(state: ProgressState, event: RecordEvent): ProgressState {
  switch (event.type) {
    case "run":
      return { ...state, atMs: event.atMs, label: event.label, guestRamBytes: event.guestRamBytes };
    case "phase":
      return { ...state, atMs: event.atMs, phase: event.phase };
    case "iteration":
      return {
        ...state,
        atMs: event.atMs,
        iteration: event.iteration,
        remainingBytes: event.remainingBytes ?? state.remainingBytes,
        dirtyPagesPerSecond: event.dirtyPagesPerSecond ?? state.dirtyPagesPerSecond,
      };
    case "sample":
      return {
        ...state,
        atMs: event.atMs,
        wireBytes: event.wireBytes,
        handedOverBytes: event.handedOverBytes,
        iteration: event.iteration ?? state.iteration,
        remainingBytes: event.remainingBytes ?? state.remainingBytes,
        dirtyPagesPerSecond: event.dirtyPagesPerSecond ?? state.dirtyPagesPerSecond,
        forecastEndMs: event.forecastEndMs,
        forecastDowntimeMs: event.forecastDowntimeMs,
        marks: withMark(state.marks, {
          atMs: event.atMs,
          wireBytes: event.wireBytes,
          settledBytes: pageCount(event.pages) * PAGE_BYTES,
        }),
      };
    case "summary":
      return { ...state, atMs: event.atMs, phase: event.outcome };
    case "decision":
    case "link":
    case "notice":
    case "verified":
    case "opaque":
    case "heartbeat":
    case "error":
    case "forecast":
    case "lab":
    case "client":
    case "usage":
    case "verdict":
      return state;
  }
}

function withMark(marks: readonly Mark[], mark: Mark): readonly Mark[] {
  const kept = marks.filter(({ atMs }) => mark.atMs - atMs <= RATE_WINDOW_MS);
  const previous = kept.at(-2);
  if (previous !== undefined && mark.atMs - previous.atMs < MARK_SPACING_MS) kept.pop();
  kept.push(mark);
  return kept;
}

/** Over the last few seconds: bytes on the link, or guest pages settled, at full size. */
export function ratePerSecond(state: ProgressState, what: "wireBytes" | "settledBytes"): number | undefined {
  const first = state.marks[0];
  const last = state.marks.at(-1);
  if (first === undefined || last === undefined || last.atMs - first.atMs < RATE_SPAN_MS_MIN)
    return undefined;
  return ((last[what] - first[what]) / (last.atMs - first.atMs)) * 1000;
}

/** Time until the end, as the head of this file says; undefined when there is no saying. */
export function remainingTime(state: ProgressState): { ms: number; isLowerBound: boolean } | undefined {
  if (state.phase === "iterating" && state.forecastEndMs !== undefined) {
    return { ms: state.forecastEndMs, isLowerBound: false };
  }
  const settledBytesPerSecond = ratePerSecond(state, "settledBytes");
  if (
    state.phase !== "iterating" ||
    state.remainingBytes === undefined ||
    settledBytesPerSecond === undefined
  ) {
    return undefined;
  }
  const dirtyPagesPerSecond = state.dirtyPagesPerSecond ?? 0;
  const netBytesPerSecond = settledBytesPerSecond - dirtyPagesPerSecond * PAGE_BYTES;
  if (netBytesPerSecond <= 0) return undefined;
  return {
    ms: (state.remainingBytes / netBytesPerSecond) * 1000,
    // During the full pass a hypervisor that looks only between iterations says 0, and means that it does not know.
    isLowerBound: dirtyPagesPerSecond === 0 && (state.iteration ?? 0) === 0,
  };
}

/** The share of the guest's memory that is as it should be at the destination; it falls when the guest writes. */
export function arrivedRatio({ phase, remainingBytes, guestRamBytes }: ProgressState): number | undefined {
  if (phase === "completed") return 1;
  if (remainingBytes === undefined || guestRamBytes === undefined || guestRamBytes === 0) return undefined;
  return Math.min(1, Math.max(0, 1 - remainingBytes / guestRamBytes));
}

/** One line of at most `columns` characters; what matters least is left out first when that is too few. */
export function progressLine(state: ProgressState, columns: number): string {
  const step =
    state.phase === "iterating" && state.iteration !== undefined
      ? `iteration ${state.iteration}`
      : state.phase;
  const label = state.label === undefined ? [] : [plain(state.label)];
  if (state.marks.length === 0) return [...label, step].join("  ").slice(0, Math.max(0, columns));

  const { wireBytes, handedOverBytes, remainingBytes } = state;
  const rateBytesPerSecond = ratePerSecond(state, "wireBytes");
  const time = remainingTime(state);
  // Padded to the longest usual value, so that the line does not jump while its figures change.
  const steps = step.padEnd("iteration 12".length);
  const rate = (rateBytesPerSecond === undefined ? "-" : formatBytesPerSecond(rateBytesPerSecond)).padStart(
    12,
  );
  const saved = savedText(wireBytes, handedOverBytes);
  const sent = `sent ${formatBytes(wireBytes)}${saved}`.padEnd(19);
  const sentOf = `sent ${formatBytes(wireBytes)} of ${formatBytes(handedOverBytes)}${saved}`.padEnd(30);
  const left = `${remainingBytes === undefined ? "-" : formatBytes(remainingBytes)} left`.padStart(12);
  const eta =
    `ETA ${time === undefined ? "-" : `${time.isLowerBound ? ">" : ""}${formatMs(time.ms)}`}`.padEnd(16);

  // Known from the end of the first pass on.
  const downtime =
    state.phase === "iterating" && state.forecastDowntimeMs !== undefined
      ? [`downtime ~${formatMs(state.forecastDowntimeMs)}`.padEnd(17)]
      : [];

  const lines = [
    [...label, steps, rate, sentOf, left, eta, ...downtime],
    [steps, rate, sentOf, left, eta, ...downtime],
    [steps, rate, sent, left, eta, ...downtime],
    [...label, steps, rate, sentOf, left, eta],
    [steps, rate, sentOf, left, eta],
    [steps, rate, sent, left, eta],
    [steps, rate, left, eta],
    [steps, rate, eta, ...downtime],
    [steps, rate, eta],
    [steps, eta],
  ].map((parts) => parts.join("  "));
  return (lines.find((line) => line.length <= columns) ?? step.slice(0, Math.max(0, columns))).trimEnd();
}

/** " (-86%)"; with so few digits that it does not flicker. */
function savedText(wireBytes: number, handedOverBytes: number): string {
  if (handedOverBytes === 0) return "";
  const percent = Math.round((wireBytes / handedOverBytes - 1) * 100);
  return ` (${percent > 0 ? "+" : ""}${percent}%)`;
}

/** What of process.stderr is needed. */
export interface ProgressOutput {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** A terminal is rewritten at most this often. */
const REDRAW_MS_MIN = 200;
/** Without a terminal: a line this often when nothing changes, and no more often than that when much does. */
const LOG_LINE_MS = 10_000;
const LOG_LINE_MS_MIN = 1000;
const COLUMNS_DEFAULT = 80;

export class ProgressDisplay {
  readonly #output: ProgressOutput;
  readonly #isTerminal: boolean;
  #state = initialProgress;
  #shownMs = Number.NEGATIVE_INFINITY;
  #shownPhase: Phase | undefined;
  #shownIteration: number | undefined;
  /** Length of the line that stands on the terminal. */
  #shownColumns = 0;

  constructor(output: ProgressOutput) {
    this.#output = output;
    this.#isTerminal = output.isTTY === true;
  }

  /** A listener for RunRecord. Time is that of the events: the display has no timer to stop. */
  readonly listener = (event: RecordEvent): void => {
    this.#state = reduceProgress(this.#state, event);
    if (event.type === "summary") this.close();
    else if (event.type === "notice") this.#print(`Note: ${plain(event.message)}`);
    else if (event.type === "opaque") {
      this.#print(
        `Note: from here on the stream is not understood, and carried as it is: ${plain(event.reason)}`,
      );
    } else if (event.type === "verified") this.#print(`${plain(verifiedText(event))}`);
    else if (event.type === "link") this.#print(`Link ${plain(linkEventText(event))}`);
    // What is promised, and whether it will be kept, is said while something can still be done.
    else if (event.type === "decision" && event.subject === "convergence") {
      this.#print(`Note: ${plain(`${event.choice}: ${event.reason}`)}`);
    } else if (event.type === "error") this.#print(`Error ${plain(event.code)}: ${plain(event.message)}`);
    else if (this.#isTerminal) this.#redraw(event);
    else this.#log(event);
  };

  /** Takes the line off the terminal, for whatever is printed next. */
  close(): void {
    if (this.#shownColumns === 0) return;
    this.#output.write(`\r${" ".repeat(this.#shownColumns)}\r`);
    this.#shownColumns = 0;
  }

  #redraw(event: RecordEvent): void {
    const isDue = event.atMs - this.#shownMs >= REDRAW_MS_MIN || this.#state.phase !== this.#shownPhase;
    if (!isDue) return;
    this.#shownMs = event.atMs;
    this.#shownPhase = this.#state.phase;
    // The last column stays free: some terminals wrap as soon as it is written.
    const columns = (this.#output.columns ?? COLUMNS_DEFAULT) - 1;
    const line = progressLine(this.#state, columns);
    this.#output.write(`\r${line.padEnd(Math.min(this.#shownColumns, columns))}`);
    this.#shownColumns = line.length;
  }

  #log(event: RecordEvent): void {
    const sinceMs = event.atMs - this.#shownMs;
    const isNews =
      this.#state.phase !== this.#shownPhase ||
      (this.#state.iteration !== this.#shownIteration && sinceMs >= LOG_LINE_MS_MIN);
    if (!isNews && sinceMs < LOG_LINE_MS) return;
    this.#shownMs = event.atMs;
    this.#shownPhase = this.#state.phase;
    this.#shownIteration = this.#state.iteration;
    this.#output.write(`${formatMs(event.atMs)}  ${progressLine(this.#state, Number.POSITIVE_INFINITY)}\n`);
  }

  #print(line: string): void {
    this.close();
    this.#output.write(`${line}\n`);
    if (this.#isTerminal) this.#shownMs = Number.NEGATIVE_INFINITY;
  }
}
