// The run record: everything worth seeing in a migration, one JSON object per line (NDJSON), in order.
// Terminal progress, reports, benchmark tables and (later) the planner are drawn from it and from nothing
// else, for real and simulated runs alike. A reader refuses a version it does not know.
//
// `atMs` is time since the record was opened (monotonic). Names end in their unit. Counters are cumulative.

import { z } from "zod";
import { RECORD_VERSION } from "./constants.ts";
import { guestModelSchema } from "./guest-model.ts";

export { NO_PAGES } from "./constants.ts";

const count = z.number().nonnegative();

/** How outgoing pages were classified, cumulative. */
export const pageClassesSchema = z.object({
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
  duplicatePages: count.default(0),
  /** Bytes of all deltas (without record headers). */
  deltaBytes: count,
});

export const cacheStatsSchema = z.object({
  hits: count,
  misses: count,
  evictions: count,
  usedBytes: count,
  limitBytes: count,
});

export const phaseSchema = z.enum([
  "setup",
  "iterating",
  "switchover",
  "committed",
  "completed",
  "failed",
  "cancelled",
]);

export const vmWhereSchema = z.enum([
  "running on source",
  "paused on source",
  "running on destination",
  "paused on destination",
  "with the destination",
  "unknown",
]);

/** Between `low` and `high`, so it is expected; most likely `expected`. */
const intervalSchema = z.object({ low: count, expected: count, high: count });

const event = <Type extends string, Shape extends z.ZodRawShape>(type: Type, shape: Shape) =>
  z.object({ type: z.literal(type), atMs: z.number(), ...shape });

