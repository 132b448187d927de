// The figures of a run, derived from its events: one place, so that terminal, JSON and HTML cannot disagree.
// A run without a summary (interrupted, or still going) gets the figures of its last sample.
// It knows nothing of how they are shown.

import type { VmWhere } from "../base/errors.ts";
import { NO_PAGES } from "../record/constants.ts";
import type { CacheStats, PageClasses, RecordEvent } from "../record/schema.ts";
import { type LabFigures, labFigures } from "./lab-figures.ts";

/** The record counts pages; on x86, which is all that the hypervisors we speak to migrate, they are this long. */
export const PAGE_BYTES = 4096;

export interface RecordedRun {
  readonly label: string;
  readonly events: readonly RecordEvent[];
}

export const PAGE_CLASSES = ["zero", "unchanged", "duplicate", "delta", "overflow", "raw"] as const;
export type PageClass = (typeof PAGE_CLASSES)[number];

type Outcome = "completed" | "failed" | "cancelled" | "unfinished";

export interface RunFigures {
  readonly label: string;
  readonly method?: "standard" | "delta";
  readonly mode?: "direct" | "tunnel" | "stock";
  readonly hypervisor?: string;
  readonly destination?: string;
  readonly outcome: Outcome;
  readonly vm: VmWhere;
  /** What went wrong, the first first. */
  readonly errors: readonly { readonly code: string; readonly message: string }[];
  readonly totalMs: number;
  /** The gap in the guest's heartbeat around the switchover: downtime as seen from outside. */
  readonly heartbeatGapMs?: number;
  readonly downtimeMs?: number;
  /** What was forecast of it when the guest was stopped. */
  readonly forecastDowntimeMs?: number;
  /** What the hypervisor itself says. */
  readonly downtimeMsReported?: number;
  /** What was forecast of all of it, before or soon after it began. */
  readonly forecast?: EventOf<"forecast">;
  readonly downtimeMsMax?: number;
  /** Promises about the whole migration, where they were made. */
  readonly timeMsMax?: number;
  readonly wireBytesMax?: number;
  /** Where it ended as post-copy, and what the guest had to wait for then. */
  readonly postcopyMs?: number;
  readonly requestedBytes?: number;
  readonly handedOverBytes: number;
  readonly wireBytes: number;
  /** Below zero when more was sent than handed over. Absent when nothing was handed over. */
  readonly savedRatio?: number;
  /** On average from the first iteration until the last byte was seen to be sent. */
  readonly wireBytesPerSecond?: number;
  readonly linkBytesPerSecondMax?: number;
  readonly iterations: number;
  readonly pages: PageClasses;
  /** Absent when there was none. */
  readonly cache?: CacheStats;
  readonly cpuMs?: number;
  readonly memoryVerified?: boolean;
  /** Of a record of the lab. */
  readonly lab?: LabFigures;
}

type EventOf<Type extends RecordEvent["type"]> = Extract<RecordEvent, { type: Type }>;

export function eventsOf<Type extends RecordEvent["type"]>(
  events: readonly RecordEvent[],
  type: Type,
): EventOf<Type>[] {
  return events.filter((event): event is EventOf<Type> => event.type === type);
}

export function runFigures({ label, events }: RecordedRun): RunFigures {
  const run = eventsOf(events, "run")[0];
  const summary = eventsOf(events, "summary").at(-1);
  const last = summary ?? eventsOf(events, "sample").at(-1);
  const errors = eventsOf(events, "error");
  const handedOverBytes = last?.handedOverBytes ?? 0;
  const wireBytes = last?.wireBytes ?? 0;
  const endMs = events.at(-1)?.atMs ?? 0;
  const sendingMs = sendingEndMs(events, wireBytes) - sendingStartMs(events);
  const heartbeatGapMs = summary?.heartbeatGapMs ?? switchoverGapMs(events);

  return {
    label,
    ...present({
      method: run?.method,
      mode: run?.mode,
      hypervisor: run?.hypervisor,
      destination: run?.destination,
      heartbeatGapMs,
      downtimeMs: summary?.downtimeMs,
      forecastDowntimeMs: summary?.forecastDowntimeMs,
      downtimeMsReported: summary?.downtimeMsReported,
      forecast: eventsOf(events, "forecast")[0],
      downtimeMsMax: run?.downtimeMsMax,
      timeMsMax: run?.timeMsMax,
      wireBytesMax: run?.wireBytesMax,
      postcopyMs: summary?.postcopyMs,
      requestedBytes: summary?.requestedBytes,
      savedRatio: handedOverBytes > 0 ? 1 - wireBytes / handedOverBytes : undefined,
      wireBytesPerSecond: sendingMs > 0 ? (wireBytes / sendingMs) * 1000 : undefined,
      linkBytesPerSecondMax: run?.linkBytesPerSecondMax,
      cache: last?.cache?.limitBytes === 0 ? undefined : last?.cache,
      cpuMs: last?.cpuMs,
      memoryVerified: summary?.memoryVerified,
      lab: labFigures(events),
    }),
    outcome: summary?.outcome ?? "unfinished",
    vm: summary?.vm ?? errors.findLast(({ vm }) => vm !== undefined)?.vm ?? "unknown",
    errors: errors.map(({ code, message }) => ({ code, message })),
    totalMs: summary?.totalMs ?? endMs,
    handedOverBytes,
    wireBytes,
    iterations: summary?.iterations ?? eventsOf(events, "iteration").length,
    pages: last?.pages ?? NO_PAGES,
  };
}

