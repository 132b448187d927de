// JSON bodies of the frames that introduce, refuse and give up: their schemas, encoding and decoding.
// Knows no frame header. Members that a schema does not name are ignored, so that a newer peer may add some.
// Format: PROTOCOL.md, "JSON bodies".

import { z } from "zod";
import { assert } from "../base/assert.ts";
import type { ProtocolError } from "../base/errors.ts";

export const REASON_CHARS_MAX = 1024;

/** What would let a peer write to a person's terminal: control characters, and halves of surrogate pairs. */
const UNPRINTABLE = /[\p{Cc}\p{Cs}]/u;

/** Not z.string().max(): what that counts (UTF-16 units or code points) depends on the version of zod. */
const text = (charsMax: number) =>
  z
    .string()
    .refine((value) => value.length <= charsMax, `must not be longer than ${charsMax}`)
    .refine((value) => !UNPRINTABLE.test(value), "must have no control characters");

const hypervisorSchema = z.object({
  kind: z.enum(["qemu", "v86"]),
  version: text(128),
  /** Opaque; must equal the destination's, or be absent on both sides. For formats bound to one build. */
  compatibility: text(1024).optional(),
});

/** Ids of entropy codecs, most wanted first. */
const entropyCodecsSchema = z
  .array(z.int().min(1).max(255))
  .min(1)
  .max(16)
  .refine((ids) => new Set(ids).size === ids.length, "must name each codec once");

/** 16 random bytes, in lowercase hex. */
export const ID_HEX: RegExp = /^[0-9a-f]{32}$/;

export const helloSchema = z.object({
  /** Version of the program, for people: never decides anything. */
  deltavee: text(64),
  /** Names this migration in the records of both sides. */
  session: z.string().regex(ID_HEX),
  hypervisor: hypervisorSchema,
  entropyCodecs: entropyCodecsSchema,
  guestRamBytes: z.int().nonnegative().optional(),
  /** The migration may end as post-copy: the destination's hypervisor must know that before it begins. */
  postcopy: z.boolean().optional(),
  /** RAM will be compared before COMMIT: the destination must be able to read its hypervisor's. */
  verify: z.boolean().optional(),
  /** Name of the VM, and its UUID, as its hypervisor has them: who may hand it over goes by them. */
  name: text(256).optional(),
  uuid: text(64).optional(),
});

export const welcomeSchema = z.object({
  deltavee: text(64),
  /** Those of HELLO that the destination knows too, in HELLO's order. */
  entropyCodecs: entropyCodecsSchema,
  hypervisor: hypervisorSchema,
  /** Absent: a connection that breaks is not resumed. */
  resumption: z
    .object({
      /** Whoever has it may resume this migration. */
      token: z.string().regex(ID_HEX),
      /** How long the destination waits for a connection when it has lost one. */
      timeoutMs: z.int().min(1),
    })
    .optional(),
});

/** Body of REFUSE and ABORT. The set of codes is open: a peer may know more of them. */
export const reasonSchema = z.object({
  code: z.string().regex(/^[A-Z][A-Z0-9_]{0,63}$/),
  message: text(REASON_CHARS_MAX),
});

export type HypervisorIdentity = z.infer<typeof hypervisorSchema>;
export type Hello = z.infer<typeof helloSchema>;
export type Welcome = z.infer<typeof welcomeSchema>;
export type Resumption = NonNullable<Welcome["resumption"]>;
export type Reason = z.infer<typeof reasonSchema>;

/** `text` as a peer accepts it: cut to `charsMax`, control characters replaced by spaces. */
export function printable(text: string, charsMax: number): string {
  // Cut first: a cut through a surrogate pair leaves a half, which is then replaced too.
  return text.slice(0, charsMax).replace(/[\p{Cc}\p{Cs}]+/gu, " ");
}

export function encodeBody<Body>(schema: z.ZodType<Body>, body: Body): Uint8Array {
  const checked = schema.safeParse(body);
  assert(
    checked.success,
    `a JSON body of ours is invalid: ${checked.success ? "" : firstIssue(checked.error)}`,
  );
  return new TextEncoder().encode(JSON.stringify(checked.data));
}

/** `invalid` makes the error to throw from what was expected. */
export function decodeBody<Body>(
  schema: z.ZodType<Body>,
  json: Uint8Array,
  invalid: (expected: string) => ProtocolError,
): Body {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json));
  } catch {
    // The parser's own message quotes the peer's bytes: it stays out of ours.
    throw invalid("JSON in UTF-8");
  }
  const checked = schema.safeParse(value);
  if (!checked.success) throw invalid(`a valid JSON body (${firstIssue(checked.error)})`);
  return checked.data;
}

function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0];
  return issue === undefined ? "" : `${issue.path.join(".")}: ${issue.message}`;
}
