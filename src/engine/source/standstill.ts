// How long a guest that stands still may wait at the source, as long as it can be taken back: for a destination that
// does not get on with loading it, and for one that is out of reach. Time is given.

import { LinkError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";

/** How long the stopped guest may wait while nothing moves any more and the destination has not loaded it. */
const LOADED_TIMEOUT_MS = 30_000;

export class StandstillWatch {
  #movedBytes = 0;
  #movedMs = 0;

  /**
   * With the guest stopped and everything sent, a destination that never finishes loading is a failure.
   * `movedBytes`: of the stream, not those on the wire: a connection on which nothing moves is still kept alive.
   */
  loading(isWaiting: boolean, movedBytes: number, nowMs: number): LinkError | undefined {
    if (!isWaiting || movedBytes !== this.#movedBytes) {
      this.#movedBytes = movedBytes;
      this.#movedMs = nowMs;
      return undefined;
    }
    if (nowMs - this.#movedMs <= LOADED_TIMEOUT_MS) return undefined;
    const text = `Destination has not loaded the guest within ${LOADED_TIMEOUT_MS / 1000} s`;
    return new LinkError("LINK_TIMEOUT", text);
  }

  /** The destination was silent for so long; the guest has stood still for `stillMs`, and not waited before. */
  outOfReach(silentMs: number, stillMs: number, timeoutMs: number): LinkError | undefined {
    const waitedMs = Math.min(silentMs, stillMs);
    if (waitedMs < timeoutMs) return undefined;
    const text = `Destination was out of reach for ${formatMs(waitedMs)} while the guest stood still`;
    return new LinkError("LINK_LOST", text);
  }
}
