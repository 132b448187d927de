// What a section of `npm run bench` gives back, and how it is shown: on the terminal, as lines of JSON, and as a
// section of a Markdown file.

import { cpus } from "node:os";
import { markdown, plainText, type Table } from "./table.ts";

export interface SectionOptions {
  /** Each thing is measured so many times, in turn with the others. */
  turns: number;
  /** Take new snapshots instead of those in the cache folder. */
  rebuildPages: boolean;
}

/** What was set out to reach. One of the limits is given. */
export interface Goal {
  what: string;
  value: number;
  atLeast?: number;
  atMost?: number;
  unit: string;
}

export interface SectionResult {
  name: string;
  title: string;
  /** What the numbers are: units, method, what was left out and why. */
  notes: readonly string[];
  tables: readonly { caption: string; table: Table }[];
  goals: readonly Goal[];
  /** Everything measured, machine-readable. */
  lines: readonly object[];
}

/** What the numbers of a run hold for. */
export interface RunSetting {
  command: string;
  date: string;
  machine: string;
}

export function runSetting(commandArguments: readonly string[]): RunSetting {
  return {
    command: ["npm run bench --", ...commandArguments].join(" "),
    date: new Date().toISOString().slice(0, 10),
    machine: `${cpus().length} × ${cpus()[0]?.model.trim()}, Node ${process.versions.node}`,
  };
}

function goalText({ what, value, atLeast, atMost, unit }: Goal): string {
  const reached = value >= (atLeast ?? value) && value <= (atMost ?? value);
  const limit = atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`;
  return `${what}: ${value.toFixed(2)} ${unit} (goal: ${limit}; ${reached ? "reached" : "missed"})`;
}

export function sectionAsText({ title, notes, tables, goals }: SectionResult): string {
  return [
    `== ${title}`,
    ...notes,
    ...tables.flatMap(({ caption, table }) => ["", caption, plainText(table)]),
    ...(goals.length === 0 ? [] : ["", ...goals.map(goalText)]),
    "",
  ].join("\n");
}

export function sectionAsMarkdown(result: SectionResult, { command, date, machine }: RunSetting): string {
  const { title, notes, tables, goals } = result;
  return [
    `#### ${title}`,
    "",
    ...[`command: \`${command}\``, `${date}, ${machine}`, ...notes].map((note) => `- ${note}`),
    ...tables.flatMap(({ caption, table }) => ["", `${caption}:`, "", markdown(table)]),
    ...(goals.length === 0 ? [] : ["", ...goals.map((goal) => `- ${goalText(goal)}`)]),
  ].join("\n");
}
