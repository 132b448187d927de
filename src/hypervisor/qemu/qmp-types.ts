// What we say to QEMU over QMP and what we read of its answers and events: QEMU 7.2 to 10.x.
// Field names, units and spelling are QEMU's (qapi/*.json of those versions): they are converted by whoever reads
// them. A field that some of these versions lack, or give only at times, is optional; what we do not read is dropped.

import { z } from "zod";

/** A set of known words that QEMU may add to: known ones are spelled out, unknown ones still pass. */
function openUnion<Known extends string>() {
  return z.custom<Known | (string & {})>((value) => typeof value === "string", "expected a string");
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
export type MigrationStatus = z.infer<typeof migrationStatusSchema>;

const versionSchema = z.object({
  qemu: z.object({ major: z.number().int(), minor: z.number().int(), micro: z.number().int() }),
  package: z.string(),
});

const ramStatsSchema = z.object({
  transferred: z.number(),
  remaining: z.number(),
  total: z.number(),
  /** Zero pages. */
  duplicate: z.number(),
  normal: z.number(),
  "normal-bytes": z.number(),
  "dirty-pages-rate": z.number(),
  /** Mbit/s, decimal. */
  mbps: z.number(),
  "dirty-sync-count": z.number(),
  "page-size": z.number(),
  "multifd-bytes": z.number(),
  "pages-per-second": z.number(),
  "postcopy-requests": z.number(),
  "precopy-bytes": z.number().optional(),
  "downtime-bytes": z.number().optional(),
  "postcopy-bytes": z.number().optional(),
});

/** An empty answer (no `status`) means that no migration has been started since QEMU was. */
const migrationInfoSchema = z.object({
  status: migrationStatusSchema.optional(),
  ram: ramStatsSchema.optional(),
  "xbzrle-cache": z
    .object({
      "cache-size": z.number(),
      bytes: z.number(),
      pages: z.number(),
      "cache-miss": z.number(),
      overflow: z.number(),
    })
    .optional(),
  /** All times in milliseconds. */
  "total-time": z.number().optional(),
  "setup-time": z.number().optional(),
  "expected-downtime": z.number().optional(),
  /** Given once completed. */
  downtime: z.number().optional(),
  "cpu-throttle-percentage": z.number().optional(),
  "error-desc": z.string().optional(),
  "blocked-reasons": z.array(z.string()).optional(),
});

/** Those that we set or put back; QEMU has more. Refused by QEMU: the ones its version lacks. */
const migrationParametersSchema = z.object({
  /** Bytes per second. */
  "max-bandwidth": z.number().optional(),
  /** Bytes per second, 0 is "measure it" (QEMU ≥ 8.2). */
  "avail-switchover-bandwidth": z.number().optional(),
  /** Milliseconds. */
  "downtime-limit": z.number().optional(),
  /** Bytes, a power of two. */
  "xbzrle-cache-size": z.number().optional(),
  "multifd-channels": z.number().optional(),
  "multifd-compression": z.string().optional(),
  "multifd-zstd-level": z.number().optional(),
  "max-postcopy-bandwidth": z.number().optional(),
  /** "normal", or another purpose than a move (QEMU ≥ 8.2). */
  mode: z.string().optional(),
  /** Percent, all four. */
  "throttle-trigger-threshold": z.number().optional(),
  "max-cpu-throttle": z.number().optional(),
  "cpu-throttle-initial": z.number().optional(),
  "cpu-throttle-increment": z.number().optional(),
});
export type MigrationParameters = z.infer<typeof migrationParametersSchema>;

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
const done = z.object({});

/** Every command that we send, with the shape of its answer. */
export const QMP_RESULTS = {
  qmp_capabilities: done,
  "query-version": versionSchema,
  "query-status": z.object({ status: runStateSchema, running: z.boolean() }),
  /** Without one where the VM was started without -name. */
  "query-name": z.object({ name: z.string().optional() }),
  /** All zeros where it was started without -uuid. */
  "query-uuid": z.object({ UUID: z.string() }),
  "query-target": z.object({ arch: z.string() }),
  "query-memory-size-summary": z.object({
    "base-memory": z.number(),
    "plugged-memory": z.number().optional(),
  }),
  "query-kvm": z.object({ enabled: z.boolean() }),
  /** RAM backends, those included that QEMU makes by itself. */
  "query-memdev": z.array(z.object({})),
  "calc-dirty-rate": done,
  /** `dirty-rate`: MiB per second, once measured. */
  "query-dirty-rate": z.object({
    status: openUnion<"unstarted" | "measuring" | "measured">(),
    "dirty-rate": z.number().optional(),
  }),
  "query-commands": z.array(z.object({ name: z.string() })),
  "query-migrate": migrationInfoSchema,
  "query-migrate-parameters": migrationParametersSchema,
  "query-migrate-capabilities": z.array(z.object({ capability: z.string(), state: z.boolean() })),
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
  "human-monitor-command": z.string(),
} as const;

export type QmpCommand = keyof typeof QMP_RESULTS;
export type QmpResult<Command extends QmpCommand> = z.infer<(typeof QMP_RESULTS)[Command]>;

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
  SHUTDOWN: z.object({ guest: z.boolean(), reason: z.string().optional() }),
  GUEST_PANICKED: z.object({ action: z.string() }),
  MIGRATION: z.object({ status: migrationStatusSchema }),
  MIGRATION_PASS: z.object({ pass: z.number() }),
} as const;

export type QmpEventName = keyof typeof QMP_EVENTS;

export interface QmpEvent<Name extends QmpEventName = QmpEventName> {
  name: Name;
  data: z.infer<(typeof QMP_EVENTS)[Name]>;
  /** When QEMU raised it: milliseconds of the calendar clock of QEMU's machine. */
  qemuTimeMs: number;
  /** When its line was read: milliseconds of the client's own clock. */
  receivedMs: number;
}

/** The first line QEMU sends. */
export const greetingSchema = z.object({ QMP: z.object({ version: versionSchema }) });

/** Any later line. `id` is ours, sent back; `error` without `id` means that QEMU could not read what we sent. */
export const messageSchema = z.union([
  z.object({
    event: z.string(),
    data: z.unknown().optional(),
    timestamp: z.object({ seconds: z.number(), microseconds: z.number() }),
  }),
  z.object({ id: z.number().int(), return: z.unknown() }),
  z.object({
    id: z.number().int().optional(),
    error: z.object({ class: z.string(), desc: z.string() }),
  }),
]);
export type QmpMessage = z.infer<typeof messageSchema>;
