// Shows the demo's runs while they work: rewritten in place on a terminal, a line now and then in a log. The only
// part of the demo that knows of colours and cursors.

import { formatMs } from "../../base/units.ts";
import type { RecordListener } from "../../record/writer.ts";
import { ProgressDisplay, type ProgressOutput } from "../../report/progress.ts";
import {
  initialView,
  NO_PAINT,
  type Paint,
  type RunView,
  reduceView,
  STILL_MS,
  viewLines,
} from "./screen.ts";

export interface Display {
  /** The next run; `nowMs` is the time now on the axis of its events. */
  show(label: string, nowMs: () => number): RecordListener;
  /** Whatever is printed next comes below. Idempotent. */
  close(): void;
}

const REDRAW_EVERY_MS = 100;
const COLUMNS_DEFAULT = 80;

const COLOURS: Paint = {
  alarm: (text) => `\u001b[1;31m${text}\u001b[0m`,
  good: (text) => `\u001b[32m${text}\u001b[0m`,
};

export function openDisplay(
  output: ProgressOutput,
  labels: readonly string[],
  environment: NodeJS.ProcessEnv,
): Display {
  // A dumb terminal has no cursor to move.
  if (output.isTTY !== true || environment.TERM === "dumb") return new LogDisplay(output);
  const paint = environment.NO_COLOR === undefined || environment.NO_COLOR === "" ? COLOURS : NO_PAINT;
  return new LiveDisplay(output, labels, paint, () => {
    // A terminal that does not know its size says 0.
    return output.columns || Number(environment.COLUMNS) || COLUMNS_DEFAULT;
  });
}

class LiveDisplay implements Display {
  readonly #output: ProgressOutput;
  readonly #paint: Paint;
  readonly #columns: () => number;
  readonly #runs: { view: RunView; nowMs: () => number }[];
  #timer: NodeJS.Timeout | undefined;
  #shownLines = 0;

  constructor(output: ProgressOutput, labels: readonly string[], paint: Paint, columns: () => number) {
    this.#output = output;
    this.#paint = paint;
    this.#columns = columns;
    this.#runs = labels.map((label) => ({ view: initialView(label), nowMs: () => 0 }));
    this.#timer = setInterval(() => this.#redraw(), REDRAW_EVERY_MS);
  }

  show(label: string, nowMs: () => number): RecordListener {
    const run = this.#runs.find(({ view }) => view.label === label);
    if (run === undefined) return () => {};
    run.nowMs = nowMs;
    return (event) => {
      run.view = reduceView(run.view, event);
    };
  }

  close(): void {
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#redraw();
  }

  #redraw(): void {
    // The last column stays free: some terminals wrap as soon as it is written.
    const columns = this.#columns() - 1;
    const lines = this.#runs.flatMap(({ view, nowMs }) => viewLines(view, nowMs(), columns, this.#paint));
    const up = this.#shownLines === 0 ? "" : `\u001b[${this.#shownLines}A`;
    this.#output.write(`${up}${lines.map((line) => `\u001b[2K${line}\n`).join("")}`);
    this.#shownLines = lines.length;
  }
}

class LogDisplay implements Display {
  readonly #output: ProgressOutput;

  constructor(output: ProgressOutput) {
    this.#output = output;
  }

  show(label: string): RecordListener {
    const output = this.#output;
    const progress = new ProgressDisplay({ write: (text) => output.write(text) });
    return (event) => {
      progress.listener(event);
      if (event.type !== "heartbeat" || event.gapMs < STILL_MS) return;
      const text = `${label}  the guest has stood still for ${formatMs(event.gapMs)}, it now runs on the ${event.side}`;
      output.write(`${formatMs(event.atMs)}  ${text}\n`);
    };
  }

  close(): void {}
}
