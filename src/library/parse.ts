// What operators and programs name a migration's parts by, in words: policies and codecs.

import { UsageError } from "../base/errors.ts";
import { formatMs } from "../base/units.ts";
import type { DeltaCodecId } from "../codec/delta/delta-codec.ts";
import { DELTA_CODEC_NAMES } from "../codec/delta/delta-codecs.ts";
import { isStallPolicy, STALL_POLICIES, type StallPolicy } from "../engine/switchover/stall-policies.ts";
import { POLICIES } from "../memory/policy/all.ts";
import type { PolicyKind } from "../memory/policy/policy.ts";
import { KEEPALIVE_MS } from "../wire/frame.ts";

/** A destination that is there says so once a second: for less than this nobody can tell that it is not. */
const SWITCHOVER_TIMEOUT_MS_MIN = 2 * KEEPALIVE_MS;

/** @throws UsageError that names those that there are */
export function parsePolicy(name: string): PolicyKind {
  const policy = POLICIES.find((candidate) => candidate.name === name);
  if (policy !== undefined) return policy;
  throw new UsageError(`There is no policy "${name}" (${POLICIES.map((each) => each.name).join(", ")})`);
}

/** @throws UsageError that names those that there are */
export function parseCodec(name: string): DeltaCodecId {
  const id = DELTA_CODEC_NAMES[name];
  if (id !== undefined) return id;
  throw new UsageError(`There is no codec "${name}" (${Object.keys(DELTA_CODEC_NAMES).join(", ")})`);
}

/** @throws UsageError that names those that there are */
export function parseStallPolicy(name: string): StallPolicy {
  if (isStallPolicy(name)) return name;
  throw new UsageError(`There is no policy "${name}" (${Object.keys(STALL_POLICIES).join(", ")})`);
}

/** @throws UsageError when it is too short for anybody to tell that a destination is away */
export function checkSwitchoverTimeout(timeoutMs: number, given: string): number {
  if (timeoutMs >= SWITCHOVER_TIMEOUT_MS_MIN) return timeoutMs;
  throw new UsageError(`Must be at least ${formatMs(SWITCHOVER_TIMEOUT_MS_MIN)}: "${given}"`);
}
