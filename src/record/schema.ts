// The run record: everything worth seeing in a migration, one JSON object per line (NDJSON), in order.
// Terminal progress, reports, benchmark tables and (later) the planner are drawn from it and from nothing
// else, for real and simulated runs alike. A reader refuses a version it does not know.
//
// `atMs` is time since the record was opened (monotonic). Names end in their unit. Counters are cumulative.

import * as v from "../base/schema.ts";
import { RECORD_VERSION } from "./constants.ts";
import { guestModelSchema } from "./guest-model.ts";

export { NO_PAGES } from "./constants.ts";

const count = v.pipe(v.number(), v.minValue(0));

/** How outgoing pages were classified, cumulative. */
export const pageClassesSchema = v.object({
  /** All bytes zero: sent as a few bytes. */
  zeroPages: count,
  /** Dirty, but equal to what the destination holds: sent as nothing. */
  unchangedPages: count,
  /** Sent as a delta against what the destination holds. */
  deltaPages: count,
  /** The delta would not have been smaller than the page: sent whole. */
  overflowPages: count,
  /** Not in the page cache (never sent, or evicted): sent whole. */
  rawPages: count,
  /** Equal to a page that the destination got not long ago: sent as a reference to it. */
  duplicatePages: v.optional(count, 0),
  /** Bytes of all deltas (without record headers). */
  deltaBytes: count,
});

export const cacheStatsSchema = v.object({
  hits: count,
  misses: count,
  evictions: count,
  usedBytes: count,
  limitBytes: count,
});

export const phaseSchema = v.picklist([
  "setup",
  "iterating",
  "switchover",
  "committed",
  "completed",
  "failed",
  "cancelled",
]);

export const vmWhereSchema = v.picklist([
  "running on source",
  "paused on source",
  "running on destination",
  "paused on destination",
  "with the destination",
  "unknown",
]);

/** Between `low` and `high`, so it is expected; most likely `expected`. */
const intervalSchema = v.object({ low: count, expected: count, high: count });

const event = <Type extends string, Shape extends v.Shape>(type: Type, shape: Shape) =>
  v.object({ type: v.literal(type), atMs: v.number(), ...shape });

