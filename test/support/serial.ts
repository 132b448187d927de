// What the test guest says on its serial line (guest/README.md): heartbeats and verifications, and what follows
// from them: how long the guest stood still, and whether it went on exactly where it had stopped.

import type { LineLog, ReceivedLine } from "./line-log.ts";

/** Of broken counters a report lists at most so many. */
const LISTED_MAX = 20;

export interface Heartbeat {
  counter: number;
  /** The guest's own clock: timer ticks since its start. */
  ticks: number;
  /** Pages it has written so far. */
  pagesWritten: number;
  receivedMs: number;
}

export interface Verification {
  ok: boolean;
  /** Pages of the working set. */
  pages: number;
  /** Pages that are not what the guest last wrote to them. */
  badPages: number;
  line: string;
}

export interface HeartbeatGap {
  /** From the last heartbeat of the source to the first of the destination, as received here. */
  gapMs: number;
  lastOfSource: Heartbeat;
  firstOfDestination: Heartbeat;
  /** Counters that no heartbeat of either side had, and counters that came twice; none in a sound migration. */
  missing: number[];
  repeated: number[];
}

export function parseHeartbeat({ text, receivedMs }: ReceivedLine): Heartbeat | undefined {
  const match = /^HB (\d+) (\d+) (\d+)$/.exec(text);
  if (match === null) return undefined;
  return { counter: Number(match[1]), ticks: Number(match[2]), pagesWritten: Number(match[3]), receivedMs };
}

export function parseVerification(line: string): Verification | undefined {
  const match = /^VERIFY (ok|BAD) pages=(\d+)(?:.* bad=(\d+))?/.exec(line);
  if (match === null) return undefined;
  return { ok: match[1] === "ok", pages: Number(match[2]), badPages: Number(match[3] ?? 0), line };
}

export function heartbeatsOf(lines: readonly ReceivedLine[]): Heartbeat[] {
  return lines.map(parseHeartbeat).filter((heartbeat) => heartbeat !== undefined);
}

/** `destination` must have been running since the migration only, and have sent a heartbeat. */
export function heartbeatGap(source: LineLog, destination: LineLog): HeartbeatGap {
  // The guest may have been stopped in the middle of a line: then the destination prints the rest of it.
  const [first, ...rest] = destination.lines;
  const continued = first === undefined ? [] : [{ ...first, text: source.unfinished + first.text }, ...rest];
  const before = heartbeatsOf(source.lines);
  const after = heartbeatsOf(continued);
  const [lastOfSource, firstOfDestination] = [before.at(-1), after[0]];
  if (lastOfSource === undefined || firstOfDestination === undefined) {
    throw new Error(`No gap to measure: ${before.length} heartbeats before, ${after.length} after`);
  }
  return {
    gapMs: firstOfDestination.receivedMs - lastOfSource.receivedMs,
    lastOfSource,
    firstOfDestination,
    ...continuity([...before, ...after]),
  };
}

function continuity(heartbeats: readonly Heartbeat[]): { missing: number[]; repeated: number[] } {
  const missing: number[] = [];
  const repeated: number[] = [];
  let expected = heartbeats[0]?.counter ?? 0;
  for (const { counter } of heartbeats) {
    for (; expected < counter && missing.length < LISTED_MAX; expected++) missing.push(expected);
    if (counter < expected && repeated.length < LISTED_MAX) repeated.push(counter);
    expected = Math.max(expected, counter + 1);
  }
  return { missing, repeated };
}
