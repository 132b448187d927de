// What the source engine needs of a link to the destination, whichever mode it works in.

import type { Pace } from "../../wire/frame.ts";
import type { Limit } from "./bottleneck.ts";

export const REHEARSED_BYTES_MAX = 1024 * 1024;

export interface SourceLinkListener {
  /** Bytes of the hypervisor's return path. */
  returnPath(bytes: Uint8Array): void;
  /** `hasRoom` may have become true, and what was kept back may go: to be flushed when there is no more to say. */
  room(): void;
  /** The peer closed the connection in good order. */
  ended(): void;
  failed(error: Error): void;
}

/** What was seen to go through in one go. */
export interface Proof {
  bytes: number;
  /** From the first byte sent to the answer, the round trip included. */
  answeredMs: number;
}

export interface LinkFigures {
  /** Bytes sent, our own headers included. */
  wireBytes: number;
  /** Sent and not acknowledged. */
  inFlightBytes: number;
  /** Put into the sink and not sent, about as large as it is going to be on the wire. */
  waitingBytes: number;
  windowBytes: number;
  /** What `inFlightBytes` becomes, at most, when the queue has been shortened. */
  shortQueueBytes: number;
  linkBytesPerSecond: number;
  /** False: it has carried whatever was sent, so that it carries at least `linkBytesPerSecond`. */
  isLinkKnown: boolean;
  /** What the migration waits for. */
  limit: Limit;
  /** There is no connection at the moment. */
  isLost: boolean;
  /** Lately so many bytes, sent on purpose, have been answered within this time; undefined: none were. */
  proof?: Proof | undefined;
  /** Without queueing, but with what an answer is overdue by: nobody should stop a guest for a link that stands still. */
  roundTripMs: number | undefined;
}

export interface SourceLink {
  /** May the engine take more from the hypervisor? */
  readonly hasRoom: boolean;
  /** How much the engine should take at most before it asks `hasRoom` again. */
  readonly turnBytes: number;
  readonly figures: LinkFigures;
  /** For how long the engine has worked on the stream: where it is always at work, the link is not what is waited for. */
  worked(pace: Pace): void;
  /** Sends so many bytes (REHEARSED_BYTES_MAX at most) that stand for nothing: `figures.proof` says in which time they went. False: not now. */
  rehearse(bytes: number): boolean;
  /**
   * Sends what the sink holds, or keeps it for a fuller batch. `idle`: the hypervisor has nothing more to say at
   * the moment, so nothing may be kept back.
   */
  flush(idle: boolean): void;
  /** The vCPUs may stop at any moment: little is to stand in front of what they will wait for. */
  shortenQueue(): void;
  /** The vCPUs have stopped: all that is left must cross anyway, and waiting would only add downtime. */
  liftWindow(): void;
  /** Whether what comes from here on is to be sent as it is, without coding. */
  bypass(wanted: boolean): void;
  destroy(): void;
}
