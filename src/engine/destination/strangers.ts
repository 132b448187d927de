// Connections that have not said what they want, or not what is ours to give: one of them may be the source, whose
// connection broke. Bounded; whoever has no business here is refused and let close.

import type { Clock } from "../../base/clock.ts";
import { ProtocolError } from "../../base/errors.ts";
import { RareNotices } from "../../base/rare-notices.ts";
import type { RunRecord } from "../../record/writer.ts";
import type { Resumption } from "../../wire/bodies.ts";
import type { Frame, RefuseFrame, ResumeFrame } from "../../wire/frame.ts";
import { refuseFrame } from "../../wire/handshake.ts";
import type { TunnelPeer } from "../transport/tunnel-peer.ts";

/** When there are more, the oldest has had its chance. */
const STRANGERS_MAX = 8;
/** How long a refused connection may take to close. */
const REFUSED_CLOSES_MS = 1000;

/** What RESUME must say. */
export type ResumableSession = Resumption & { session: string; version: number };

export class Strangers {
  readonly #peers: { peer: TunnelPeer; from: string }[] = [];
  readonly #clock: Clock;
  readonly #notices: RareNotices;

  constructor(clock: Clock, record: RunRecord) {
    this.#clock = clock;
    this.#notices = new RareNotices(clock, (message) => record.add({ type: "notice", message }));
  }

  /** `from`: for people. */
  add(peer: TunnelPeer, from: string): void {
    if (this.#peers.length === STRANGERS_MAX) this.#peers.shift()!.peer.destroy();
    this.#peers.push({ peer, from });
  }

  /**
   * One of them says what it wants.
   * @returns its RESUME, if it is the source of `own` and this its latest connection: it is no stranger any more
   */
  frame(
    peer: TunnelPeer,
    frame: Frame,
    own: ResumableSession | undefined,
    connection: number,
  ): ResumeFrame | undefined {
    if (frame.type === "hello") {
      this.#refuse(peer, refuseFrame("BUSY", "another migration is under way"));
      return undefined;
    }
    if (frame.type !== "resume") return undefined;
    const isOurs =
      own !== undefined &&
      isSameSecret(frame.token, own.token) &&
      frame.session === own.session &&
      frame.version === own.version;
    if (!isOurs) {
      this.#refuse(peer, unknownSession());
      return undefined;
    }
    // One of an earlier attempt, which the source has given up.
    if (frame.connection <= connection) {
      peer.destroy();
      return undefined;
    }
    this.#forget(peer);
    return frame;
  }

  failed(peer: TunnelPeer, error: Error): void {
    this.close(peer, error);
    this.#went(peer, error.message);
  }

  /** After a failure, of any connection. Who broke the protocol has been told so, and is to hear it. */
  close(peer: TunnelPeer, error: Error): void {
    if (error instanceof ProtocolError) this.#letClose(peer);
    else peer.destroy();
  }

  end(): void {
    for (const { peer } of this.#peers.splice(0)) peer.destroy();
  }

  #refuse(peer: TunnelPeer, answer: RefuseFrame): void {
    peer.send(answer);
    peer.end();
    this.#letClose(peer);
    this.#went(peer, `refused (${answer.reason.code}): ${answer.reason.message}`);
  }

  #letClose(peer: TunnelPeer): void {
    this.#clock.after(REFUSED_CLOSES_MS, () => peer.destroy());
  }

  #went(peer: TunnelPeer, why: string): void {
    const from = this.#forget(peer);
    if (from !== undefined) this.#notices.say(`Connection of ${from}: ${why}`);
  }

  #forget(peer: TunnelPeer): string | undefined {
    const index = this.#peers.findIndex((stranger) => stranger.peer === peer);
    return index === -1 ? undefined : this.#peers.splice(index, 1)[0]!.from;
  }
}

export function unknownSession(): RefuseFrame {
  return refuseFrame("SESSION", "no such migration is under way here");
}

/** In a time that does not depend on where they differ. */
function isSameSecret(a: string, b: string): boolean {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= a.charCodeAt(i) ^ b.charCodeAt(i % b.length);
  return difference === 0;
}
