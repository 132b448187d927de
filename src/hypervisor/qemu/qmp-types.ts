// What we say to QEMU over QMP and what we read of its answers and events: QEMU 7.2 to 10.x.
// Field names, units and spelling are QEMU's (qapi/*.json of those versions): they are converted by whoever reads
// them. A field that some of these versions lack, or give only at times, is optional; what we do not read is dropped.

import * as v from "../../base/schema.ts";

/** A set of known words that QEMU may add to: known ones are spelled out, unknown ones still pass. */
function openUnion<Known extends string>(): v.GenericSchema<string, Known | (string & {})> {
  return v.string();
}

const runStateSchema = openUnion<
  | "running"
  | "paused"
  | "prelaunch"
  | "inmigrate"
  | "postmigrate"
  | "finish-migrate"
  | "shutdown"
  | "io-error"
  | "internal-error"
  | "guest-panicked"
>();

const migrationStatusSchema = openUnion<
  | "none"
  | "setup"
  | "active"
  | "pre-switchover"
  | "device"
  | "completed"
  | "failed"
  | "cancelling"
  | "cancelled"
  | "postcopy-active"
  | "postcopy-paused"
  | "postcopy-recover-setup"
  | "postcopy-recover"
  | "wait-unplug"
  | "colo"
>();
export type MigrationStatus = v.InferOutput<typeof migrationStatusSchema>;

const versionSchema = v.object({
  qemu: v.object({ major: v.integer(), minor: v.integer(), micro: v.integer() }),
  package: v.string(),
});

const ramStatsSchema = v.object({
  transferred: v.number(),
  remaining: v.number(),
  total: v.number(),
  /** Zero pages. */
  duplicate: v.number(),
  normal: v.number(),
  "normal-bytes": v.number(),
  "dirty-pages-rate": v.number(),
  /** Mbit/s, decimal. */
  mbps: v.number(),
  "dirty-sync-count": v.number(),
  "page-size": v.number(),
  "multifd-bytes": v.number(),
  "pages-per-second": v.number(),
  "postcopy-requests": v.number(),
  "precopy-bytes": v.optional(v.number()),
  "downtime-bytes": v.optional(v.number()),
  "postcopy-bytes": v.optional(v.number()),
});

/** An empty answer (no `status`) means that no migration has been started since QEMU was. */
const migrationInfoSchema = v.object({
  status: v.optional(migrationStatusSchema),
  ram: v.optional(ramStatsSchema),
  "xbzrle-cache": v.optional(
    v.object({
      "cache-size": v.number(),
      bytes: v.number(),
      pages: v.number(),
      "cache-miss": v.number(),
      overflow: v.number(),
    }),
  ),
  /** All times in milliseconds. */
  "total-time": v.optional(v.number()),
  "setup-time": v.optional(v.number()),
  "expected-downtime": v.optional(v.number()),
  /** Given once completed. */
  downtime: v.optional(v.number()),
  "cpu-throttle-percentage": v.optional(v.number()),
  "error-desc": v.optional(v.string()),
  "blocked-reasons": v.optional(v.array(v.string())),
});

/** Those that we set or put back; QEMU has more. Refused by QEMU: the ones its version lacks. */
const migrationParametersSchema = v.object({
  /** Bytes per second. */
  "max-bandwidth": v.optional(v.number()),
  /** Bytes per second, 0 is "measure it" (QEMU ≥ 8.2). */
  "avail-switchover-bandwidth": v.optional(v.number()),
  /** Milliseconds. */
  "downtime-limit": v.optional(v.number()),
  /** Bytes, a power of two. */
  "xbzrle-cache-size": v.optional(v.number()),
  "multifd-channels": v.optional(v.number()),
  "multifd-compression": v.optional(v.string()),
  "multifd-zstd-level": v.optional(v.number()),
  "max-postcopy-bandwidth": v.optional(v.number()),
  /** "normal", or another purpose than a move (QEMU ≥ 8.2). */
  mode: v.optional(v.string()),
  /** Percent, all four. */
  "throttle-trigger-threshold": v.optional(v.number()),
  "max-cpu-throttle": v.optional(v.number()),
  "cpu-throttle-initial": v.optional(v.number()),
  "cpu-throttle-increment": v.optional(v.number()),
});
export type MigrationParameters = v.InferOutput<typeof migrationParametersSchema>;

export type MigrationCapability =
  | "events"
  | "return-path"
  | "xbzrle"
  | "auto-converge"
  | "multifd"
  | "postcopy-ram"
  | "postcopy-preempt"
  | "release-ram"
  | "pause-before-switchover"
  | "zero-copy-send"
  /** QEMU < 9.1. */
  | "compress"
  /** QEMU ≥ 9.0. */
  | "mapped-ram"
  | "background-snapshot"
  | "x-colo"
  /** QEMU ≥ 8.1. */
  | "switchover-ack";

