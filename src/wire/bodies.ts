// JSON bodies of the frames that introduce, refuse and give up: their schemas, encoding and decoding.
// Knows no frame header. Members that a schema does not name are ignored, so that a newer peer may add some.
// Format: PROTOCOL.md, "JSON bodies".

import { assert } from "../base/assert.ts";
import type { ProtocolError } from "../base/errors.ts";
import * as v from "../base/schema.ts";

export const REASON_CHARS_MAX = 1024;

/** What would let a peer write to a person's terminal: control characters, and halves of surrogate pairs. */
const UNPRINTABLE = /[\p{Cc}\p{Cs}]/u;

/** `charsMax` UTF-16 units. */
const text = (charsMax: number) =>
  v.pipe(
    v.string(),
    v.maxLength(charsMax),
    v.check((value) => !UNPRINTABLE.test(value), "must have no control characters"),
  );

const hypervisorSchema = v.object({
  kind: v.picklist(["qemu", "v86"]),
  version: text(128),
  /** Opaque; must equal the destination's, or be absent on both sides. For formats bound to one build. */
  compatibility: v.optional(text(1024)),
});

/** Ids of entropy codecs, most wanted first. */
const entropyCodecsSchema = v.pipe(
  v.array(v.pipe(v.integer(), v.minValue(1), v.maxValue(255))),
  v.minLength(1),
  v.maxLength(16),
  v.check((ids) => new Set(ids).size === ids.length, "must name each codec once"),
);

/** 16 random bytes, in lowercase hex. */
export const ID_HEX: RegExp = /^[0-9a-f]{32}$/;

export const helloSchema = v.object({
  /** Version of the program, for people: never decides anything. */
  deltavee: text(64),
  /** Names this migration in the records of both sides. */
  session: v.pipe(v.string(), v.regex(ID_HEX)),
  hypervisor: hypervisorSchema,
  entropyCodecs: entropyCodecsSchema,
  guestRamBytes: v.optional(v.pipe(v.integer(), v.minValue(0))),
  /** The migration may end as post-copy: the destination's hypervisor must know that before it begins. */
  postcopy: v.optional(v.boolean()),
  /** RAM will be compared before COMMIT: the destination must be able to read its hypervisor's. */
  verify: v.optional(v.boolean()),
  /** Name of the VM, and its UUID, as its hypervisor has them: who may hand it over goes by them. */
  name: v.optional(text(256)),
  uuid: v.optional(text(64)),
});

const rangeSchema = v.object({
  offsetBytes: v.pipe(v.integer(), v.minValue(0)),
  lengthBytes: v.pipe(v.integer(), v.minValue(1)),
});

export const welcomeSchema = v.object({
  deltavee: text(64),
  /** Those of HELLO that the destination knows too, in HELLO's order. */
  entropyCodecs: entropyCodecsSchema,
  hypervisor: hypervisorSchema,
  /** Absent: a connection that breaks is not resumed. */
  resumption: v.optional(
    v.object({
      /** Whoever has it may resume this migration. */
      token: v.pipe(v.string(), v.regex(ID_HEX)),
      /** How long the destination waits for a connection when it has lost one. */
      timeoutMs: v.pipe(v.integer(), v.minValue(1)),
    }),
  ),
  /**
   * RAM that holds zeros because the destination's hypervisor has never touched it, by RAMBlock: pages of zeros need not be
   * sent there. Never in a migration that may end as post-copy, where every page must have come. Absent: nobody knows.
   */
  untouchedRam: v.optional(v.array(v.object({ idstr: text(255), ranges: v.array(rangeSchema) }))),
});

/** Body of REFUSE and ABORT. The set of codes is open: a peer may know more of them. */
export const reasonSchema = v.object({
  code: v.pipe(v.string(), v.regex(/^[A-Z][A-Z0-9_]{0,63}$/)),
  message: text(REASON_CHARS_MAX),
});

export type HypervisorIdentity = v.InferOutput<typeof hypervisorSchema>;
export type Hello = v.InferOutput<typeof helloSchema>;
export type Welcome = v.InferOutput<typeof welcomeSchema>;
export type Resumption = NonNullable<Welcome["resumption"]>;
export type Reason = v.InferOutput<typeof reasonSchema>;

/** `text` as a peer accepts it: cut to `charsMax`, control characters replaced by spaces. */
export function printable(text: string, charsMax: number): string {
  // Cut first: a cut through a surrogate pair leaves a half, which is then replaced too.
  return text.slice(0, charsMax).replace(/[\p{Cc}\p{Cs}]+/gu, " ");
}

export function encodeBody<Body>(schema: v.GenericSchema<unknown, Body>, body: Body): Uint8Array {
  const { value, mistake } = v.checked(schema, body);
  assert(mistake === undefined, `a JSON body of ours is invalid: ${mistake}`);
  return new TextEncoder().encode(JSON.stringify(value));
}

/** `invalid` makes the error to throw from what was expected. */
export function decodeBody<Body>(
  schema: v.GenericSchema<unknown, Body>,
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
  const checked = v.checked(schema, value);
  if (checked.mistake !== undefined) throw invalid(`a valid JSON body (${checked.mistake})`);
  return checked.value;
}