/** The members that have a value: an absent figure is left out, not written as undefined. */
function present<T extends object>(members: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

/** The destination's first heartbeat carries the gap since the source's last one. */
function switchoverGapMs(events: readonly RecordEvent[]): number | undefined {
  return eventsOf(events, "heartbeat").find((event) => event.side === "destination")?.gapMs;
}

function sendingStartMs(events: readonly RecordEvent[]): number {
  const start = eventsOf(events, "phase").find((event) => event.phase === "iterating");
  return start?.atMs ?? events[0]?.atMs ?? 0;
}

function sendingEndMs(events: readonly RecordEvent[], wireBytes: number): number {
  const end = eventsOf(events, "sample").find((event) => event.wireBytes >= wireBytes);
  return end?.atMs ?? events.at(-1)?.atMs ?? 0;
}

export function pageCount(pages: PageClasses): number {
  return PAGE_CLASSES.reduce((sum, pageClass) => sum + pagesOf(pages, pageClass), 0);
}

export function pagesOf(pages: PageClasses, pageClass: PageClass): number {
  return pages[`${pageClass}Pages`];
}

/** What the pages of a class came to, without record headers; undefined where it is only headers. */
export function encodedBytesOf(pages: PageClasses, pageClass: PageClass): number | undefined {
  switch (pageClass) {
    case "delta":
      return pages.deltaBytes;
    case "overflow":
    case "raw":
      return pagesOf(pages, pageClass) * PAGE_BYTES;
    case "zero":
    case "unchanged":
    case "duplicate":
      return undefined;
  }
}

export interface IterationFigures {
  readonly iteration: number;
  readonly startMs: number;
  readonly endMs: number;
  /** Sent during this iteration; the last one includes device state. */
  readonly wireBytes: number;
  readonly pages: PageClasses;
}

/** What happened in each iteration: the difference between its beginning and the next one's, or the end. */
export function iterationFigures(events: readonly RecordEvent[]): IterationFigures[] {
  const starts: Milestone[] = eventsOf(events, "iteration");
  const end: Milestone | undefined =
    eventsOf(events, "summary").at(-1) ?? eventsOf(events, "sample").at(-1) ?? starts.at(-1);
  return eventsOf(events, "iteration").map((start, index) => {
    const next = starts[index + 1] ?? end ?? start;
    return {
      iteration: start.iteration,
      startMs: start.atMs,
      endMs: Math.max(start.atMs, next.atMs),
      wireBytes: Math.max(0, next.wireBytes - start.wireBytes),
      pages: pagesBetween(start.pages, next.pages),
    };
  });
}

type Milestone = Pick<EventOf<"sample">, "atMs" | "wireBytes" | "pages">;

function pagesBetween(earlier: PageClasses, later: PageClasses): PageClasses {
  const between = (name: keyof PageClasses) => Math.max(0, later[name] - earlier[name]);
  return {
    zeroPages: between("zeroPages"),
    unchangedPages: between("unchangedPages"),
    deltaPages: between("deltaPages"),
    overflowPages: between("overflowPages"),
    rawPages: between("rawPages"),
    duplicatePages: between("duplicatePages"),
    deltaBytes: between("deltaBytes"),
  };
}

export interface RatePoint {
  /** Middle of the span that the rates are averaged over. */
  readonly atMs: number;
  /** What has arrived, as far as is known: at switchover much is sent at once, which only fills buffers. */
  readonly wireBytesPerSecond: number;
  /**
   * Guest pages settled, at their full size, however few bytes that took: what races the dirty rate. Without zero
   * pages, which are settled as fast as they are found, most of them before the race begins.
   */
  readonly guestBytesPerSecond: number;
  readonly dirtyBytesPerSecond: number | undefined;
}

/** Rates between samples at least `spanMs` apart (shorter ones would show scheduling, not the link). */
export function ratesOverTime(events: readonly RecordEvent[], spanMs: number): RatePoint[] {
  const points: RatePoint[] = [];
  const samples = eventsOf(events, "sample");
  let from = samples[0];
  for (const [index, to] of samples.entries()) {
    if (from === undefined || to.atMs <= from.atMs) continue;
    const isLast = index === samples.length - 1;
    if (to.atMs - from.atMs < spanMs && !(isLast && points.length === 0)) continue;
    const seconds = (to.atMs - from.atMs) / 1000;
    // A hypervisor that looks only between iterations says 0 during the first, and means that it does not know.
    const isUnknown = to.dirtyPagesPerSecond === 0 && (to.iteration ?? 0) === 0;
    const dirtyPagesPerSecond = isUnknown ? undefined : to.dirtyPagesPerSecond;
    points.push({
      atMs: (from.atMs + to.atMs) / 2,
      wireBytesPerSecond: Math.max(0, arrivedBytes(to) - arrivedBytes(from)) / seconds,
      guestBytesPerSecond:
        (Math.max(0, filledPages(to.pages) - filledPages(from.pages)) * PAGE_BYTES) / seconds,
      dirtyBytesPerSecond: dirtyPagesPerSecond === undefined ? undefined : dirtyPagesPerSecond * PAGE_BYTES,
    });
    from = to;
  }
  return points;
}

function arrivedBytes({ wireBytes, inFlightBytes }: EventOf<"sample">): number {
  return Math.max(0, wireBytes - inFlightBytes);
}

function filledPages(pages: PageClasses): number {
  return pageCount(pages) - pages.zeroPages;
}
