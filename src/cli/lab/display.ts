// A matrix of runs as it is watched: one line per run that is over, and on a terminal a live one below, with what is
// running and how long everything will take. Plain lines otherwise; or every event as JSON.

import { formatMs } from "../../base/units.ts";
import { type MatrixEvent, verdictLine } from "../../lab/run/matrix.ts";
import { planText, type RunPlan } from "../../lab/run/plan.ts";
import { plain } from "../../report/text.ts";

const REDRAW_EVERY_MS = 1000;
const COLUMNS_DEFAULT = 80;

export interface MatrixDisplay {
  show(event: MatrixEvent): void;
  /** What takes its time within a run, or what a person should know. */
  notice(text: string): void;
  /** Idempotent. */
  close(): void;
}

interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

export function openMatrixDisplay(
  output: Output,
  json: { write(text: string): unknown } | undefined,
): MatrixDisplay {
  if (json !== undefined) return new JsonDisplay(json);
  return new TextDisplay(output);
}

class TextDisplay implements MatrixDisplay {
  readonly #output: Output;
  readonly #isTerminal: boolean;
  #timer: NodeJS.Timeout | undefined;
  #live: { text: string; doing: string; startMs: number; leftMs: number } | undefined;
  #shown = "";

  constructor(output: Output) {
    this.#output = output;
    this.#isTerminal = output.isTTY === true;
  }

  show(event: MatrixEvent): void {
    switch (event.type) {
      case "matrix": {
        const before = event.madeBefore === 0 ? "" : `, ${event.madeBefore} made before`;
        this.#line(`${event.runs} runs${before}; about ${formatMs(event.leftMs)} to go`);
        if (event.failedBefore > 0) {
          this.#line(
            `${event.failedBefore} of them did not succeed: remove a record to have its run made again`,
          );
        }
        return;
      }
      case "run-begins": {
        const text = `[${event.index}/${event.of}] ${planText(event.plan)}`;
        this.#live = { text, doing: "", startMs: performance.now(), leftMs: event.leftMs };
        if (this.#isTerminal) this.#timer = setInterval(() => this.#draw(), REDRAW_EVERY_MS);
        else this.#line(`${text}: begins, about ${formatMs(event.leftMs)} to go`);
        this.#draw();
        return;
      }
      case "run-ended": {
        this.#stopLive();
        const text = `[${event.index}/${event.of}] ${planText(event.plan)}: ${verdictLine(event.verdict)}`;
        this.#line(`${text} (${formatMs(event.elapsedMs)} in all)`);
      }
    }
  }

  notice(text: string): void {
    if (this.#live !== undefined && this.#isTerminal) {
      this.#live.doing = text;
      this.#draw();
    } else this.#line(`  ${text}`);
  }

  close(): void {
    this.#stopLive();
  }

  #stopLive(): void {
    clearInterval(this.#timer);
    this.#clear();
    this.#live = undefined;
  }

  #line(text: string): void {
    this.#clear();
    this.#output.write(`${plain(text)}\n`);
    this.#draw();
  }

  #draw(): void {
    if (!this.#isTerminal || this.#live === undefined) return;
    const { text, doing, startMs, leftMs } = this.#live;
    const elapsedMs = performance.now() - startMs;
    const left = formatMs(Math.max(0, leftMs - elapsedMs));
    const line = plain(`${text}  ${Math.floor(elapsedMs / 1000)} s, about ${left} to go  ${doing}`);
    this.#clear();
    // The last column stays free: a line that fills it wraps on some terminals.
    this.#shown = line.slice(0, (this.#output.columns ?? COLUMNS_DEFAULT) - 1);
    this.#output.write(this.#shown);
  }

  #clear(): void {
    if (this.#shown === "") return;
    this.#output.write(`\r${" ".repeat(this.#shown.length)}\r`);
    this.#shown = "";
  }
}

class JsonDisplay implements MatrixDisplay {
  readonly #output: { write(text: string): unknown };

  constructor(output: { write(text: string): unknown }) {
    this.#output = output;
  }

  show(event: MatrixEvent): void {
    this.#print("plan" in event ? { ...event, plan: planAsJson(event.plan) } : event);
  }

  notice(message: string): void {
    this.#print({ type: "notice", message });
  }

  close(): void {}

  #print(value: unknown): void {
    this.#output.write(`${JSON.stringify(value)}\n`);
  }
}

/** Without the scenario's functions. */
export function planAsJson({ scenario: _scenario, ...plan }: RunPlan): Omit<RunPlan, "scenario"> {
  return plan;
}
