// Makes connections for as long as one is missing: at first in quick succession, then at longer and longer intervals,
// until a time limit. What is said on a connection, and so whether it is of any use, is for others to know.

import type { Clock } from "../../base/clock.ts";
import { toError } from "../../base/errors.ts";
import type { Channel } from "../ports.ts";

export const RECONNECT_MS_MIN = 100;
export const RECONNECT_MS_MAX = 2000;

export interface ReconnectorListener {
  /** A connection was made. If it is not what was wanted: `failed`. */
  connected(channel: Channel): void;
  /** The time is over. `cause`: why the last attempt failed. */
  gaveUp(cause: Error): void;
}

export class Reconnector {
  readonly #clock: Clock;
  readonly #connect: () => Promise<Channel>;
  readonly #listener: ReconnectorListener;
  #active = false;
  /** Attempts of which the outcome is of no interest any more have another number. */
  #attempt = 0;
  #waitMs = RECONNECT_MS_MIN;
  #cause: Error = new Error("no attempt was made");
  #cancelAttempt: () => void = () => {};
  #cancelLimit: () => void = () => {};

  /** `connect` gives up by itself after a while. */
  constructor(clock: Clock, connect: () => Promise<Channel>, listener: ReconnectorListener) {
    this.#clock = clock;
    this.#connect = connect;
    this.#listener = listener;
  }

  /** The connection is missing from now on. */
  begin(cause: Error, timeoutMs: number): void {
    this.#active = true;
    this.#waitMs = RECONNECT_MS_MIN;
    this.#cancelLimit = this.#clock.after(timeoutMs, () => {
      this.stop();
      this.#listener.gaveUp(this.#cause);
    });
    this.failed(cause);
  }

  /** Nor was it the last attempt's connection. */
  failed(cause: Error): void {
    if (!this.#active) return;
    this.#cause = cause;
    this.#cancelAttempt = this.#clock.after(this.#waitMs, () => this.#try());
    this.#waitMs = Math.min(2 * this.#waitMs, RECONNECT_MS_MAX);
  }

  /** The connection is there, or nobody wants it any more. */
  stop(): void {
    this.#active = false;
    this.#attempt++;
    this.#cancelAttempt();
    this.#cancelLimit();
  }

  #try(): void {
    const attempt = ++this.#attempt;
    this.#connect().then(
      (channel) => {
        if (attempt === this.#attempt) this.#listener.connected(channel);
        else channel.destroy();
      },
      (error: unknown) => {
        if (attempt === this.#attempt) this.failed(toError(error));
      },
    );
  }
}
