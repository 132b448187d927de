// What the demo has shown, in a sentence. Pure.

import { formatMs } from "../../base/units.ts";
import type { RunFigures } from "../../report/figures.ts";
import { formatCount } from "../../report/text.ts";
import { HEARTBEAT_MS } from "./guest.ts";

/** Gaps this near to each other are the same: heartbeats come in ticks, on a machine that does other things too. */
const SAME_RATIO = 1.5;

/** How many times longer the guest stood still by the standard method; undefined unless it is known of both. */
export function downtimeFactor(standard: RunFigures, delta: RunFigures): number | undefined {
  const [before, after] = [standard.heartbeatGapMs, delta.heartbeatGapMs];
  return before === undefined || after === undefined || after === 0 ? undefined : before / after;
}

export function verdictText(standard: RunFigures, delta: RunFigures): string | undefined {
  const factor = downtimeFactor(standard, delta);
  if (factor === undefined) return undefined;
  const [before, after] = [formatMs(standard.heartbeatGapMs ?? 0), formatMs(delta.heartbeatGapMs ?? 0)];
  return [
    `The guest stood still for ${before} with standard pre-copy,`,
    `for ${after} with delta compression: ${comparison(factor)}.`,
    `(Its heartbeat comes each ${HEARTBEAT_MS} ms: a gap of ${HEARTBEAT_MS} ms is none.)`,
  ].join("\n");
}

/** What went wrong, a line each, with what ran the guest: that may be to blame, and Deltavee not. */
export function failureText(
  problems: readonly string[],
  hypervisor: string | undefined,
  warning: string | undefined,
): string {
  return [
    ...problems,
    ...(hypervisor === undefined ? [] : [`hypervisor: ${hypervisor}`]),
    ...(warning === undefined ? [] : [warning]),
  ].join("\n  ");
}

function comparison(factor: number): string {
  if (factor >= SAME_RATIO) return `${timesText(factor)} times less`;
  if (factor <= 1 / SAME_RATIO) return `${timesText(1 / factor)} times more`;
  return "no difference to speak of";
}

function timesText(factor: number): string {
  return factor < 10 ? factor.toFixed(1) : formatCount(factor);
}
