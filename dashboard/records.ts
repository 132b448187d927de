// Run records from files, dropped or chosen: read in this browser, by the same reader as everywhere, and sent nowhere.
// Several at once are put side by side, as `deltavee report A B` does.

import { jsonSchemaChecker } from "../src/record/json-schema.ts";
import { type EventChecker, LineReader, type ReadRecord } from "../src/record/line-reader.ts";
import { ShownRun } from "./shown-run.ts";

/** The oldest go. */
const OPENED_MAX = 20;
/** Side by side: more could not be told apart. */
const FILES_MAX = 6;
const FILE_BYTES_MAX = 1024 ** 3;

export interface OpenedRecords {
  readonly id: string;
  readonly label: string;
  readonly says: string;
  readonly runs: readonly ShownRun[];
  readonly notices: readonly string[];
}

export class Records {
  readonly opened = new Map<string, OpenedRecords>();
  /** Fetched at once: records can be opened also when Deltavee has ended. */
  readonly #checker: Promise<EventChecker>;
  #count = 0;

  constructor() {
    this.#checker = fetchChecker();
    // Told to whoever opens a record.
    this.#checker.catch(() => undefined);
  }

  /** @throws Error of which the message can be shown: a file is no run record */
  async open(files: readonly File[]): Promise<OpenedRecords | undefined> {
    if (files.length === 0) return undefined;
    if (files.length > FILES_MAX)
      throw new Error(`At most ${FILES_MAX} run records can be put side by side.`);
    const checker = await this.#checker;
    const runs: ShownRun[] = [];
    const notices: string[] = [];
    for (const file of files) {
      const record = await readFile(file, checker);
      const label = record.events.find((event) => event.type === "run")?.label ?? file.name;
      const isUnique = !runs.some((other) => other.label === label);
      const run = new ShownRun(isUnique ? label : `${label} (${file.name})`);
      for (const event of record.events) run.add(event);
      runs.push(run);
      notices.push(...record.notices);
    }
    const opened: OpenedRecords = {
      id: `file-${++this.#count}`,
      label: runs.map(({ label }) => label).join(", "),
      says: `from ${files.map(({ name }) => name).join(", ")}`,
      runs,
      notices,
    };
    this.opened.set(opened.id, opened);
    const [oldest] = this.opened.keys();
    if (this.opened.size > OPENED_MAX && oldest !== undefined) this.opened.delete(oldest);
    return opened;
  }
}

async function fetchChecker(): Promise<EventChecker> {
  const response = await fetch("/record-schema.json");
  if (!response.ok) throw new Error(`The format of records could not be fetched: ${response.status}`);
  return jsonSchemaChecker(await response.json());
}

/** In pieces, between which the page goes on. */
async function readFile(file: File, checker: EventChecker): Promise<ReadRecord> {
  if (file.size > FILE_BYTES_MAX) throw new Error(`Cannot read run record ${file.name}: longer than 1 GiB`);
  const reader = new LineReader(file.name, checker);
  const text = file.stream().pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await text.read();
    if (done) return reader.end();
    reader.push(value);
  }
}
