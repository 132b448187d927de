// Asks the source's hypervisor how far it is, as often as the answer may decide something. What follows from an answer
// is decided in source.ts.

import type { Clock } from "../../base/clock.ts";
import { toError } from "../../base/errors.ts";
import type { OutgoingStatus, OutgoingVm } from "../ports.ts";

export interface MonitorOptions {
  vm: Pick<OutgoingVm, "status">;
  clock: Clock;
  /** It has answered. */
  answered: (status: OutgoingStatus) => void;
  /** The same, and also when it has not answered. */
  looked: () => void;
  /** How soon to ask again. */
  lookAgainMs: () => number;
  /** A bug of ours: the migration fails with it, the process does not. */
  failed: (error: Error) => void;
}

export class HypervisorMonitor {
  readonly #options: MonitorOptions;
  #status: OutgoingStatus = {};
  #cancelTimer: () => void = () => {};
  #isAsking = false;
  #asksAtOnce = false;
  #isOver = false;

  constructor(options: MonitorOptions) {
    this.#options = options;
  }

  /** The last answer. */
  get status(): OutgoingStatus {
    return this.#status;
  }

  begin(): void {
    if (!this.#isAsking && !this.#isOver) this.#ask();
  }

  /** Something has changed that is not to be found out by the way. */
  lookNow(): void {
    this.#asksAtOnce = true;
    if (this.#isAsking || this.#isOver) return;
    this.#cancelTimer();
    this.#ask();
  }

  /** No more answers are wanted but the last. */
  end(): void {
    this.#isOver = true;
    this.#cancelTimer();
  }

  /** Its last figures, or those of before where it does not answer any more. */
  async lastStatus(): Promise<OutgoingStatus> {
    try {
      this.#status = await this.#options.vm.status();
    } catch {
      // Its last figures must do.
    }
    return this.#status;
  }

  #ask(): void {
    const { vm, clock, answered, looked, lookAgainMs, failed } = this.#options;
    this.#isAsking = true;
    this.#asksAtOnce = false;
    const again = () => {
      this.#isAsking = false;
      if (this.#isOver) return;
      looked();
      if (this.#isOver) return;
      this.#cancelTimer = clock.after(this.#asksAtOnce ? 0 : lookAgainMs(), () => this.#ask());
    };
    vm.status()
      .then(
        (status) => {
          this.#status = status;
          answered(status);
          again();
        },
        // The hypervisor may be gone or busy: the sample goes out without new figures of its own.
        again,
      )
      .catch((error: unknown) => failed(toError(error)));
  }
}
