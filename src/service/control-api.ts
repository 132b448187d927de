// What is said over the control socket of the service: HTTP with JSON bodies, requests as they are written on the command
// line (docs/operations.md). Both ends of it, and whoever speaks to the socket with curl, go by these schemas.

import { DeltaveeError, type ErrorCode, UsageError } from "../base/errors.ts";
import * as v from "../base/schema.ts";
import type { MoveView } from "./move.ts";

/** Far more than any request has to say. */
export const BODY_BYTES_MAX = 64 * 1024;

const text = v.pipe(v.string(), v.minLength(1), v.maxCodePoints(4096));

/** POST /v1/migrations: moves a VM away. */
export const migrationRequestSchema = v.strictObject({
  /** Monitor of its QEMU. */
  qmp: text,
  /** As deltavee migrate --to. */
  to: text,
  tlsHostname: v.optional(text),
  weight: v.optional(v.number()),
  maxBandwidth: v.optional(text),
  maxDowntime: v.optional(text),
  maxTime: v.optional(text),
  maxBytes: v.optional(text),
  onStall: v.optional(text),
});
export type MigrationRequest = v.InferOutput<typeof migrationRequestSchema>;

/** POST /v1/vms: a QEMU waits for its VM. */
export const vmRequestSchema = v.strictObject({
  qmp: text,
  /** What its source calls it, where that is not what QEMU here calls it. */
  name: v.optional(text),
});
export type VmRequest = v.InferOutput<typeof vmRequestSchema>;

export interface VmAnswer {
  readonly qmp: string;
  readonly name?: string | undefined;
  readonly uuid?: string | undefined;
}

/** GET /v1/service. */
export interface ServiceAnswer {
  readonly deltavee: string;
  readonly state: "running" | "stopping";
  /** Where sources connect to. */
  readonly listen?: string;
  /** Shared by what leaves. */
  readonly linkBytesPerSecond?: number;
  readonly running: number;
  readonly queued: number;
}

/** GET /v1/migrations. */
export interface MigrationsAnswer {
  readonly migrations: readonly MoveView[];
}

/** GET /v1/vms. */
export interface VmsAnswer {
  readonly vms: readonly VmAnswer[];
}

/** With any status but 2xx. */
export interface ErrorAnswer {
  readonly error: { readonly code: string; readonly message: string };
}

const STATUSES: Readonly<Partial<Record<ErrorCode, number>>> = {
  USAGE: 400,
  SERVICE_BUSY: 429,
  SERVICE_STOPPING: 503,
};

export function statusOf({ code }: DeltaveeError): number {
  return STATUSES[code] ?? 500;
}

/** @throws UsageError that names what is wrong */
export function parseRequest<Body>(schema: v.GenericSchema<unknown, Body>, body: string): Body {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (cause) {
    throw new UsageError("The request is no JSON", { cause });
  }
  const checked = v.checked(schema, value);
  if (checked.mistake === undefined) return checked.value;
  throw new UsageError(`The request is not valid: ${checked.mistake}`);
}

/** An error of the service as one of this process. */
export function errorOf({ error }: ErrorAnswer): DeltaveeError {
  const { code, message } = error;
  return code === "USAGE" ? new UsageError(message) : new DeltaveeError(code as ErrorCode, message);
}
