// What `deltavee serve` is told by its configuration file: the schema, which is type, check and documentation at once.
// Sizes, rates and durations are written as on the command line and read into bytes, bytes per second and milliseconds.
// Files and lines are not known here: settings-file.ts.

import { toError } from "../base/errors.ts";
import * as v from "../base/schema.ts";
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
  return v.pipe(
    v.string(`expected text, e.g. ${example}`),
    v.rawTransform<string, Value>(({ dataset, addIssue, NEVER }) => {
      try {
        return parse(dataset.value);
      } catch (thrown) {
        addIssue({ message: toError(thrown).message });
        return NEVER;
      }
    }),
  );
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
const path = () => v.pipe(v.string(), v.minLength(1));
const count = (max: number) => v.pipe(v.integer(), v.minValue(1), v.maxValue(max));
/** What the key says of itself; with a default as it is written in the file. */
const about = <Value>(description: string, written?: string) =>
  v.metadata<Value, SettingMeta>(written === undefined ? { description } : { description, default: written });

const stallPolicies = Object.keys(STALL_POLICIES) as [StallPolicy, ...StallPolicy[]];

/** Migrations that may be under way at a time, each way: each has memory and threads of its own. */
const CONCURRENT_MAX = 64;
const QUEUED_MAX = 10_000;

const tls = v.strictObject({
  dir: v.pipe(
    v.optional(path()),
    about("Folder of certificates as QEMU lays them out. Without it: hosts that were paired."),
  ),
  keysDir: v.pipe(
    v.optional(path()),
    about("Where keys of paired hosts are kept, where that is not the usual place."),
  ),
  insecurePlaintext: v.pipe(
    v.optional(v.boolean(), false),
    about("Send and take guests' memory unencrypted between hosts.", "false"),
  ),
});

const link = v.strictObject({
  rate: v.pipe(
    v.optional(rate()),
    about(
      "What all outgoing migrations may send together, and share by weight. Set it to what the link carries, or a " +
        "little less: without it each sends as it can, and weights mean nothing.",
    ),
  ),
});

const outgoing = v.strictObject({
  concurrent: v.pipe(
    v.optional(count(CONCURRENT_MAX), 4),
    about("Migrations under way at a time. Further ones wait their turn.", "4"),
  ),
  queued: v.pipe(
    v.optional(count(QUEUED_MAX), 1000),
    about("Migrations that may wait. More are refused.", "1000"),
  ),
  weight: v.pipe(
    v.optional(v.pipe(v.number(), v.minValue(WEIGHT_MIN), v.maxValue(WEIGHT_MAX)), 1),
    about("Share of the link of a migration that asks for none.", "1"),
  ),
  maxDowntime: v.pipe(
    v.optional(duration(), "300ms"),
    about("As deltavee migrate --max-downtime, where a migration does not say.", "300ms"),
  ),
  maxTime: v.pipe(v.optional(duration()), about("As deltavee migrate --max-time.")),
  maxBytes: v.pipe(v.optional(size()), about("As deltavee migrate --max-bytes.")),
  onStall: v.pipe(
    v.optional(v.picklist(stallPolicies), STALL_POLICY_DEFAULT),
    about("As deltavee migrate --on-stall.", STALL_POLICY_DEFAULT),
  ),
  cacheSize: v.pipe(
    v.optional(size()),
    about("Memory for the page cache of each migration. Without it: as deltavee migrate --cache-size."),
  ),
  forecast: v.pipe(
    v.optional(v.boolean(), true),
    about("Sample the guest's memory to say what is to be expected of its migration.", "true"),
  ),
});