/** Commands answered by `{}`: the answer says only that QEMU did it, or has begun to. */
const done = v.object({});

/** Every command that we send, with the shape of its answer. */
export const QMP_RESULTS = {
  qmp_capabilities: done,
  "query-version": versionSchema,
  "query-status": v.object({ status: runStateSchema, running: v.boolean() }),
  /** Without one where the VM was started without -name. */
  "query-name": v.object({ name: v.optional(v.string()) }),
  /** All zeros where it was started without -uuid. */
  "query-uuid": v.object({ UUID: v.string() }),
  "query-target": v.object({ arch: v.string() }),
  "query-memory-size-summary": v.object({
    "base-memory": v.number(),
    "plugged-memory": v.optional(v.number()),
  }),
  "query-kvm": v.object({ enabled: v.boolean() }),
  /** RAM backends, those included that QEMU makes by itself. */
  "query-memdev": v.array(v.object({})),
  "calc-dirty-rate": done,
  /** `dirty-rate`: MiB per second, once measured. */
  "query-dirty-rate": v.object({
    status: openUnion<"unstarted" | "measuring" | "measured">(),
    "dirty-rate": v.optional(v.number()),
  }),
  "query-commands": v.array(v.object({ name: v.string() })),
  "query-migrate": migrationInfoSchema,
  "query-migrate-parameters": migrationParametersSchema,
  "query-migrate-capabilities": v.array(v.object({ capability: v.string(), state: v.boolean() })),
  "migrate-set-parameters": done,
  "migrate-set-capabilities": done,
  migrate: done,
  "migrate-incoming": done,
  "migrate-recover": done,
  "migrate-start-postcopy": done,
  "migrate-continue": done,
  migrate_cancel: done,
  stop: done,
  cont: done,
  quit: done,
  pmemsave: done,
  "human-monitor-command": v.string(),
} as const;

export type QmpCommand = keyof typeof QMP_RESULTS;
export type QmpResult<Command extends QmpCommand> = v.InferOutput<(typeof QMP_RESULTS)[Command]>;

interface ArgumentsOf {
  "migrate-set-parameters": MigrationParameters;
  "migrate-set-capabilities": { capabilities: { capability: MigrationCapability; state: boolean }[] };
  migrate: { uri: string; resume?: true };
  "migrate-incoming": { uri: string };
  "migrate-recover": { uri: string };
  "migrate-continue": { state: MigrationStatus };
  /** Guest-physical memory from `val`, `size` bytes, to a file that QEMU creates. */
  pmemsave: { val: number; size: number; filename: string };
  "human-monitor-command": { "command-line": string };
  /** Seconds. */
  "calc-dirty-rate": { "calc-time": number; mode: "page-sampling" | "dirty-bitmap" | "dirty-ring" };
}
export type QmpArguments<Command extends QmpCommand> = Command extends keyof ArgumentsOf
  ? ArgumentsOf[Command]
  : Record<string, never>;

/** Every event that we listen for; others are dropped. MIGRATION and MIGRATION_PASS need capability `events`. */
export const QMP_EVENTS = {
  STOP: done,
  RESUME: done,
  SHUTDOWN: v.object({ guest: v.boolean(), reason: v.optional(v.string()) }),
  GUEST_PANICKED: v.object({ action: v.string() }),
  MIGRATION: v.object({ status: migrationStatusSchema }),
  MIGRATION_PASS: v.object({ pass: v.number() }),
} as const;

export type QmpEventName = keyof typeof QMP_EVENTS;

export interface QmpEvent<Name extends QmpEventName = QmpEventName> {
  name: Name;
  data: v.InferOutput<(typeof QMP_EVENTS)[Name]>;
  /** When QEMU raised it: milliseconds of the calendar clock of QEMU's machine. */
  qemuTimeMs: number;
  /** When its line was read: milliseconds of the client's own clock. */
  receivedMs: number;
}

/** The first line QEMU sends. */
export const greetingSchema = v.object({ QMP: v.object({ version: versionSchema }) });

/** Any later line. `id` is ours, sent back; `error` without `id` means that QEMU could not read what we sent. */
export const messageSchema = v.union([
  v.object({
    event: v.string(),
    data: v.optional(v.unknown()),
    timestamp: v.object({ seconds: v.number(), microseconds: v.number() }),
  }),
  v.object({ id: v.integer(), return: v.unknown() }),
  v.object({
    id: v.optional(v.integer()),
    error: v.object({ class: v.string(), desc: v.string() }),
  }),
]);
export type QmpMessage = v.InferOutput<typeof messageSchema>;
