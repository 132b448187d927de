// Deltavee's own record of a migration, to be merged into that of a run: everything in it but its frame (what the run
// is, and how it ended, which the lab judges itself), at the time of this host, and thin enough for a repository.

import { existsSync, readFileSync } from "node:fs";
import { parseRecord } from "../../record/reader.ts";
import type { RecordEvent } from "../../record/schema.ts";
import { type TimedEntry, thinned } from "./timed.ts";

const SAMPLES_MAX = 120;
const ITERATIONS_MAX = 60;
const DECISIONS_MAX = 60;
const OTHERS_MAX = 60;

export type Summary = Extract<RecordEvent, { type: "summary" }>;

export interface ToolRecord {
  readonly entries: readonly TimedEntry[];
  /** Absent when Deltavee was ended before it could write one. */
  readonly summary: Summary | undefined;
}

/** A record that is not there is an empty one: Deltavee has failed before it had anything to say. */
export function readToolRecord(path: string): ToolRecord {
  if (!existsSync(path)) return { entries: [], summary: undefined };
  const { events } = parseRecord(readFileSync(path, "utf8"), path);
  const first = events[0]!;
  const openedMs = first.type === "run" ? Date.parse(first.startedAt) - first.atMs : 0;
  const told = events.filter(({ type }) => type !== "run" && type !== "summary");
  return {
    entries: thinnedEvents(told).map(({ atMs, ...entry }) => ({ epochMs: openedMs + atMs, entry })),
    summary: events.find((event): event is Summary => event.type === "summary"),
  };
}

/** Of what there may be thousands of some stay, evenly spread, in the order of time. */
function thinnedEvents(events: readonly RecordEvent[]): RecordEvent[] {
  const of = (isWanted: (event: RecordEvent) => boolean, max: number) =>
    thinned(events.filter(isWanted), max);
  const known: readonly RecordEvent["type"][] = ["sample", "iteration", "decision"];
  return [
    ...of(({ type }) => type === "sample", SAMPLES_MAX),
    ...of(({ type }) => type === "iteration", ITERATIONS_MAX),
    ...of(({ type }) => type === "decision", DECISIONS_MAX),
    ...of(({ type }) => !known.includes(type), OTHERS_MAX),
  ];
}