const incoming = v.strictObject({
  listen: v.pipe(v.optional(address()), about("Where sources connect to. Without it no VM is taken in.")),
  concurrent: v.pipe(
    v.optional(count(CONCURRENT_MAX), 4),
    about("VMs that are taken in at a time. Further sources are refused, and may try again.", "4"),
  ),
  qmp: v.pipe(
    v.optional(path()),
    about(
      "Where the monitor of the QEMU that waits for a VM is, with {name} or {uuid} in place of the VM's: " +
        "/run/vms/{name}.qmp. VMs can be prepared one by one instead (deltavee service prepare).",
    ),
  ),
  allow: v.pipe(
    v.optional(v.array(v.string()), []),
    about("Who may hand over which VM, each as deltavee receive --allow.", "[]"),
  ),
  paused: v.pipe(
    v.optional(v.boolean(), false),
    about("Leave guests paused on arrival, also when they were running at the source.", "false"),
  ),
  baselineSize: v.pipe(
    v.optional(sizeOrNone(), "0MiB"),
    about("As deltavee receive --baseline-size, for each VM.", "0MiB"),
  ),
  reconnectTimeout: v.pipe(
    v.optional(durationOrNone(), "60s"),
    about("How long to wait for a source whose connection broke.", "60s"),
  ),
});

const http = v.strictObject({
  listen: v.pipe(
    v.optional(parsed(parseHttpAddress, "127.0.0.1:9437"), "127.0.0.1:9437"),
    about("Where /metrics and the live page are. Nobody is asked who he is there.", "127.0.0.1:9437"),
  ),
  enabled: v.pipe(v.optional(v.boolean(), true), about("Whether there is such a page at all.", "true")),
  hostNames: v.pipe(
    v.optional(v.array(v.pipe(v.string(), v.minLength(1))), []),
    about("Names that this host is asked by, beside its own: a scrape target, say.", "[]"),
  ),
});

const metrics = v.strictObject({
  vmNames: v.pipe(
    v.optional(v.boolean(), false),
    about("Tell VMs apart in metrics, by name: at most 100 at a time.", "false"),
  ),
});

const log = v.strictObject({
  format: v.pipe(
    v.optional(v.picklist(["auto", "text", "json"]), "auto"),
    about("Of what is written to standard error: text on a terminal, else JSON, one event a line.", "auto"),
  ),
  level: v.pipe(
    v.optional(v.picklist(["debug", "info", "warning", "error"]), "info"),
    about("What is not worth saying is left out.", "info"),
  ),
});

const shutdown = v.strictObject({
  graceTime: v.pipe(
    v.optional(durationOrNone(), "10m"),
    about("On SIGTERM: how long migrations under way may take to finish before they are cancelled.", "10m"),
  ),
});

/** A part that may be left out: its keys then have their defaults. */
const part = <Schema extends v.GenericSchema<object>>(schema: Schema) => v.optional(schema, {});

export const settingsSchema = v.strictObject({
  control: v.pipe(
    v.optional(path()),
    about(
      "Socket that deltavee evacuate and deltavee service speak to. Without it: control.sock in stateDir.",
    ),
  ),
  stateDir: v.pipe(v.optional(path()), about("As deltavee migrate --state-dir.")),
  recordDir: v.pipe(
    v.optional(path()),
    about("Folder for run records, one file for each migration. Without it none are kept."),
  ),
  tls: part(tls),
  link: part(link),
  outgoing: part(outgoing),
  incoming: part(incoming),
  http: part(http),
  metrics: part(metrics),
  log: part(log),
  shutdown: part(shutdown),
});

export type Settings = v.InferOutput<typeof settingsSchema>;

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

function describe(schema: v.GenericSchema, path: readonly string[]): SettingDescription[] {
  if ("entries" in schema) {
    const entries = Object.entries(schema.entries as v.Shape);
    return entries.flatMap(([key, entry]) => describe(entry, [...path, key]));
  }
  if ("pipe" in schema) {
    const meta = v.getMetadata(schema) as SettingMeta;
    return [{ key: path.join("."), default: meta.default, description: meta.description }];
  }
  return "wrapped" in schema ? describe(schema.wrapped as v.GenericSchema, path) : [];
}
