// Reads a run record back: NDJSON as schema.ts describes it, checked line by line, from text in pieces of any
// size. It knows nothing of files, nor of what checks an event. A record may come from another person's machine, so it
// is hostile input: bounded, and refused with the number of the line and the reason.
//
// A field that is unknown is dropped: within a version a field may be added that says more about an event we
// understand anyway. An event whose type is unknown is refused, as is a version: to skip it would be to draw a
// run without knowing what was left out. A new type of event is therefore a new version. A last line that was
// cut off (a crash, a full disk) is dropped with a notice, since everything before it is still true.

import { DeltaveeError } from "../base/errors.ts";
import { RECORD_VERSION } from "./constants.ts";
import { EventLog } from "./log.ts";
import type { RecordEvent } from "./schema.ts";

/** No line that RunRecord writes comes near this: a few texts of TEXT_CHARS_MAX, each character escaped. */
export const LINE_CHARS_MAX = 256 * 1024;

/** What an event must be like. */
export interface EventChecker {
  readonly types: ReadonlySet<unknown>;
  /** The event without what is unknown in it, or what is wrong: "pages.rawPages: ...". */
  check(value: Record<string, unknown>): RecordEvent | { readonly issue: string };
}

export interface ReadRecord {
  /** In order of time, the first of type "run"; thinned when very many (log.ts). */
  readonly events: readonly RecordEvent[];
  /** What a person should know about the record itself, for instance that it was cut off. */
  readonly notices: readonly string[];
}

export class LineReader {
  /** Of the file, for messages. */
  readonly #name: string;
  readonly #checker: EventChecker;
  readonly #log = new EventLog();
  #partial = "";
  #lineNumber = 0;
  #lastMs = 0;
  #ended = false;

  constructor(name: string, checker: EventChecker) {
    this.#name = name;
    this.#checker = checker;
  }

  /** Takes the next piece, cut anywhere. @throws DeltaveeError RECORD_INVALID; the reader is then of no use. */
  push(text: string): void {
    let start = 0;
    for (;;) {
      const end = text.indexOf("\n", start);
      if (end < 0) break;
      this.#partial += text.slice(start, end);
      this.#takeLine();
      start = end + 1;
    }
    this.#partial += text.slice(start);
    if (this.#partial.length > LINE_CHARS_MAX) {
      this.#lineNumber++;
      this.#refuse(`longer than ${LINE_CHARS_MAX} characters`);
    }
  }

  /** @throws DeltaveeError RECORD_INVALID when there was not one whole event. */
  end(): ReadRecord {
    const notices: string[] = [];
    if (this.#partial.trim() !== "") {
      if (isJson(this.#partial)) this.#takeLine();
      else notices.push(`${this.#name}: the last line (${this.#lineNumber + 1}) was cut off and is left out`);
    }
    if (this.#lineNumber === 0) {
      throw new DeltaveeError("RECORD_INVALID", `Cannot read run record ${this.#name}: it has no whole line`);
    }
    if (!this.#ended) {
      notices.push(`${this.#name}: ends without a summary: the run was interrupted, or is still going`);
    }
    return { events: this.#log.events, notices };
  }

  #takeLine(): void {
    const line = this.#partial;
    this.#partial = "";
    this.#lineNumber++;
    if (line.length > LINE_CHARS_MAX) this.#refuse(`longer than ${LINE_CHARS_MAX} characters`);
    if (this.#ended) this.#refuse("comes after the summary, which is the last event of a record");

    const value = this.#parseObject(line);
    const { type } = value;
    if (this.#lineNumber === 1) this.#checkFirst(value);
    else if (type === "run") this.#refuse("a second run begins: a record holds one");
    if (!this.#checker.types.has(type)) this.#refuse(`unknown type of event: ${quoted(type)}`);

    const event = this.#checker.check(value);
    if ("issue" in event) this.#refuse(`event ${quoted(type)}: ${event.issue}`);
    if (event.atMs < this.#lastMs) {
      this.#refuse(`time runs backwards: ${event.atMs} ms after ${this.#lastMs} ms`);
    }
    this.#lastMs = event.atMs;
    this.#ended = event.type === "summary";
    this.#log.add(event);
  }

  #parseObject(line: string): Record<string, unknown> {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      this.#refuse("not JSON");
    }
    if (typeof value !== "object" || value === null || Array.isArray(value))
      this.#refuse("not a JSON object");
    return value as Record<string, unknown>;
  }

  /** The version comes before everything else: a later one may differ in any other way. */
  #checkFirst(value: Record<string, unknown>): void {
    if (value.type !== "run")
      this.#refuse(`a run record begins with an event "run", not ${quoted(value.type)}`);
    if (value.version !== RECORD_VERSION) {
      this.#refuse(
        `record version ${quoted(value.version)} is unknown: this Deltavee reads ${RECORD_VERSION}`,
      );
    }
  }

  #refuse(reason: string): never {
    throw new DeltaveeError(
      "RECORD_INVALID",
      `Cannot read run record ${this.#name}: line ${this.#lineNumber}: ${reason}`,
    );
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** A value of the file as it may stand in a message: JSON (so no control characters) and short. */
function quoted(value: unknown): string {
  return (JSON.stringify(value) ?? "nothing").slice(0, 60);
}
