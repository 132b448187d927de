// What `deltavee serve` is told by its configuration file: the schema, which is type, check and documentation at once.
// Sizes, rates and durations are written as on the command line and read into bytes, bytes per second and milliseconds.
// Files and lines are not known here: settings-file.ts.

import { z } from "zod";
import { toError } from "../base/errors.ts";
import { parseBytes, parseBytesPerSecond, parseMs } from "../base/units.ts";
import {
  STALL_POLICIES,
  STALL_POLICY_DEFAULT,
  type StallPolicy,
} from "../engine/switchover/stall-policies.ts";
import { type Address, parseAddress } from "../link/address.ts";
import { WEIGHT_MAX, WEIGHT_MIN } from "../link/fair-schedule.ts";

/** By what the key says of itself, and how its default is written in the file. */
export interface SettingMeta {
  readonly description: string;
  readonly default?: string;
  readonly [extra: string]: unknown;
}

/** A value that is written as text and read by `parse`, whose errors are the file's. */
function parsed<Value>(parse: (text: string) => Value, example: string) {
  return z.string(`Expected text, e.g. ${example}`).transform((text, context): Value => {
    try {
      return parse(text);
    } catch (thrown) {
      context.addIssue({ code: "custom", message: toError(thrown).message });
      return z.NEVER;
    }
  });
}

function aboveZero(parse: (text: string) => number): (text: string) => number {
  return (text) => {
    const value = parse(text);
    if (value > 0) return value;
    throw new Error(`Must be above zero: "${text}"`);
  };
}

const size = () => parsed(aboveZero(parseBytes), "2GiB");
const sizeOrNone = () => parsed(parseBytes, "64MiB");
const duration = () => parsed(aboveZero(parseMs), "300ms");
const durationOrNone = () => parsed(parseMs, "60s");
const rate = () => parsed(parseBytesPerSecond, "900mbit");
/** Where the tunnel is listened for: an address of this host, or a unix socket. */
const address = () => parsed((text): Address => parseAddress(text), "0.0.0.0:4445");
const path = () => z.string().min(1);
const count = (max: number) => z.int().min(1).max(max);
/** With a default that is itself as written in the file. */
const about = (description: string, written?: string): SettingMeta =>
  written === undefined ? { description } : { description, default: written };

const stallPolicies = Object.keys(STALL_POLICIES) as [StallPolicy, ...StallPolicy[]];

/** Migrations that may be under way at a time, each way: each has memory and threads of its own. */
const CONCURRENT_MAX = 64;
const QUEUED_MAX = 10_000;

const tls = z.strictObject({
  dir: path()
    .optional()
    .meta(about("Folder of certificates as QEMU lays them out. Without it: hosts that were paired.")),
  keysDir: path()
    .optional()
    .meta(about("Where keys of paired hosts are kept, where that is not the usual place.")),
  insecurePlaintext: z
    .boolean()
    .default(false)
    .meta(about("Send and take guests' memory unencrypted between hosts.", "false")),
});

const link = z.strictObject({
  rate: rate()
    .optional()
    .meta(
      about(
        "What all outgoing migrations may send together, and share by weight. Set it to what the link carries, or a " +
          "little less: without it each sends as it can, and weights mean nothing.",
      ),
    ),
});

const outgoing = z.strictObject({
  concurrent: count(CONCURRENT_MAX)
    .default(4)
    .meta(about("Migrations under way at a time. Further ones wait their turn.", "4")),
  queued: count(QUEUED_MAX).default(1000).meta(about("Migrations that may wait. More are refused.", "1000")),
  weight: z
    .number()
    .min(WEIGHT_MIN)
    .max(WEIGHT_MAX)
    .default(1)
    .meta(about("Share of the link of a migration that asks for none.", "1")),
  maxDowntime: duration()
    .prefault("300ms")
    .meta(about("As deltavee migrate --max-downtime, where a migration does not say.", "300ms")),
  maxTime: duration().optional().meta(about("As deltavee migrate --max-time.")),
  maxBytes: size().optional().meta(about("As deltavee migrate --max-bytes.")),
  onStall: z
    .enum(stallPolicies)
    .default(STALL_POLICY_DEFAULT)
    .meta(about("As deltavee migrate --on-stall.", STALL_POLICY_DEFAULT)),
  cacheSize: size()
    .optional()
    .meta(
      about("Memory for the page cache of each migration. Without it: as deltavee migrate --cache-size."),
    ),
  forecast: z
    .boolean()
    .default(true)
    .meta(about("Sample the guest's memory to say what is to be expected of its migration.", "true")),
});

