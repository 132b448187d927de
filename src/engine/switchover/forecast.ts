// Forecasts of a migration, from how fast the guest dirties its pages and how fast they are sent: when its downtime
// will be within the goal, and what time and how many bytes that takes. Pure; pages count as bytes of guest RAM.

import { formatBytes, formatMs } from "../../base/units.ts";

export interface ConvergenceFigures {
  /** Pages that were never sent are left: the downtime cannot be judged by what is. */
  isFirstPass: boolean;
  /** Nothing is heard of the destination at the moment: what is estimated is a matter of that. */
  linkStandsStill: boolean;
  /** Downtime if the guest were stopped now, and what no iteration makes smaller. */
  estimatedMs: number;
  floorMs: number;
  /** What is left to be sent, and how much of it the goal affords; 0: even none is too much. */
  remainingBytes: number;
  affordableBytes: number;
  dirtyBytesPerSecond: number;
  /** How fast it could be sent; 0: not known yet. */
  settledBytesPerSecond: number;
  wireBytesPerGuestByte: number;
  linkBytesPerSecond: number;
  wireBytes: number;
  /** On the link: what follows when the guest has been stopped and no page was left. */
  tailBytes: number;
}

/** Time until the downtime is within its goal. */
export type EndForecast = { kind: "in"; ms: number } | { kind: "never" } | { kind: "unknown" };

/**
 * A guest that keeps its working set dirty dirties pages just as fast as they are sent: it has no clean ones left to
 * dirty. A gain of less than this share of what is sent may as well be none.
 */
const NET_SHARE_MIN = 0.05;

const UNKNOWN: EndForecast = { kind: "unknown" };

export function forecastEnd(figures: ConvergenceFigures): EndForecast {
  const { remainingBytes, affordableBytes, settledBytesPerSecond, dirtyBytesPerSecond } = figures;
  if (figures.isFirstPass || settledBytesPerSecond === 0) return UNKNOWN;
  // What cannot be afforded even with nothing left is not a question of pages.
  if (affordableBytes === 0) return { kind: "never" };
  const excessBytes = remainingBytes - affordableBytes;
  if (excessBytes <= 0) return { kind: "in", ms: 0 };
  const netBytesPerSecond = settledBytesPerSecond - dirtyBytesPerSecond;
  if (netBytesPerSecond <= settledBytesPerSecond * NET_SHARE_MIN) return { kind: "never" };
  return { kind: "in", ms: (excessBytes / netBytesPerSecond) * 1000 };
}

/** "at this rate in 40 s", or why never. */
export function endText(end: EndForecast, figures: ConvergenceFigures): string {
  if (end.kind === "in") return `at this rate the goal is met in ${formatMs(end.ms)}`;
  if (end.kind === "unknown") return "when the goal will be met is not known yet";
  if (figures.affordableBytes === 0) {
    return "at this rate never: what must follow the last page takes all of the goal";
  }
  return `at this rate never: ${ratesText(figures)}`;
}

/** What the guest does, and what keeps us from keeping up with it. */
export function ratesText(figures: ConvergenceFigures): string {
  const { dirtyBytesPerSecond, wireBytesPerGuestByte, linkBytesPerSecond, settledBytesPerSecond } = figures;
  const perSecond = (bytes: number) => `${formatBytes(bytes)}/s`;
  const encoded = dirtyBytesPerSecond * wireBytesPerGuestByte;
  const bottleneck =
    settledBytesPerSecond * wireBytesPerGuestByte >= linkBytesPerSecond * (1 - NET_SHARE_MIN)
      ? `the link carries ${perSecond(linkBytesPerSecond)}`
      : `pages are handed over at ${perSecond(settledBytesPerSecond)}`;
  return `the guest dirties ${perSecond(dirtyBytesPerSecond)}, encoded to ${perSecond(encoded)}, and ${bottleneck}`;
}

/** Time and bytes on the link from here until the guest is stopped; undefined: never, or not known. */
export function forecastCost(
  figures: ConvergenceFigures,
  end: EndForecast,
): { ms: number; wireBytes: number } | undefined {
  const { remainingBytes, wireBytesPerGuestByte, settledBytesPerSecond, tailBytes } = figures;
  if (figures.isFirstPass) {
    // At least: what the guest dirties meanwhile comes on top.
    if (settledBytesPerSecond === 0) return undefined;
    const wireBytes = remainingBytes * wireBytesPerGuestByte + tailBytes;
    return { ms: (remainingBytes / settledBytesPerSecond) * 1000, wireBytes };
  }
  if (end.kind !== "in") return undefined;
  const sentBytes = (end.ms / 1000) * settledBytesPerSecond * wireBytesPerGuestByte;
  return { ms: end.ms, wireBytes: sentBytes + tailBytes };
}