export const recordEventSchema = z.discriminatedUnion("type", [
  /** First line of every record. */
  event("run", {
    version: z.literal(RECORD_VERSION),
    startedAt: z.string(),
    deltavee: z.string(),
    side: z.enum(["source", "destination"]),
    /** direct: stock destination decodes XBZRLE. tunnel: a Deltavee destination engine. stock: QEMU alone (the lab). */
    mode: z.enum(["direct", "tunnel", "stock"]),
    /** standard: whole pages, as in Clark et al. 2005; delta: against the page cache. */
    method: z.enum(["standard", "delta"]),
    hypervisor: z.string(),
    destination: z.string().optional(),
    guestRamBytes: count.optional(),
    downtimeMsMax: count.optional(),
    /** Promises about the whole migration, where they were made, and what is done when it stalls. */
    timeMsMax: count.optional(),
    wireBytesMax: count.optional(),
    onStall: z.string().optional(),
    linkBytesPerSecondMax: count.optional(),
    cacheBytesMax: count.optional(),
    /** Free text for people: what this run is, e.g. "demo: standard". */
    label: z.string().optional(),
  }),
  event("phase", { phase: phaseSchema, reason: z.string().optional() }),
  /** A new pre-copy iteration has begun (0 = full pass). */
  event("iteration", {
    iteration: count,
    /** Bytes of guest pages that were dirty when it began. */
    remainingBytes: count.optional(),
    dirtyPagesPerSecond: count.optional(),
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
    roundTripMs: count.optional(),
    iteration: count.optional(),
    remainingBytes: count.optional(),
    dirtyPagesPerSecond: count.optional(),
    /** How long the guest would stand still if it were stopped now; known after the first pass. */
    forecastDowntimeMs: count.optional(),
    /** When the downtime is forecast to be within its goal, from now; absent while there is no saying. */
    forecastEndMs: count.optional(),
    pages: pageClassesSchema,
    cache: cacheStatsSchema.optional(),
    cpuMs: count.optional(),
    /** Post-copy: RAM that the destination had to ask for, because the guest waited for it. */
    requestedBytes: count.optional(),
  }),
  /** A choice that Deltavee made, with the reason and the figures it was made from. */
  event("decision", {
    subject: z.string(),
    choice: z.string(),
    reason: z.string(),
    /** Of a decision about the switchover: what the guest's standstill is estimated at. */
    forecastDowntimeMs: count.optional(),
  }),
  /** The connection of a tunnel broke, or is there again; the migration goes on. */
  event("link", {
    state: z.enum(["lost", "resumed"]),
    /** Why it broke. */
    reason: z.string().optional(),
    /** How long there was no connection. */
    outageMs: count.optional(),
    /** What this side has sent again, since it had not arrived. */
    resentBytes: count.optional(),
  }),
  /** What was expected of the whole migration, from a sample of the guest's memory, before the truth was known. */
  event("forecast", {
    method: z.string(),
    converges: z.enum(["yes", "no", "unsure"]),
    totalMs: intervalSchema,
    downtimeMs: intervalSchema,
    wireBytes: intervalSchema,
    linkBytesPerSecond: count,
    roundTripMs: count,
    reason: z.string(),
    /** What it was made from, beside that link: a planner that has learned better is asked the same again. */
    basis: z
      .object({
        guest: guestModelSchema,
        lossShare: count,
        downtimeMsMax: count,
        /** Of the page cache; absent: all of RAM. */
        cacheBytes: count.optional(),
      })
      .optional(),
  }),
  /** RAM was compared at both ends before the guest was given away, and was equal. */
  event("verified", {
    comparedBytes: count,
    /** RAMBlocks that could not be read. */
    leftOut: z.array(z.string()),
    /** For so long the guest stood still for it. */
    verifyMs: count,
  }),
  /** Something a person should know; the migration goes on. */
  event("notice", { message: z.string() }),
  /** The stream has reached something Deltavee does not interpret: from here on it is carried untouched. */
  event("opaque", { offsetBytes: count, reason: z.string() }),
  /** A heartbeat of the guest, where one is watched; `gapMs` since the one before, on either side. */
  event("heartbeat", { counter: count, gapMs: count, side: z.enum(["source", "destination"]) }),
  event("error", { code: z.string(), message: z.string(), vm: vmWhereSchema.optional() }),
  /** The lab: what was run, before anything else is told of it. */
  event("lab", {
    scenario: z.string(),
    parameters: z.record(z.string(), z.union([z.number(), z.string()])),
    guest: z.object({ memoryMiB: count, vcpus: count }),
    method: z.string(),
    link: z.object({
      bytesPerSecond: count,
      roundTripMs: count,
      lossShare: count,
      congestion: z.enum(["cubic", "bbr"]).optional(),
    }),
    qemu: z.string(),
    run: count,
    /** A method that has not converged by then is allowed any downtime, so that "never" has an end too. */
    forcedAfterMs: count.optional(),
    /** What has not ended by then is cancelled. */
    limitMs: count.optional(),
    /** What the figures hold for, in words: processors, memory, accelerator; and the command that made them. */
    machine: z.string().optional(),
    command: z.string().optional(),
  }),
  /** The lab: something that a client of the guest, or a probe, saw at this time. */
  event("client", { series: z.string(), unit: z.string(), value: z.number() }),
  /** The lab: what the processes of one side have used by now. Of QEMU, the threads that run the guest are left out. */
  event("usage", {
    side: z.enum(["source", "destination"]),
    process: z.enum(["qemu", "deltavee"]),
    cpuMs: count,
    residentBytesMax: count,
  }),
  /** The lab: how the run ended, as its users would judge. */
  event("verdict", {
    /** It came to an end by itself, within the time and the downtime that were asked for. */
    converged: z.boolean(),
    /** It had to be ended by raising the downtime limit. */
    forced: z.boolean(),
    /** The guest runs at the destination and nobody using it lost anything. */
    succeeded: z.boolean(),
    failures: z.array(z.string()),
    /** By name: those that every run has (runner), and the scenario's own. */
    metrics: z.record(z.string(), z.number()),
  }),
  /** Last line. */
  event("summary", {
    outcome: z.enum(["completed", "failed", "cancelled"]),
    vm: vmWhereSchema,
    totalMs: count,
    /** From the vCPUs' stop at the source to the guest's resumption, as far as this side can see it. */
    downtimeMs: count.optional(),
    /** What was forecast of it when the guest was stopped. */
    forecastDowntimeMs: count.optional(),
    /** What the hypervisor itself says. */
    downtimeMsReported: count.optional(),
    /** Longest gap between two heartbeats of the guest around the switchover, where one was watched. */
    heartbeatGapMs: count.optional(),
    /** Where it ended as post-copy: from the hand-over of the device state to the end. */
    postcopyMs: count.optional(),
    requestedBytes: count.optional(),
    handedOverBytes: count,
    wireBytes: count,
    iterations: count.optional(),
    pages: pageClassesSchema,
    cache: cacheStatsSchema.optional(),
    cpuMs: count.optional(),
    /** Result of a check of guest memory on arrival, where one was made. */
    memoryVerified: z.boolean().optional(),
  }),
]);

export type RecordEvent = z.infer<typeof recordEventSchema>;
export type PageClasses = z.infer<typeof pageClassesSchema>;
export type CacheStats = z.infer<typeof cacheStatsSchema>;
export type Phase = z.infer<typeof phaseSchema>;
/** An event as its author writes it: the record adds the time. */
export type RecordEntry = RecordEvent extends infer E
  ? E extends RecordEvent
    ? Omit<E, "atMs">
    : never
  : never;
