// What the service says while it works, to standard error: a line for each event that is worth one, as text for a
// terminal or as JSON for a journal. What is worth saying of a migration is in its run record (src/record): this only
// chooses, and gives it a level.

import { formatBytes, formatMs } from "../base/units.ts";
import type { RecordEvent } from "../record/schema.ts";
import type { RecordListener } from "../record/writer.ts";

export const LOG_LEVELS = ["debug", "info", "warning", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface LogOptions {
  readonly format: "text" | "json";
  /** What is below is left out. */
  readonly level: LogLevel;
  /** Takes one line, its newline included. */
  readonly write: (line: string) => void;
  readonly now?: () => Date;
}

/** What a line is about, beside its message. In JSON they are members of the line. */
export type LogFields = Readonly<Record<string, unknown>>;

export class Log {
  readonly #options: LogOptions;
  readonly #levelMin: number;

  constructor(options: LogOptions) {
    this.#options = options;
    this.#levelMin = LOG_LEVELS.indexOf(options.level);
  }

  /** `event`: what kind of thing has happened, in one word. */
  say(level: LogLevel, event: string, message: string, fields: LogFields = {}): void {
    if (LOG_LEVELS.indexOf(level) < this.#levelMin) return;
    const { format, write, now = () => new Date() } = this.#options;
    const time = now().toISOString();
    if (format === "json") write(`${JSON.stringify({ time, level, event, message, ...fields })}\n`);
    else write(`${time} ${level.padEnd("warning".length)} ${aboutText(fields)}${oneLine(message)}\n`);
  }
}

/** Says of a migration what its record does. */
export function runLog(log: Log, about: { migration: string; vm: string }): RecordListener {
  return (event) => {
    const said = describe(event);
    if (said === undefined) return;
    // What a record calls `vm` is where it is; here it is what it is called.
    const {
      type,
      message: _said,
      vm: where,
      ...rest
    } = event as RecordEvent & { message?: string; vm?: string };
    log.say(said.level, type, said.message, { ...about, ...(where === undefined ? {} : { where }), ...rest });
  };
}

/** Undefined: that is for the record alone. */
function describe(event: RecordEvent): { level: LogLevel; message: string } | undefined {
  switch (event.type) {
    case "run": {
      const { side, mode, hypervisor, destination } = event;
      const towards = destination === undefined ? "" : `, to ${destination}`;
      return { level: "info", message: `Migration begins: ${side}, ${mode}, ${hypervisor}${towards}` };
    }
    case "phase":
      return { level: "info", message: event.reason ? `${event.phase}: ${event.reason}` : event.phase };
    case "decision":
      return { level: "info", message: `${event.subject}: ${event.choice}: ${event.reason}` };
    case "forecast": {
      const { converges, totalMs, downtimeMs } = event;
      const times = `${formatMs(totalMs.expected)}, downtime ${formatMs(downtimeMs.expected)}`;
      return { level: "info", message: `Forecast: converges ${converges}, ${times}` };
    }
    case "link": {
      const { state, reason = "", outageMs = 0 } = event;
      if (state === "lost") return { level: "warning", message: `Connection lost: ${reason}` };
      return { level: "info", message: `Connection resumed after ${formatMs(outageMs)}` };
    }
    case "verified":
      return {
        level: "info",
        message: `RAM is equal at both ends, ${formatBytes(event.comparedBytes)} compared`,
      };
    case "notice":
      return { level: "warning", message: event.message };
    case "opaque":
      return { level: "warning", message: `From here on the stream is carried untouched: ${event.reason}` };
    case "error":
      return { level: "error", message: `${event.code}: ${event.message}` };
    case "summary": {
      const { outcome, vm, totalMs, downtimeMs, wireBytes } = event;
      const stood = downtimeMs === undefined ? "" : `, downtime ${formatMs(downtimeMs)}`;
      return {
        level: outcome === "completed" ? "info" : "warning",
        message: `${outcome} after ${formatMs(totalMs)}${stood}, ${formatBytes(wireBytes)} sent; the VM is: ${vm}`,
      };
    }
    case "iteration":
    case "sample":
      return { level: "debug", message: event.type };
    case "heartbeat":
    case "lab":
    case "client":
    case "usage":
    case "verdict":
      return undefined;
  }
}

function aboutText({ migration, vm }: LogFields): string {
  if (migration === undefined) return "";
  return `[${String(migration)}${vm === undefined ? "" : ` ${String(vm)}`}] `;
}

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, "; ");
}