export const recordEventSchema = v.variant("type", [
  /** First line of every record. */
  event("run", {
    version: v.literal(RECORD_VERSION),
    startedAt: v.string(),
    deltavee: v.string(),
    side: v.picklist(["source", "destination"]),
    /** direct: stock destination decodes XBZRLE. tunnel: a Deltavee destination engine. stock: QEMU alone (the lab). */
    mode: v.picklist(["direct", "tunnel", "stock"]),
    /** standard: whole pages, as in Clark et al. 2005; delta: against the page cache. */
    method: v.picklist(["standard", "delta"]),
    hypervisor: v.string(),
    destination: v.optional(v.string()),
    guestRamBytes: v.optional(count),
    downtimeMsMax: v.optional(count),
    /** Promises about the whole migration, where they were made, and what is done when it stalls. */
    timeMsMax: v.optional(count),
    wireBytesMax: v.optional(count),
    onStall: v.optional(v.string()),
    linkBytesPerSecondMax: v.optional(count),
    cacheBytesMax: v.optional(count),
    /** Free text for people: what this run is, e.g. "demo: standard". */
    label: v.optional(v.string()),
  }),
  event("phase", { phase: phaseSchema, reason: v.optional(v.string()) }),
  /** A new pre-copy iteration has begun (0 = full pass). */
  event("iteration", {
    iteration: count,
    /** Bytes of guest pages that were dirty when it began. */
    remainingBytes: v.optional(count),
    dirtyPagesPerSecond: v.optional(count),
    wireBytes: count,
    pages: pageClassesSchema,
  }),
  /** State of everything that moves, a few times per second. */
  event("sample", {
    /** Bytes that the hypervisor has handed over. */
    handedOverBytes: count,
    /** Bytes sent on the link, all headers of ours included. */
    wireBytes: count,
    /** Sent, but not acknowledged by the destination. */
    inFlightBytes: count,
    windowBytes: count,
    linkBytesPerSecond: count,
    roundTripMs: v.optional(count),
    iteration: v.optional(count),
    remainingBytes: v.optional(count),
    dirtyPagesPerSecond: v.optional(count),
    /** How long the guest would stand still if it were stopped now; known after the first pass. */
    forecastDowntimeMs: v.optional(count),
    /** When the downtime is forecast to be within its goal, from now; absent while there is no saying. */
    forecastEndMs: v.optional(count),
    pages: pageClassesSchema,
    cache: v.optional(cacheStatsSchema),
    cpuMs: v.optional(count),
    /** Post-copy: RAM that the destination had to ask for, because the guest waited for it. */
    requestedBytes: v.optional(count),
  }),
  /** A choice that Deltavee made, with the reason and the figures it was made from. */
  event("decision", {
    subject: v.string(),
    choice: v.string(),
    reason: v.string(),
    /** Of a decision about the switchover: what the guest's standstill is estimated at. */
    forecastDowntimeMs: v.optional(count),
  }),
  /** The connection of a tunnel broke, or is there again; the migration goes on. */
  event("link", {
    state: v.picklist(["lost", "resumed"]),
    /** Why it broke. */
    reason: v.optional(v.string()),
    /** How long there was no connection. */
    outageMs: v.optional(count),
    /** What this side has sent again, since it had not arrived. */
    resentBytes: v.optional(count),
  }),
  /** What was expected of the whole migration, from a sample of the guest's memory, before the truth was known. */
  event("forecast", {
    method: v.string(),
    converges: v.picklist(["yes", "no", "unsure"]),
    totalMs: intervalSchema,
    downtimeMs: intervalSchema,
    wireBytes: intervalSchema,
    linkBytesPerSecond: count,
    roundTripMs: count,
    reason: v.string(),
    /** What it was made from, beside that link: a planner that has learned better is asked the same again. */
    basis: v.optional(
      v.object({
        guest: guestModelSchema,
        lossShare: count,
        downtimeMsMax: count,
        /** Of the page cache; absent: all of RAM. */
        cacheBytes: v.optional(count),
      }),
    ),
  }),
  /** RAM was compared at both ends before the guest was given away, and was equal. */
  event("verified", {
    comparedBytes: count,
    /** RAMBlocks that could not be read. */
    leftOut: v.array(v.string()),
    /** For so long the guest stood still for it. */
    verifyMs: count,
  }),
  /** Something a person should know; the migration goes on. */
  event("notice", { message: v.string() }),
  /** The stream has reached something Deltavee does not interpret: from here on it is carried untouched. */
  event("opaque", { offsetBytes: count, reason: v.string() }),
  /** A heartbeat of the guest, where one is watched; `gapMs` since the one before, on either side. */
  event("heartbeat", { counter: count, gapMs: count, side: v.picklist(["source", "destination"]) }),
  event("error", { code: v.string(), message: v.string(), vm: v.optional(vmWhereSchema) }),
  /** The lab: what was run, before anything else is told of it. */
  event("lab", {
    scenario: v.string(),
    parameters: v.record(v.union([v.number(), v.string()])),
    guest: v.object({ memoryMiB: count, vcpus: count }),
    method: v.string(),
    link: v.object({
      bytesPerSecond: count,
      roundTripMs: count,
      lossShare: count,
      congestion: v.optional(v.picklist(["cubic", "bbr"])),
    }),
    qemu: v.string(),
    run: count,
    /** A method that has not converged by then is allowed any downtime, so that "never" has an end too. */
    forcedAfterMs: v.optional(count),
    /** What has not ended by then is cancelled. */
    limitMs: v.optional(count),
    /** What the figures hold for, in words: processors, memory, accelerator; and the command that made them. */
    machine: v.optional(v.string()),
    command: v.optional(v.string()),
  }),
  /** The lab: something that a client of the guest, or a probe, saw at this time. */
  event("client", { series: v.string(), unit: v.string(), value: v.number() }),
  /** The lab: what the processes of one side have used by now. Of QEMU, the threads that run the guest are left out. */
  event("usage", {
    side: v.picklist(["source", "destination"]),
    process: v.picklist(["qemu", "deltavee"]),
    cpuMs: count,
    residentBytesMax: count,
  }),
  /** The lab: how the run ended, as its users would judge. */
  event("verdict", {
    /** It came to an end by itself, within the time and the downtime that were asked for. */
    converged: v.boolean(),
    /** It had to be ended by raising the downtime limit. */
    forced: v.boolean(),
    /** The guest runs at the destination and nobody using it lost anything. */
    succeeded: v.boolean(),
    failures: v.array(v.string()),
    /** By name: those that every run has (runner), and the scenario's own. */
    metrics: v.record(v.number()),
  }),
  /** Last line. */
  event("summary", {
    outcome: v.picklist(["completed", "failed", "cancelled"]),
    vm: vmWhereSchema,
    totalMs: count,
    /** From the vCPUs' stop at the source to the guest's resumption, as far as this side can see it. */
    downtimeMs: v.optional(count),
    /** What was forecast of it when the guest was stopped. */
    forecastDowntimeMs: v.optional(count),
    /** What the hypervisor itself says. */
    downtimeMsReported: v.optional(count),
    /** Longest gap between two heartbeats of the guest around the switchover, where one was watched. */
    heartbeatGapMs: v.optional(count),
    /** Where it ended as post-copy: from the hand-over of the device state to the end. */
    postcopyMs: v.optional(count),
    requestedBytes: v.optional(count),
    handedOverBytes: count,
    wireBytes: count,
    iterations: v.optional(count),
    pages: pageClassesSchema,
    cache: v.optional(cacheStatsSchema),
    cpuMs: v.optional(count),
    /** Result of a check of guest memory on arrival, where one was made. */
    memoryVerified: v.optional(v.boolean()),
  }),
]);

export type RecordEvent = v.InferOutput<typeof recordEventSchema>;
export type PageClasses = v.InferOutput<typeof pageClassesSchema>;
export type CacheStats = v.InferOutput<typeof cacheStatsSchema>;
export type Phase = v.InferOutput<typeof phaseSchema>;
/** An event as its author writes it: the record adds the time. */
export type RecordEntry = RecordEvent extends infer E
  ? E extends RecordEvent
    ? Omit<E, "atMs">
    : never
  : never;