const incoming = z.strictObject({
  listen: address().optional().meta(about("Where sources connect to. Without it no VM is taken in.")),
  concurrent: count(CONCURRENT_MAX)
    .default(4)
    .meta(about("VMs that are taken in at a time. Further sources are refused, and may try again.", "4")),
  qmp: path()
    .optional()
    .meta(
      about(
        "Where the monitor of the QEMU that waits for a VM is, with {name} or {uuid} in place of the VM's: " +
          "/run/vms/{name}.qmp. VMs can be prepared one by one instead (deltavee service prepare).",
      ),
    ),
  allow: z
    .array(z.string())
    .default([])
    .meta(about("Who may hand over which VM, each as deltavee receive --allow.", "[]")),
  paused: z
    .boolean()
    .default(false)
    .meta(about("Leave guests paused on arrival, also when they were running at the source.", "false")),
  baselineSize: sizeOrNone()
    .prefault("0MiB")
    .meta(about("As deltavee receive --baseline-size, for each VM.", "0MiB")),
  reconnectTimeout: durationOrNone()
    .prefault("60s")
    .meta(about("How long to wait for a source whose connection broke.", "60s")),
});

const http = z.strictObject({
  listen: parsed(parseHttpAddress, "127.0.0.1:9437")
    .prefault("127.0.0.1:9437")
    .meta(about("Where /metrics and the live page are. Nobody is asked who he is there.", "127.0.0.1:9437")),
  enabled: z.boolean().default(true).meta(about("Whether there is such a page at all.", "true")),
  hostNames: z
    .array(z.string().min(1))
    .default([])
    .meta(about("Names that this host is asked by, beside its own: a scrape target, say.", "[]")),
});

const metrics = z.strictObject({
  vmNames: z
    .boolean()
    .default(false)
    .meta(about("Tell VMs apart in metrics, by name: at most 100 at a time.", "false")),
});

const log = z.strictObject({
  format: z
    .enum(["auto", "text", "json"])
    .default("auto")
    .meta(
      about("Of what is written to standard error: text on a terminal, else JSON, one event a line.", "auto"),
    ),
  level: z
    .enum(["debug", "info", "warning", "error"])
    .default("info")
    .meta(about("What is not worth saying is left out.", "info")),
});

const shutdown = z.strictObject({
  graceTime: durationOrNone()
    .prefault("10m")
    .meta(
      about("On SIGTERM: how long migrations under way may take to finish before they are cancelled.", "10m"),
    ),
});

/** A part that may be left out: its keys then have their defaults. */
const part = <Shape extends z.ZodRawShape>(schema: z.ZodObject<Shape>) =>
  schema.prefault({} as z.input<z.ZodObject<Shape>>);

export const settingsSchema = z.strictObject({
  control: path()
    .optional()
    .meta(
      about(
        "Socket that deltavee evacuate and deltavee service speak to. Without it: control.sock in stateDir.",
      ),
    ),
  stateDir: path().optional().meta(about("As deltavee migrate --state-dir.")),
  recordDir: path()
    .optional()
    .meta(about("Folder for run records, one file for each migration. Without it none are kept.")),
  tls: part(tls),
  link: part(link),
  outgoing: part(outgoing),
  incoming: part(incoming),
  http: part(http),
  metrics: part(metrics),
  log: part(log),
  shutdown: part(shutdown),
});

export type Settings = z.output<typeof settingsSchema>;

function parseHttpAddress(text: string): { host: string; port: number } {
  const parsedAddress = parseAddress(text);
  if (parsedAddress.kind !== "tcp") throw new Error(`Not an address of HTTP: "${text}" (127.0.0.1:9437)`);
  const { host, port } = parsedAddress;
  return { host, port };
}

export interface SettingDescription {
  /** "outgoing.concurrent" */
  readonly key: string;
  /** As it is written in the file; undefined: there is none. */
  readonly default: string | undefined;
  readonly description: string;
}

/** All keys that there are, in the order of the schema. */
export function describeSettings(): SettingDescription[] {
  return describe(settingsSchema, []);
}

function describe(schema: z.ZodType, path: readonly string[]): SettingDescription[] {
  const meta = schema.meta() as SettingMeta | undefined;
  if (meta !== undefined) {
    return [{ key: path.join("."), default: meta.default, description: meta.description }];
  }
  const inner = schema instanceof z.ZodPrefault ? (schema.unwrap() as z.ZodType) : schema;
  if (!(inner instanceof z.ZodObject)) return [];
  return Object.entries(inner.shape).flatMap(([key, value]) => describe(value as z.ZodType, [...path, key]));
}
