// What is said over the control socket of the service: HTTP with JSON bodies, requests as they are written on the command
// line (docs/operations.md). Both ends of it, and whoever speaks to the socket with curl, go by these schemas.

import { z } from "zod";
import { DeltaveeError, type ErrorCode, UsageError } from "../base/errors.ts";
import type { MoveView } from "./move.ts";

/** Far more than any request has to say. */
export const BODY_BYTES_MAX = 64 * 1024;

const text = z.string().min(1).max(4096);

/** POST /v1/migrations: moves a VM away. */
export const migrationRequestSchema = z.strictObject({
  /** Monitor of its QEMU. */
  qmp: text,
  /** As deltavee migrate --to. */
  to: text,
  tlsHostname: text.optional(),
  weight: z.number().optional(),
  maxBandwidth: text.optional(),
  maxDowntime: text.optional(),
  maxTime: text.optional(),
  maxBytes: text.optional(),
  onStall: text.optional(),
});
export type MigrationRequest = z.infer<typeof migrationRequestSchema>;

/** POST /v1/vms: a QEMU waits for its VM. */
export const vmRequestSchema = z.strictObject({
  qmp: text,
  /** What its source calls it, where that is not what QEMU here calls it. */
  name: text.optional(),
});
export type VmRequest = z.infer<typeof vmRequestSchema>;

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
export function parseRequest<Body>(schema: z.ZodType<Body>, body: string): Body {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (cause) {
    throw new UsageError("The request is no JSON", { cause });
  }
  const checked = schema.safeParse(value);
  if (checked.success) return checked.data;
  const issue = checked.error.issues[0];
  throw new UsageError(`The request is not valid: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`);
}

/** An error of the service as one of this process. */
export function errorOf({ error }: ErrorAnswer): DeltaveeError {
  const { code, message } = error;
  return code === "USAGE" ? new UsageError(message) : new DeltaveeError(code as ErrorCode, message);
}
