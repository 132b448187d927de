// What a link lets through: its rate, or less where packets are lost on the way. One TCP connection.

import type { Interval } from "./forecast.ts";

export interface LinkModel {
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
  /** Of the packets: 0.001 is one in a thousand. */
  readonly lossShare: number;
}

/** Payload of a packet on Ethernet. */
const SEGMENT_BYTES = 1448;
/** Of what crosses, headers of Ethernet, IP and TCP included. */
export const PAYLOAD_SHARE = 1448 / 1514;

/** What so many bytes of payload are on the wire, all headers included. */
export function withHeaders({ low, expected, high }: Interval): Interval {
  return { low: low / PAYLOAD_SHARE, expected: expected / PAYLOAD_SHARE, high: high / PAYLOAD_SHARE };
}

/** Of payload. Losses: what CUBIC reaches (RFC 9438, section 5.2), at least what Reno would (Mathis et al. 1997). */
export function payloadBytesPerSecond({ bytesPerSecond, roundTripMs, lossShare }: LinkModel): number {
  const byRate = bytesPerSecond * PAYLOAD_SHARE;
  if (lossShare === 0 || roundTripMs === 0) return byRate;
  const roundTripS = roundTripMs / 1000;
  const cubicSegments = 1.054 * (roundTripS / lossShare) ** 0.75;
  const renoSegments = Math.sqrt(1.5 / lossShare);
  return Math.min(byRate, (Math.max(cubicSegments, renoSegments) * SEGMENT_BYTES) / roundTripS);
}
